"""Operations per second that this machine reaches in convolutions."""

from functools import partial

import costs
import tensorflow as tf
from turns import now, since

PLAIN = ((32, 64), (16, 128), (16, 256), (8, 256), (32, 128))  # sides and channels


def per_second(call, operations, seconds=1.0):
    """Operations per wall-clock second and per CPU second, over at least `seconds`."""
    begun, calls = now(), 0
    while since(begun)[0] < seconds:
        call()
        calls += 1
    return tuple(calls * operations / spent for spent in since(begun))


def convolutions():
    """Some plain float32 convolutions: functions without arguments, and their operations."""
    found = []
    for side, channels in PLAIN:
        pixels = tf.random.normal((16, side, side, channels))
        kernel = tf.random.normal((3, 3, channels, channels))
        convolution = tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"))
        traced = convolution.get_concrete_function(pixels, kernel)
        found.append((partial(traced, pixels, kernel), costs.operations(traced)))
    return found


def peak(calls):
    """The present speed of the fastest of `convolutions()`; see `per_second`."""
    return max(per_second(call, operations) for call, operations in calls)
