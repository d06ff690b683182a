"""Metrics against scikit-image, closed forms and cases whose answer is known."""

import numpy as np
import pytest
import skimage.metrics

import metrics


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    images = random.uniform(size=(4, 28, 33, 3)).astype(np.float32)
    noisy = np.clip(images + random.normal(scale=0.1, size=images.shape), 0, 1).astype(np.float32)
    return images, noisy


def test_ssim_is_scikit_images(pairs):
    expected = [
        skimage.metrics.structural_similarity(
            a,
            b,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(*pairs, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(*pairs), expected, atol=1e-5)


@pytest.mark.parametrize("side", [3, 8, 10, 11, 12])
def test_ssim_is_1_for_equal_images_however_small(side):
    images = np.random.default_rng(0).uniform(size=(2, side, 28, 1)).astype(np.float32)
    np.testing.assert_allclose(metrics.ssim(images, images), 1.0, atol=1e-6)


def test_the_ssim_map_is_scikit_images_place_by_place(pairs):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    measured = metrics.ssim_map(*pairs)
    for index, (a, b) in enumerate(zip(*pairs, strict=True)):
        _, whole = skimage.metrics.structural_similarity(
            a, b, data_range=1.0, channel_axis=-1, **options
        )
        np.testing.assert_allclose(measured[index], whole[5:-5, 5:-5], atol=1e-5)


def test_foreground_ssim_leaves_the_black_margin_out():
    random = np.random.default_rng(0)
    inner = random.uniform(0.3, 1.0, (2, 120, 120, 1)).astype(np.float32)
    other = random.uniform(0.3, 1.0, (2, 120, 120, 1)).astype(np.float32)
    margin = ((0, 0), (120, 120), (120, 120), (0, 0))
    framed = [np.pad(each, margin) for each in (inner, other)]
    inside = metrics.ssim(inner, other).numpy()
    assert np.all(metrics.ssim(*framed).numpy() > 0.7)  # the margin is drawn perfectly
    assert np.all(np.abs(metrics.ssim_foreground(*framed).numpy() - inside) < 0.15)
    np.testing.assert_allclose(metrics.ssim_foreground(inner, other), inside, rtol=1e-5)
    np.testing.assert_array_equal(metrics.ssim_foreground(0 * inner, other), 1.0)


def test_psnr_and_mse_are_scikit_images(pairs):
    images, noisy = pairs
    for ours, theirs in (
        (metrics.psnr(images, noisy), skimage.metrics.peak_signal_noise_ratio),
        (metrics.mse(images, noisy), skimage.metrics.mean_squared_error),
    ):
        expected = [theirs(a, b) for a, b in zip(images, noisy, strict=True)]
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_active_units_counts_the_axes_that_move():
    z_mean = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    z_mean[:, 1] *= 0.01  # variance 0.0001: collapsed
    z_mean[:, 2] = 7.0
    assert metrics.active_units(z_mean).numpy() == 2


def test_knn_purity_is_1_for_islands_and_the_class_share_for_noise():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 250)
    islands = random.normal(size=(1000, 2)) + 100 * np.eye(4)[labels][:, :2] + labels[:, None] * 50
    assert metrics.knn_purity(islands, labels) == 1.0
    assert metrics.knn_purity(random.normal(size=(1000, 2)), labels) == pytest.approx(
        0.25, abs=0.03
    )


def test_a_point_is_not_its_own_neighbour():
    z = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert metrics.knn_purity(z, np.array([0, 1, 0, 1]), neighbours=1) == 0.0


def test_purity_of_fewer_images_than_neighbours_is_refused():
    with pytest.raises(ValueError, match="10 neighbours need more than 5 images"):
        metrics.knn_purity(np.zeros((5, 2)), np.zeros(5))
