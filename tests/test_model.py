"""Every model learns, agrees with XLA, can be saved and loaded, and has the documented
objective."""

import functools
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import config
import model as models
import train
from families import registry
from nn import batches, losses, networks, randomness
from nn.averages import reduced
from spots import SHAPE, blobs
from storage import checkpoints, disk

ROOT = Path(__file__).parent.parent
BFLOAT16 = 0.02  # largest relative difference of its losses from those of float32


def compiled(settings, steps=10, **options):
    made = registry.from_settings(settings)
    train.compile_model(made, settings, steps)
    return made


def one_pass(model, n=16, training=False, step=0):
    return model.forward(blobs(n)[0], training=training, step=step)


@pytest.fixture(scope="module")
def learnt(tiny):
    """A function of a kind: its model, trained on 16 images, what it had lost before, the history.

    Each is trained once, and no test may change it.
    """
    images, labels = blobs(16)
    many = np.tile(images, (5, 1, 1, 1)), np.tile(labels, 5)

    @functools.cache
    def of(kind):
        changes = {"classes": 2, "dropout": 0.1, "learning_rate": 1e-2, "margin": 5.0}
        model = compiled(tiny(model=kind, **changes))
        before = distortion(model, images)
        history = model.fit(
            *many, validation_data=(images, labels), epochs=12, batch_size=16, verbose=0
        )
        return model, before, history.history

    return of


def distortion(model, images):
    made = model.reconstruct(images)
    logits = tf.math.log(made) - tf.math.log1p(-made)
    return np.mean(model.distortion(images / np.float32(255), logits))


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_reconstruction_improves_on_a_few_fixed_images(kind, learnt):
    model, before, _ = learnt(kind)
    assert distortion(model, blobs(16)[0]) < 0.6 * before


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_losses_are_the_same_with_xla_and_near_in_bfloat16(kind, tiny):
    """Of one pass; that of whole trainings stands in the test below."""
    settings = tiny(model=kind, lambda_mmd=100.0, classes=2)
    batch = blobs(16)
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = registry.from_settings(replace(settings, precision=precision))

        def total(batch, model=model):
            return reduced(model.objective(model.forward(batch, training=True, step=1)))[1]

        losses[precision] = float(tf.function(total)(batch))
        if precision == "float32":
            losses["XLA"] = float(tf.function(total, jit_compile=True)(batch))
    assert losses["XLA"] == pytest.approx(losses["float32"], rel=1e-5)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=BFLOAT16)


WHOLE = registry.REGISTRY if os.environ.get("ATLAS_LONG") == "1" else ("VAE", "AAE")


@pytest.mark.slow
@pytest.mark.parametrize("kind", WHOLE)
def test_trainings_are_the_same_with_xla_and_near_in_bfloat16(kind, tiny):
    # A weight of 1000 would make the total a small difference of large numbers.
    binarize = "none" if "Intro" in kind else "dynamic"
    settings = tiny(model=kind, binarize=binarize, dropout=0.2, lambda_mmd=100.0, classes=2)
    histories = []
    for changes in ({"jit_compile": "off"}, {"jit_compile": "on"}, {"precision": "bfloat16"}):
        model = compiled(replace(settings, **changes))
        batches = tf.data.Dataset.from_tensor_slices(blobs(16 * 5)).batch(16, drop_remainder=True)
        history = []
        record = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, into=history: into.append(logs["loss"])
        )
        model.fit(batches, verbose=0, shuffle=False, callbacks=[record])
        histories.append(history)
    plain, xla, half = histories
    assert len(plain) == 5
    np.testing.assert_allclose(xla, plain, rtol=1e-5)
    np.testing.assert_allclose(half, plain, rtol=BFLOAT16)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, learnt, tiny):
    """A trained model of every kind, saved in both formats, and its reconstructions of some
    images."""
    folder = tmp_path_factory.mktemp("saved")
    expected = {}
    for kind in registry.REGISTRY:
        model, *_ = learnt(kind)
        model.save(folder / f"{kind}.keras")
        run = folder / kind
        run.mkdir()
        settings = tiny(model=kind, classes=2, dropout=0.1, margin=5.0)
        disk.write_json(run / "settings.json", {"settings": settings.to_dict()})
        checkpoints.save(model, run)
        expected[kind] = model.reconstruct(blobs(8, seed=9)[0]).numpy()
    np.savez(folder / "expected.npz", **expected)
    return folder


