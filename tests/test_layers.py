"""Our layers give the outputs and gradients of Keras', and drop the stated share."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nn import layers


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_the_slope_and_its_gradient_are_those_of_keras(kind, training):
    x = tf.cast(tf.constant([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0]), kind)
    theirs, ours = (of.LeakyReLU(0.2, dtype=kind) for of in (keras.layers, layers))
    found = []
    for layer in (theirs, lambda x: ours(x, training=training)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y * tf.cast(tf.range(1.0, 7.0), kind))
        found.append((y, tape.gradient(total, x)))
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(tf.cast(theirs, "float32"), tf.cast(ours, "float32"))


def convolved(called, x, layer=None):
    """A layer's output, and the gradients of a weighted sum of it."""
    layer = layer or called
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = called(x)
        weights = tf.reshape(tf.range(tf.size(y)), tf.shape(y))
        total = tf.reduce_sum(y * tf.cast(weights, y.dtype))
    return (y, *tape.gradient(total, [x, layer.kernel.value, layer.bias.value]))


@pytest.mark.parametrize(
    ("options", "other_ways"),
    [
        ({}, True),
        ({"kernel_size": 5}, True),
        ({"kernel_size": (1, 3)}, True),
        ({"kernel_size": 4}, False),
        ({"strides": 2}, False),
        ({"padding": "valid"}, False),
        ({"dilation_rate": 2}, False),
        ({"filters": 4}, False),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_to_few_channels_and_its_gradients_are_those_of_keras(
    channels, options, other_ways, monkeypatch
):
    taken, few = [], layers._few_channels
    monkeypatch.setattr(layers, "_few_channels", lambda *each: taken.append(1) or few(*each))
    options = {"filters": channels, "kernel_size": 3, "padding": "same"} | options
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 9, 12, 8)), tf.float32)
    theirs, ours = keras.layers.Conv2D(**options), layers.Conv2D(**options)
    for layer in (theirs, ours):
        layer.build(x.shape)
        layer.set_weights(theirs.get_weights())
    for one, other in zip(convolved(theirs, x), convolved(ours, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    assert bool(taken) == (other_ways and not tf.config.list_logical_devices("GPU"))


def test_the_sums_of_four_pixels_together_are_those_of_keras():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 12, 8)), tf.float32)
    theirs = keras.layers.Conv2D(3, 5, padding="same")
    ours = layers.Conv2D(3, 5, padding="same")
    for layer in (theirs, ours):
        layer.build(x.shape)
        layer.set_weights(theirs.get_weights())
    for one, other in zip(convolved(theirs, x), convolved(ours, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["Conv2D", "Conv2DTranspose"])
@pytest.mark.parametrize("strides", [1, 2, (2, 1)])
def test_gradients_of_many_weights_as_a_product_are_those_of_keras(
    kind, strides, precision, monkeypatch
):
    taken, product = [], layers._to_kernel
    monkeypatch.setattr(layers, "_to_kernel", lambda *each: taken.append(1) or product(*each))
    options = {"filters": 96, "kernel_size": (3, 5), "padding": "same", "strides": strides}
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 5, 4, 96)), tf.float32)
    theirs, ours = (getattr(of, kind)(**options, dtype=precision) for of in (keras.layers, layers))
    for layer in (theirs, ours):
        layer.build(x.shape)
        layer.set_weights(theirs.get_weights())
    found = convolved(theirs, x), convolved(lambda x: ours(x, training=True), x, ours)
    near = 1e-5 if precision == "float32" else 2**-6
    for one, other in zip(*found, strict=True):
        one, other = (tf.cast(each, tf.float32).numpy() for each in (one, other))
        np.testing.assert_allclose(one, other, atol=near * np.abs(one).max())
    assert bool(taken) != bool(tf.config.list_logical_devices("GPU"))


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"kernel_size": 4, "padding": "valid"}])
def test_a_transposed_convolution_and_its_gradients_are_those_of_keras(options):
    options = {"filters": 6, "kernel_size": 3, "padding": "same"} | options
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 9, 12, 8)), tf.float32)
    theirs, ours = (of.Conv2DTranspose(**options) for of in (keras.layers, layers))
    theirs.build(x.shape)
    theirs.bias.assign(np.arange(6.0))
    ours.build(x.shape)
    ours.set_weights(theirs.get_weights())
    trained = keras.Sequential([keras.Input(x.shape[1:]), ours])
    found = convolved(theirs, x), convolved(lambda x: trained(x, training=True), x, ours)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_the_gradient_of_a_bias_in_bfloat16_is_the_sum_to_bfloat16s_precision():
    maps = tf.constant(np.random.default_rng(0).uniform(0, 1, (16, 32, 32, 3)), tf.bfloat16)
    bias = tf.zeros(3, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        y = layers._biased(maps, bias)
    found = tf.cast(tape.gradient(y, bias, output_gradients=maps), tf.float32)
    exact = tf.cast(maps, tf.float64).numpy().sum((0, 1, 2))
    np.testing.assert_allclose(found, exact, rtol=2**-8)


# --- group normalization -------------------------------------------------------------------------


def grouped(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        weights = tf.cast(tf.reshape(tf.range(tf.size(y)), tf.shape(y)) % 7, tf.float32) - 3.0
        total = tf.reduce_sum(tf.cast(y, tf.float32) * weights)
    return (y, *tape.gradient(total, [x, layer.gamma.value, layer.beta.value]))


@pytest.mark.parametrize("groups", (1, 2, 8))
@pytest.mark.parametrize("shape", ((3, 9, 12, 8), (2, 1, 2, 16)))
def test_group_normalization_and_its_gradients_are_those_of_keras(shape, groups):
    x = tf.constant(np.random.default_rng(0).normal(1.5, 2.0, shape), tf.float32)
    found = []
    for of in (keras.layers, layers):
        layer = of.GroupNormalization(groups)
        layer.build(x.shape)
        random = np.random.default_rng(1)
        layer.set_weights([random.uniform(0.5, 2, shape[-1:]) for _ in range(2)])
        found.append(grouped(layer, x))
    for theirs, ours in zip(*found, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(theirs))))
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4 * scale)


