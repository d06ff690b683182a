"""Directions: correct results for known truths, and no effect for random labels."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.covariance import empirical_covariance, shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from analysis import directions
from analysis.directions import Direction

AXIS = np.array([0.6, 0.0, -0.8])


def cohort(n_subjects=120, images=2, effect=3.0, seed=0):
    """Latents in which a label, the same for all images of a subject, moves points along AXIS."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), images)
    labels = np.repeat(random.uniform(size=n_subjects) < 0.4, images)
    z = random.normal(size=(len(subjects), 3)) + effect * labels[:, None] * AXIS
    return z, labels, subjects


def confounded(seed, effect=0.0, curved=False, n_subjects=60):
    """A label correlated with age, and latents that depend on age and, by an effect, on the
    label."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), random.integers(1, 3, n_subjects))
    age = random.normal(size=n_subjects)
    felt = (age**2 - 1) / np.sqrt(2) if curved else age
    labels = (random.logistic(size=n_subjects) < 2 * felt)[subjects]
    z = random.normal(size=(len(subjects), 6)) + np.outer(felt[subjects], [3, 1, 0, 0, 0, 0])
    z[:, 2] += effect * labels
    covariates = directions.design(pd.DataFrame({"age": age[subjects]}), ["age"])
    return z, labels, subjects, covariates


def table_of(labels, subjects, **columns):
    return pd.DataFrame({"label": labels, "subject": subjects} | columns)


# --- fit ---


def test_the_mean_difference_is_found_exactly_where_there_is_no_noise():
    labels = np.array([True, False, True, False])
    z = labels[:, None] * 5 * AXIS + np.array([[1, 2, 3], [1, 2, 3], [-1, 0, 4], [-1, 0, 4]])
    np.testing.assert_allclose(directions.fit(z, labels), AXIS, atol=1e-12)


@pytest.mark.parametrize("method", directions.METHODS)
def test_every_direction_has_length_1_and_points_to_the_label(method):
    z, labels, _ = cohort()
    vector = directions.fit(z, labels, method)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert vector @ AXIS > 0.95


def test_a_number_gives_its_slope():
    size = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(directions.fit(size[:, None] * AXIS + 7, size), AXIS, atol=1e-12)


@pytest.mark.parametrize("method", directions.METHODS)
def test_an_adjusted_direction_leaves_the_confounder_out(method):
    random = np.random.default_rng(0)
    labels = random.uniform(size=4000) < 0.5
    age = labels + 0.5 * random.normal(size=4000)
    z = random.normal(size=(4000, 3)) + np.outer(labels, [2, 0, 0]) + np.outer(age, [0, 2, 0])
    covariates = directions.design(pd.DataFrame({"age": age}), ["age"])
    plain = directions.fit(z, labels, method)
    adjusted = directions.fit(z, labels, method, covariates)
    assert plain[1] > 0.4 and abs(adjusted[1]) < 0.1 and adjusted[0] > 0.99


def test_the_adjusted_mean_is_the_least_squares_coefficient():
    random = np.random.default_rng(1)
    labels, other = random.uniform(size=200) < 0.3, random.normal(size=(200, 2))
    z = random.normal(size=(200, 4)) + labels[:, None] + other @ random.normal(size=(2, 4))
    columns = np.column_stack([labels, other, np.ones(200)])
    expected = np.linalg.lstsq(columns, z, rcond=None)[0][0]
    found = directions.fit(z, labels, covariates=other)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-10)


def test_fisher_is_the_shrunken_discriminant_of_scikit_learn():
    z, labels, _ = cohort(effect=1.0)
    z = z @ np.random.default_rng(3).normal(size=(3, 3))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunken())
    expected = theirs.fit(z, labels).coef_[0]
    found = directions.fit(z, labels, "fisher")
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


class Shrunken(BaseEstimator):
    """scikit-learn's own shrinkage, without the scaling of axes that its discriminant does."""

    def fit(self, z):
        self.covariance_ = shrunk_covariance(empirical_covariance(z), directions.SHRINKAGE)
        return self


def test_few_images_in_a_long_latent_are_better_served_by_fisher():
    random = np.random.default_rng(0)
    spread = np.array([10.0, 10.0, 10.0] + [0.3] * 9)  # three axes of position and exposure
    labels = np.arange(60) < 20
    truth = np.eye(12)[5]
    z = spread * random.normal(size=(60, 12)) + 0.6 * labels[:, None] * truth
    found = {name: directions.fit(z, labels, name) @ truth for name in ("mean", "fisher")}
    assert found["mean"] < 0.3 and found["fisher"] > 0.5


