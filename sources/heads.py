"""Where the head is in an image, and grey levels that can be compared between subjects."""

import numpy as np
from scipy import ndimage

LEVEL = 0.15  # of a subject's bright pixels, above which a pixel is not background
BRIGHT = 98  # percentile inside the head that is given the same grey level in every subject
WHITE = 170  # that grey level: up to one and a half times as bright is kept
# Grey level of an image's median tissue, and per spread of its tissue: from 4 spreads below the
# median to 8 above it are told apart. Lesions are bright, so there is more room above.
MIDDLE, STEP = 85, 21
EDGE = 0.08  # share of the shorter side at a head's edge (scalp, skull) that is no tissue
FLAT = 0.05  # least spread, in medians: noise alone is not stretched to a picture
FEWEST = 20  # pixels of tissue that say something


def heads(images, level=None) -> np.ndarray:
    """The largest bright object of each image, with its holes filled.

    Args:
        images: uint8, or floats in [0, 1], shape `(n, height, width, channels)`, of one subject.
        level: Grey level above which a pixel may belong to it; None: `LEVEL` of the images' 99th
            percentile.

    Returns:
        Booleans, `(n, height, width)`; all False where an image has nothing bright.
    """
    grey = np.asarray(images, np.float32).mean(axis=-1)
    level = LEVEL * np.percentile(grey, 99) if level is None else level
    found = np.zeros(grey.shape, bool)
    for place, image in zip(found, grey, strict=True):
        parts, count = ndimage.label(ndimage.binary_opening(image > level))
        if count:
            largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
            place[:] = ndimage.binary_fill_holes(parts == largest)
    return found


def inside(found, margin) -> np.ndarray:
    """The pixels of heads that are more than `margin` pixels away from all others.

    Args:
        found: From `heads`, `(n, height, width)`.
        margin: Pixels; beyond the image counts as outside.

    Returns:
        Booleans, `(n, height, width)`.
    """
    around = np.pad(found, ((0, 0), (1, 1), (1, 1)))
    away = [ndimage.distance_transform_edt(each)[1:-1, 1:-1] for each in around]
    return np.stack(away) > margin


def normalized(images, subjects) -> np.ndarray:
    """Images whose grey levels can be compared between subjects, black outside of the head.

    The 98th percentile inside the heads of all of a subject's images becomes `WHITE`. Scanners have
    no common scale, and without one brightness alone differs by more than lesions do.

    Args:
        images: uint8, `(n, height, width, channels)`, an array or `files.Rows`.
        subjects: Subject of each, `(n,)`.

    Returns:
        uint8, of the images' shape, in memory.
    """
    made = np.zeros(images.shape, np.uint8)
    for rows, own, found in _by_subject(images, subjects):
        if found.any():
            white = max(1.0, np.percentile(own.mean(axis=-1)[found], BRIGHT))
            made[rows] = np.clip(np.round(own * (WHITE / white)), 0, 255) * found[..., None]
    return made


def standardized(images, subjects) -> np.ndarray:
    """Images whose tissue has one median and one spread, black outside of the head.

    In every image the median of the tissue, the head without its edge, becomes `MIDDLE`, and its
    spread (1.4826 times the median distance from the median, which a lesion hardly changes) becomes
    `STEP`. An image of many tissues (eyes, skull base) is so made paler than one of the brain
    alone, where a lesion stands out.

    Args:
        images, subjects: See `normalized`; the head is that of all images of a subject.

    Returns:
        uint8, of the images' shape, in memory.
    """
    made = np.zeros(images.shape, np.uint8)
    margin = round(EDGE * min(images.shape[1:3]))
    for rows, own, found in _by_subject(images, subjects):
        for row, image, head, tissue in zip(rows, own, found, inside(found, margin), strict=True):
            region = tissue if tissue.sum() >= FEWEST else head
            if not region.any():
                continue
            grey = image.mean(axis=-1)[region]
            middle = np.median(grey)
            spread = 1.4826 * np.median(np.abs(grey - middle))
            z = (image - middle) / max(spread, FLAT * middle, 1e-6)
            made[row] = np.clip(np.round(MIDDLE + STEP * z), 1, 255) * head[..., None]
    return made


def _by_subject(images, subjects):
    """Rows, images and heads of one subject after another."""
    subjects = np.asarray(subjects)
    for subject in dict.fromkeys(subjects.tolist()):
        rows = np.flatnonzero(subjects == subject)
        own = images[rows]
        yield rows, own, heads(own)
