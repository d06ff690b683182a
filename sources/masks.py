"""Masks of lesions that lie in a folder of their own, under the names of their images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sources import decoding, files

NAMED = 3  # files that an error lists
LESION_PIXELS = "lesion_pixels"  # column of the tables


def gather(folder, root, table, reading, cache, name="MASKS_DIR") -> np.ndarray:
    """The mask of every image; one without a file has no lesion.

    Args:
        folder: Of the masks; its files have the images' names, the ending aside.
        root: Folder of the images.
        table: One row per image with `file`, relative to `root`, and `slice`, as from
            `files.gather`.
        reading: `decoding.Reading` of the images.
        cache: Folder of decoded arrays.
        name: Of the setting, for errors.

    Returns:
        uint8, `(n, height, width, 1)`, 0 where there is no lesion.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for masks without an image, of another size than their image, or that are all
            empty.
    """
    folder, root = Path(folder), Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name}: there is no folder {folder}; correct it, or leave it out if there are no "
            "masks"
        )
    images = {_stem(file): file for file in table["file"]}
    found = {_stem(file): file for file in files.listed(folder)}
    alone = sorted(found[each] for each in set(found) - set(images))
    if alone:
        raise ValueError(
            f"{name}: {len(alone)} masks have no image of their name in {root}: "
            f"{', '.join(alone[:NAMED])}; rename or remove them"
        )
    height, width, _ = reading.image_shape
    masks = np.zeros((len(table), height, width, 1), np.uint8)
    if not found:
        raise ValueError(f"{name}: there are no masks in {folder}")
    for stem, mask in found.items():
        sizes = decoding.size(root / images[stem]), decoding.size(folder / mask)
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{name}: {mask} has {_told(sizes[1])} pixels and its image {_told(sizes[0])}; a "
                "mask must cover its image"
            )
    kind = replace(reading, image_shape=(height, width, 1), bits=0, mask=True)
    read, known = files.gather(folder, sorted(found.values()), kind, cache)
    rows = {
        (_stem(file), number): row
        for row, (file, number) in enumerate(zip(known["file"], known["slice"], strict=True))
    }
    for place, (file, number) in enumerate(zip(table["file"], table["slice"], strict=True)):
        row = rows.get((_stem(file), number))
        if row is not None:
            masks[place] = read[row]
    if not masks.any():
        raise ValueError(
            f"{name}: all {len(found)} masks in {folder} are empty; a lesion is any value but 0"
        )
    return masks


def lesion_pixels(masks) -> np.ndarray:
    """Number of lesion pixels of each mask, `(n,)`."""
    return np.array([np.count_nonzero(each) for each in masks])


def _stem(file):
    return file[: -len(decoding.suffix(file))]


def _told(size):
    return " x ".join(map(str, size))
