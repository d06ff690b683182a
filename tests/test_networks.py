"""Networks of any size, and their dropout."""

import os
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import config
from families import registry
from nn import losses, networks

SIZES = [(28, 28), (33, 47), (100, 75), (256, 256)]
OPTIONS = [
    {"kernel_sizes": (5, 3), "strides": (2, 1)},
    {"strides": (3, 2)},
    {"residual": True, "batch_norm": True},
    {"residual": True, "group_norm": True},
    {"dense_widths": (16, 12), "dropout": 0.2},
    {"patch": 3, "strides": (1, 2)},
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
    # Without a lower limit of its variance a density is unbounded.
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


MAP_OPTIONS = {"image_shape": (16, 24, 1), "widths": (4, 6, 8), "latent_map": (4, 6, 5)}
MAP_OPTIONS |= {"strides": (2, 2, 1), "latent_dim": 120}


def test_patches_are_those_of_tensorflow_and_become_pixels_again():
    layers = networks.Layers("test", 0, "float32")
    images = keras.Input((12, 6, 2))
    patches = layers.patches(images, 3)
    network = keras.Model(images, [patches, layers.pixels(patches, 3)])
    pixels = np.random.default_rng(0).random((2, 12, 6, 2), np.float32)
    apart, joined = network(pixels)
    np.testing.assert_array_equal(apart, tf.nn.space_to_depth(pixels, 3))
    np.testing.assert_array_equal(joined, pixels)


def test_with_patches_the_network_works_at_a_fraction_of_the_size():
    options = MAP_OPTIONS | {"patch": 2, "strides": (1, 2, 1), "residual": True}
    encoder, decoder = networks.encoder(**options), networks.decoder(**options)
    assert max(row[2][0] for row in networks.layers_of(encoder)[4:] if len(row[2]) == 3) == 8
    z_mean, _ = encoder(tf.ones((2, 16, 24, 1)))
    assert z_mean.shape == (2, 120) and decoder(z_mean).shape == (2, 16, 24, 1)
    whole, half = (
        networks.encoder(**MAP_OPTIONS | each).count_params()
        for each in ({"strides": (2, 2, 1)}, {"strides": (1, 2, 1), "patch": 2})
    )
    assert half - whole == 9 * 4 * 3  # the first stage sees four pixels of a place


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
@pytest.mark.parametrize("norm", [{}, {"batch_norm": True}, {"group_norm": True}])
def test_a_latent_map_is_a_vector_outside_the_networks(norm, upsampling):
    options = MAP_OPTIONS | {"residual": True} | norm
    encoder = networks.encoder(**options)
    decoder = networks.decoder(**options, upsampling=upsampling)
    z_mean, z_log_var = encoder(tf.ones((2, 16, 24, 1)))
    assert z_mean.shape == z_log_var.shape == (2, 120)
    assert decoder.get_layer(networks.MAP).output.shape == (None, 4, 6, 5)
    assert decoder(z_mean).shape == (2, 16, 24, 1)
    assert networks.encoder(**options, stochastic=False)(tf.ones((2, 16, 24, 1))).shape == (2, 120)


def test_a_place_of_a_latent_map_belongs_to_its_place_of_the_image():
    options = MAP_OPTIONS | {"image_shape": (32, 48, 1), "latent_map": (8, 12, 5)}
    options["latent_dim"] = 480
    encoder, decoder = networks.encoder(**options), networks.decoder(**options)
    image = np.zeros((1, 32, 48, 1), np.float32)
    image[0, 29, 2] = 1.0
    z = encoder(np.concatenate([image, 0 * image]))[0].numpy().reshape(2, 8, 12, 5)
    changed = np.abs(z[0] - z[1]).max(-1)
    assert changed[7, 0] > 0.0 and changed[:4].max() == 0.0 and changed[:, 4:].max() == 0.0
    latent = np.zeros((8, 12, 5), np.float32)
    latent[0, 11] = 1.0
    made = decoder(np.stack([latent, 0 * latent]).reshape(2, 480)).numpy()
    moved = np.abs(made[0] - made[1])[..., 0]
    assert moved[:4, 44:].max() > 0.0 and moved[20:].max() == 0.0 and moved[:, :28].max() == 0.0


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


def test_layers_of_counts_every_parameter_once():
    network = networks.encoder((8, 8, 1), 2, widths=(4,))
    rows = networks.layers_of(network)
    assert sum(row[3] for row in rows) == network.count_params()
    assert rows[0][2] == (8, 8, 1)


def test_a_residual_block_without_batch_norm_starts_as_its_straight_way():
    network = networks.encoder((16, 16, 1), 4, widths=(8,), residual=True)
    straight = next(each for each in network.layers if isinstance(each, keras.layers.Add))
    inputs, blocks = network.input, straight.input
    before, inner = keras.Model(inputs, blocks)(np.random.default_rng(0).random((2, 16, 16, 1)))
    assert float(tf.reduce_max(tf.abs(before))) > 0.0
    np.testing.assert_array_equal(inner, 0.0 * inner)


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_the_weights_of_a_model_are_known_before_it_is_built(kind):
    base = config.Settings(model=kind, widths=(8, 16), latent_dim=5)
    shapes = [{"dense_widths": (32, 16), "image_shape": (45, 30, 3), "class_widths": ()}]
    if kind not in ("M2", "Denoiser"):
        shapes.append({"latent_map": (8, 8, 3), "widths": (8, 16, 24), "residual": True})
        shapes.append({"patch": 2, "image_shape": (45, 30, 3)})
    if os.environ.get("ATLAS_LONG") == "1":
        shapes += [
            {},
            {"residual": True, "batch_norm": not kind.endswith("IntroVAE")},
            {"widths": (16, 8, 24), "kernel_sizes": (5, 3, 3), "strides": (2, 1, 2)},
            {"class_widths": (), "classes": 3},
        ]
    for changes in shapes:
        settings = replace(base, **changes)
        weights = registry.from_settings(settings).count_params()
        assert weights <= registry.count_weights(settings) <= 1.25 * weights + 2000


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_widths": (16384,) * 2},
        {"dense_widths": (16384,) * 8},
        {"widths": (4096,) * 60, "strides": (1,)},
    ],
)
def test_models_beyond_all_memory_are_refused_at_once(changes):
    with pytest.raises(ValueError, match="a model of about .* weights, more than 500,000,000"):
        registry.from_settings(config.Settings(**changes))
    with pytest.raises(ValueError, match="at most 64 whole numbers"):
        config.Settings(widths=(1,) * 3000)
