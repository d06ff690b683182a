"""Counterfactuals: what is changed, what stays, and measures of both."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import special, stats

from analysis import counterfactual
from families import registry
from sources.conditions import Conditions


class Painter:
    """A conditional model that is right: an image is its latent's level plus its condition's."""

    def encode(self, images, conditions):
        level = tf.reduce_mean(images, axis=(1, 2, 3))[:, None] - conditions[:, :1]
        return level, tf.zeros_like(level)

    def decode(self, z, conditions):
        level = z + conditions[:, :1]
        return level[..., None, None] * tf.ones((1, 4, 4, 1))


class Forgetful(Painter):
    """One that loses half of the latent's level."""

    def decode(self, z, conditions):
        return super().decode(0.5 * z, conditions)


@pytest.fixture
def images():
    levels = np.random.default_rng(0).uniform(0.3, 0.6, 10)
    return (levels[:, None, None, None] * np.ones((1, 4, 4, 1))).astype(np.float32)


@pytest.fixture
def told():
    before = np.zeros((10, 1), np.float32)
    return before, before + np.float32(0.2)


def test_a_change_sets_a_value_or_adds_to_a_number_and_leaves_the_rest():
    table = pd.DataFrame({"age": [40.0, 60.0], "sex": ["F", "M"], "Hernia": [False, True]})
    made = counterfactual.changed(table, {"age": "+10", "Hernia": True})
    assert list(made["age"]) == [50.0, 70.0] and list(made["Hernia"]) == [True, True]
    assert list(made["sex"]) == ["F", "M"] and list(table["age"]) == [40.0, 60.0]
    assert list(counterfactual.changed(table, {"age": "-2.5"})["age"]) == [37.5, 57.5]
    assert list(counterfactual.changed(table, {"age": 33})["age"]) == [33, 33]
    with pytest.raises(ValueError, match="no column 'weight' to change; there are: age, sex"):
        counterfactual.changed(table, {"weight": 3})
    with pytest.raises(ValueError, match=r"sex = \+1: nothing can be added.* in 2 of 2 rows"):
        counterfactual.changed(table, {"sex": "+1"})
    with pytest.raises(ValueError, match="in 1 of 2 rows; give the number itself"):
        counterfactual.changed(table.assign(age=[40.0, np.nan]), {"age": "+10"})


def test_a_model_that_is_right_makes_the_change_that_was_asked_for(images, told):
    kept, made = counterfactual.decoded(Painter(), images, *told)
    np.testing.assert_allclose(kept, images, atol=1e-6)
    np.testing.assert_allclose(made, images + 0.2, atol=1e-6)
    np.testing.assert_allclose(counterfactual.composition(Painter(), images, told[0]), 0, atol=1e-6)
    np.testing.assert_allclose(counterfactual.reversibility(Painter(), images, *told), 0, atol=1e-6)

    def gauge(images):
        return images.mean(axis=(1, 2, 3))

    asked = gauge(images) + 0.25
    found = counterfactual.effectiveness(gauge, made, asked)
    np.testing.assert_allclose(found, 0.05, atol=1e-6)


def test_what_a_model_loses_is_in_the_composition_and_not_in_the_image_with_the_change(
    images, told
):
    levels = images.mean(axis=(1, 2, 3))
    lost = counterfactual.composition(Forgetful(), images, told[0])
    np.testing.assert_allclose(lost, 0.5 * levels, atol=1e-6)
    twice = counterfactual.composition(Forgetful(), images, told[0], rounds=2)
    np.testing.assert_allclose(twice, 0.75 * levels, atol=1e-6)
    kept, made = counterfactual.decoded(Forgetful(), images, *told)
    np.testing.assert_allclose(counterfactual.added(images, kept, made), images + 0.2, atol=1e-6)
    # Back: 0.5 (0.5 z + 0.2 - 0.2) = 0.25 z, where the reconstruction is 0.5 z.
    back = counterfactual.reversibility(Forgetful(), images, *told)
    np.testing.assert_allclose(back, 0.25 * levels, atol=1e-6)


def test_a_leak_is_found_where_there_is_one_also_a_curved_one_and_not_where_there_is_none():
    random = np.random.default_rng(0)
    z = random.normal(size=(2000, 4))
    subjects = np.arange(2000) // 2

    def measured(labels):
        half = slice(1000), slice(1000, 2000)
        return counterfactual.leak(
            (z[half[0]], labels[half[0]]), (z[half[1]], labels[half[1]], subjects[half[1]])
        )

    straight, curved = measured(z[:, 1] > 0), measured(np.abs(z[:, 2]) > 0.7)
    assert straight.auc > 0.98 and straight.low > 0.95
    assert curved.auc > 0.95  # no straight line tells it
    none = measured(random.uniform(size=2000) < 0.5)
    assert none.low < 0.53 and none.auc < 0.6 and str(none).startswith("AUC 0.5")
    with pytest.raises(ValueError, match="training rows all have the same label"):
        measured(np.arange(2000) >= 1000)


def test_yes_and_no_may_be_told_as_one_and_zero():
    table = pd.DataFrame({"Hernia": [False, True, True]})
    known = Conditions.learn(table, ("Hernia",))
    for values in ([0, 1, 1], [0.0, 1.0, 1.0], pd.array([False, True, True], "boolean")):
        np.testing.assert_array_equal(known(pd.DataFrame({"Hernia": values})), known(table))


def test_likelihoods_under_conditions_are_the_integral_over_the_latent(tiny, spots):
    settings = tiny(model="ConditionalVAE", conditions=("half",), latent_dim=1)
    model = registry.from_settings(settings, registry.conditions_of(settings, spots))
    random = np.random.default_rng(1)
    for network in (model.encoder, model.decoder):
        network.set_weights([random.normal(0, 0.2, each.shape) for each in network.get_weights()])
    choices = np.eye(3, dtype=np.float32)[:2]  # either half
    pixels = spots.test.images[:5]
    found = counterfactual.log_likelihoods(model, pixels, choices, draws=3000)
    assert found.shape == (5, 2)

    grid = np.linspace(-7, 7, 1401, dtype=np.float32)
    for number, choice in enumerate(choices):
        made = model.decode(grid[:, None], np.tile(choice, (len(grid), 1))).numpy()[:, None]
        known = pixels / np.float32(255)
        terms = known * np.log(made) + (1 - known) * np.log1p(-made)
        density = terms.sum(axis=(2, 3, 4)) + stats.norm.logpdf(grid)[:, None]
        exact = special.logsumexp(density, axis=0) + np.log(grid[1] - grid[0])
        np.testing.assert_allclose(found[:, number], exact, atol=0.2)
    assert np.abs(found[:, 0] - found[:, 1]).min() > 0.3  # more than the tolerance
