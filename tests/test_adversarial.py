"""Models with two turns: the papers' equations, and each turn updates only its own weights."""

import math

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

import config
import data
import train
from families import adversarial, registry
from nn import losses, networks, randomness
from nn.averages import reduced
from spots import blobs
from storage import checkpoints

KINDS = ("AAE", "VAE-GAN", "IntroVAE", "SoftIntroVAE", "ASIntroVAE")


@pytest.fixture
def made(tiny):
    """Makes a compiled model of Gaussian pixels."""

    def make(kind, steps=20, **changes):
        changes = {"reconstruction": "gaussian", "sigma": 0.5, "learning_rate": 1e-2} | changes
        settings = tiny(model=kind, **changes)
        model = registry.from_settings(settings)
        train.compile_model(model, settings, steps // settings.epochs)
        return model

    return make


def first_turn(model, images):
    """Start of a step: the `Pass`, the first turn's terms, and the inputs of the second."""
    result = model.forward(images, training=True, step=model.steps)
    bound, _ = reduced(model.objective(result))
    return result, *model.first_turn(result, bound)


def step(model, n=16):
    return {name: float(value) for name, value in model.train_step(blobs(n)[0]).items()}


# --- terms ---------------------------------------------------------------------------------------


def test_the_soft_threshold_is_half_an_exponential_of_energy_per_pixel():
    found = losses.expelbo(tf.constant([0.0, 3.0]), tf.constant([0.0, 2.0]), 4.0, 10)
    np.testing.assert_allclose(found, [0.5, 0.5 * np.exp(-2 * (3 + 4 * 2) / 10)], rtol=1e-6)


def test_the_hinge_is_what_a_kl_falls_short_of_the_margin():
    np.testing.assert_allclose(losses.hinge(tf.constant([3.0, 12.0]), 10.0), [7.0, 0.0])


def test_the_similarity_distance_is_the_squared_l2_distance_of_mean_densities():
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(2, n, 3)).astype(np.float32) for n in (4, 5))
    b[0] += 0.5

    def density(x, means, log_vars):
        return np.mean(stats.norm(np.tanh(means), np.exp(np.tanh(log_vars) / 2)).pdf(x))

    expected = sum(
        integrate.quad(
            lambda x, axis=axis: (density(x, *a[:, :, axis]) - density(x, *b[:, :, axis])) ** 2,
            -15,
            15,
            points=[-1, 0, 1],
        )[0]
        for axis in range(3)
    ) * np.sqrt(2 * np.pi)
    assert float(losses.similarity_distance(*a, *b)) == pytest.approx(expected, rel=1e-4)
    assert float(losses.similarity_distance(*a, *a)) == pytest.approx(0.0, abs=1e-5)


def test_a_critic_pays_the_log_of_the_share_that_it_gave_the_truth():
    logits = tf.constant([[0.0], [2.0]])
    share = 1 / (1 + np.exp([-0.0, -2.0]))
    np.testing.assert_allclose(losses.critic_nll(logits, real=True), -np.log(share), rtol=1e-5)
    np.testing.assert_allclose(losses.critic_nll(logits, real=False), -np.log(1 - share), rtol=1e-5)


# --- equations, on one pixel and one latent axis, worked by hand ---------------------------------

A, B, V = 1.5, 0.8, -0.6  # z_mean = A x, z_log_var = V, logit = B z
X = np.array([[0.2], [0.9]])
SIGMA = 0.5


def linear(kind, **changes):
    """A model of one pixel whose encoder and decoder are one product each, without noise."""
    images = keras.Input((1, 1, 1))
    flat = keras.layers.Flatten()(images)
    mean = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(A))(flat)
    log_var = keras.layers.Dense(
        1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(V)
    )(flat)
    z = keras.Input((1,))
    logit = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(B))(z)
    model = getattr(adversarial, kind)(
        keras.Model(images, [mean, log_var]),
        keras.Model(z, keras.layers.Reshape((1, 1, 1))(logit)),
        reconstruction="gaussian",
        sigma=SIGMA,
        **changes,
    )
    model.draw = lambda z_mean, z_log_var, key: z_mean
    return model


def kl(x):
    return 0.5 * ((A * x) ** 2 + np.exp(V) - V - 1)


def drawn(z):
    return 1 / (1 + np.exp(-B * z))


def rec(x):
    return (x - drawn(A * x)) ** 2 / (2 * SIGMA**2)


def turns(model):
    """Terms of both turns, the reconstructions, and the images drawn from the prior."""
    result, first, kept = first_turn(model, tf.constant(X.reshape(2, 1, 1, 1), tf.float32))
    second, _ = model.second_turn(result, kept)
    means = [
        {name: float(np.mean(each)) for name, each in terms.items()} for terms in (first, second)
    ]
    return *means, drawn(A * X), drawn(kept[1].numpy())


