"""Latent tools on cases with a known result."""

import numpy as np
import pytest
import tensorflow as tf

from analysis import latent
from families import registry
from nn.batches import in_batches


def test_in_batches_is_the_function_on_the_whole_array_whatever_the_batch():
    array = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
    rows = np.arange(23)
    for batch_size in (1, 5, 23, 100):
        doubled, summed = in_batches(
            lambda x, row: (2 * x, tf.reduce_sum(x, axis=1) + tf.cast(row, tf.float32)),
            array,
            rows,
            batch_size=batch_size,
        )
        np.testing.assert_allclose(doubled, 2 * array)
        np.testing.assert_allclose(summed, array.sum(axis=1) + rows, rtol=1e-5)


def test_in_batches_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="arrays are empty"):
        in_batches(lambda x: x, np.zeros((0, 3)))


def test_encode_is_aligned_with_the_split(spots, tiny):
    model = registry.from_settings(tiny())
    z_mean, z_log_var = latent.encode(model, spots.train, batch_size=10)
    assert z_mean.shape == z_log_var.shape == (len(spots.train), 3)
    one = model.encode(spots.train.images[13:14])
    np.testing.assert_allclose(z_mean[13], one[0][0], rtol=1e-4, atol=1e-5)


def test_a_plane_of_two_axes_is_those_axes():
    z = np.random.default_rng(0).normal(size=(10, 2))
    points, share = latent.plane(z)
    np.testing.assert_array_equal(points, z)
    assert share == 1.0


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


def test_encoded_latents_are_kept_until_a_weight_or_an_image_changes(spots, tiny, tmp_path):
    model, cache = registry.from_settings(tiny()), tmp_path / "run" / "train.npz"
    first = latent.encode(model, spots.train, cache=cache)
    written = cache.stat().st_mtime_ns
    again = latent.encode(model, spots.train, cache=cache)
    np.testing.assert_array_equal(first, again)
    assert cache.stat().st_mtime_ns == written
    assert latent.encode(model, spots.test, cache=cache)[0].shape[0] == len(spots.test)
    latent.encode(model, spots.train, cache=cache)
    model.encoder.weights[0].assign_add(tf.ones_like(model.encoder.weights[0]))
    changed, _ = latent.encode(model, spots.train, cache=cache)
    assert np.abs(changed - first[0]).max() > 1e-3
    assert [each.name for each in cache.parent.iterdir()] == ["train.npz"]


@pytest.mark.parametrize("kind", ["axes", "pca", "tsne"])
def test_every_plane_keeps_two_far_clusters_apart(kind):
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    z = random.normal(size=(60, 5)) + 20 * labels[:, None]
    points, share = latent.plane(z, kind)
    assert points.shape == (60, 2) and (np.isnan(share) == (kind == "tsne"))
    within = max(np.ptp(points[labels == each], axis=0).max() for each in (0, 1))
    apart = np.linalg.norm(points[labels == 0].mean(axis=0) - points[labels == 1].mean(axis=0))
    assert apart > within / 2


def test_a_plane_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="allowed: axes, pca, tsne, umap"):
        latent.plane(np.zeros((4, 3)), "mds")


def test_axes_are_ordered_by_their_kl():
    z_mean = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, -2.0]])
    axes, nats = latent.by_kl(z_mean, np.zeros((2, 3)))
    np.testing.assert_array_equal(axes, [2, 0, 1])
    np.testing.assert_allclose(nats, [2.0, 0.5, 0.0])  # mean^2 / 2 at unit variance
    axes, nats = latent.by_kl(z_mean, np.full((2, 3), -np.inf))
    np.testing.assert_array_equal(axes, [2, 0, 1])
    assert np.isinf(nats).all()


def test_a_traversal_changes_one_axis():
    made = latent.traversal([1.0, 2.0, 3.0], 1, [-1.0, 0.0])
    np.testing.assert_array_equal(made, [[1, -1, 3], [1, 0, 3]])


def test_a_memorised_image_is_its_own_nearest():
    images = np.random.default_rng(0).uniform(size=(9, 4, 4, 1))
    rows, distances = latent.nearest(images[[7, 2]] + [[[[0.0]]], [[[0.25]]]], images)
    np.testing.assert_array_equal(rows, [7, 2])
    np.testing.assert_allclose(distances, [0.0, 0.25 * 4], atol=1e-5)


def test_slerp_of_two_unit_vectors_keeps_length_and_angle():
    path = latent.slerp([1.0, 0.0], [0.0, 1.0], 4)
    angles = np.deg2rad([0, 30, 60, 90])
    np.testing.assert_allclose(path, np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


@pytest.mark.parametrize("end", [[3.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_slerp_of_parallel_opposite_and_zero_vectors_is_straight(end):
    path = latent.slerp([1.0, 0.0], end, 5)
    np.testing.assert_allclose(path, latent.lerp([1.0, 0.0], end, 5), atol=1e-6)


def test_the_path_through_a_circle_stays_on_it():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = latent.through_data(circle, 0, 12, neighbours=4)
    assert rows[0] == 0 and rows[-1] == 12 and set(rows) <= set(range(13))
    path = latent.along(circle[rows], 50)
    assert np.linalg.norm(path, axis=1).min() > 0.98
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)


def test_what_is_not_joined_has_no_path():
    z = np.concatenate([np.arange(5.0), 1000 + np.arange(5.0)])[:, None]
    assert list(latent.through_data(z, 3, 3, neighbours=2)) == [3]
    with pytest.raises(ValueError, match="no path joins rows 0 and 9"):
        latent.through_data(z, 0, 9, neighbours=2)


def test_along_holds_both_ends_and_an_even_pace():
    path = latent.along([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]], 5)
    np.testing.assert_allclose(path, [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]])
    np.testing.assert_array_equal(latent.along([[2.0, 1.0]], 3), [[2, 1]] * 3)


def test_an_analogy_is_a_sum():
    np.testing.assert_array_equal(latent.analogy([5, 1], [4, 1], [0, 7]), [1, 7])


def test_posterior_draws_have_the_posteriors_mean_and_width():
    z_mean = np.array([[0.0, 5.0]]).repeat(20000, axis=0)
    drawn = latent.posterior_draws(z_mean, np.array([0.0, np.log(4.0)]))
    np.testing.assert_allclose(drawn.mean(axis=0), [0, 5], atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), [1, 2], rtol=0.03)
    np.testing.assert_array_equal(latent.posterior_draws(z_mean, np.full((1, 2), -np.inf)), z_mean)


def test_a_damaged_cache_of_latents_is_made_anew(tmp_path, capsys, spots, tiny):
    model = registry.from_settings(tiny())
    z, _ = latent.encode(model, spots.test, cache=tmp_path / "z.npz")
    for length in (0, 100, 400):
        (tmp_path / "z.npz").write_bytes((tmp_path / "z.npz").read_bytes()[:length])
        again, _ = latent.encode(model, spots.test, cache=tmp_path / "z.npz")
        np.testing.assert_array_equal(again, z)
        assert "is damaged; the images are encoded again" in capsys.readouterr().out
