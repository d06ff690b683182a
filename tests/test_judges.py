"""Classifiers and regressors: their quality is measured, and limits their conclusions."""

import math
import re
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

import config
import data
import train
from analysis import judges
from analysis.judges import Judge
from families import registry
from nn import losses, networks


def test_the_judge_reads_held_out_digits_and_comes_from_the_cache_the_second_time(
    tmp_path, monkeypatch
):
    images = data.load(config.settings("digits"))
    options = {"steps": 120, "widths": (16, 32), "cache": tmp_path}
    judge = judges.judge(images, seed=0, **options)
    assert judge.accuracy > 0.9 and judge.n == len(images.test)
    assert math.isnan(judge.auc) and not judge.trusted  # ten classes have no AUC
    as_floats = judge.labels(images.test.images / 255.0)
    np.testing.assert_array_equal(as_floats, judge.labels(images.test.images))
    np.testing.assert_allclose(
        judge.probabilities(images.test.images[:5]).sum(axis=1), 1, rtol=1e-5
    )

    def forbidden(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(judges, "_judged", forbidden)
    assert judges.judge(images, seed=0, **options).accuracy == judge.accuracy
    with pytest.raises(AssertionError, match="trained again"):
        judges.judge(images, seed=1, **options)


def test_a_damaged_judge_is_trained_again(spots, tmp_path, capsys):
    options = {"steps": 5, "widths": (4,), "cache": tmp_path}
    judge = judges.judge(spots, **options)
    (kept,) = tmp_path.glob("*.weights.h5")
    content = bytearray(kept.read_bytes())
    content[-50] ^= 1
    for damaged in (bytes(content), content[:100]):
        kept.write_bytes(damaged)
        again = judges.judge(spots, **options)
        assert "is damaged; the network is trained again" in capsys.readouterr().out
        np.testing.assert_array_equal(
            again.outputs(spots.test.images), judge.outputs(spots.test.images)
        )


def test_a_judge_of_two_classes_tells_its_auc(spots, tmp_path):
    judge = judges.judge(spots, steps=150, widths=(8,), cache=tmp_path)
    truth = spots.test.labels("half")
    scores = judge.probabilities(spots.test.images)[:, 1]
    assert judge.auc == pytest.approx(roc_auc_score(truth, scores)) and judge.auc > 0.9
    np.testing.assert_allclose(judge.values(spots.test.images), np.log(scores / (1 - scores)), 1e-2)
    assert judge.trusted


def test_a_gauge_reads_a_number_in_its_own_unit(spots, tmp_path):
    for split in spots.splits.values():
        rows = np.arange(12)[:, None]
        weight = split.images[..., 0] / split.images[..., 0].sum(axis=(1, 2), keepdims=True)
        split.table["height"] = 1000 + 50 * (weight * rows).sum(axis=(1, 2))
    gauge = judges.gauge(spots, "height", steps=200, widths=(8,), cache=tmp_path)
    truth, read = spots.test.table["height"], gauge.values(spots.test.images)
    assert gauge.correlation == pytest.approx(np.corrcoef(truth, read)[0, 1])
    assert gauge.trusted and np.abs(read - truth).mean() < 0.5 * truth.std()
    again = judges.gauge(spots, "height", steps=200, widths=(8,), cache=tmp_path)
    np.testing.assert_array_equal(again.values(spots.test.images), read)


def test_conclusions_follow_the_curve_and_its_judge():
    rising = pd.DataFrame({"mean": [0.0, 1.0, 3.0], "standard_error": [0.0, 0.1, 0.2]})
    good, poor = Judge(None, 9, auc=0.9), Judge(None, 9, auc=0.7)
    said = judges.conclusion(good, rising, "hernia")
    assert said == "hernia rises by 3 (standard error 0.2), at every step"
    assert "falls" in judges.conclusion(good, rising.assign(mean=[0.0, -1.0, -3.0]), "hernia")
    assert "not steadily" in judges.conclusion(good, rising.assign(mean=[0.0, 4.0, 3.0]), "x")
    assert "no significant change" in judges.conclusion(
        good, rising.assign(mean=[0.0, 0.1, 0.2]), "x"
    )
    assert judges.conclusion(poor, rising, "hernia") == (
        "no conclusion: the network's own held-out AUC is 0.70, under 0.8"
    )
    weak = Judge(None, 9, correlation=0.5)
    assert "correlation is 0.50" in judges.conclusion(weak, rising, "hernia")


# --- feature maps for a perceptual loss ----------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Networks of a few steps, cached in the test's own folder."""
    classifier = judges.classifier
    options = {"steps": 20, "widths": (4, 8), "cache": tmp_path}
    monkeypatch.setattr(
        judges, "classifier", lambda *given, **named: classifier(*given, **named | options)
    )


def test_a_perceptual_loss_enters_training_with_its_weight(quick, spots, tiny, tmp_path):
    settings = tiny(perceptual="classifier", perceptual_weight=30.0)
    model = registry.from_settings(settings)
    history = train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    assert (history["perceptual"] > 0).all() and (history["val_perceptual"] > 0).all()
    result = model.forward(spots.test.images[:8], training=False, step=0)
    maps = model.perceptual(result.images), model.perceptual(tf.sigmoid(result.logits))
    assert [each.shape[-1] for each in maps[0]] == [4, 8]
    expected = 30.0 * losses.perceptual(*maps)
    np.testing.assert_allclose(model.objective(result)["perceptual"], expected, rtol=1e-5)
    assert "perceptual" not in train.load(tmp_path / "run").objective(result)


def test_a_classifier_without_a_label_is_refused_by_name(spots, tiny):
    with pytest.raises(ValueError, match="perceptual_label.*column"):
        judges.feature_maps(spots, tiny(perceptual="classifier", perceptual_label="age"))


def test_vgg16_sees_grey_images_as_colours_and_says_where_its_weights_are_missing(
    spots, tiny, monkeypatch, tmp_path
):
    settings = tiny(perceptual="vgg16", image_shape=(32, 32, 1))
    plain = keras.applications.VGG16(weights=None, include_top=False)
    monkeypatch.setattr(keras.applications, "VGG16", lambda **options: plain)
    maps = judges.feature_maps(spots, settings)(tf.fill((2, 32, 32, 1), 0.5))
    assert [each.shape[1:] for each in maps] == [(32, 32, 64), (16, 16, 128), (8, 8, 256)]

    def offline(**options):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(OSError, match="vgg16.*ImageNet weights.*classifier"):
        judges.feature_maps(spots, settings)
    with pytest.raises(OSError, match="there is no such file; give Keras' file vgg16_weights"):
        judges.feature_maps(spots, replace(settings, perceptual_file=str(tmp_path / "none.h5")))
    (tmp_path / "other.h5").write_bytes(b"no weights")
    with pytest.raises(OSError, match="does not contain VGG16's weights without the top"):
        judges.feature_maps(spots, replace(settings, perceptual_file=str(tmp_path / "other.h5")))


def test_a_class_that_no_training_image_has_is_counted(spots, tmp_path):
    labels = spots.validation.table["half"].to_numpy().copy()
    labels[:3] = 2
    table = spots.validation.table.assign(half=labels)
    some = replace(spots, validation=replace(spots.validation, table=table))
    judge = judges.judge(some, steps=5, widths=(4,), cache=tmp_path)
    assert judge.probabilities(spots.test.images).shape[1] == 3


def test_a_settled_classifier_ends_early_and_shows_how_far_it_is(spots, tmp_path, capsys):
    options = {"steps": 4000, "widths": (4,), "cache": tmp_path, "patience": 2, "told": True}
    judges.classifier(spots, **options)
    said = capsys.readouterr().out.split("\r")[-1]
    assert said.startswith("network of half: epoch ")
    done, total = re.match(r"network of half: epoch (\d+) of (\d+)", said).groups()
    assert int(done) < int(total) / 10


def test_maps_of_a_layer_that_is_not_there_are_refused_with_those_that_are():
    with pytest.raises(ValueError, match="no layer 'pool'; it has .*features"):
        networks.maps(networks.classifier((8, 8, 1), 2), ["pool"])


def test_images_without_a_label_are_left_out_of_a_judge(spots, tmp_path):
    def hiding(split):
        labels = split.table["half"].astype("Int32")
        labels[np.arange(len(labels)) % 3 == 0] = None
        return replace(split, table=split.table.assign(half=labels))

    some = replace(spots, **{name: hiding(split) for name, split in spots.splits.items()})
    judge = judges.judge(some, steps=150, widths=(8,), cache=tmp_path)
    known = some.test.labels("half") >= 0
    right = judge.labels(some.test.images)[known] == some.test.labels("half")[known]
    assert judge.n == known.sum() and judge.accuracy == pytest.approx(right.mean())
    none = replace(some.validation, table=some.validation.table.assign(half=pd.NA))
    with pytest.raises(ValueError, match="no validation image has a value in 'half'"):
        judges.judge(replace(some, validation=none), cache=tmp_path)


def test_a_perceptual_classifier_does_not_see_the_test_split(spots, tiny, tmp_path, monkeypatch):
    classifier = judges.classifier
    monkeypatch.setattr(
        judges,
        "classifier",
        lambda *given, **named: classifier(*given, **named, steps=5, widths=(4,), cache=tmp_path),
    )
    unread = replace(spots, test=replace(spots.test, images=None))
    with pytest.raises(TypeError):
        judges.judge(unread, steps=5, widths=(4,), cache=tmp_path)
    assert judges.feature_maps(unread, tiny(perceptual="classifier")) is not None