def test_every_model_gives_equal_reconstructions_in_a_fresh_process(saved):
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
import keras, numpy as np
import train; from families import registry
from spots import blobs
folder = Path({str(saved)!r})
expected = np.load(folder / "expected.npz")
images = blobs(8, seed=9)[0]
for kind in registry.REGISTRY:
    for model in (train.load(folder / kind), keras.models.load_model(folder / f"{{kind}}.keras")):
        np.testing.assert_array_equal(model.reconstruct(images), expected[kind], kind)
print("equal")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_a_loaded_model_goes_on_training(kind, saved):
    model = keras.models.load_model(saved / f"{kind}.keras")
    steps = int(model.steps)
    model.fit(blobs(32)[0], batch_size=16, verbose=0, shuffle=False)
    assert int(model.steps) == steps + 2


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_fit_evaluate_and_predict_work_as_keras_users_know_them(kind, learnt):
    images, labels = blobs(16)
    model, _, history = learnt(kind)
    assert {"loss", "reconstruction", "ssim"} <= set(history)
    assert ("active_units" in history) == model.has_latent
    assert model.predict(images, verbose=0).shape == images.shape
    measured = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert {f"val_{name}" for name in measured} | set(measured) <= set(history)
    assert measured["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-4)
    unlabelled = model.evaluate(images, verbose=0, return_dict=True)
    assert unlabelled["kl" if "kl" in history else "reconstruction"] == pytest.approx(
        measured["kl" if "kl" in history else "reconstruction"], rel=1e-4
    )


def test_averages_are_means_over_all_steps_and_not_the_last_step(tiny):
    model = compiled(tiny())
    seen = []
    images, _ = blobs(48)
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["loss"])
    )
    history = model.fit(images, batch_size=16, verbose=0, callbacks=[record]).history
    assert history["loss"][0] == pytest.approx(seen[-1])
    assert seen[0] != seen[-1] and len(seen) == 3


def test_a_smaller_last_batch_counts_for_its_images_alone(tiny):
    model = compiled(tiny())
    images = np.zeros((17, *SHAPE), np.uint8)
    images[16] = 255  # a batch of its own
    dark, bright, both = (
        model.evaluate(each, batch_size=16, verbose=0, return_dict=True)["kl"]
        for each in (images[:16], images[16:], images)
    )
    assert both == pytest.approx((16 * dark + bright) / 17, rel=1e-5)


def test_every_epoch_of_fit_has_an_order_of_its_own(spots, tiny):
    model, seen = compiled(tiny()), []
    batches = spots.train.batches(16, shuffle=True).map(
        lambda images: tf.py_function(
            lambda x: seen.append(x.numpy().tobytes()) or x, [images], "uint8"
        )
    )
    batches = batches.map(lambda images: tf.ensure_shape(images, (16, *SHAPE)))
    steps = spots.train.steps(16)
    model.fit(batches, epochs=2, steps_per_epoch=steps, verbose=0, shuffle=False)
    assert len(set(seen[: 2 * steps])) == 2 * steps


def test_validation_noise_is_the_same_after_every_epoch(tiny):
    model = compiled(tiny(binarize="dynamic"))
    images, _ = blobs(48)
    first = model.evaluate(images, batch_size=16, verbose=0, return_dict=True)
    assert first == model.evaluate(images, batch_size=16, verbose=0, return_dict=True)


