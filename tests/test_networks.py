"""Networks of any size, and the dropout they use."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
import networks

SIZES = [(28, 28), (33, 47), (100, 75), (256, 256)]
OPTIONS = [
    {"kernel_sizes": (5, 3), "strides": (2, 1)},
    {"strides": (3, 2)},
    {"residual": True, "batch_norm": True},
    {"dense_widths": (16, 12), "dropout": 0.2},
    {"precision": "bfloat16", "residual": True, "dropout": 0.2},
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_size_come_back_in_their_own(size, channels):
    shape = (*size, channels)
    options = {"image_shape": shape, "latent_dim": 5, "widths": (4, 6, 8)}
    encoder, decoder = networks.encoder(**options), networks.decoder(**options)
    z_mean, z_log_var = encoder(tf.zeros((2, *shape)))
    assert z_mean.shape == z_log_var.shape == (2, 5)
    assert decoder(z_mean).shape == (2, *shape)


@pytest.mark.parametrize("options", OPTIONS)
def test_what_knows_classes_has_the_shapes_that_it_says(options):
    options = {"image_shape": (14, 10, 1), "widths": (4, 6)} | options
    encoder = networks.class_encoder(classes=4, **options)
    features, logits = encoder(tf.ones((2, 14, 10, 1)), training=True)
    posterior = networks.class_posterior(
        features.shape[-1], 4, 3, (5,), precision=options.get("precision", "float32")
    )
    z_mean, z_log_var = posterior([features, tf.one_hot([0, 3], 4)])
    again = networks.latent_classifier(3, 4, (5,), dropout=0.1)(z_mean)
    for output, shape in ((logits, (2, 4)), (z_mean, (2, 3)), (z_log_var, (2, 3)), (again, (2, 4))):
        assert output.shape == shape and output.dtype == tf.float32
        assert np.isfinite(output).all()


def test_networks_of_vectors_have_the_shapes_that_they_say():
    vectors = tf.random.stateless_normal((2, 6), (0, 0))
    same, logits = networks.vector_class_encoder(6, 4, (5,))(vectors)
    np.testing.assert_array_equal(same, vectors)
    assert logits.shape == (2, 4)
    decoder = networks.vector_decoder(6, 3, (5,))
    decoder.get_layer("log_var").set_weights([np.zeros((5, 6)), np.linspace(-50, 50, 6)])
    made = decoder(tf.zeros((2, 3)))
    assert made.shape == (2, 2, 6)
    # A density without a floor under its width has no best value.
    low, high = networks.VECTOR_LOG_VAR_RANGE
    found = made[0, 1].numpy()
    assert found[0] == pytest.approx(low, abs=1e-3) and found[-1] == pytest.approx(high, abs=1e-3)
    assert np.all(np.diff(found) > -1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_gives_finite_float32_outputs_of_the_right_shape(options):
    options = {"image_shape": (14, 10, 1), "latent_dim": 3, "widths": (4, 6)} | options
    encoder, decoder = networks.encoder(**options), networks.decoder(**options)
    z_mean, z_log_var = encoder(tf.ones((2, 14, 10, 1)), training=True)
    logits = decoder(z_mean, training=True)
    for output, shape in ((z_mean, (2, 3)), (z_log_var, (2, 3)), (logits, (2, 14, 10, 1))):
        assert output.shape == shape and output.dtype == tf.float32
        assert np.isfinite(output).all()


def test_log_variance_stays_in_its_range_for_absurd_inputs():
    encoder = networks.encoder((8, 8, 1), 2, widths=(4,))
    _, z_log_var = encoder(tf.fill((1, 8, 8, 1), 1e9))
    assert set(z_log_var.numpy().ravel()) <= set(networks.LOG_VAR_RANGE)


def test_a_posterior_that_was_thrown_out_of_its_range_finds_back():
    encoder = networks.encoder((8, 8, 1), 2, widths=(4,))
    images = tf.ones((1, 8, 8, 1))
    for name, sign in (("too wide", 1.0), ("too narrow", -1.0)):
        encoder.get_layer("z_log_var").bias.assign([sign * 50.0] * 2)
        with tf.GradientTape() as tape:
            z_mean, z_log_var = encoder(images)
            kl = tf.reduce_sum(losses.kl_per_axis(0.0 * z_mean, z_log_var))
        gradient = tape.gradient(kl, encoder.get_layer("z_log_var").bias.value)
        assert np.all(np.sign(gradient) == sign), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def first(seed):
        return networks.decoder((8, 8, 1), 2, widths=(4,), seed=seed).get_weights()[0]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.allclose(first(1), first(2))


def test_the_ends_of_an_encoder_and_its_decoder_have_different_weights():
    options = {"image_shape": (8, 8, 1), "latent_dim": 2, "widths": (4,)}
    kernels = [
        weight.numpy().ravel()[:8]
        for network in (networks.encoder(**options), networks.decoder(**options))
        for weight in network.weights
        if weight.name == "kernel"
    ]
    assert len({tuple(kernel) for kernel in kernels}) == len(kernels)


def test_padding_makes_every_stride_divide_and_is_none_where_it_does_already():
    assert networks.padding((32, 64, 1), (2,), 5) == ((0, 0), (0, 0))
    (top, bottom), (left, right) = networks.padding((33, 47, 3), (2,), 3)
    assert (33 + top + bottom) % 8 == 0 and (47 + left + right) % 8 == 0
    assert top + bottom < 8 and left + right < 8


def test_classifier_gives_a_logit_for_every_class_and_named_features():
    network = networks.classifier((28, 28, 1), 10, widths=(4, 6), dense_width=12)
    assert network(tf.zeros((2, 28, 28, 1))).shape == (2, 10)
    assert network.get_layer("features").output.shape == (None, 12)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_slope_and_its_gradient_are_those_of_keras(kind):
    x = tf.cast(tf.constant([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0]), kind)
    found = []
    for layer in (keras.layers.LeakyReLU(0.2, dtype=kind), networks.LeakyReLU(0.2, dtype=kind)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y * tf.cast(tf.range(1.0, 7.0), kind))
        found.append((y, tape.gradient(total, x)))
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(tf.cast(theirs, "float32"), tf.cast(ours, "float32"))


def test_layers_of_counts_every_parameter_once():
    network = networks.encoder((8, 8, 1), 2, widths=(4,))
    rows = networks.layers_of(network)
    assert sum(row[3] for row in rows) == network.count_params()
    assert rows[0][2] == (8, 8, 1)


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_drops_its_rate_and_keeps_the_mean():
    layer = networks.Dropout(0.25, seed=1)
    out = layer(tf.ones((200, 1000)), training=True).numpy()
    assert np.mean(out == 0) == pytest.approx(0.25, abs=0.005)
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    assert set(np.unique(out)) == {np.float32(0), np.float32(256 / 192)}


def test_dropout_does_nothing_in_evaluation_and_at_rate_0():
    x = tf.random.stateless_normal((4, 5), (0, 0))
    np.testing.assert_array_equal(networks.Dropout(0.5)(x, training=False), x)
    np.testing.assert_array_equal(networks.Dropout(0.0)(x, training=True), x)


def test_dropout_draws_a_new_mask_at_each_step_and_another_in_each_layer():
    x = tf.ones((1, 1000))
    one, two = networks.Dropout(0.5, name="one"), networks.Dropout(0.5, name="two")
    first, second, other = one(x, training=True), one(x, training=True), two(x, training=True)
    for mask in (second, other):
        assert 0.4 < np.mean(first.numpy() == mask.numpy()) < 0.6


def test_dropout_goes_on_with_the_same_masks_after_saving(tmp_path):
    x = tf.ones((1, 1000))
    network = keras.Sequential([keras.Input((1000,)), networks.Dropout(0.5, seed=2, name="drop")])
    network(x, training=True)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(again(x, training=True), network(x, training=True))


def test_dropout_is_the_same_under_xla():
    x = tf.ones((33, 7))

    def dropped(jit_compile):
        layer = networks.Dropout(0.3, seed=5, name="drop")
        layer.build(x.shape)
        return tf.function(lambda: layer(x, training=True), jit_compile=jit_compile)()

    np.testing.assert_array_equal(dropped(True), dropped(False))


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="rate = 1.0"):
        networks.Dropout(1.0)


def test_a_residual_block_without_batch_norm_starts_as_its_straight_way():
    network = networks.encoder((16, 16, 1), 4, widths=(8,), residual=True)
    straight = next(each for each in network.layers if isinstance(each, keras.layers.Add))
    inputs, blocks = network.input, straight.input
    before, inner = keras.Model(inputs, blocks)(np.random.default_rng(0).random((2, 16, 16, 1)))
    assert float(tf.reduce_max(tf.abs(before))) > 0.0
    np.testing.assert_array_equal(inner, 0.0 * inner)
