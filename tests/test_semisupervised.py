"""Models that learn from labels: their bounds are the paper's, and hidden labels are not read."""

import math

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats

import config
import data
import evaluate
import model as models
import train
from families import registry, semisupervised
from nn import losses, metrics
from sources import splits
from spots import SHAPE, blobs

KINDS = ("SemiSupervisedVAE", "M2")


@pytest.fixture
def made(tiny):
    """Makes a model of two classes whose latents are the posterior means: no noise to average."""

    def make(kind="M2", **changes):
        model = registry.from_settings(tiny(model=kind, classes=2, **changes))
        model.draw = lambda z_mean, z_log_var, key: z_mean
        return model

    return make


def floats(n=12):
    images, labels = blobs(n)
    return images / np.float32(255), labels


# --- terms ---------------------------------------------------------------------------------------


def test_a_missing_label_costs_nothing_and_a_known_one_its_log_probability():
    logits = tf.constant([[0.0, 1.0, 2.0]] * 3)
    shares = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    expected = [-np.log(shares[2]), 0.0, -np.log(shares[0])]
    found = losses.label_nll(tf.constant([2, -1, 0]), logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_kl_from_uniform_is_log_k_less_the_entropy():
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log(7) - stats.entropy(shares, axis=1)
    np.testing.assert_allclose(losses.kl_to_uniform(tf.constant(logits)), expected, rtol=1e-5)
    assert losses.kl_to_uniform(tf.constant([[1e4, 0.0]])).numpy()[0] == pytest.approx(math.log(2))


def test_the_diagonal_gaussian_is_scipys():
    x, mean, log_var = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    expected = -stats.norm(mean, np.exp(log_var / 2)).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(losses.diagonal_gaussian_nll(x, mean, log_var), expected, rtol=1e-5)


def test_calibration_is_zero_where_confidence_is_accuracy_and_one_where_all_is_wrong():
    half = np.tile([0.5 + 1e-9, 0.5 - 1e-9], (10, 1))
    error, table = metrics.calibration_error(half, np.arange(10) % 2)
    assert error == pytest.approx(0.0, abs=1e-6) and table["n"].sum() == 10
    sure = np.tile([1.0, 0.0], (10, 1))
    assert metrics.calibration_error(sure, np.ones(10, int))[0] == 1.0
    both = np.concatenate([half, sure])
    labels = np.concatenate([np.arange(10) % 2, np.ones(10, int)])
    assert metrics.calibration_error(both, labels)[0] == pytest.approx(0.5, abs=1e-6)


# --- the bounds ----------------------------------------------------------------------------------


def test_the_labelled_bound_is_equation_6(made):
    model, (images, labels) = made(), floats()
    distortion, rate = model.bound(model.forward((images, labels, images[:0]), True, 0))
    features, _ = model.encoder(images)
    z_mean, z_log_var = model.posterior([features, tf.one_hot(labels, 2)])
    logits = model.decoder(tf.concat([z_mean, tf.one_hot(labels, 2)], axis=1))
    np.testing.assert_allclose(distortion, losses.bernoulli_nll(images, logits), rtol=1e-5)
    kl = losses.kl_to_standard_normal(z_mean, z_log_var)
    np.testing.assert_allclose(rate, kl + math.log(2), rtol=1e-5)


def test_the_unlabelled_bound_is_equation_7(made):
    model, (images, _) = made(), floats()
    shares = model.classify(images).numpy()
    bounds = []
    for label in (0, 1):
        labels = np.full(len(images), label, np.int32)
        bounds.append(sum(model.bound(model.forward((images, labels, images[:0]), True, 0))))
    expected = (shares * np.stack(bounds, axis=1)).sum(axis=1) - stats.entropy(shares, axis=1)
    for batch, training in ((images, True), (images, False)):
        found = sum(model.bound(model.forward(batch, training, 0)))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_bound_is_no_better_than_the_best_class(made):
    model, (images, _) = made(), floats()
    bounds = [
        sum(model.bound(model.forward((images, np.full(12, y, np.int32), images[:0]), True, 0)))
        for y in (0, 1)
    ]
    # log p(x) >= -U(x), and U is at least -log sum_y exp(-L(x, y)), with equality for the best q.
    best = -np.logaddexp(-bounds[0], -bounds[1])
    assert np.all(sum(model.bound(model.forward(images, False, 0))) >= best - 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_says_what_the_same_images_with_missing_labels_say(kind, made):
    model, (images, labels) = made(kind), floats()
    mixed = (images[:4], labels[:4], images[4:])
    missing = (images, np.where(np.arange(12) < 4, labels, -1).astype(np.int32))
    first, second = (model.objective(model.forward(batch, True, 0)) for batch in (mixed, missing))
    assert set(first) == set(second) == {"reconstruction", "regularizer", "classification"}
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5)


def test_only_known_classes_are_tried_on_labelled_images(made):
    model, (images, labels) = made(), floats()
    result = model.forward((images[:4], labels[:4], images[4:]), True, 0)
    assert len(result.by_class.rows) == 4 + 2 * 8
    np.testing.assert_array_equal(result.by_class.classes[:4], labels[:4])
    np.testing.assert_array_equal(result.by_class.share[:4], np.ones(4))
    sums = np.bincount(result.by_class.rows, result.by_class.share)
    np.testing.assert_allclose(sums, 1.0, rtol=1e-6)
    assert result.z.shape == (12, 3) and result.logits.shape == (12, *SHAPE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_classification_is_a_mean_over_labelled_images(kind, made):
    model, (images, labels) = made(kind, class_weight=7.0), floats()
    few = np.where(np.arange(12) < 3, labels, -1).astype(np.int32)
    found = model.objective(model.forward((images, few), False, 0))["classification"]
    shares = model.classify(images[:3]).numpy()
    expected = -7.0 * np.log(shares[np.arange(3), labels[:3]]).mean()
    assert float(found) == pytest.approx(expected, rel=1e-4)
    none = np.full(12, -1, np.int32)
    assert model.objective(model.forward((images, none), False, 0))["classification"] == 0.0


def test_without_labels_a_semi_supervised_vae_is_a_vae(made, tiny):
    model, plain = made("SemiSupervisedVAE"), registry.from_settings(tiny())
    plain.draw = model.draw
    images, _ = floats()
    ours, theirs = (each.objective(each.forward(images, True, 0)) for each in (model, plain))
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_classifier_reads_the_mean_or_in_training_the_sample(tiny):
    images, labels = floats()
    read = {}
    for chosen in ("mean", "sample"):
        model = registry.from_settings(tiny(model="SemiSupervisedVAE", classify_from=chosen))
        for training in (True, False):
            result = model.forward((images, labels), training, 0)
            at_mean = model.classifier(result.z_mean).numpy()
            read[chosen, training] = np.allclose(model.class_logits(result), at_mean)
    assert read == {
        ("mean", True): True,
        ("mean", False): True,
        ("sample", True): False,
        ("sample", False): True,
    }


# --- few labels ----------------------------------------------------------------------------------


def test_hidden_labels_are_not_in_the_table_that_a_model_is_given():
    settings = config.Settings(labels_per_class=10)
    few, full = data.load(settings), data.load(config.Settings())
    known, truth = few.train.labels("digit"), full.train.labels("digit")
    np.testing.assert_array_equal(np.bincount(known[known >= 0]), np.full(10, 10))
    np.testing.assert_array_equal(known[known >= 0], truth[known >= 0])
    others = few.train.table.drop(columns="digit")
    assert all(others[column].nunique() == len(others) for column in others)  # names alone
    for split in ("validation", "test"):
        pd.testing.assert_frame_equal(few.splits[split].table, full.splits[split].table)
    again, another = (
        data.load(config.Settings(labels_per_class=10, label_seed=seed)).train.labels("digit")
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(known, again)
    assert np.any(known != another)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_the_same_to_the_bit_whatever_the_hidden_labels_are(
    kind, spots, tiny, tmp_path
):
    settings = tiny(model=kind, classes=2, epochs=1)
    few = splits.few_labels(spots, 8)
    weights = []
    for name in ("as they are", "all wrong"):
        model = registry.from_settings(settings)
        train.fit(model, few, settings, tmp_path / name, verbose=0)
        weights.append(model.get_weights())
        hidden = few.train.labels("half") < 0
        spots.train.table.loc[hidden, "half"] ^= 1  # in place, in what `few` was made from
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_more_labels_than_there_are_are_refused_by_the_class_name(spots):
    with pytest.raises(ValueError, match="labels_per_class = 1000, but the class 0 of spots has"):
        splits.few_labels(spots, 1000)


def numbered(n=30):
    """A split whose images encode their row number; some have a label."""
    rows = np.arange(n)
    labels = pd.array(np.where(rows % 4 == 0, rows % 3, -1), dtype="Int32")
    table = pd.DataFrame({"file": rows, "kind": labels}).assign(
        kind=lambda each: each["kind"].where(each["kind"] >= 0)
    )
    return splits.Split(np.tile(rows.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1)), table)


def taken(batches, steps):
    return [
        tuple(each.numpy().reshape(len(each), 4 if each.ndim == 4 else 1)[:, 0] for each in batch)
        for batch in batches.take(steps)
    ]


def test_mixed_batches_hold_the_stated_share_and_every_other_image_once_an_epoch():
    split = numbered()
    batches, steps = split.mixed_batches(8, "kind", share=0.25)
    assert steps == 22 // 6
    seen = taken(batches, steps)
    for known, labels, others in seen:
        assert len(known) == len(labels) == 2 and len(others) == 6
        assert not np.any(known % 4) and np.all(others % 4)
        np.testing.assert_array_equal(known % 3, labels)
    rows = [row for _, _, others in seen for row in others]
    assert len(rows) == len(set(rows)) == 18


def test_mixed_batches_go_on_where_an_interrupted_run_was():
    split = numbered()
    batches, steps = split.mixed_batches(8, "kind", share=0.25, seed=3)
    later, _ = split.mixed_batches(8, "kind", share=0.25, seed=3, first_epoch=2)
    for one, other in zip(
        taken(batches, 4 * steps)[2 * steps :], taken(later, 2 * steps), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))


def test_fewer_labels_than_the_share_asks_for_and_all_labels_both_work():
    split = numbered()
    batches, _ = split.mixed_batches(20, "kind", share=0.9)
    assert [len(each) for each in taken(batches, 1)[0]] == [8, 8, 12]
    known = split.only(split.labels("kind") >= 0)
    batches, steps = known.mixed_batches(4, "kind")
    assert steps == 2 and [len(each) for each in taken(batches, 1)[0]] == [4, 4, 0]
    with pytest.raises(ValueError, match="no image has a label in the column 'kind'"):
        split.only(split.labels("kind") < 0).mixed_batches(4, "kind")


# --- what they learn, and what users call --------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_eight_labels_a_class_tell_the_halves_apart(kind, spots, tiny, tmp_path):
    settings = tiny(
        model=kind, classes=2, epochs=25, learning_rate=1e-2, labels_per_class=8, class_widths=(16,)
    )
    images = splits.few_labels(spots, 8)
    model = registry.from_settings(settings)
    history = train.fit(model, images, settings, tmp_path / "run", verbose=0)
    assert {"accuracy", "classification", "val_accuracy"} <= set(history)
    shares = train.load(tmp_path / "run").classify(spots.test.images).numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert np.mean(shares.argmax(axis=1) == spots.test.labels("half")) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_generated_images_come_with_labels_and_depend_on_the_seed_alone(kind, made):
    model = made(kind)
    images, labels = model.generate(20, seed=1)
    assert images.shape == (20, *SHAPE) and set(labels) <= {0, 1}
    np.testing.assert_array_equal(images, model.generate(20, seed=1)[0])
    assert np.any(images != model.generate(20, seed=2)[0])
    one, label = model.generate(6, label=1)
    assert one.shape == (6, *SHAPE) and label.tolist() == [1] * 6


def test_a_generated_label_is_the_class_that_the_latent_lies_in(made):
    model = made("SemiSupervisedVAE", class_widths=())
    kernel = np.zeros((3, 2), np.float32)
    kernel[0, 1] = 4.0  # class 1 is where the first axis is positive
    model.classifier.set_weights([kernel, np.zeros(2, np.float32)])
    model.decode = lambda z: z
    z, labels = model.generate(200, confidence=0.8)
    np.testing.assert_array_equal(labels, z[:, 0] > 0)
    assert np.abs(z[:, 0]).min() >= np.log(4) / 4 - 1e-6
    with pytest.raises(ValueError, match=r"only 0 of 25600 draws .* any class .* 1\.1"):
        model.generate(5, confidence=1.1)


def test_one_style_is_drawn_in_every_class(made):
    model, (images, _) = made(), floats(3)
    drawn = model.in_every_class(images)
    assert drawn.shape == (3, 2, *SHAPE)
    z = model.encode(images)[0]
    for label in (0, 1):
        np.testing.assert_allclose(drawn[:, label], model.decode(z, [label] * 3), rtol=1e-5)


def test_m2_says_what_it_does_not_do(made, tiny):
    with pytest.raises(ValueError, match="pass one class per latent"):
        made().decode(np.zeros((1, 3), np.float32))
    model = made()
    with pytest.raises(ValueError, match="free_bits = 0.1 is not available for M2"):
        semisupervised.M2(model.encoder, model.posterior, model.decoder, free_bits=0.1)


def test_labels_that_do_not_fit_the_model_are_refused_before_training(spots, tiny, tmp_path):
    settings = tiny(model="M2", classes=2)
    three = spots.train.table.assign(half=np.arange(len(spots.train)) % 3)
    more = splits.ImageData(
        "spots", splits.Split(spots.train.images, three), spots.validation, spots.test, "half"
    )
    with pytest.raises(ValueError, match="are 0 to 2, and classes = 2; set classes = 3"):
        train.fit(registry.from_settings(settings), more, settings, tmp_path / "run")
    without = data.from_arrays(blobs()[0], name="spots")
    with pytest.raises(ValueError, match="M2 learns from labels, and spots has none"):
        train.fit(registry.from_settings(settings), without, settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_tells_accuracy_and_calibration_on_the_test_images(kind, made, spots):
    model = made(kind)
    numbers = evaluate.report(model, spots)
    shares = model.classify(spots.test.images).numpy()
    truth = spots.test.labels("half")
    right = np.mean(shares.argmax(axis=1) == truth)
    assert numbers["accuracy"]["value"] == pytest.approx(right)
    assert numbers["accuracy"]["n"] == len(truth)
    error, _ = metrics.calibration_error(shares, truth)
    assert numbers["calibration_error"]["value"] == pytest.approx(error)
    # The reported bound is the one over all classes, regardless of the labels.
    parts = model.bound(model.forward(spots.test.images, False, 0))
    assert numbers["rate"]["value"] == pytest.approx(np.mean(parts[1]), rel=1e-4)


# --- M1+M2 ---------------------------------------------------------------------------------------


@pytest.fixture
def stacked(tiny):
    """M1+M2 on an M1 with posteriors so narrow that a draw equals the mean."""
    m1 = registry.from_settings(tiny(learning_rate=1e-2))
    train.compile_model(m1, tiny(learning_rate=1e-2), steps=100)
    m1.fit(blobs(128)[0], batch_size=32, epochs=30, verbose=0, shuffle=False)
    kernel, _ = m1.encoder.get_layer("z_log_var").get_weights()
    m1.encoder.get_layer("z_log_var").set_weights([0 * kernel, np.full(3, -20.0)])
    return registry.on_latents(m1, classes=2, latent_dim=2, widths=(16,))


def test_m1m2_takes_images_and_their_posteriors_alike(stacked):
    images, labels = floats()
    posteriors = np.stack(stacked.m1.encode(images), axis=1)
    first, second = (
        stacked.objective(stacked.forward((each, labels), True, 0)) for each in (images, posteriors)
    )
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3)


def test_m1m2_learns_from_posteriors_and_leaves_m1_alone(stacked, tmp_path):
    images, labels = blobs(128)
    posteriors = np.stack(stacked.m1.encode(images), axis=1)
    before = stacked.m1.get_weights()
    few = pd.array(np.where(np.arange(128) < 32, labels, -1), dtype="Int32")
    table = pd.DataFrame({"file": np.arange(128), "half": few})
    table["half"] = table["half"].where(table["half"] >= 0)
    batches, steps = splits.Split(posteriors, table).mixed_batches(32, "half")
    stacked.compile(keras.optimizers.Adam(1e-2))
    stacked.fit(batches, steps_per_epoch=steps, epochs=40, verbose=0, shuffle=False)
    for first, second in zip(before, stacked.m1.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.mean(stacked.classify(images).numpy().argmax(axis=1) == labels) >= 0.9
    made, classes = stacked.generate(6)
    assert made.shape == (6, *SHAPE) and classes.tolist() == [0, 1] * 3
    assert stacked.reconstruct(images[:4]).shape == (4, *SHAPE)
    stacked.save(tmp_path / "m1m2.keras")
    again = keras.models.load_model(tmp_path / "m1m2.keras")
    np.testing.assert_array_equal(again.classify(images), stacked.classify(images))
    assert isinstance(again.m1, models.VAE)
