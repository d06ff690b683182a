"""Evidence for directions: it finds what is there, and holds its level where nothing is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from analysis import directions, evidence
from cohorts import cohort, confounded


def test_auc_is_that_of_scikit_learn_ties_and_repeated_rows_included():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 8, 60), random.uniform(size=60) < 0.4
    counts = random.integers(0, 4, (60, 5))
    for column in counts.T:
        value = evidence.auc_within(np.repeat(scores, column), np.repeat(labels, column))
        assert value == pytest.approx(roc_auc_score(labels, scores, sample_weight=column))
    assert np.isnan(evidence.auc_within(scores, np.zeros(60, bool)))


def test_auc_never_compares_two_folds():
    scores = np.array([0.0, 1.0, 100.0, 101.0])
    labels, folds = np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1])
    assert evidence.auc_within(scores, labels, folds) == 1.0
    assert evidence.auc_within(scores, labels) == 0.75


def test_thirds_are_of_what_has_the_label():
    sizes = np.array([1, 2, 3, 4, 5, 6, 0, 0], float)
    scores = np.array([0, 0, 1, 2, 3, 3, 1, 1], float)
    found = evidence.auc_by_third(scores, sizes > 0, sizes)
    assert found == [0.0, 0.75, 1.0]
    assert evidence.auc_by_third(scores, (sizes > 0).astype(int), sizes) == found


@pytest.mark.parametrize(("n", "expected"), [(3, 0.025 ** (1 / 3)), (500, 0.025 ** (1 / 500))])
def test_a_perfect_separation_of_a_few_subjects_is_not_certain(n, expected):
    labels = np.repeat([0, 1], n)
    told = evidence.auc_interval(labels * 1.0, labels, np.arange(2 * n), draws=50)
    assert told == (1.0, pytest.approx(expected), 1.0)
    told = evidence.auc_interval(-labels, labels, np.arange(2 * n), draws=50)
    assert told == (0.0, 0.0, pytest.approx(1.0 - expected))


def test_folds_keep_subjects_together_and_do_not_look_at_labels():
    _, _, subjects = cohort(31, images=3)
    folds = evidence.deal(subjects, 5, seed=1)
    assert all(len(set(folds[subjects == each])) == 1 for each in range(31))
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 3
    with pytest.raises(ValueError, match="3 subjects cannot fill 5 folds"):
        evidence.deal(np.arange(3), 5)


def test_permuted_labels_keep_their_subjects_and_the_sizes_of_them():
    groups = np.array([0, 1, 1, 2, 3, 3, 4])
    labels = np.array([1, 1, 0, 0, 0, 0, 0], bool)
    pairs, singles = set(), set()
    for seed in range(40):
        mixed = evidence.permuted(labels, groups, np.random.default_rng(seed))
        pairs.add((tuple(mixed[groups == 1]), tuple(mixed[groups == 3])))
        singles.add(int(np.flatnonzero(mixed[[0, 3, 6]])[0]))
        assert mixed.sum() == 2
    on, off = (True, False), (False, False)
    assert pairs == {(on, off), (off, on)} and singles == {0, 1, 2}


@pytest.mark.parametrize("method", directions.METHODS)
def test_a_real_effect_is_established_at_its_true_size(method):
    z, labels, subjects = cohort(effect=1.5)
    found = evidence.of(z, labels, subjects, method, bootstraps=60, permutations=49)
    truth = stats.norm.cdf(1.5 / np.sqrt(2))  # of two unit normals 1.5 apart
    assert found.low < truth < found.high and found.p_value == 0.02
    assert found.established and found.stability > 0.8
    assert sum(found.images) == len(z) and sum(found.subjects) == 120
    assert str(found).startswith(f"AUC {found.auc:.2f}") and not found.caution


def test_coin_flips_are_not_established():
    """20 random labels: the interval contains 0.5 in 17 or more, the p-values are uniform."""
    found = []
    for seed in range(20):
        z, _, subjects = cohort(seed=seed, effect=0.0)
        coins = np.random.default_rng(1000 + seed).uniform(size=120) < 0.5
        found.append(evidence.of(z, coins[subjects], subjects, permutations=199, bootstraps=100))
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 17
    assert stats.kstest([each.p_value for each in found], "uniform").pvalue > 0.01


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("method", ["mean", "fisher"])
def test_a_label_that_only_goes_with_age_is_not_found_beside_age(method, curved):
    """Of 40 cohorts 2 are expected below 0.05; more than 6 have a probability of 1 in 300."""
    found = [
        evidence.of(z, labels, subjects, method, covariates, 5, 20, 59, halves=1)
        for z, labels, subjects, covariates in (confounded(seed, 0.0, curved) for seed in range(40))
    ]
    assert sum(each.p_value < 0.05 for each in found) <= 6
    assert sum(each.established for each in found) <= 2
    assert abs(np.mean([each.auc for each in found]) - 0.5) < 0.05
    plain = [
        evidence.of(*confounded(seed, 0.0, curved)[:3], method, None, 5, 20, 59, halves=1)
        for seed in range(5)
    ]
    assert sum(each.p_value < 0.05 for each in plain) >= 3


@pytest.mark.parametrize("method", directions.METHODS)
def test_an_effect_beside_age_is_established(method):
    z, labels, subjects, covariates = confounded(0, effect=2.0, n_subjects=120)
    found = evidence.of(z, labels, subjects, method, covariates, 5, 30, 29)
    assert found.established and found.p_value == 1 / 30


@pytest.mark.parametrize("method", directions.METHODS)
def test_what_is_linear_in_the_covariates_changes_nothing(method):
    """The latents may depend on age by any amount; each fold has its own encoder."""
    z, labels, subjects, covariates = confounded(3, effect=0.5)
    z = np.stack([z, -z, z])
    folds = evidence.deal(subjects, 3)
    slopes = np.random.default_rng(0).normal(size=(3, covariates.shape[1], 6))
    one, other = (
        evidence.of(each, labels, subjects, method, covariates, folds, 20, 30, halves=2)
        for each in (z, z + 5 * covariates @ slopes)
    )
    np.testing.assert_allclose(one[:5], other[:5], atol=1e-6)


@pytest.mark.parametrize("vary", [False, True])
def test_labels_and_covariates_may_vary_within_subjects(vary):
    """Null cohorts with ages of images, some missing, and labels of images or of subjects."""
    p_values = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        subjects = np.repeat(np.arange(40), 3)
        age = random.normal(size=120) + random.normal(size=40)[subjects]
        felt = age if vary else age.reshape(40, 3).mean(axis=1)[subjects]
        noise = random.logistic(size=120 if vary else 40)
        labels = (noise if vary else noise[subjects]) < 2 * felt
        z = random.normal(size=(120, 4)) + random.normal(size=(40, 4))[subjects]
        z[:, 0] += 2 * age
        shown = np.where(random.uniform(size=120) < 0.02, np.nan, age)
        covariates = directions.design(pd.DataFrame({"age": shown}), ["age"])
        found = evidence.of(z, labels, subjects, "mean", covariates, 5, 2, 59, halves=1)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.15 and np.mean(p_values) > 0.35


def test_two_subjects_give_numbers_and_a_caution():
    z, _, subjects = cohort(60, images=2, effect=0.0)
    folds = subjects % 5
    found = evidence.of(z, subjects < 2, subjects, folds=folds, permutations=49)
    assert 0 <= found.auc <= 1 and 0 < found.p_value <= 1 and np.isfinite(found.stability)
    assert np.isnan(found.low) and np.isnan(found.high) and not found.established
    assert "too few subjects with the label" in found.caution
    assert "no interval" in str(found) and "nan" not in str(found)
    with pytest.raises(ValueError, match=r"not all in one fold"):
        evidence.of(z, np.isin(subjects, (0, 5)), subjects, folds=folds)
    with pytest.raises(ValueError, match="use fewer folds"):
        evidence.of(z, subjects < 30, subjects, folds=60)


def test_what_cannot_be_computed_establishes_nothing():
    z, labels, subjects = cohort(effect=3.0)
    found = evidence.of(z, labels, subjects, permutations=99, bootstraps=50, halves=2)
    assert found.established
    for unknown in ({"p_value": np.nan}, {"low": np.nan, "high": np.nan}):
        assert not found._replace(**unknown).established
    text = str(found._replace(stability=np.nan))
    assert "no split-half cosine" in text and "too few to fit a direction" in text
    none = evidence.of(z, labels, subjects, permutations=1, bootstraps=0, halves=0)
    assert np.isnan(none.low) and np.isnan(none.stability) and "nan" not in str(none)


def test_an_interval_needs_nearly_all_of_its_draws():
    drawn = np.random.default_rng(0).uniform(0.4, 0.6, 100)
    drawn[:5] = np.nan
    assert np.isfinite(evidence._interval(0.5, drawn, 20)).all()
    drawn[5] = np.nan
    assert np.isnan(evidence._interval(0.5, drawn, 20)).all()


def test_too_few_positives_are_said():
    z, _, subjects = cohort(60, images=1, effect=0.0)
    found = evidence.of(z, subjects < 6, subjects, permutations=49, bootstraps=100)
    assert "only 6 subjects have the label" in found.caution and found.caution in str(found)
    with pytest.raises(ValueError, match="several subjects"):
        evidence.of(z, subjects < 1, subjects)


def test_latents_of_every_fold_are_used_for_that_fold():
    z, labels, subjects = cohort(effect=3.0)
    folds = evidence.deal(subjects, 4)
    turned = np.stack([z * sign for sign in (1, -1, 1, -1)])  # another encoder, another latent
    one = evidence.of(z, labels, subjects, folds=folds, permutations=1)
    many = evidence.of(turned, labels, subjects, folds=folds, permutations=1)
    assert many.auc == one.auc
    with pytest.raises(ValueError, match="3 arrays of latents for 4 folds"):
        evidence.of(turned[:3], labels, subjects, folds=folds)


def seen_twice(seed, effect, subjects=60):
    """Latents, labels and subjects, two images each; the first axis depends on the label."""
    random = np.random.default_rng(seed)
    of_subject = np.repeat(np.arange(subjects), 2)
    labels = (random.permutation(subjects) < subjects // 3)[of_subject]
    own = random.normal(size=(subjects, 4))[of_subject]
    z = own + 0.3 * random.normal(size=own.shape)
    z[:, 0] += effect * labels
    return z, labels, of_subject, None


def fitted_on(known):
    z, labels, subjects, _ = known
    table = pd.DataFrame({"ill": labels, "subject": subjects})
    return directions.Direction.of(z, table, "ill", "fisher")


def test_a_direction_that_separates_new_subjects_is_confirmed_and_chance_is_not():
    known, new = seen_twice(0, 1.5), seen_twice(1, 1.5)
    direction = fitted_on(known)
    found = evidence.confirm(direction, known, new, bootstraps=200, permutations=199)
    assert found.auc == evidence.auc_within(direction.project(new[0]), new[1])
    assert found.established and 0.5 < found.low < found.auc < found.high < 1
    assert found.subjects == (20, 40) and found.images == (40, 80) and found.stability > 0.5
    # Labels of the test subjects are coins: in about 5 % of cohorts p is below 0.05.
    p_values, covered = [], []
    for seed in range(200):
        empty = seen_twice(100 + seed, 0.0)
        each = evidence.confirm(direction, known, empty, 60, 99, 0)
        p_values.append(each.p_value)
        covered.append(each.low <= 0.5 <= each.high)
    assert 0.005 < np.mean(np.array(p_values) < 0.05) < 0.12
    assert 0.88 < np.mean(covered) <= 1.0


def test_missing_labels_of_the_test_subjects_are_refused():
    known, (z, labels, subjects, _) = seen_twice(0, 1.5), seen_twice(1, 1.5)
    some = pd.Series(labels, dtype="boolean").mask(subjects == 0)
    with pytest.raises(ValueError, match="2 of 120 labels are missing"):
        evidence.confirm(fitted_on(known), known, (z, some, subjects, None))


def test_a_direction_that_separates_by_age_alone_is_not_confirmed_once_adjusted():
    def aged(seed):
        z, labels, subjects, _ = seen_twice(seed, 0.0)
        random = np.random.default_rng(seed)
        age = (random.normal(size=60)[subjects] + 1.5 * labels)[:, None]
        z[:, 0] += 1.5 * age[:, 0]
        return z, labels, subjects, age

    known, raw, p_values = aged(0), 0, []
    direction = fitted_on(known)
    for seed in range(1, 81):
        new = aged(seed)
        raw += evidence.confirm(direction, known, (*new[:3], None), 2, 59, 0).p_value < 0.05
        p_values.append(evidence.confirm(direction, known, new, 2, 59, 0).p_value)
    assert raw > 60  # without the adjustment nearly always
    assert np.mean(np.array(p_values) < 0.05) < 0.13