def test_what_has_no_direction_is_refused():
    z = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match="same label"):
        directions.fit(z, np.ones(6))
    labels = np.array([1, 0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="explain the label"):
        directions.fit(z, labels, covariates=labels[:, None] * 2.0)
    with pytest.raises(ValueError, match="allowed: mean, fisher, logistic"):
        directions.fit(z, labels, "median")
    with pytest.raises(ValueError, match="do not depend"):
        directions.fit(np.ones((6, 3)), labels)


def test_design_turns_a_table_into_numbers():
    table = pd.DataFrame({"age": [40.0, np.nan, 60.0], "sex": ["F", "M", "F"]})
    made = directions.design(table, ["age", "sex"])
    assert made.shape == (3, 3)  # age, "age is missing", and one column of two for sex
    np.testing.assert_allclose(made[:, 0], [-1.2247449, 0, 1.2247449])
    np.testing.assert_array_equal(made[:, 1:], [[0, 0], [1, 1], [0, 0]])
    assert directions.design(table, []).shape == (3, 0)
    with pytest.raises(ValueError, match="'age' has no value"):
        directions.design(table.iloc[[1]], ["age"])


def test_design_lets_a_number_bend_but_not_one_of_two_values():
    age = np.linspace(20, 80, 101)
    table = pd.DataFrame({"age": age, "old": age > 60, "size": np.arange(101.0)})
    made = directions.design(table, ["age"])
    assert made.shape == (101, 2) and directions.design(table, ["old"]).shape == (101, 1)
    steps = np.diff(made[:, 1])
    np.testing.assert_allclose(steps[age[1:] <= 26], 0, atol=1e-12)  # knots at 26, 50 and 74
    np.testing.assert_allclose(steps[age[:-1] >= 74], steps[-1])
    assert steps[-1] > 0.05
    left = directions.without((age - 50) ** 2, made)
    assert left.std() < 0.2 * ((age - 50) ** 2).std()


def test_without_covariates_leaves_no_slope_on_them_in_the_rows_fitted():
    random = np.random.default_rng(0)
    covariates, z = random.normal(size=(50, 2)), random.normal(size=(50, 3)) + 4
    z += covariates @ np.array([[3, 0, 1], [0, -2, 1]])
    fitted = np.arange(50) < 30
    left = directions.without(z, covariates, fitted)
    centred = covariates[fitted] - covariates[fitted].mean(axis=0)
    np.testing.assert_allclose(centred.T @ left[fitted], 0, atol=1e-10)
    again = directions.without(z + covariates @ np.ones((2, 3)), covariates, fitted)
    np.testing.assert_allclose(again, left, atol=1e-10)


# --- a direction as a thing ---


def test_strength_is_in_standard_deviations_of_the_projection():
    z, labels, subjects = cohort()
    direction = Direction.of(z, table_of(labels, subjects), "label")
    assert direction.project(z).std() == pytest.approx(1)
    moved = direction.move(z, np.full(len(z), 2.0))
    np.testing.assert_allclose(direction.project(moved) - direction.project(z), 2, atol=1e-5)
    np.testing.assert_array_equal(direction.move(z[:3], np.zeros(3)), z[:3].astype(np.float32))


def test_a_direction_comes_back_from_its_file(tmp_path):
    z, labels, subjects = cohort()
    table = table_of(labels, subjects, age=np.arange(len(z)))
    made = Direction.of(z, table, "label", adjust=("age",), source="a run")
    made.save(tmp_path / "new" / "label.json")
    read = Direction.load(tmp_path / "new" / "label.json")
    np.testing.assert_array_equal(read.vector, made.vector)
    assert (read.name, read.spread, read.adjusted_for, read.source) == (
        "label",
        made.spread,
        ("age",),
        "a run",
    )
    assert read.images == (labels.sum(), (~labels).sum()) and sum(read.subjects) == 120
    (tmp_path / "bad.json").write_text('{"name": "x"}')
    with pytest.raises(ValueError, match=r"bad\.json cannot be read as a direction"):
        Direction.load(tmp_path / "bad.json")


@pytest.mark.parametrize("dtype", ["boolean", "Int32", "float64"])
def test_rows_without_a_label_are_left_out(dtype):
    z, labels, subjects = cohort(20)
    table = table_of(pd.array(labels.astype(int), dtype=dtype), subjects, age=np.arange(len(z)))
    table.loc[[0, 1, 7], "label"] = pd.NA if dtype != "float64" else np.nan
    kept = table["label"].notna().to_numpy()
    found = Direction.of(z, table, "label", "fisher", adjust=("age",))
    expected = Direction.of(
        z[kept], table[kept].astype({"label": bool}), "label", "fisher", adjust=("age",)
    )
    np.testing.assert_array_equal(found.vector, expected.vector)
    assert found.spread == expected.spread
    assert sum(found.images) == 37 and sum(found.subjects) == 19
    with pytest.raises(ValueError, match=r"3 of 40 labels are missing.*notna"):
        directions.evidence(z, table["label"], subjects)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vector", [0.6, float("nan"), 0.8], "finite"),
        ("vector", [0.6, float("inf"), 0.8], "finite"),
        ("vector", [[0.6, 0.8]], "one row"),
        ("spread", 0.0, "spread = 0.0"),
        ("spread", -1.0, "spread = -1.0"),
        ("spread", float("nan"), "spread = nan"),
        ("spread", float("inf"), "spread = inf"),
    ],
)
def test_a_file_that_cannot_move_an_image_is_refused(tmp_path, field, value, message):
    path = tmp_path / "label.json"
    Direction("label", AXIS, spread=0.5).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=rf"label\.json cannot be read.*{message}"):
        Direction.load(path)


