"""Features without labels: the same everywhere, and they notice what is missing from a set."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from analysis import features
from nn import metrics, networks
from sources import phantoms

COUNT = 1500


def chests(seed, **fixed):
    """Phantoms at 32x32, with the given factors the same in all of them."""
    factors = phantoms.chest_factors(COUNT, 1, seed)
    for name, value in fixed.items():
        factors[name] = factors[name].mean() if value is None else value
    return phantoms.render_chests(factors, 32).reshape(COUNT, 32, 32, 1)


@pytest.fixture(scope="module")
def reference():
    return chests(0)


@pytest.fixture(scope="module")
def measure(reference):
    """Frechet distance of images from other complete phantoms, in units of two complete sets'."""
    untrained = features.Untrained(reference)
    others = untrained(chests(1))
    one = metrics.frechet_distance(others, untrained(chests(2)))
    return lambda images: metrics.frechet_distance(others, untrained(images)) / one


@pytest.mark.parametrize("factor", ("heart", "lungs", "wide", "breath", "exposure", "tilt", "x"))
def test_a_factor_that_does_not_vary_is_noticed_without_labels(measure, factor):
    assert measure(chests(3, **{factor: None})) > 1.5


def test_missing_hernias_and_blur_are_noticed_without_labels(measure):
    assert measure(chests(3, hernia_size=0.0)) > 1.15
    blurred = ndimage.gaussian_filter(chests(3).astype(np.float32), (0, 0.7, 0.7, 0))
    assert measure(blurred.astype(np.uint8)) > 4


def test_untrained_features_are_white_over_the_references_and_the_same_every_time(reference):
    untrained = features.Untrained(reference, units=16)
    found = untrained(reference)
    assert found.shape == (COUNT, 16) and found.dtype == np.float32
    np.testing.assert_allclose(np.cov(found.T), np.eye(16), atol=0.02)
    again = features.Untrained(reference, units=16)
    np.testing.assert_allclose(again(reference[:9]), found[:9], atol=1e-3)
    np.testing.assert_allclose(again(reference[:9] / np.float32(255)), found[:9], atol=1e-3)
    other = features.Untrained(reference, units=16, seed=1)
    assert np.abs(other(reference[:9]) - found[:9]).max() > 0.1


@pytest.mark.parametrize("shape", ((8, 8, 1), (28, 28, 1), (20, 72, 3), (160, 160, 1)))
def test_untrained_features_take_images_of_any_size_few_and_flat_ones_too(shape):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, *shape)).astype(np.uint8)
    assert features.Untrained(images)(images).shape == (9, 8)
    flat = np.zeros((9, *shape), np.uint8)
    assert np.isfinite(features.Untrained(flat)(flat)).all()
    sides = networks.untrained(shape).layers[-2].output.shape[1:3]
    assert 3 <= min(sides) <= 5


def test_of_many_reference_images_some_are_drawn(reference, monkeypatch):
    monkeypatch.setattr(features, "PIXELS", 100 * 32 * 32)
    seen = []
    through = features.through
    monkeypatch.setattr(
        features,
        "through",
        lambda network, images: seen.append(images) or through(network, images),
    )
    features.Untrained(reference)
    (drawn,) = seen
    assert len(drawn) == 100 and (drawn != reference[:100]).any()


def test_inception_sees_colours_of_its_own_size_and_refuses_what_is_not_its_weights(
    spots, tmp_path, monkeypatch
):
    seen = []

    def network(pixels, training):
        seen.append(pixels)
        return tf.reduce_mean(pixels, axis=(1, 2))

    monkeypatch.setattr(keras.applications, "InceptionV3", lambda **options: network)
    weights = tmp_path / "weights.h5"
    with pytest.raises(OSError, match="weights.h5 is missing"):
        features.inception(weights)
    weights.write_bytes(b"")
    found = features.inception(weights)(spots.test.images)
    assert seen[0].shape[1:] == (299, 299, 3)
    means = spots.test.images.mean((1, 2)) / 127.5 - 1  # from -1, black, to 1
    np.testing.assert_allclose(found, means.repeat(3, axis=1), atol=0.02)

    def other(**options):
        raise ValueError("Layer count mismatch")

    monkeypatch.setattr(keras.applications, "InceptionV3", other)
    with pytest.raises(OSError, match="does not contain InceptionV3's weights"):
        features.inception(weights)