# --- randomness of a step ------------------------------------------------------------------------


def test_no_two_draws_of_a_step_are_equal(tiny, monkeypatch):
    model = registry.from_settings(
        tiny(model="InfoVAE", binarize="dynamic", dropout=0.2, batch_norm=True)
    )
    keys = []
    bits = randomness.bits
    monkeypatch.setattr(
        randomness, "bits", lambda key, shape: keys.append(tuple(key.numpy())) or bits(key, shape)
    )
    for step in (1, 2):
        model.objective(one_pass(model, training=True, step=step))
        model.objective(one_pass(model, training=False, step=step))
    # binarisation, noise, prior and, in training, three dropout layers
    assert len(keys) == 2 * (3 + 3) + 2 * 3
    assert len(set(keys)) == len(keys)


def test_dynamic_binarisation_shows_the_encoder_and_the_likelihood_the_same_binary_image(tiny):
    model = registry.from_settings(tiny(binarize="dynamic"))
    first, second = one_pass(model, step=1), one_pass(model, step=2)
    assert set(np.unique(first.targets)) == {0.0, 1.0}
    assert np.any(first.targets.numpy() != second.targets.numpy())
    np.testing.assert_array_equal(first.images, blobs(16)[0] / np.float32(255))
    np.testing.assert_allclose(first.z_mean, model.encode(first.targets)[0], rtol=1e-6)


def test_binarisation_is_right_on_average(tiny):
    model = registry.from_settings(tiny(binarize="dynamic"))
    images = np.full((400, *SHAPE), 0.3, np.float32)
    targets = model.forward(images, training=True, step=0).targets
    assert np.mean(targets) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("corrupt", ["gaussian", "mask"])
def test_a_denoiser_sees_a_corrupted_image_and_answers_for_the_clean_one(corrupt, tiny):
    model = registry.from_settings(tiny(model="Autoencoder", corrupt=corrupt, corrupt_level=0.5))
    result = one_pass(model, training=True, step=1)
    np.testing.assert_array_equal(result.targets, result.images)
    clean, _ = model.encode(result.images)
    assert np.abs(result.z_mean - clean).max() > 0.1
    key = model.key("corrupt", True, 1)
    seen = randomness.corrupted(result.images, corrupt, 0.5, key).numpy()
    assert seen.min() >= 0.0 and seen.max() <= 1.0
    if corrupt == "mask":
        lit = result.images.numpy() > 0
        assert np.mean(seen[lit] == 0) == pytest.approx(0.5, abs=0.05)


def test_a_pass_samples_the_posterior_that_it_reports(tiny):
    model = registry.from_settings(tiny())
    images = np.repeat(blobs(1)[0], 4000, axis=0)
    result = model.forward(images, training=False, step=0)
    np.testing.assert_allclose(np.mean(result.z, 0), result.z_mean[0], atol=0.1)
    expected = np.exp(0.5 * result.z_log_var[0])
    np.testing.assert_allclose(np.std(result.z, 0), expected, rtol=0.06)


# --- objectives ----------------------------------------------------------------------------------


def test_the_loss_at_beta_1_is_the_negative_elbo_in_nats_per_image(tiny):
    model = registry.from_settings(tiny())
    result = one_pass(model)
    kl = losses.kl_to_standard_normal(result.z_mean, result.z_log_var)
    expected = np.mean(losses.bernoulli_nll(result.targets, result.logits) + kl)
    assert sum(np.mean(term) for term in model.objective(result).values()) == pytest.approx(
        expected
    )


def test_beta_multiplies_the_kl(tiny):
    plain, doubled = (registry.from_settings(tiny(beta=beta)) for beta in (1.0, 2.0))
    np.testing.assert_allclose(
        2 * plain.regularizer(one_pass(plain)), doubled.regularizer(one_pass(doubled)), rtol=1e-5
    )