def test_cosines_of_known_vectors():
    table = directions.cosines({"a": np.array([1.0, 0]), "b": np.array([0.6, 0.8])})
    np.testing.assert_allclose(table, [[1, 0.6], [0.6, 1]])
    assert list(table.index) == list(table.columns) == ["a", "b"]


def test_a_column_to_adjust_for_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no column 'Patient Age' to adjust for; there are: age"):
        directions.design(pd.DataFrame({"age": [1.0, 2.0]}), ["Patient Age"])


# --- evidence ---


def test_auc_is_that_of_scikit_learn_ties_and_repeated_rows_included():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 8, 60), random.uniform(size=60) < 0.4
    counts = random.integers(0, 4, (60, 5))
    for column in counts.T:
        value = directions.auc_within(np.repeat(scores, column), np.repeat(labels, column))
        assert value == pytest.approx(roc_auc_score(labels, scores, sample_weight=column))
    assert np.isnan(directions.auc_within(scores, np.zeros(60, bool)))


def test_auc_never_compares_two_folds():
    scores = np.array([0.0, 1.0, 100.0, 101.0])
    labels, folds = np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1])
    assert directions.auc_within(scores, labels, folds) == 1.0
    assert directions.auc_within(scores, labels) == 0.75


def test_thirds_are_of_what_has_the_label():
    sizes = np.array([1, 2, 3, 4, 5, 6, 0, 0], float)
    scores = np.array([0, 0, 1, 2, 3, 3, 1, 1], float)
    found = directions.auc_by_third(scores, sizes > 0, sizes)
    assert found == [0.0, 0.75, 1.0]


def test_folds_keep_subjects_together_and_do_not_look_at_labels():
    _, _, subjects = cohort(31, images=3)
    folds = directions.deal(subjects, 5, seed=1)
    assert all(len(set(folds[subjects == each])) == 1 for each in range(31))
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 3
    with pytest.raises(ValueError, match="3 subjects cannot fill 5 folds"):
        directions.deal(np.arange(3), 5)


def test_permuted_labels_keep_their_subjects_and_the_sizes_of_them():
    groups = np.array([0, 1, 1, 2, 3, 3, 4])
    labels = np.array([1, 1, 0, 0, 0, 0, 0], bool)
    pairs, singles = set(), set()
    for seed in range(40):
        mixed = directions.permuted(labels, groups, np.random.default_rng(seed))
        pairs.add((tuple(mixed[groups == 1]), tuple(mixed[groups == 3])))
        singles.add(int(np.flatnonzero(mixed[[0, 3, 6]])[0]))
        assert mixed.sum() == 2
    on, off = (True, False), (False, False)
    assert pairs == {(on, off), (off, on)} and singles == {0, 1, 2}