CONSTANT = np.log(SIGMA) + 0.5 * np.log(2 * np.pi)  # of the Gaussian's density, without a gradient


def test_introvae_is_its_papers_two_equations():
    model = linear("IntroVAE", margin=1.0, margin_weight=0.3, beta=0.7)
    encoder, decoder, again, fake = turns(model)
    short = np.mean(np.maximum(1 - kl(again), 0) + np.maximum(1 - kl(fake), 0))
    assert encoder["encoder_bound"] == pytest.approx(
        np.mean(rec(X) + CONSTANT + 0.7 * kl(X)), rel=1e-5
    )
    assert encoder["encoder_adversarial"] == pytest.approx(0.3 * short, rel=1e-4)
    assert decoder["decoder_reconstruction"] == pytest.approx(np.mean(rec(X)) + CONSTANT, rel=1e-4)
    assert decoder["decoder_adversarial"] == pytest.approx(
        0.3 * np.mean(kl(again) + kl(fake)), rel=1e-4
    )


def test_soft_introvae_is_its_papers_two_equations():
    model = linear("SoftIntroVAE", beta=0.7, beta_neg=3.0)
    encoder, decoder, again, fake = turns(model)
    threshold = [np.mean(np.exp(-2 * (rec(each) + 3 * kl(each))) / 2) for each in (again, fake)]
    assert encoder["encoder_bound"] == pytest.approx(
        np.mean(rec(X) + CONSTANT + 0.7 * kl(X)), rel=1e-5
    )
    assert encoder["encoder_adversarial"] == pytest.approx(np.mean(threshold), rel=1e-4)
    assert decoder["decoder_adversarial"] == pytest.approx(
        0.7 * np.mean([kl(again), kl(fake)]), rel=1e-4
    )


@pytest.mark.parametrize("done", [0, 3, 10])
def test_as_introvae_goes_from_the_similarity_distance_to_the_kl(done):
    model = linear("ASIntroVAE", beta_neg=3.0)
    model.plan(10)
    model.steps.assign(done)
    encoder, decoder, again, fake = turns(model)
    c, variances = np.tanh(5 * done / 10), np.full((2, 1), V)
    distance = float(
        losses.similarity_distance(
            *(tf.constant(each, tf.float32) for each in (A * again, variances, A * fake, variances))
        )
    )
    strange = [c * kl(each) + (1 - c) * distance for each in (again, fake)]
    threshold = [
        np.mean(np.exp(-2 * (rec(each) + 3 * apart)) / 2)
        for each, apart in zip((again, fake), strange, strict=True)
    ]
    assert distance > 1e-6
    assert encoder["encoder_adversarial"] == pytest.approx(np.mean(threshold), rel=1e-4)
    assert decoder["decoder_adversarial"] == pytest.approx(np.mean(strange), rel=1e-4)


def test_the_aae_discriminator_is_fined_for_its_mistakes_and_for_its_slope():
    critic = networks.latent_classifier(2, 1)
    critic.set_weights([np.array([[0.6], [-0.8]]), np.array([0.1])])
    options = {"image_shape": (8, 8, 1), "latent_dim": 2, "widths": (4,)}
    model = adversarial.AdversarialAutoencoder(
        networks.encoder(**options, stochastic=False),
        networks.decoder(**options),
        critic,
        adversarial_weight=7.0,
        r1=0.4,
    )
    images = blobs(64, (8, 8, 1))[0]
    result, terms, kept = first_turn(model, images)
    logits = result.z.numpy() @ [0.6, -0.8] + 0.1
    deceit = 7 * np.log1p(np.exp(-logits))
    np.testing.assert_allclose(model.objective(result)["regularizer"], deceit, rtol=1e-4)
    assert float(terms["regularizer"]) == pytest.approx(np.mean(deceit), rel=1e-4)
    second, shown = model.second_turn(result, kept)
    np.testing.assert_allclose(second["r1"], 0.5 * 0.4 * 1.0, rtol=1e-5)  # |w| = 1
    prior = randomness.normal(model.key("prior", True, result.step), (64, 2)).numpy()
    on_prior = prior @ [0.6, -0.8] + 0.1
    expected = 0.5 * (np.log1p(np.exp(-on_prior)) + np.log1p(np.exp(logits)))
    np.testing.assert_allclose(second["discriminator"], expected, rtol=1e-4)
    right = np.mean(np.concatenate([on_prior > 0, logits <= 0]))
    assert float(shown["discriminator_accuracy"]) == pytest.approx(right)


