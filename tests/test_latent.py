"""Latent instruments on cases whose answer is known."""

import numpy as np
import pytest
import tensorflow as tf

import latent
import model as models


def test_in_batches_is_the_function_on_the_whole_array_whatever_the_batch():
    array = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
    rows = np.arange(23)
    for batch_size in (1, 5, 23, 100):
        doubled, summed = latent.in_batches(
            lambda x, row: (2 * x, tf.reduce_sum(x, axis=1) + tf.cast(row, tf.float32)),
            array,
            rows,
            batch_size=batch_size,
        )
        np.testing.assert_allclose(doubled, 2 * array)
        np.testing.assert_allclose(summed, array.sum(axis=1) + rows, rtol=1e-5)


def test_in_batches_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="no rows"):
        latent.in_batches(lambda x: x, np.zeros((0, 3)))


def test_encode_is_aligned_with_the_split(spots, tiny):
    model = models.from_settings(tiny())
    z_mean, z_log_var = latent.encode(model, spots.train, batch_size=10)
    assert z_mean.shape == z_log_var.shape == (len(spots.train), 3)
    one = model.encode(spots.train.images[13:14])
    np.testing.assert_allclose(z_mean[13], one[0][0], rtol=1e-4, atol=1e-5)


def test_a_plane_of_two_axes_is_those_axes():
    z = np.random.default_rng(0).normal(size=(10, 2))
    points, share = latent.plane(z)
    assert points is z and share == 1.0


def test_a_plane_of_more_axes_holds_the_largest_variances():
    z = np.random.default_rng(0).normal(size=(5000, 4)) * [1, 5, 0.1, 3]
    points, share = latent.plane(z)
    np.testing.assert_allclose(points.std(axis=0), [5, 3], rtol=0.05)
    assert share == pytest.approx(34 / 35.01, abs=0.01)


def test_one_axis_has_no_plane():
    with pytest.raises(ValueError, match="at least 2 axes"):
        latent.plane(np.zeros((4, 1)))


def test_the_manifold_grid_runs_rightwards_and_upwards():
    grid = latent.manifold(3, extent=2.0)
    np.testing.assert_array_equal(grid[0], [-2, 2])
    np.testing.assert_array_equal(grid[2], [2, 2])
    np.testing.assert_array_equal(grid[4], [0, 0])
    np.testing.assert_array_equal(grid[6], [-2, -2])


def test_lerp_holds_both_ends_and_equal_steps():
    path = latent.lerp([0.0, 1.0], [4.0, -1.0], 5)
    np.testing.assert_allclose(path, [[0, 1], [1, 0.5], [2, 0], [3, -0.5], [4, -1]])