@pytest.mark.parametrize("method", directions.METHODS)
def test_a_real_effect_is_established_at_its_true_size(method):
    z, labels, subjects = cohort(effect=1.5)
    found = directions.evidence(z, labels, subjects, method, bootstraps=60, permutations=49)
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
        found.append(
            directions.evidence(z, coins[subjects], subjects, permutations=199, bootstraps=100)
        )
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 17
    assert stats.kstest([each.p_value for each in found], "uniform").pvalue > 0.01


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("method", ["mean", "fisher"])
def test_a_label_that_only_goes_with_age_is_not_found_beside_age(method, curved):
    """Of 40 cohorts 2 are expected below 0.05; more than 6 have a probability of 1 in 300."""
    found = [
        directions.evidence(z, labels, subjects, method, covariates, 5, 20, 59, halves=1)
        for z, labels, subjects, covariates in (confounded(seed, 0.0, curved) for seed in range(40))
    ]
    assert sum(each.p_value < 0.05 for each in found) <= 6
    assert sum(each.established for each in found) <= 2
    assert abs(np.mean([each.auc for each in found]) - 0.5) < 0.05
    plain = [
        directions.evidence(*confounded(seed, 0.0, curved)[:3], method, None, 5, 20, 59, halves=1)
        for seed in range(5)
    ]
    assert sum(each.p_value < 0.05 for each in plain) >= 3


@pytest.mark.parametrize("method", directions.METHODS)
def test_an_effect_beside_age_is_established(method):
    z, labels, subjects, covariates = confounded(0, effect=2.0, n_subjects=120)
    found = directions.evidence(z, labels, subjects, method, covariates, 5, 30, 29)
    assert found.established and found.p_value == 1 / 30


