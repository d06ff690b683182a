"""Where the head is in an image, and grey levels that can be compared between subjects."""

import numpy as np
from scipy import ndimage

LEVEL = 0.15  # of a subject's bright pixels, above which a pixel is not background
BRIGHT = 98  # percentile inside the head that is given the same grey level in every subject
WHITE = 170  # that grey level: up to one and a half times as bright is kept


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
    subjects = np.asarray(subjects)
    for subject in dict.fromkeys(subjects.tolist()):
        rows = np.flatnonzero(subjects == subject)
        own = images[rows]
        found = heads(own)
        if found.any():
            white = max(1.0, np.percentile(own.mean(axis=-1)[found], BRIGHT))
            made[rows] = np.clip(np.round(own * (WHITE / white)), 0, 255) * found[..., None]
    return made