def test_kl_warm_up_rises_linearly_in_training_and_is_over_in_evaluation(tiny):
    model = registry.from_settings(tiny(kl_warmup_steps=10))
    full = registry.from_settings(tiny()).regularizer(one_pass(registry.from_settings(tiny())))
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (50, 1.0)):
        model.steps.assign(step)
        in_training = model.regularizer(one_pass(model)._replace(training=True))
        np.testing.assert_allclose(in_training, share * full, rtol=1e-5)
        np.testing.assert_allclose(model.regularizer(one_pass(model)), full, rtol=1e-5)


def test_free_bits_and_capacity_replace_the_kl(tiny):
    plain = registry.from_settings(tiny())
    result = one_pass(plain)
    kl_axes = losses.kl_per_axis(result.z_mean, result.z_log_var)
    free = registry.from_settings(tiny(free_bits=2.0))
    assert float(free.regularizer(result)) == pytest.approx(float(losses.free_bits(kl_axes, 2.0)))
    held = registry.from_settings(tiny(kl_capacity=5.0, capacity_steps=10, beta=3.0))
    kl = np.mean(np.sum(kl_axes, axis=1))
    assert float(held.regularizer(result)) == pytest.approx(3 * abs(kl - 5.0), rel=1e-5)
    held.steps.assign(4)
    in_training = held.regularizer(result._replace(training=True))
    assert float(in_training) == pytest.approx(3 * abs(kl - 2.0), rel=1e-5)


def test_free_bits_beside_a_capacity_are_refused(tiny):
    with pytest.raises(ValueError, match="free_bits and kl_capacity"):
        registry.from_settings(tiny(free_bits=0.1, kl_capacity=5.0))


def test_infovae_weighs_kl_and_mmd_as_its_paper_does(tiny):
    model = registry.from_settings(tiny(model="InfoVAE", alpha=0.4, lambda_mmd=50.0))
    result = one_pass(model)
    prior = randomness.normal(model.key("prior", False, 0), result.z.shape)
    expected = (1 - 0.4) * losses.kl_to_standard_normal(result.z_mean, result.z_log_var) + (
        0.4 + 50.0 - 1
    ) * losses.mmd(result.z, prior)
    np.testing.assert_allclose(model.regularizer(result), expected, rtol=1e-5)


def test_mmd_autoencoder_has_no_kl_and_decodes_its_code(tiny):
    model = registry.from_settings(tiny(model="MMD-AE", lambda_mmd=50.0))
    result = one_pass(model)
    assert result.z_log_var is None
    np.testing.assert_array_equal(result.z, result.z_mean)
    prior = randomness.normal(model.key("prior", False, 0), result.z.shape)
    assert float(model.regularizer(result)) == pytest.approx(
        50.0 * float(losses.mmd(result.z, prior)), rel=1e-4
    )
    assert np.all(model.encode(blobs(2)[0])[1] == -np.inf)


def test_an_infovae_with_a_kl_refuses_an_encoder_without_variance():
    options = {"image_shape": SHAPE, "latent_dim": 2, "widths": (4,)}
    encoder = networks.encoder(**options, stochastic=False)
    with pytest.raises(ValueError, match="alpha = 0.0"):
        models.InfoVAE(encoder, networks.decoder(**options))


def test_a_learned_sigma_is_trained_and_a_fixed_one_is_not(tiny):
    for reconstruction, moves in (("gaussian", False), ("learned-gaussian", True)):
        model = compiled(tiny(reconstruction=reconstruction, learning_rate=1e-2))
        before = float(model.log_sigma)
        model.fit(blobs(32)[0], batch_size=16, verbose=0)
        assert (float(model.log_sigma) != before) == moves


def test_dssim_enters_the_loss_with_its_weight(tiny):
    model = registry.from_settings(tiny(dssim_weight=7.0))
    result = one_pass(model)
    expected = 7.0 * losses.dssim(result.images, tf.sigmoid(result.logits))
    np.testing.assert_allclose(model.objective(result)["dssim"], expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (100, 75), (256, 256)])