def test_group_normalization_gives_each_group_of_an_image_mean_0_and_variance_1():
    x = tf.constant(np.random.default_rng(0).normal(30.0, 5.0, (2, 16, 16, 12)), tf.bfloat16)
    y = layers.GroupNormalization(3, dtype="mixed_bfloat16")(x)
    assert y.dtype == tf.bfloat16
    apart = tf.cast(y, tf.float32).numpy().reshape(2, 256, 3, 4)
    np.testing.assert_allclose(apart.mean((1, 3)), 0, atol=5e-3)
    np.testing.assert_allclose(apart.var((1, 3)), 1, atol=1e-2)


def test_group_normalization_of_vectors_is_that_of_keras():
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)), tf.float32)
    theirs, ours = (of.GroupNormalization(2)(x) for of in (keras.layers, layers))
    np.testing.assert_array_equal(theirs, ours)


# --- batch normalization -------------------------------------------------------------------------


def normalized(layer, x):
    """A layer's outputs in training, gradients of a weighted sum, and its moving averages."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        weights = tf.cast(tf.reshape(tf.range(tf.size(y)), tf.shape(y)) % 7, tf.float32) - 3.0
        total = tf.reduce_sum(tf.cast(y, tf.float32) * weights)
    gradients = tape.gradient(total, [x, layer.gamma.value, layer.beta.value])
    return (y, *gradients, layer.moving_mean.value, layer.moving_variance.value)


@pytest.mark.parametrize("shape", ((16, 9, 12, 8), (3, 1, 1, 5), (64, 32, 32, 16)))
def test_batch_normalization_its_gradients_and_averages_are_those_of_keras(shape, monkeypatch):
    fused, kernel = [], tf.raw_ops.FusedBatchNormV3
    monkeypatch.setattr(
        tf.raw_ops, "FusedBatchNormV3", lambda **given: fused.append(1) or kernel(**given)
    )
    x = tf.constant(np.random.default_rng(0).normal(0.5, 2.0, shape), tf.float32)
    found = []
    for kind in (keras.layers.BatchNormalization, layers.BatchNormalization):
        layer = kind(momentum=0.8)
        layer.build(x.shape)
        random = np.random.default_rng(1)
        layer.set_weights([random.uniform(0.5, 2, shape[-1:]) for _ in range(4)])
        found.append(normalized(layer, x))
        fused.append(0)
    assert fused == [0, 1, 0]
    for theirs, ours in zip(*found, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(theirs))))
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("options", ({"synchronized": True}, {"axis": 1}, {"scale": False}))
def test_batch_normalization_that_the_kernel_does_not_know_is_that_of_keras(options, monkeypatch):
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", None)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 5, 6, 7)), tf.float32)
    theirs, ours = (
        kind(**options)(x, training=True)
        for kind in (keras.layers.BatchNormalization, layers.BatchNormalization)
    )
    np.testing.assert_array_equal(theirs, ours)
    vectors = layers.BatchNormalization()(tf.ones((4, 3)), training=True)
    assert vectors.shape == (4, 3)


def test_batch_normalization_keeps_float32_statistics_of_bfloat16_maps():
    x = tf.constant(np.random.default_rng(0).normal(100.0, 1.0, (64, 8, 8, 4)), tf.float32)
    layer = layers.BatchNormalization(momentum=0.0, dtype="mixed_bfloat16")
    y = layer(x, training=True)
    assert y.dtype == tf.bfloat16 and layer.moving_mean.dtype == "float32"
    seen = tf.cast(tf.cast(x, tf.bfloat16), tf.float32).numpy()
    np.testing.assert_allclose(layer.moving_mean, seen.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, seen.var((0, 1, 2)), rtol=1e-3)


def test_a_frozen_or_evaluated_batch_normalization_uses_its_averages():
    x = tf.constant(np.random.default_rng(0).normal(3.0, 2.0, (8, 5, 5, 2)), tf.float32)
    layer = layers.BatchNormalization(epsilon=1e-3)
    np.testing.assert_allclose(layer(x), x / np.sqrt(1.001), rtol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_drops_its_rate_and_keeps_the_mean():
    layer = layers.Dropout(0.25, seed=1)
    out = layer(tf.ones((200, 1000)), training=True).numpy()
    assert np.mean(out == 0) == pytest.approx(0.25, abs=0.005)
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    assert set(np.unique(out)) == {np.float32(0), np.float32(256 / 192)}


def test_dropout_does_nothing_in_evaluation_and_at_rate_0():
    x = tf.random.stateless_normal((4, 5), (0, 0))
    np.testing.assert_array_equal(layers.Dropout(0.5)(x, training=False), x)
    np.testing.assert_array_equal(layers.Dropout(0.0)(x, training=True), x)


def test_dropout_draws_a_new_mask_at_each_step_and_another_in_each_layer():
    x = tf.ones((1, 1000))
    one, two = layers.Dropout(0.5, name="one"), layers.Dropout(0.5, name="two")
    first, second, other = one(x, training=True), one(x, training=True), two(x, training=True)
    for mask in (second, other):
        assert 0.4 < np.mean(first.numpy() == mask.numpy()) < 0.6


def test_dropout_goes_on_with_the_same_masks_after_saving(tmp_path):
    x = tf.ones((1, 1000))
    network = keras.Sequential([keras.Input((1000,)), layers.Dropout(0.5, seed=2, name="drop")])
    network(x, training=True)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(again(x, training=True), network(x, training=True))


def test_dropout_is_the_same_under_xla():
    x = tf.ones((33, 7))

    def dropped(jit_compile):
        layer = layers.Dropout(0.3, seed=5, name="drop")
        layer.build(x.shape)
        return tf.function(lambda: layer(x, training=True), jit_compile=jit_compile)()

    np.testing.assert_array_equal(dropped(True), dropped(False))


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="rate = 1.0"):
        layers.Dropout(1.0)


def test_what_dropout_lets_through_it_lets_back_with_the_same_scale():
    x = tf.constant(np.random.default_rng(0).normal(size=(50, 40)), tf.float32)
    layer = layers.Dropout(0.25, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    expected = np.where(y == 0, 0, np.float32(256 / 192))
    np.testing.assert_array_equal(tape.gradient(y, x), expected)
    np.testing.assert_allclose(y, x * expected, rtol=1e-6)
