"""Every loss against a closed form, an identity, a Monte Carlo estimate or another
implementation."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from scipy.spatial.distance import cityblock

from nn import losses


@pytest.fixture
def random():
    return np.random.default_rng(0)


def normal(random, *shape):
    return random.normal(size=shape).astype(np.float32)


def test_bernoulli_nll_is_scipys_log_probability_summed_over_each_image(random):
    targets = random.integers(0, 2, (4, 5, 6, 3)).astype(np.float32)
    logits = normal(random, 4, 5, 6, 3)
    expected = -stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(targets).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_nll(targets, logits), expected, rtol=1e-5)


def test_bernoulli_nll_is_finite_for_logits_that_overflow_a_naive_formula():
    targets = np.ones((1, 1, 1, 1), np.float32)
    assert losses.bernoulli_nll(targets, -1e4 * targets).numpy()[0] == pytest.approx(1e4)


def test_gaussian_nll_is_scipys_log_density_summed_over_each_image(random):
    targets, means = normal(random, 4, 5, 6, 1), normal(random, 4, 5, 6, 1)
    expected = -stats.norm(means, 0.3).logpdf(targets).sum(axis=(1, 2, 3))
    measured = losses.gaussian_nll(targets, means, math.log(0.3))
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


def test_pixel_gaussian_nll_is_scipys_log_density_and_with_one_sigma_that_of_all_pixels(random):
    targets, means, logs = (normal(random, 4, 5, 6, 1) for _ in range(3))
    expected = -stats.norm(means, np.exp(logs)).logpdf(targets).sum(axis=(1, 2, 3))
    measured = losses.pixel_gaussian_nll(targets, means, logs)
    np.testing.assert_allclose(measured, expected, rtol=1e-4)
    alike = losses.pixel_gaussian_nll(targets, means, np.full_like(logs, math.log(0.3)))
    np.testing.assert_allclose(alike, losses.gaussian_nll(targets, means, math.log(0.3)), rtol=1e-5)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_a_balanced_nll_has_the_plain_value_and_gradients_times_a_power_of_the_variance(
    random, balance
):
    targets = tf.constant(normal(random, 4, 5, 6, 1))
    means, logs = (tf.constant(normal(random, 4, 5, 6, 1)) for _ in range(2))
    values, slopes = [], []
    for power in (0.0, balance):
        with tf.GradientTape() as tape:
            tape.watch([means, logs])
            values.append(losses.pixel_gaussian_nll(targets, means, logs, power))
        slopes.append(tape.gradient(values[-1], [means, logs]))
    np.testing.assert_allclose(*values, rtol=1e-4)
    for plain, balanced in zip(*slopes, strict=True):
        np.testing.assert_allclose(balanced, plain * np.exp(2 * balance * logs), rtol=1e-3)


def test_a_learned_sigma_is_best_at_the_root_mean_squared_error(random):
    targets, means = normal(random, 8, 5, 6, 1), normal(random, 8, 5, 6, 1)
    best = 0.5 * np.log(np.mean((targets - means) ** 2))
    log_sigma = tf.Variable(best, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(losses.gaussian_nll(targets, means, log_sigma))
    assert abs(tape.gradient(loss, log_sigma).numpy()) < 1e-3


def test_ten_thousand_times_mean_square_plus_kl_is_our_gaussian_with_the_converted_sigma(random):
    targets, means = normal(random, 4, 8, 8, 3), normal(random, 4, 8, 8, 3)
    pixels = 8 * 8 * 3
    log_sigma = math.log(losses.sigma_from_mse_weight(10_000.0, pixels))
    constant = pixels * (log_sigma + 0.5 * math.log(2 * math.pi))
    ours = losses.gaussian_nll(targets, means, log_sigma) - constant
    theirs = 10_000.0 * np.mean((targets - means) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_mmd_weight_1_beside_a_pixel_mean_is_the_pixel_count_beside_a_sum(random):
    square = normal(random, 4, 8, 8, 1) ** 2
    mmd = 0.37
    theirs = np.mean(square, axis=(1, 2, 3)) + 1.0 * mmd
    ours = np.sum(square, axis=(1, 2, 3)) + losses.mmd_weight_beside_sum(1.0, 64) * mmd
    np.testing.assert_allclose(ours, 64 * theirs, rtol=1e-5)  # one common factor: the same optimum


def test_kl_is_zero_at_the_prior():
    np.testing.assert_array_equal(
        losses.kl_to_standard_normal(tf.zeros((3, 5)), tf.zeros((3, 5))), 0
    )


def test_kl_of_known_gaussians():
    # N(0, e) against N(0, 1) is (e - 2) / 2 on each of ten axes; N(3, 1) is 9 / 2 on one.
    wide = losses.kl_to_standard_normal(tf.zeros((1, 10)), tf.ones((1, 10)))
    assert wide.numpy()[0] == pytest.approx(5 * (math.e - 2), rel=1e-6)
    moved = losses.kl_to_standard_normal(tf.constant([[3.0]]), tf.zeros((1, 1)))
    assert moved.numpy()[0] == pytest.approx(4.5)


def test_kl_is_the_mean_log_ratio_over_draws_of_the_posterior(random):
    mean, log_var = 0.7, -1.3
    draws = mean + math.exp(0.5 * log_var) * random.normal(size=200_000)
    ratio = stats.norm(mean, math.exp(0.5 * log_var)).logpdf(draws) - stats.norm.logpdf(draws)
    kl = losses.kl_to_standard_normal(tf.constant([[mean]]), tf.constant([[log_var]])).numpy()[0]
    assert kl == pytest.approx(ratio.mean(), abs=5 * ratio.std() / math.sqrt(len(draws)))


def test_free_bits_charge_nothing_below_the_floor_and_all_above():
    kl_axes = tf.constant([[0.0, 1.0], [0.2, 3.0]])  # means 0.1 and 2
    assert losses.free_bits(kl_axes, 0.5).numpy() == pytest.approx(0.5 + 2.0)
    assert losses.free_bits(kl_axes, 0.0).numpy() == pytest.approx(0.1 + 2.0)


def test_capacity_is_the_distance_of_the_mean_kl_on_either_side():
    kl = tf.constant([2.0, 4.0])
    assert losses.capacity(kl, 5.0).numpy() == pytest.approx(2.0)
    assert losses.capacity(kl, 1.0).numpy() == pytest.approx(2.0)


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_mmd_is_the_double_loop_of_its_definition(kernel, random):
    x, y = normal(random, 5, 3), normal(random, 7, 3) + 1

    def similarity(a, b):
        square, width = np.sum((a - b) ** 2), 2.0 * 3 * np.array(losses.SCALES)
        return np.sum(width / (width + square) if kernel == "imq" else np.exp(-square / width))

    def mean(pairs):
        return np.mean([similarity(a, b) for a, b in pairs])

    expected = (
        mean((a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j)
        + mean((a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j)
        - 2 * mean((a, b) for a in x for b in y)
    )
    assert losses.mmd(x, y, kernel).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_mmd_is_unbiased_at_zero_and_grows_with_the_distance(kernel, random):
    same = [losses.mmd(normal(random, 32, 4), normal(random, 32, 4), kernel) for _ in range(200)]
    error = np.std(same) / math.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error
    x = normal(random, 64, 4)
    shifted = [losses.mmd(x, normal(random, 64, 4) + shift, kernel).numpy() for shift in (0, 1, 2)]
    assert shifted[0] < shifted[1] < shifted[2]


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_the_mmd_of_a_single_point_is_zero_and_no_nan(kernel, random):
    one, many = normal(random, 1, 3), normal(random, 5, 3)
    assert losses.mmd(one, one, kernel).numpy() == losses.mmd(many, one, kernel).numpy() == 0.0


def test_an_unknown_kernel_is_refused_by_name():
    with pytest.raises(ValueError, match="kernel = 'mdd'.*imq, rbf"):
        losses.mmd(tf.zeros((2, 1)), tf.zeros((2, 1)), "mdd")


def test_dssim_is_zero_for_equal_images_and_half_a_unit_at_ssim_zero(random):
    images = random.uniform(size=(2, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(losses.dssim(images, images), 0.0, atol=1e-6)
    assert np.all(losses.dssim(images, 1 - images).numpy() > 0.5)  # SSIM is negative


def test_absolute_differences_are_summed_over_an_image(random):
    images, others = random.uniform(size=(2, 3, 5, 4, 2)).astype(np.float32)
    found = losses.absolute(images, others).numpy()
    flat = (each.reshape(3, -1) for each in (images, others))
    expected = [cityblock(one, other) for one, other in zip(*flat, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_perceptual_distance_compares_directions_of_channels():
    one = tf.constant([[[[3.0, 4.0]]]])
    np.testing.assert_allclose(losses.perceptual([one], [2.0 * one]), [0.0], atol=1e-6)
    np.testing.assert_allclose(losses.perceptual([one], [-one]), [4.0], rtol=1e-5)
    across = tf.constant([[[[4.0, -3.0]]]])
    found = losses.perceptual([one, one], [across, -one], weights=[0.5, 2.0])
    np.testing.assert_allclose(found, [0.5 * 2.0 + 2.0 * 4.0], rtol=1e-5)


def test_the_perceptual_distance_averages_places_and_maps():
    random = np.random.default_rng(0)
    first, second = (
        [random.normal(size=(2, side, side, 5)).astype(np.float32) for side in (4, 2)]
        for _ in range(2)
    )
    expected = np.mean(
        [
            np.mean(
                2.0
                - 2.0 * np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1),
                axis=(1, 2),
            )
            for a, b in zip(first, second, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(losses.perceptual(first, second), expected, rtol=1e-4)


# --- the aggregated posterior --------------------------------------------------------------------


def test_log_normal_is_scipys():
    random = np.random.default_rng(0)
    z, mean, log_var = random.normal(size=(3, 5)).astype(np.float32)
    expected = stats.norm.logpdf(z, mean, np.exp(log_var / 2))
    np.testing.assert_allclose(losses.log_normal(z, mean, log_var), expected, rtol=1e-4)


@pytest.mark.parametrize(("batch", "images"), [(2, 2), (2, 7), (4, 4), (4, 50)])
def test_stratified_weights_of_a_row_sum_to_one(batch, images):
    weights = np.exp(losses.stratified_log_weights(batch, images))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.diag(weights), 1.0 / images, rtol=1e-5)


def test_an_image_alone_is_its_own_aggregate():
    z, mean, log_var = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    log_q, log_product = losses.log_aggregates(z, mean, log_var, images=60)
    expected = stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(axis=1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4)
    np.testing.assert_allclose(log_product, expected, rtol=1e-4)


def test_over_all_batches_the_stratified_estimate_is_the_aggregated_posterior():
    """Five posteriors, every ordered batch of three that begins with the same image."""
    random = np.random.default_rng(1)
    means, log_vars = random.normal(size=(2, 5, 2)).astype(np.float32)
    z = random.normal(size=(1, 2)).astype(np.float32)
    found = []
    for others in itertools.permutations(range(1, 5), 2):
        rows = [0, *others]
        draws = np.concatenate([z, np.zeros((2, 2), np.float32)])
        log_q, _ = losses.log_aggregates(draws, means[rows], log_vars[rows], images=5)
        found.append(np.exp(log_q[0]))
    densities = stats.norm.pdf(z, means, np.exp(log_vars / 2)).prod(axis=1)
    assert np.mean(found) == pytest.approx(densities.mean(), rel=1e-4)


def test_independent_axes_have_no_total_correlation():
    """One posterior for all: the aggregated one is the same, and a product of its axes."""
    z = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    same = np.zeros((6, 3), np.float32)
    log_q, log_product = losses.log_aggregates(z, same, same, images=60)
    np.testing.assert_allclose(log_q, log_product, rtol=1e-4)
    np.testing.assert_allclose(log_q, stats.norm.logpdf(z).sum(axis=1), rtol=1e-4)


def test_axes_that_say_the_same_have_the_correlation_of_their_entropy():
    """N narrow posteriors on the diagonal: q(z) is density / N, the product that / N^2."""
    means = np.repeat(10.0 * np.arange(8, dtype=np.float32)[:, None], 2, axis=1)
    narrow = np.full((8, 2), -4.0, np.float32)
    log_q, log_product = losses.log_aggregates(means, means, narrow, images=8)
    np.testing.assert_allclose(log_q - log_product, np.log(8.0), rtol=1e-4)


def test_the_importance_bound_is_the_log_of_the_mean_weight_and_falls_with_more_draws():
    weights = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    expected = -np.log(np.exp(weights).mean(axis=0))
    np.testing.assert_allclose(losses.importance_bound(weights), expected, rtol=1e-4)
    one = -weights.mean(axis=0)  # of a single draw, on average
    assert np.all(losses.importance_bound(weights) <= one)