def test_images_of_any_size_train_for_a_step_and_come_back_in_their_own(size, channels, tiny):
    shape = (*size, channels)
    images, _ = blobs(4, shape)
    model = registry.from_settings(tiny(image_shape=shape, widths=(4, 4, 4)))
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    before = model.decoder.get_weights()[0]
    assert np.isfinite(model.fit(images, verbose=0).history["loss"][0])
    assert np.any(before != model.decoder.get_weights()[0])
    assert model.predict(images, verbose=0).shape == (4, *shape)


# --- what users call -----------------------------------------------------------------------------


LATENT = [kind for kind, entry in registry.REGISTRY.items() if entry.kind.has_latent]


@pytest.mark.parametrize("kind", [each for each in LATENT if each != "M2"])
def test_every_model_but_m2_can_have_a_latent_map(kind, tiny, tmp_path):
    settings = tiny(model=kind, latent_map=(6, 6, 2), group_norm=True, residual=True, classes=2)
    model = compiled(settings)
    assert model.latent_map == (6, 6, 2) and model.latent_dim == 72
    assert np.isfinite(float(model.train_step(blobs(16))["loss"]))
    model.save(tmp_path / "model.keras")
    again, images = keras.models.load_model(tmp_path / "model.keras"), blobs(4)[0]
    assert again.latent_map == (6, 6, 2)
    np.testing.assert_allclose(again.reconstruct(images), model.reconstruct(images), atol=1e-6)
    assert registry.from_settings(tiny()).latent_map == ()


@pytest.mark.parametrize("kind", LATENT)
def test_samples_and_reconstructions_are_images_and_depend_on_the_seed_alone(kind, tiny):
    model = registry.from_settings(tiny(model=kind))
    sample = model.sample(5, seed=1).numpy()
    assert sample.shape == (5, *SHAPE) and 0.0 <= sample.min() and sample.max() <= 1.0
    np.testing.assert_array_equal(sample, model.sample(5, seed=1))
    assert np.any(sample != model.sample(5, seed=2).numpy())


def test_many_samples_are_decoded_a_part_at_a_time(tiny, monkeypatch):
    model = registry.from_settings(tiny())
    whole, decode, sizes = model.decode(model.draw_prior(7, 3)), model.decode, []
    monkeypatch.setattr(batches, "PIXELS", 3 * SHAPE[0] * SHAPE[1])
    monkeypatch.setattr(model, "decode", lambda z: sizes.append(len(z)) or decode(z))
    np.testing.assert_allclose(model.sample(7, 3), whole, atol=1e-6)
    assert sizes == [3, 3, 1]


def test_uint8_and_float_images_give_the_same_latents(tiny):
    model = registry.from_settings(tiny())
    images, _ = blobs(4)
    np.testing.assert_allclose(
        model.encode(images)[0], model.encode(images / np.float32(255))[0], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["reconstruction", "corrupt", "binarize"])
def test_an_unknown_choice_is_refused_by_name(name):
    options = {"image_shape": SHAPE, "latent_dim": 2, "widths": (4,)}
    networks_made = networks.encoder(**options), networks.decoder(**options)
    with pytest.raises(ValueError, match=f"{name} = 'mdd' is not valid; allowed: "):
        models.VAE(*networks_made, **{name: "mdd"})


def test_every_registered_model_is_a_choice_of_the_settings():
    (field,) = [each for each in fields(config.Settings) if each.name == "model"]
    assert set(field.metadata["allowed"]) == set(registry.REGISTRY)


