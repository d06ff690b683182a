"""How many operations a second this machine reaches in the convolutions of networks."""

import time
from functools import partial

import tensorflow as tf

import costs

PLAIN = ((32, 64), (16, 128), (16, 256), (8, 256), (32, 128))  # sides and channels


def per_second(call, operations, seconds=1.0):
    """Operations per second of the clock, over at least that long."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls * operations / (time.perf_counter() - start)


def convolutions():
    """Some plain float32 convolutions, each as a call without arguments and its operations."""
    found = []
    for side, channels in PLAIN:
        pixels = tf.random.normal((16, side, side, channels))
        kernel = tf.random.normal((3, 3, channels, channels))
        convolution = tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"))
        traced = convolution.get_concrete_function(pixels, kernel)
        found.append((partial(traced, pixels, kernel), costs.operations(traced)))
    return found


def peak(calls):
    """The speed of the fastest of `convolutions()`, now."""
    return max(per_second(call, operations) for call, operations in calls)
