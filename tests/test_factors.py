"""Scores of disentanglement: a perfect latent, a rotated one, noise, and values computed by
hand."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from analysis import factors

NAMES = ("size", "place", "age")


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(0).uniform(-1, 1, (3000, 3))


def found(z, truth):
    return factors.scores(z, dict(zip(NAMES, truth.T, strict=True)))


def test_a_perfect_code_scores_one(truth):
    spare = 0.001 * np.random.default_rng(1).normal(size=(3000, 2))
    code = np.concatenate([truth[:, [2, 0, 1]] * [1.0, -3.0, 0.5], spare], axis=1)
    for name, score in found(code, truth).items():
        assert score > 0.95, name


def test_a_rotated_code_tells_as_much_and_loses_its_scores(truth):
    turned = truth @ ortho_group.rvs(3, random_state=3)
    score, perfect = found(turned, truth), found(truth, truth)
    assert score["informativeness"] > 0.9
    for name in ("mig", "sap", "disentanglement", "completeness"):
        assert score[name] < perfect[name] - 0.3, name
    assert score["factor_vae"] < perfect["factor_vae"]


def test_noise_scores_nothing(truth):
    score = found(np.random.default_rng(4).normal(size=(3000, 5)), truth)
    for name in ("mig", "sap", "disentanglement", "completeness", "informativeness"):
        assert score[name] < 0.1, name
    assert score["factor_vae"] < 0.5  # a third is chance


def test_the_gap_of_two_axes_that_say_the_same_is_none(truth):
    twice = np.repeat(truth, 2, axis=1)
    assert factors.mutual_information_gap(twice, truth) == pytest.approx(0.0, abs=1e-9)
    assert factors.separated_predictability(twice, truth) == pytest.approx(0.0, abs=1e-9)
    assert factors.dci(twice, truth)["disentanglement"] > 0.9


def test_the_information_gap_of_a_noisy_channel_is_worked_by_hand():
    """A binary factor encoded by one axis with an error rate of 1 in 4, and not by the other."""
    factor = np.tile([0, 0, 0, 0, 1, 1, 1, 1], 500)
    told = np.tile([0, 0, 0, 1, 1, 1, 1, 0], 500)
    other = np.repeat([0, 1], 2000)
    z = np.stack([told, other], axis=1).astype(float)
    errors = 0.25
    lost = -(errors * np.log2(errors) + (1 - errors) * np.log2(1 - errors))
    assert factors.mutual_information_gap(z, factor[:, None]) == pytest.approx(1 - lost, abs=1e-6)
    # A correlation of 1/2: squared, a quarter.
    gap = factors.separated_predictability(z, factor[:, None].astype(float))
    assert gap == pytest.approx(0.25, abs=1e-6)


def test_concentration_is_one_for_one_factor_and_none_for_all_alike():
    assert factors._concentration(np.eye(3)) == pytest.approx(1.0)
    assert factors._concentration(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-9)
    half = np.array([[1.0, 1.0, 0.0]])
    assert factors._concentration(half) == pytest.approx(1 - np.log(2) / np.log(3))


def test_bins_are_equally_filled_and_few_values_keep_theirs():
    counts = np.bincount(factors.binned(np.random.default_rng(5).normal(size=2000)))
    assert len(counts) == factors.BINS and counts.min() == counts.max() == 100
    np.testing.assert_array_equal(factors.binned(np.array([5.0, 2.0, 5.0, 9.0])), [1, 0, 1, 2])


def test_what_cannot_be_scored_is_refused(truth):
    with pytest.raises(ValueError, match="equally many rows"):
        found(truth[:10], truth)
    with pytest.raises(ValueError, match="'age' must be finite"):
        found(truth, truth * [1.0, 1.0, 0.0])