def test_every_setting_is_used_somewhere():
    names = ("families/registry", "train", "data", "analysis/judges", "storage/keep")
    text = "".join((ROOT / f"{name}.py").read_text() for name in names)
    used = set().union(*map(registry.taken, registry.REGISTRY))
    unused = [
        each.name
        for each in fields(config.Settings)
        if each.name not in used and f".{each.name}" not in text and f'"{each.name}"' not in text
    ]
    assert not unused


# --- what a class takes --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", registry.REGISTRY)
def test_what_a_class_takes_is_a_setting_with_the_same_default(kind):
    known = {each.name: each for each in fields(config.Settings)}
    arguments = registry.REGISTRY[kind].kind.arguments()
    assert set(arguments) <= set(known)
    for name in set(arguments) - {"seed"}:
        assert arguments[name] == known[name].default


def test_a_subclass_takes_what_the_constructors_above_take_less_what_it_refuses():
    class Variant(models.VAE):
        refused = ("beta", "sigma")

        def __init__(self, encoder, decoder, strength=2.0, **kwargs):
            super().__init__(encoder, decoder, **kwargs)
            self.strength = strength
            self._refuse()

    inherited = set(models.VAE.arguments()) - {"beta", "sigma"}
    assert set(Variant.arguments()) == {*inherited, "strength"}
    parts = {"image_shape": SHAPE, "latent_dim": 2, "widths": (4,)}
    pair = networks.encoder(**parts), networks.decoder(**parts)
    again = Variant.from_config(Variant(*pair, strength=3.0, seed=5).get_config())
    assert (again.strength, again.seed, again.beta) == (3.0, 5, 1.0)
    with pytest.raises(
        ValueError, match="beta = 4.0 is not available for Variant; leave it at 1.0"
    ):
        Variant(*pair, beta=4.0)


IGNORED = [
    ("IWAE", {"beta": 4.0}, "VAE, InfoVAE, BetaTCVAE, SemiSupervisedVAE"),
    ("M2", {"dssim_weight": 10.0}, "Autoencoder, VAE"),
    ("BetaTCVAE", {"free_bits": 0.1}, "VAE, InfoVAE, SemiSupervisedVAE"),
    ("VAE", {"discriminator_widths": (8,)}, "AAE"),
    ("Autoencoder", {"k": 7}, "IWAE"),
    ("Denoiser", {"kernel_sizes": (5,)}, "Autoencoder, VAE"),
]


@pytest.mark.parametrize(("kind", "changes", "others"), IGNORED)
def test_a_changed_setting_that_the_model_does_not_take_is_refused(
    kind, changes, others, tiny, spots, tmp_path
):
    settings = tiny(model=kind, **changes)
    model = registry.from_settings(settings)  # as an older run is opened
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=re.escape(f"{name} = {value} is not used by {kind}")):
        train.fit(model, spots, settings, tmp_path / "run")
    with pytest.raises(ValueError, match=f"models that use it: {others}"):
        registry.require_fit(settings)
    assert not (tmp_path / "run").exists()


def test_settings_for_another_model_leave_out_what_it_does_not_take(tiny, capsys):
    settings = tiny(beta=4.0, free_bits=0.1, dssim_weight=2.0)
    other = registry.with_model(settings, "BetaTCVAE")
    assert (other.model, other.beta, other.free_bits, other.dssim_weight) == (
        *("BetaTCVAE", 4.0, 0.0, 2.0),
    )
    assert (
        capsys.readouterr().out
        == "BetaTCVAE does not use these settings, now at their defaults: free_bits\n"
    )
    registry.require_fit(other)
    assert registry.with_model(settings, "VAE") == settings and not capsys.readouterr().out


def test_settings_of_an_unsure_denoiser_give_other_models_one_standard_deviation(tiny):
    settings = tiny(model="Denoiser", reconstruction="pixel-gaussian", corrupt="coarse")
    assert registry.with_model(settings, "VAE").reconstruction == "gaussian"
    assert registry.with_model(settings, "Denoiser").reconstruction == "pixel-gaussian"
    with pytest.raises(ValueError, match="pixel-gaussian.*another for VAE"):
        registry.with_model(settings, "VAE", reconstruction="pixel-gaussian")