@pytest.mark.parametrize("method", directions.METHODS)
def test_what_is_linear_in_the_covariates_changes_nothing(method):
    """The latents may depend on age by any amount; each fold has its own encoder."""
    z, labels, subjects, covariates = confounded(3, effect=0.5)
    z = np.stack([z, -z, z])
    folds = directions.deal(subjects, 3)
    slopes = np.random.default_rng(0).normal(size=(3, covariates.shape[1], 6))
    one, other = (
        directions.evidence(each, labels, subjects, method, covariates, folds, 20, 30, halves=2)
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
        found = directions.evidence(z, labels, subjects, "mean", covariates, 5, 2, 59, halves=1)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.15 and np.mean(p_values) > 0.35


def test_two_subjects_give_numbers_and_a_caution():
    z, _, subjects = cohort(60, images=2, effect=0.0)
    folds = subjects % 5
    found = directions.evidence(z, subjects < 2, subjects, folds=folds, permutations=49)
    assert 0 <= found.auc <= 1 and 0 < found.p_value <= 1 and np.isfinite(found.stability)
    assert np.isnan(found.low) and np.isnan(found.high) and not found.established
    assert "too few subjects with the label" in found.caution
    assert "no interval" in str(found) and "nan" not in str(found)
    with pytest.raises(ValueError, match=r"not all in one fold"):
        directions.evidence(z, np.isin(subjects, (0, 5)), subjects, folds=folds)
    with pytest.raises(ValueError, match="use fewer folds"):
        directions.evidence(z, subjects < 30, subjects, folds=60)


def test_what_cannot_be_computed_establishes_nothing():
    z, labels, subjects = cohort(effect=3.0)
    found = directions.evidence(z, labels, subjects, permutations=99, bootstraps=50, halves=2)
    assert found.established
    for unknown in ({"p_value": np.nan}, {"low": np.nan, "high": np.nan}):
        assert not found._replace(**unknown).established
    text = str(found._replace(stability=np.nan))
    assert "no split-half cosine" in text and "too few to fit a direction" in text
    none = directions.evidence(z, labels, subjects, permutations=1, bootstraps=0, halves=0)
    assert np.isnan(none.low) and np.isnan(none.stability) and "nan" not in str(none)


def test_an_interval_needs_nearly_all_of_its_draws():
    drawn = np.random.default_rng(0).uniform(0.4, 0.6, 100)
    drawn[:5] = np.nan
    assert np.isfinite(directions._interval(0.5, drawn)).all()
    drawn[5] = np.nan
    assert np.isnan(directions._interval(0.5, drawn)).all()


def test_too_few_positives_are_said():
    z, _, subjects = cohort(60, images=1, effect=0.0)
    found = directions.evidence(z, subjects < 6, subjects, permutations=49, bootstraps=100)
    assert "only 6 subjects have the label" in found.caution and found.caution in str(found)
    with pytest.raises(ValueError, match="several subjects"):
        directions.evidence(z, subjects < 1, subjects)


def test_latents_of_every_fold_are_used_for_that_fold():
    z, labels, subjects = cohort(effect=3.0)
    folds = directions.deal(subjects, 4)
    turned = np.stack([z * sign for sign in (1, -1, 1, -1)])  # another encoder, another latent
    one = directions.evidence(z, labels, subjects, folds=folds, permutations=1)
    many = directions.evidence(turned, labels, subjects, folds=folds, permutations=1)
    assert many.auc == one.auc
    with pytest.raises(ValueError, match="3 arrays of latents for 4 folds"):
        directions.evidence(turned[:3], labels, subjects, folds=folds)


# --- images ---


def linear_decoder(z):
    """Four pixels; the second depends only on AXIS."""
    weights = tf.constant([[1.0, 0.6, 0, 0], [0, 0, 1.0, 0], [0, -0.8, 0, 1.0]])
    return tf.reshape(z @ weights, (-1, 2, 2, 1))


def test_a_sweep_of_a_linear_decoder_is_known():
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    direction = Direction("x", AXIS, spread=0.5)
    images = directions.sweep(linear_decoder, z, direction, [0, 1, 2])
    assert images.shape == (3, 5, 2, 2, 1)
    np.testing.assert_allclose(images[0], linear_decoder(z), atol=1e-6)
    steps = np.diff(images[:, :, 0, 1, 0], axis=0)
    np.testing.assert_allclose(steps, 0.5, atol=1e-6)  # spread x |AXIS|^2


def test_dose_response_of_a_known_judge():
    images = np.arange(3.0)[:, None, None, None, None] * np.array([1.0, 3.0])[:, None, None, None]
    response = directions.dose_response(images, lambda part: part.sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(response["mean"], [0, 2, 4])
    np.testing.assert_allclose(response["standard_error"], [0, 1, 2])


def test_latent_shift_climbs_the_judges_gradient():
    z = np.zeros((2, 3), np.float32)
    images, gradients = directions.latent_shift(
        linear_decoder, lambda made: made[:, 0, 1, 0], z, [0.0, 2.0]
    )
    np.testing.assert_allclose(gradients, [AXIS, AXIS], atol=1e-6)
    np.testing.assert_allclose(images[1, :, 0, 1, 0], 2.0, atol=1e-6)
    np.testing.assert_allclose(images[0], linear_decoder(z))


def test_energy_inside_a_mask_and_its_margin():
    change = np.zeros((1, 9, 9, 1))
    change[0, 4, 4], change[0, 4, 6], change[0, 0, 0] = 3.0, 4.0, 5.0
    mask = np.zeros((1, 9, 9, 1), bool)
    mask[0, 4, 4] = True
    assert directions.inside(change, mask, margin=0)[0] == pytest.approx(9 / 50)
    assert directions.inside(change, mask, margin=2)[0] == pytest.approx(25 / 50)


def test_alike_is_a_correlation_per_image():
    truth = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    change = truth * np.array([2.0, -1.0, 1.0])[:, None, None, None] + 5
    np.testing.assert_allclose(directions.alike(change, truth), [1, -1, 1])


# --- a direction that is fitted already ---------------------------------------------------------


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
    found = directions.confirm(direction, known, new, bootstraps=200, permutations=199)
    assert found.auc == directions.auc_within(direction.project(new[0]), new[1])
    assert found.established and 0.5 < found.low < found.auc < found.high < 1
    assert found.subjects == (20, 40) and found.images == (40, 80) and found.stability > 0.5
    # Labels of the test subjects are coins: in about 5 % of cohorts p is below 0.05.
    p_values, covered = [], []
    for seed in range(200):
        empty = seen_twice(100 + seed, 0.0)
        each = directions.confirm(direction, known, empty, 60, 99, 0)
        p_values.append(each.p_value)
        covered.append(each.low <= 0.5 <= each.high)
    assert 0.005 < np.mean(np.array(p_values) < 0.05) < 0.12
    assert 0.88 < np.mean(covered) <= 1.0


def test_missing_labels_of_the_test_subjects_are_refused():
    known, (z, labels, subjects, _) = seen_twice(0, 1.5), seen_twice(1, 1.5)
    some = pd.Series(labels, dtype="boolean").mask(subjects == 0)
    with pytest.raises(ValueError, match="2 of 120 labels are missing"):
        directions.confirm(fitted_on(known), known, (z, some, subjects, None))


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
        raw += directions.confirm(direction, known, (*new[:3], None), 2, 59, 0).p_value < 0.05
        p_values.append(directions.confirm(direction, known, new, 2, 59, 0).p_value)
    assert raw > 60  # without the adjustment nearly always
    assert np.mean(np.array(p_values) < 0.05) < 0.13