def test_instance_noise_falls_to_nothing_over_the_training(made):
    model = made("AAE", instance_noise=2.0)
    images = blobs(16)[0]
    for done, equal in ((0, False), (model.total_steps, True)):
        model.steps.assign(done)
        result, _, _ = first_turn(model, images)
        plain = model.discriminator(result.z)
        told = model._told(result, result.z, "deceit")
        assert np.allclose(plain, told) == equal


# --- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_turn_moves_its_own_weights_alone(kind, made):
    model = made(kind)
    first, second = model.players()
    assert {id(each) for each in first + second} == {id(each) for each in model.trainable_variables}
    model.optimizer.learning_rate = 0.0
    before = [each.numpy() for each in first], [each.numpy() for each in second]
    step(model)
    assert all(np.array_equal(*pair) for pair in zip(before[0], first, strict=True))
    assert all(not np.array_equal(*pair) for pair in zip(before[1], second, strict=True))


def test_a_learned_sigma_moves_with_the_decoder(made):
    model = made("SoftIntroVAE", reconstruction="learned-gaussian")
    before = float(model.log_sigma)
    step(model)
    assert float(model.log_sigma) != before
    assert any(each is model.log_sigma for each in model.players()[1])


def test_the_second_turn_sees_the_first_turns_new_encoder(made):
    model = made("SoftIntroVAE", learning_rate=0.1)
    images = blobs(16)[0]
    before, _ = model.encode(images)
    seen, second_turn = [], model.second_turn

    def watched(*given):
        seen.append(model.encode(images)[0])
        return second_turn(*given)

    model.second_turn = watched
    model.train_step(images)
    assert np.abs(seen[0] - before).max() > 1e-3


def test_a_perfect_copy_has_no_error_and_any_other_image_some(made):
    for reconstruction in ("bernoulli", "gaussian"):
        model = made("SoftIntroVAE", reconstruction=reconstruction)
        grey = tf.constant(np.random.default_rng(0).uniform(0.1, 0.9, (3, 12, 12, 1)), tf.float32)
        logits = tf.math.log(grey / (1 - grey))
        np.testing.assert_allclose(model.error(grey, logits), 0.0, atol=1e-3)
        assert np.all(model.error(grey, logits + 0.3) > 0.1)