def test_a_latents_size_beside_a_map_is_refused(tiny):
    settings = tiny(latent_map=(6, 6, 2))
    with pytest.raises(ValueError, match="latent_dim = 8 is not valid with a latent_map"):
        registry.with_model(settings, "VAE", latent_dim=8)
    with pytest.raises(ValueError, match="latent_dim = 8 is not valid with a latent_map"):
        registry.with_model(tiny(), "VAE", latent_dim=8, latent_map=(6, 6, 2))
    assert registry.with_model(settings, "VAE", latent_dim=8, latent_map=()).latent_dim == 8


def test_what_is_asked_for_beside_another_model_is_not_left_out(tiny):
    settings = registry.with_model(tiny(beta=4.0), "IWAE", beta=2.0, k=7)
    assert (settings.beta, settings.k) == (2.0, 7)
    with pytest.raises(ValueError, match="beta = 2.0 is not used by IWAE"):
        registry.require_fit(settings)


@pytest.mark.parametrize("experiment", config.EXPERIMENTS)
def test_every_experiment_describes_a_model_that_fits_its_images(experiment):
    settings = config.settings(experiment)
    assert registry.from_settings(settings).image_shape == settings.image_shape


# --- total correlation, importance weights -------------------------------------------------------


def test_beta_tc_weighs_the_total_correlation_alone(tiny):
    found = {}
    for beta in (1.0, 3.0):
        model = registry.from_settings(tiny(model="BetaTCVAE", beta=beta))
        model.plan(10, images=64)
        result = one_pass(model)
        found[beta] = model.regularizer(result).numpy()
    log_posterior = losses.log_normal(result.z, result.z_mean, result.z_log_var)
    sampled_kl = tf.reduce_sum(log_posterior - losses.log_normal(result.z, 0.0, 0.0), axis=-1)
    np.testing.assert_allclose(found[1.0], sampled_kl, rtol=1e-4, atol=1e-4)
    posterior = result.z, result.z_mean, result.z_log_var
    log_q, log_product = losses.log_aggregates(*posterior, images=64)
    np.testing.assert_allclose(
        found[3.0] - found[1.0], 2.0 * (log_q - log_product), rtol=1e-3, atol=1e-3
    )


def test_training_tells_beta_tc_how_many_images_there_are_and_a_run_remembers(
    tmp_path, spots, tiny
):
    settings = tiny(model="BetaTCVAE", epochs=1)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    assert int(train.load(tmp_path / "run").images) == len(spots.train)


def test_one_importance_weight_is_the_bound_and_more_are_tighter(tiny):
    bounds = {}
    for k in (1, 2, 50):
        model = registry.from_settings(tiny(model="IWAE", k=k, seed=3))
        drawn = [model.objective(one_pass(model, 64, step=step)) for step in range(8)]
        bounds[k] = np.mean([each["importance_bound"] for each in drawn])
        result = one_pass(model, 64, step=0)
        if k == 1:
            weight = model.log_weight(result.targets, result, result.z, result.logits)
            np.testing.assert_allclose(drawn[0]["importance_bound"], -weight, rtol=1e-5)
            distortion, rate = model.bound(result)
            elbo = np.mean(distortion + rate)
            assert bounds[1] == pytest.approx(elbo, rel=0.02)
    assert bounds[50] < bounds[2] < bounds[1]


@pytest.mark.parametrize("changes", [{"beta": 2.0}, {"free_bits": 0.1}, {"kl_warmup_steps": 5}])
def test_the_importance_bound_is_one_piece(changes, tiny):
    parts = registry.from_settings(tiny(model="VAE"))
    with pytest.raises(ValueError, match="is not available for IWAE"):
        models.IWAE(parts.encoder, parts.decoder, **changes)
