"""Muon turns the momentum of kernels into steps along all of their directions alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import config
import train
from families import registry
from nn import optimizers


def kernel(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16)])
def test_the_iterations_of_the_gram_matrix_are_those_of_keras(shape):
    matrix = kernel(*shape) * np.geomspace(1, 50, shape[1], dtype=np.float32)
    ours = optimizers.Muon().zeropower_via_newtonschulz5(tf.constant(matrix), 5)
    theirs = keras.optimizers.Muon().zeropower_via_newtonschulz5(tf.constant(matrix), 5)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_step_of_a_kernel_is_about_the_nearest_orthogonal_matrix():
    momentum = kernel(3, 3, 4, 16)
    turned = optimizers.Muon().zeropower_via_newtonschulz5(tf.constant(momentum), 5)
    assert turned.shape == momentum.shape
    left, _, right = np.linalg.svd(momentum.reshape(36, 16), full_matrices=False)
    wanted, found = left @ right, np.reshape(turned, (36, 16))
    assert 0.6 < np.linalg.svd(found)[1].min() and np.linalg.svd(found)[1].max() < 1.3
    cosine = (wanted * found).sum() / np.linalg.norm(wanted) / np.linalg.norm(found)
    assert cosine > 0.98


def test_kernels_are_learned_by_muon_and_outputs_biases_and_norms_by_adam(tiny):
    settings = tiny(optimizer="muon", group_norm=True, latent_map=(6, 6, 2), residual=True)
    model = registry.from_settings(settings)
    train.compile_model(model, settings, steps=10)
    held = zip(model.trainable_variables, model.optimizer.adam_velocities, strict=True)
    by_muon = {each.path for each, velocity in held if velocity is None}
    inner = {
        each.path
        for each in model.trainable_variables
        if len(each.shape) == 4 and not any(word in each.path for word in optimizers.HEADS)
    }
    assert by_muon == inner and len(inner) == 7


def test_a_step_changes_a_kernel_by_a_fifth_of_the_learning_rate_as_adam_does():
    variable = keras.Variable(kernel(3, 3, 8, 8), name="kernel")
    optimizer = optimizers.Muon(1e-2)
    before = variable.numpy()
    optimizer.apply([tf.constant(kernel(3, 3, 8, 8, seed=1))], [variable])
    size = np.sqrt(np.square(variable.numpy() - before).mean())
    assert size == pytest.approx(0.2 * 1e-2, rel=0.2)


def test_an_optimizer_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="optimizer = 'sgd'.*adam.*muon"):
        config.Settings(optimizer="sgd")
