"""The patch critic: its loss, its share of the gradient, and when it begins."""

import numpy as np
import pytest
import tensorflow as tf

import train
from families import registry
from nn import losses, networks
from spots import blobs


@pytest.fixture
def made(tiny):
    def make(**changes):
        changes = {"reconstruction": "gaussian", "critic_widths": (6,), **changes}
        settings = tiny(model="VAE-GAN", **changes)
        model = registry.from_settings(settings)
        train.compile_model(model, settings, 10)
        return model

    return make


def test_the_hinge_is_nothing_for_a_critic_that_is_sure_and_one_for_one_that_does_not_know():
    ones = tf.ones((3, 2, 2, 1))
    np.testing.assert_array_equal(losses.critic_hinge(2.0 * ones, -3.0 * ones), [0.0] * 3)
    np.testing.assert_array_equal(losses.critic_hinge(0.0 * ones, 0.0 * ones), [1.0] * 3)
    # Wrong by 2 on both sides: (3 + 3) / 2.
    np.testing.assert_array_equal(losses.critic_hinge(-2.0 * ones, 2.0 * ones), [3.0] * 3)
    half = tf.concat([0.0 * ones[:, :1], ones[:, :1]], axis=1)
    np.testing.assert_array_equal(losses.critic_hinge(half, -ones), [0.25] * 3)


def test_a_critic_gives_one_number_for_each_patch():
    critic = networks.patch_critic((32, 24, 3), widths=(4, 8))
    assert critic(tf.zeros((2, 32, 24, 3))).shape == (2, 8, 6, 1)


def gradient_at_logits(model, logits, upstream):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        same = model._pulled(logits)
    np.testing.assert_array_equal(same, logits)
    return tape.gradient(same, logits, output_gradients=upstream).numpy()


def test_the_critics_gradient_has_its_share_of_the_norm_and_its_own_direction(made):
    model = made(critic_weight=0.25)
    model.steps.assign(1)
    random = np.random.default_rng(0)
    logits, upstream = (
        tf.constant(random.normal(size=(4, 12, 12, 1)), tf.float32) for _ in range(2)
    )
    pull = gradient_at_logits(model, logits, upstream) - upstream.numpy()
    assert np.linalg.norm(pull) == pytest.approx(0.25 * np.linalg.norm(upstream), rel=1e-4)
    # A step against it makes the critic's opinion better.
    for sign in (1.0, -1.0):
        moved = tf.sigmoid(logits - sign * 0.05 * pull)
        change = tf.reduce_mean(model.critic(moved)) - tf.reduce_mean(
            model.critic(tf.sigmoid(logits))
        )
        assert float(change) * sign > 0.0


def test_without_its_weight_the_critic_does_not_count(made):
    model = made(critic_weight=0.0)
    model.steps.assign(1)
    logits, upstream = tf.zeros((2, 12, 12, 1)), tf.ones((2, 12, 12, 1))
    np.testing.assert_array_equal(gradient_at_logits(model, logits, upstream), upstream)


def test_the_critics_gradient_rises_linearly_after_its_start(made):
    model = made(critic_weight=0.25, critic_start=3, critic_warmup_steps=8)
    random = np.random.default_rng(0)
    logits, upstream = (
        tf.constant(random.normal(size=(4, 12, 12, 1)), tf.float32) for _ in range(2)
    )
    for step, share in ((2, 0.0), (3, 0.0), (5, 0.25), (11, 1.0), (40, 1.0)):
        model.steps.assign(step)
        pull = gradient_at_logits(model, logits, upstream) - upstream.numpy()
        found = np.linalg.norm(pull) / np.linalg.norm(upstream)
        assert found == pytest.approx(0.25 * share, rel=1e-4, abs=1e-7)


def test_before_its_start_the_critic_neither_learns_nor_counts(made):
    late, never = made(critic_start=2), made(critic_weight=0.0, critic_start=100)
    first = [each.numpy() for each in late.critic.trainable_variables]
    for number in range(1, 4):
        for model in (late, never):
            model.train_step(blobs(16)[0])
        learnt = any(
            not np.array_equal(*each)
            for each in zip(first, late.critic.trainable_variables, strict=True)
        )
        apart = np.abs(late.decoder.get_weights()[0] - never.decoder.get_weights()[0]).max()
        assert learnt == (number > 2) and (apart > 1e-6) == (number > 2)


def test_the_critic_learns_to_tell_images_from_reconstructions(made):
    model = made(learning_rate=1e-2)
    model.optimizer.learning_rate = 0.0  # of the first turn
    found = []
    for _ in range(40):
        model.averages.reset_state()
        found.append(model.train_step(blobs(16)[0]))
    assert float(found[-1]["critic"]) < 0.5 * float(found[0]["critic"])
    assert float(found[-1]["critic_fooled"]) < 0.3
