"""Directions: correct results for known truths, and no effect for random labels."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.base import BaseEstimator
from sklearn.covariance import empirical_covariance, shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from analysis import directions, evidence
from analysis.directions import Direction
from cohorts import AXIS, cohort


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
    gap = pd.DataFrame({"sex": pd.array(["F", "M", None, "M"], dtype=object)})
    assert directions.design(gap, ["sex"]).tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]
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
    made.save(tmp_path / "own.json", "abc")
    for weights in (None, "abc"):
        assert Direction.load(tmp_path / "own.json", 3, weights).name == "label"
    with pytest.raises(ValueError, match="own.json was fitted on other weights than the run's"):
        Direction.load(tmp_path / "own.json", 3, "abd")
    Direction.load(tmp_path / "new" / "label.json", 3, "abd")  # does not say whose it is
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
        evidence.of(z, table["label"], subjects)


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
