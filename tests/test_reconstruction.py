"""Baselines without a network against the same computed with NumPy."""

import numpy as np
import pytest

from analysis import reconstruction


def test_baselines_are_the_mean_image_and_a_projection(spots):
    table = reconstruction.baselines(spots, components=5)
    train_pixels, pixels = (split.images / 255.0 for split in (spots.train, spots.test))
    mean = train_pixels.mean(axis=0)
    expected = np.mean((pixels - mean) ** 2)
    assert table.loc["mean image", "mse"] == pytest.approx(expected, rel=1e-3)
    flat = (train_pixels - mean).reshape(len(train_pixels), -1)
    axes = np.linalg.svd(flat, full_matrices=False)[2][:5]
    away = (pixels - mean).reshape(len(pixels), -1)
    made = np.clip((away @ axes.T @ axes).reshape(pixels.shape) + mean, 0, 1)
    expected = np.mean((pixels - made) ** 2)
    assert table.loc["PCA, 5 components", "mse"] == pytest.approx(expected, rel=0.02)
