"""Counts of operations and bytes equal those computed by hand."""

import pytest
import tensorflow as tf

import train
from benchmarks import costs
from families import registry


def test_a_convolution_costs_two_operations_for_every_weight_at_every_place():
    spec = (tf.TensorSpec((4, 8, 8, 3)), tf.TensorSpec((3, 3, 3, 5)))
    traced = tf.function(lambda x, k: tf.nn.conv2d(x, k, 2, "SAME")).get_concrete_function(*spec)
    assert costs.operations(traced) == 2 * (4 * 4 * 4) * (3 * 3 * 3) * 5


def test_the_kernels_of_a_function_add_up_and_move_what_goes_in_and_out():
    spec = (tf.TensorSpec((4, 8, 8, 3)), tf.TensorSpec((3, 3, 3, 5)))
    traced = tf.function(lambda x, k: tf.nn.relu(tf.nn.conv2d(x, k, 1, "SAME")))
    found = costs.kernels(traced.get_concrete_function(*spec))
    assert sum(each.operations for each in found.values()) == costs.operations(
        traced.get_concrete_function(*spec)
    )
    moved = {each.kind: each.bytes for each in found.values()}
    made = 4 * 8 * 8 * 5
    assert moved == {"Conv2D": 4 * (4 * 8 * 8 * 3 + 3 * 3 * 3 * 5 + made), "Relu": 4 * 2 * made}
    (dense,) = [each for each in found.values() if each.dense]
    assert dense.seconds(1e9, 1e3) == dense.bytes / 1e3  # too little work for its bytes
    assert dense.seconds(1e3, 1e9) == dense.operations / 1e3


def test_a_step_costs_about_three_times_its_networks_and_grows_with_the_batch(tiny):
    model = registry.from_settings(tiny())
    train.compile_model(model, tiny(), 10)
    images = tf.TensorSpec((16, *model.image_shape), tf.float32)
    once = costs.operations(tf.function(model.reconstruct).get_concrete_function(images))
    few, many = (costs.step_operations(model, size) for size in (16, 160))
    assert 2.2 * once < few < 4 * once
    assert many / few == pytest.approx(10, rel=0.1)


def test_a_ring_sends_nothing_alone_and_never_twice_the_gradients():
    assert costs.all_reduce_seconds(1e9, 1, 1e9) == 0
    assert costs.all_reduce_seconds(1e9, 2, 1e9) == 1
    assert costs.all_reduce_seconds(1e9, 8, 1e9) == pytest.approx(1.75)
