"""Random numbers: reproducible, independent, and the same under XLA."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from nn import randomness

DRAWS = {
    "bits": randomness.bits,
    "uniform": randomness.uniform,
    "normal": randomness.normal,
    "random_bytes": randomness.random_bytes,
}


def key(step=0, stream="noise", seed=3):
    return randomness.key(seed, step, stream)


@pytest.mark.parametrize("name", DRAWS)
def test_xla_and_the_plain_graph_agree_for_a_step_known_only_at_run_time(name):
    def drawn(step):
        return DRAWS[name](key(step), (63, 5))

    step = tf.constant(41, tf.int64)
    plain = tf.function(drawn)(step).numpy()
    compiled = tf.function(drawn, jit_compile=True)(step).numpy()
    np.testing.assert_allclose(plain.astype(np.float64), compiled, rtol=0, atol=2e-6)


def test_equal_keys_give_equal_numbers_and_any_other_key_others():
    same = randomness.bits(key(), (1000,)).numpy()
    np.testing.assert_array_equal(same, randomness.bits(key(), (1000,)))
    for other in (key(step=1), key(stream="prior"), key(seed=4)):
        assert np.mean(same == randomness.bits(other, (1000,)).numpy()) < 0.01


def test_streams_and_steps_are_uncorrelated():
    keys = [key(step, stream) for step in range(3) for stream in ("noise", "prior", "dropout")]
    draws = np.stack([randomness.normal(each, (20_000,)) for each in keys])
    correlations = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlations).max() < 0.04  # 5.6 standard errors


def test_uniform_is_uniform_and_never_0_or_1():
    draws = randomness.uniform(key(), (200_000,)).numpy()
    assert 0.0 < draws.min() and draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 0.001


def test_normal_is_standard_normal_for_odd_sizes_too():
    draws = randomness.normal(key(), (201, 999)).numpy()
    assert draws.shape == (201, 999)
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.001
    assert abs(np.mean(draws**4) - 3.0) < 0.1


def test_random_bytes_are_uniform_over_all_256_values():
    draws = randomness.random_bytes(key(), (100_001,)).numpy()
    counts = np.bincount(draws, minlength=256)
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_shape_known_only_at_run_time_draws_the_same_numbers():
    @tf.function(input_signature=[tf.TensorSpec((None, 3))])
    def like(x):
        return randomness.normal(key(), tf.shape(x))

    np.testing.assert_array_equal(like(tf.zeros((7, 3))), randomness.normal(key(), (7, 3)))
