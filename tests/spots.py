"""Small images that a small model can learn."""

import numpy as np

SHAPE = (12, 12, 1)


def blobs(n=96, shape=SHAPE, seed=0):
    """Bright spots at random places, uint8, and the half (0 or 1) of each."""
    random = np.random.default_rng(seed)
    height, width, channels = shape
    rows, columns = np.mgrid[0:height, 0:width]
    centres = random.uniform(0.2, 0.8, (n, 2)) * (height, width)
    away = (rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2
    spots = np.exp(-away / (0.02 * height * width))[..., None].repeat(channels, axis=3)
    labels = (centres[:, 0] > height / 2).astype(np.int32)
    return np.round(255 * spots).astype(np.uint8), labels