def test_samples_come_from_a_running_mean_of_the_decoder(made):
    model = made("SoftIntroVAE", ema=0.9)
    expected = model.decoder.get_weights()
    for number in range(1, 15):
        step(model)
        kept = min(0.9, (1 + number) / (10 + number))
        new = model.decoder.get_weights()
        expected = [kept * old + (1 - kept) * each for old, each in zip(expected, new, strict=True)]
    for mean, wanted in zip(model.ema_decoder.get_weights(), expected, strict=True):
        np.testing.assert_allclose(mean, wanted, rtol=1e-4, atol=1e-6)
    z = tf.ones((2, model.latent_dim))
    np.testing.assert_array_equal(model.decode(z), tf.sigmoid(model.ema_decoder(z)))
    assert np.any(model.decode(z).numpy() != tf.sigmoid(model.decoder(z)).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_that_is_shown_is_the_sum_of_its_shown_sides(kind, made):
    shown = step(made(kind))
    assert shown["loss"] == pytest.approx(shown["reconstruction"] + shown["regularizer"], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_goes_on_as_if_never_stopped(kind, made, tmp_path):
    model = made(kind, dropout=0.2)
    for _ in range(5):
        step(model)
    model.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    for each in (model, again):
        for _ in range(5):
            step(each)
    assert int(again.steps) == 10 and int(again.total_steps) == int(model.total_steps) > 0
    assert int(again.second_optimizer.iterations) == int(again.optimizer.iterations) == 10
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)


def test_a_runs_weights_hold_no_optimizer_but_the_running_mean_and_the_control(tmp_path, tiny):
    images = data.from_arrays(*blobs(64), name="spots", label="half")
    settings = tiny(model="SoftIntroVAE", reconstruction="gaussian", sigma=0.5)
    model = registry.from_settings(settings)
    history = train.fit(model, images, settings, tmp_path / "run", verbose=0)
    assert {"beta_neg", "kl_gap", "kl_generated", "val_loss"} <= set(history.columns)
    assert "val_beta_neg" not in history.columns
    again = train.load(tmp_path / "run")
    assert float(again.log_beta_neg) == float(model.log_beta_neg)
    np.testing.assert_array_equal(again.sample(3), model.sample(3))

    with h5py.File(tmp_path / "run" / checkpoints.WEIGHTS) as file:
        assert not [name for name in file if "optimizer" in name]


# --- the control of beta_neg ---------------------------------------------------------------------


def test_beta_neg_rises_while_the_encoder_wins_and_falls_while_it_loses():
    assert adversarial.next_log_beta_neg(1.0, 0.9, 0.5, 0.0) > 1.0
    assert adversarial.next_log_beta_neg(1.0, 0.1, 0.5, 0.0) < 1.0
    assert adversarial.next_log_beta_neg(1.0, 0.5, 0.5, 0.0) == 1.0
    for gap in (-100.0, 100.0):
        moved = float(adversarial.next_log_beta_neg(1.0, gap, 0.5, 0.0)) - 1.0
        assert abs(moved) == pytest.approx(adversarial.CONTROL_RATE)


def test_beta_neg_does_not_fall_below_its_floor_however_small_the_gap():
    for gap in (-1.0, 0.0, 1.0):
        assert adversarial.next_log_beta_neg(1.0, gap, 0.5, 1.5) > 1.0


@pytest.mark.parametrize("kl, pixels", [(30.0, 1024), (300.0, 12288), (20.0, 3072)])
@pytest.mark.parametrize("push", [0.1, 1.0])
def test_the_floor_is_where_the_push_is_that_share_of_the_pull(push, kl, pixels):
    beta_neg = adversarial.least_beta_neg(kl, pixels, push)
    nats = tf.Variable([kl])
    with tf.GradientTape() as tape:
        pushed = losses.expelbo(tf.zeros(1), nats, beta_neg, pixels)
    slope = -pixels * float(tape.gradient(pushed, nats)[0])
    assert float(beta_neg) > math.e
    assert slope == pytest.approx(push, rel=1e-3)


def test_the_floor_is_bounded_where_there_is_none():
    assert float(adversarial.least_beta_neg(1e4, 1024, 1.0)) == pytest.approx(math.e, rel=1e-3)
    assert float(adversarial.least_beta_neg(0.0, 1024, 0.1)) < 1e4


@pytest.mark.parametrize("gap, bound", [(-5e4, 8.0), (5e4, 64.0)])
def test_beta_neg_stays_within_its_bounds(gap, bound, made):
    model = made("SoftIntroVAE", beta_neg=16.0, beta_neg_low=8.0, beta_neg_high=64.0)
    for _ in range(400):
        shown = model.control(tf.constant(gap), tf.constant(1000.0))
    assert float(shown["beta_neg"]) == pytest.approx(bound, rel=1e-4)


def test_beta_neg_may_stay_or_follow_a_schedule(made):
    constant = made("SoftIntroVAE", beta_neg=16.0, beta_neg_control="constant")
    assert float(constant.control(9.0, 1.0)["beta_neg"]) == pytest.approx(16.0)
    planned = made("SoftIntroVAE", beta_neg=4.0, beta_neg_last=256.0, beta_neg_control="schedule")
    for done, expected in ((0, 4.0), (10, 32.0), (20, 256.0)):
        planned.steps.assign(done)
        assert float(planned.control(9.0, 1.0)["beta_neg"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("per_pixel", [True, False])
def test_the_adversarial_term_lives_per_pixel_and_is_dead_in_nats(per_pixel, made, monkeypatch):
    if not per_pixel:
        monkeypatch.setattr(adversarial.SoftIntroVAE, "pixels", 1)
    images = data.load(config.settings("digits")).train.images[:32]
    model = made(
        "SoftIntroVAE",
        image_shape=(32, 32, 1),
        widths=(8, 16),
        latent_dim=16,
        beta_neg=256.0,
        sigma=0.1,
    )
    with tf.GradientTape() as tape:
        _, terms, _ = first_turn(model, images)
        term = tf.reduce_mean(terms["encoder_adversarial"])
    gradients = tape.gradient(term, [each.value for each in model.encoder.trainable_variables])
    size = float(tf.linalg.global_norm(gradients))
    if per_pixel:
        assert 1e-6 < float(term) < 0.499 and size > 1e-6
    else:
        assert float(term) == 0.0 and size == 0.0


def test_batch_norm_is_refused_where_real_and_generated_images_would_mix(tiny):
    with pytest.raises(ValueError, match="batch_norm = True is not valid"):
        tiny(model="SoftIntroVAE", batch_norm=True)
    options = {"image_shape": (8, 8, 1), "latent_dim": 2, "widths": (4,)}
    with pytest.raises(ValueError, match="batch_norm = True is not valid"):
        adversarial.SoftIntroVAE(
            networks.encoder(**options, batch_norm=True), networks.decoder(**options)
        )


def test_nearest_upsampling_repeats_pixels_and_keeps_the_shape():
    options = {"image_shape": (30, 44, 3), "latent_dim": 5, "widths": (4, 6), "residual": True}
    network = networks.decoder(**options, upsampling="nearest")
    assert network.output_shape == (None, 30, 44, 3)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("UpSampling2D") == 2 and "Conv2DTranspose" not in kinds
