"""Pictures in a folder, and what is read of them."""

import numpy as np

from sources import decoding, files

SHAPE = (12, 16, 1)
READING = decoding.Reading(SHAPE)


def ramp(height=12, width=16, seed=0):
    """A grey picture, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def gathered(folder, tmp_path, **options):
    """What `files.gather` makes of the folder's files."""
    reading = options.pop("reading", READING)
    return files.gather(folder, files.listed(folder), reading, tmp_path / "cache", **options)
