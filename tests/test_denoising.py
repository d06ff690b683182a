"""A denoiser without a latent: what it does, and what it refuses."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import anomaly
import apply
import config
import data
import evaluate
import train
from analysis import latent
from families import priors, registry
from nn import randomness, unet
from spots import blobs


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory, spots, tiny):
    """The folder of a trained denoiser, and its settings."""
    settings = tiny(model="Denoiser", widths=(8, 16), epochs=30, learning_rate=5e-3)
    run = tmp_path_factory.mktemp("denoiser") / "run"
    train.fit(registry.from_settings(settings), spots, settings, run, verbose=0)
    return run, settings


@pytest.fixture(scope="module")
def unsure(tmp_path_factory, spots, tiny):
    """The folder of a trained denoiser that tells how sure it is of each pixel."""
    settings = tiny(
        model="Denoiser",
        widths=(8, 16),
        epochs=30,
        learning_rate=5e-3,
        reconstruction="pixel-gaussian",
    )
    run = tmp_path_factory.mktemp("unsure") / "run"
    train.fit(registry.from_settings(settings), spots, settings, run, verbose=0)
    return run


def test_coarse_noise_is_normal_at_the_knots_and_smooth_between_them():
    key = randomness.key(0, 3, "corrupt")
    noise = randomness.coarse(key, (4000, 32, 24, 1), (4000, 32, 24, 1)).numpy()[..., 0]
    assert abs(noise.mean()) < 0.01
    # A grid of step 3 at a random place: at a share t between two knots the variance is
    # t^2 + (1 - t)^2, whose mean is 2/3 in each direction.
    assert noise.var() == pytest.approx((2 / 3) ** 2, rel=0.05)
    flat = noise.reshape(len(noise), -1)
    near = np.corrcoef(flat[:, 300], flat[:, 301])[0, 1]
    far = np.corrcoef(flat[:, 300], flat[:, 308])[0, 1]
    assert near > 0.8 and abs(far) < 0.08


def test_more_knots_make_finer_noise():
    key = randomness.key(0, 3, "corrupt")
    roughness = []
    for knots in (4, 8, 16):
        noise = randomness.coarse(key, (500, 32, 32, 1), (500, 32, 32, 1), knots).numpy()
        roughness.append(np.square(np.diff(noise, axis=1)).mean() / np.square(noise).mean())
    # Between two knots of distance d the slope is the difference of two normal numbers over d.
    assert roughness[1] / roughness[0] == pytest.approx(4.0, rel=0.15)
    assert roughness[2] / roughness[1] == pytest.approx(4.0, rel=0.15)


def test_coarse_noise_leaves_black_pixels_black_and_images_in_range():
    images = tf.constant(blobs(32, (16, 16, 3))[0] / np.float32(255))
    made = randomness.corrupted(images, "coarse", 0.5, randomness.key(1, 1, "corrupt")).numpy()
    np.testing.assert_array_equal(made[images == 0.0], 0.0)
    assert made.min() >= 0.0 and made.max() <= 1.0
    assert np.abs(made - images)[images > 0.0].mean() > 0.05


def test_coarse_noise_is_the_same_under_xla_and_for_the_same_key():
    images = tf.constant(blobs(4)[0] / np.float32(255))

    def noisy(images):
        return randomness.corrupted(images, "coarse", 0.3, randomness.key(1, 5, "corrupt"))

    plain = noisy(images).numpy()
    np.testing.assert_array_equal(plain, noisy(images))
    np.testing.assert_allclose(tf.function(noisy, jit_compile=True)(images), plain, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 12, 1), (13, 9, 3)])
def test_the_network_takes_images_of_any_size_and_gives_them_back(shape):
    network = unet.denoiser(shape, (4, 8, 8), residual=True)
    assert unet.whole(shape).output_shape == network.input_shape
    assert network.output_shape == (None, *shape)
    told = unet.denoiser(shape, (4, 8, 8), spread=True)
    assert told.output_shape == (None, *shape[:2], 2 * shape[2])


def test_it_takes_noise_out(denoiser, spots):
    model = train.load(denoiser[0])
    images = tf.constant(spots.test.images / np.float32(255))
    noisy = randomness.corrupted(images, "coarse", 0.3, randomness.key(9, 1, "test"))
    left = np.square(model.reconstruct(noisy) - images).mean()
    assert left < 0.5 * np.square(noisy - images).mean()


def test_it_knows_where_it_errs(unsure, spots):
    model = train.load(unsure)
    images = spots.test.images / np.float32(255)
    noisy = randomness.corrupted(images, "coarse", 0.3, randomness.key(9, 1, "test"))
    means, spreads = np.split(model.expected(noisy), 2, axis=-1)
    np.testing.assert_allclose(means, model.reconstruct(noisy), atol=1e-6)
    errors = np.abs(images - means)
    # In standard deviations of its own, errors at surest and least sure pixels are about alike.
    order = np.argsort(spreads.ravel())
    quarter = len(order) // 4
    surest, least = errors.ravel()[order[:quarter]], errors.ravel()[order[-quarter:]]
    assert least.mean() > 2.0 * surest.mean()
    assert 0.6 < np.sqrt(np.square(errors / spreads).mean()) < 1.7
    score = anomaly.scores_of(model, unsure)["absolute-surprise"]
    assert score(images[:5]).shape == (5, *images.shape[1:3])


def test_what_it_tells_of_its_errors_is_kept_and_is_no_part_of_its_images(unsure, spots, tmp_path):
    model = train.load(unsure)
    assert model.image_shape == spots.test.images.shape[1:] and model.gives_spread
    model.save(tmp_path / "model.keras")
    images = blobs(3)[0]
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.expected(images), model.expected(images))
    assert again.reconstruct(images).shape == images.shape
    (network,) = model.endpoints().values()
    pixels = images / np.float32(255)
    np.testing.assert_allclose(network(pixels), model.reconstruct(images), atol=1e-6)


def test_a_denoiser_that_was_not_asked_does_not_tell_how_sure_it_is(denoiser):
    model = train.load(denoiser[0])
    with pytest.raises(ValueError, match='train one with reconstruction="pixel-gaussian"'):
        model.expected(blobs(2)[0])
    assert "signed-surprise" not in anomaly.scores_of(model, denoiser[0])


def test_a_denoiser_is_trained_without_samples_or_a_prior_and_loads_again(denoiser, tmp_path):
    run, _ = denoiser
    assert not list(run.glob("samples/*")) and not (run / "priors").exists()
    model = train.load(run)
    model.save(tmp_path / "model.keras")
    images = blobs(3)[0]
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.reconstruct(images), model.reconstruct(images))


def test_what_needs_a_latent_refuses_it_by_name(denoiser, spots, folder, tmp_path):
    run, _ = denoiser
    model = train.load(run)
    for use in (
        lambda: model.encode(spots.test.images),
        lambda: model.sample(3),
        lambda: latent.encode(model, spots.test),
        lambda: priors.own(model, spots.train),
        lambda: evaluate.report(model, spots),
    ):
        with pytest.raises(ValueError, match="a Denoiser has no latent"):
            use()
    for words in ([str(folder)], ["--generate", "3", "--to", str(tmp_path / "made")]):
        with pytest.raises(SystemExit, match="a Denoiser has no latent"):
            apply.main([str(run), *words])


def test_it_is_exported_as_one_network_from_images_to_images(denoiser):
    model = train.load(denoiser[0])
    (network,) = model.endpoints().values()
    images = blobs(3)[0] / np.float32(255)
    np.testing.assert_allclose(network(images), model.reconstruct(images), atol=1e-6)


def test_without_noise_it_is_given_coarse_noise_and_a_latent_map_is_refused(tiny):
    assert tiny(model="Denoiser").corrupt == "coarse"
    assert tiny(model="Denoiser", corrupt="mask").corrupt == "mask"
    with pytest.raises(ValueError, match="it has no latent"):
        tiny(model="Denoiser", latent_map=(6, 6, 2))
    with pytest.raises(ValueError, match="pixel-gaussian.*another for VAE"):
        tiny(model="VAE", reconstruction="pixel-gaussian")
    parts = registry.from_settings(tiny(model="Denoiser"))
    with pytest.raises(ValueError, match="pixel-gaussian' does not fit a decoder of 1 channels"):
        type(parts)(parts.encoder, parts.decoder, corrupt="coarse", reconstruction="pixel-gaussian")
    with pytest.raises(ValueError, match="would learn to copy"):
        type(parts)(parts.encoder, parts.decoder)


def test_the_images_of_an_embedded_set_with_lesions_are_learnt_without_them(capsys):
    settings = replace(config.EXPERIMENTS["brain-lesions"], image_shape=(32, 32, 1))
    images = data.load(settings)
    assert (images.train.table["lesion_pixels"] == 0).all() and not images.train.masks.any()
    assert images.validation.masks.any() and images.test.masks.any()
    assert "without a lesion" in capsys.readouterr().out
    healthy = images.validation.table.groupby("subject")["lesion_pixels"].sum() == 0
    assert healthy.sum() >= 30
