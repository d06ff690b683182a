"""Metrics against scikit-image, closed forms and cases with a known result."""

import numpy as np
import pytest
import skimage.metrics
from scipy import linalg, ndimage

from nn import metrics


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
    assert np.all(metrics.ssim(*framed).numpy() > 0.7)  # the margin is reconstructed perfectly
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


# --- sets of images ------------------------------------------------------------------------------


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    random = np.random.default_rng(0)
    points = random.normal(size=(500, 3))
    points = (points - points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.0, -1.0])
    expected = np.sum(shift**2) + np.sum((1 - scales) ** 2)
    assert metrics.frechet_distance(points, points * scales + shift) == pytest.approx(expected)
    turned = np.linalg.qr(random.normal(size=(3, 3)))[0]
    assert metrics.frechet_distance(
        points @ turned, (points * scales + shift) @ turned
    ) == pytest.approx(expected)
    other = random.normal(size=(400, 3)) @ random.normal(size=(3, 3))
    root = linalg.sqrtm(np.cov(points.T) @ np.cov(other.T)).real
    expected = np.sum((points.mean(0) - other.mean(0)) ** 2) + np.trace(
        np.cov(points.T) + np.cov(other.T) - 2 * root
    )
    assert metrics.frechet_distance(points, other) == pytest.approx(expected)


def test_precision_and_recall_count_what_lies_within_reach():
    real = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    # One neighbour: the radius of real points is 1, that of generated ones 0.5.
    made = np.array([[0.5], [1.0], [20.0], [20.5]])
    assert metrics.precision_recall(real, made, neighbours=1) == (0.5, 1 / 3)
    random = np.random.default_rng(0)
    both = np.concatenate([random.normal(size=(300, 2)), random.normal(50, 1, (300, 2))])
    one = random.normal(size=(600, 2))
    precision, recall = metrics.precision_recall(both, one)
    assert precision > 0.9 and recall == pytest.approx(
        0.5, abs=0.05
    )  # one of two modes is generated
    assert metrics.precision_recall(both, one + 1000) == (0, 0)


def test_multiscale_ssim_is_the_weighted_product_over_scales():
    random = np.random.default_rng(0)
    images = random.random((2, 176, 180, 1)).astype(np.float32)
    made = np.clip(images + random.normal(0, 0.2, images.shape), 0, 1).astype(np.float32)
    np.testing.assert_allclose(metrics.ms_ssim(images, images), 1.0, atol=1e-5)
    expected, one, other = 1.0, images, made
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        parts = [each[0, ..., 0].astype(np.float64) for each in (one, other)]
        options = {"truncate": 3.5, "sigma": 1.5}
        blur = lambda x: ndimage.gaussian_filter(x, **options)[5:-5, 5:-5]  # noqa: B023, E731
        means = [blur(each) for each in parts]
        spread = sum(blur(each**2) - mean**2 for each, mean in zip(parts, means, strict=True))
        together = blur(parts[0] * parts[1]) - means[0] * means[1]
        found = (2 * together + 0.03**2) / (spread + 0.03**2)
        if scale == 4:
            sums = means[0] ** 2 + means[1] ** 2 + 0.01**2
            found = found * (2 * means[0] * means[1] + 0.01**2) / sums
        expected *= found.mean() ** weight
        one, other = (
            each[:, : each.shape[1] // 2 * 2, : each.shape[2] // 2 * 2]
            .reshape(2, each.shape[1] // 2, 2, each.shape[2] // 2, 2, 1)
            .mean((2, 4))
            for each in (one, other)
        )
    assert float(metrics.ms_ssim(images, made)[0]) == pytest.approx(expected, abs=2e-3)


def test_the_kernel_distance_is_its_double_sum_and_zero_on_average_between_equals():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 6, 4))
    kernel = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    within = [
        np.mean([kernel(each[i], each[j]) for i in range(6) for j in range(6) if i != j])
        for each in (x, y)
    ]
    between = np.mean([kernel(a, b) for a in x for b in y])
    found, error = metrics.kernel_distance(x, y)
    assert found == pytest.approx(sum(within) - 2 * between) and np.isnan(error)
    found, error = metrics.kernel_distance(*random.normal(size=(2, 4000, 4)), block=200)
    assert abs(found) < 4 * error
    found, error = metrics.kernel_distance(
        random.normal(size=(2000, 4)), random.normal(1.0, 1.0, (2000, 4)), block=200
    )
    assert found > 10 * error


def test_points_moved_along_an_axis_are_that_far_away_along_directions():
    random = np.random.default_rng(0)
    points = random.normal(size=(300, 2))
    found = metrics.wasserstein_along_directions(points, points[::-1] + [3.0, 0.0], random)
    assert found == pytest.approx(3 * 2 / np.pi, rel=0.1)  # the mean of |cos| is 2 / pi
    assert metrics.wasserstein_along_directions(points, points[::-1], random) == pytest.approx(0.0)


def test_the_pyramid_adds_up_to_the_image_again():
    images = np.random.default_rng(0).uniform(size=(2, 64, 96, 3)).astype(np.float32)
    levels = metrics._laplacian_pyramid(images)
    assert [each.shape[1] for each in levels] == [64, 32, 16]
    rebuilt = levels[-1]
    for level in levels[-2::-1]:
        spread = np.zeros_like(level)
        spread[:, ::2, ::2] = 4 * rebuilt
        rebuilt = metrics._blurred(spread) + level
    np.testing.assert_allclose(rebuilt, images, atol=1e-5)


def test_the_sliced_wasserstein_distance_finds_noise_on_the_finest_level():
    images = np.random.default_rng(0).uniform(size=(80, 64, 64, 1)).astype(np.float32)
    images = ndimage.gaussian_filter(images, (0, 1, 1, 0)) * 3
    one, two = images[:40], images[40:]
    floor = metrics.sliced_wasserstein(one, two)
    noisy = two + np.random.default_rng(1).normal(0, 0.2, two.shape).astype(np.float32)
    found = metrics.sliced_wasserstein(one, noisy)
    assert list(found) == [64, 32, 16]
    assert found[64] > 2 * floor[64] and found[64] > found[16]
    with pytest.raises(ValueError, match="the same shape"):
        metrics.sliced_wasserstein(one, two[:3])


def test_sharpness_is_the_variance_of_the_laplacian():
    images = np.random.default_rng(0).uniform(size=(3, 16, 20, 2)).astype(np.float32)
    expected = [
        np.mean([ndimage.laplace(each[..., c])[1:-1, 1:-1].var() for c in range(2)])
        for each in images
    ]
    np.testing.assert_allclose(metrics.sharpness(images), expected, rtol=1e-4)
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[None, None, :, None].repeat(16, axis=1)
    assert metrics.sharpness(ramp)[0] == pytest.approx(0.0, abs=1e-10)


def test_points_without_a_label_count_neither_in_purity_nor_in_calibration():
    z = np.random.default_rng(0).normal(size=(60, 2)) + 20 * (np.arange(60) % 2)[:, None]
    labels = np.arange(60) % 2
    some = np.where(np.arange(60) % 3, labels, -1)
    assert metrics.knn_purity(z, some, neighbours=5) == 1.0
    shares = np.eye(2)[labels] * 0.8 + 0.1
    assert metrics.calibration_error(shares, some)[0] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="images with a label"):
        metrics.knn_purity(z, np.full(60, -1))
