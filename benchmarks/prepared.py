"""One of our models, ready to train on random pixels."""

import numpy as np
import pandas as pd

import train
from families import registry
from sources import splits


def random_pixels(settings, count):
    """Images of noise: the cost of a step does not depend on pixel values."""
    return np.random.default_rng(0).integers(0, 256, (count, *settings.image_shape), np.uint8)


def prepared(settings, pixels, steps=10**6):
    """A compiled model, and endless batches of the pixels.

    Args:
        settings: `config.Settings`.
        pixels: uint8 `(n, height, width, channels)`.
        steps: Of an epoch, for the schedule of the learning rate.
    """
    model = registry.from_settings(settings)
    train.compile_model(model, settings, steps)
    split = splits.Split(pixels, pd.DataFrame(index=range(len(pixels))))
    return model, split.batches(settings.batch_size, shuffle=True)
