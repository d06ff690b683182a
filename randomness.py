"""The one owner of random numbers in a graph: reproducible, resumable, the same under XLA.

TensorFlow's stateless *floats* differ between XLA and the plain graph when the seed is known only
at run time; its *integers* agree. So every number here is made from philox integers. A draw is a
pure function of a key, and a key of (seed, step, name of the stream): nothing is kept between
steps but the step itself, which is why a resumed run continues exactly.
"""

import math
import zlib

import tensorflow as tf


def key(seed: int, step, stream: str):
    """Key of one draw: equal arguments give equal numbers, other arguments independent ones.

    Args:
        seed: Whole number, the run's seed.
        step: Scalar integer (tensor or not), the step that draws.
        stream: What is drawn (`"noise"`, `"prior"`, ...); two draws of a step never share one.

    Returns:
        int64 tensor of shape `(2,)`.
    """
    pair = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    name = tf.constant(zlib.crc32(stream.encode()), tf.int64)
    return tf.random.experimental.stateless_fold_in(pair, name, alg="philox")


def bits(key, shape):
    """Uniform unsigned 32-bit integers of the given shape."""
    return tf.random.stateless_uniform(
        shape, key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )


def uniform(key, shape):
    """Uniform float32 in the open interval (0, 1): odd multiples of 2**-24, each exact."""
    upper = tf.bitwise.right_shift(bits(key, shape), tf.constant(9, tf.uint32))
    # By way of int32, which both XLA and the plain graph turn into float32 exactly.
    return (tf.cast(tf.cast(upper, tf.int32), tf.float32) + 0.5) * 2.0**-23


def normal(key, shape):
    """Standard normal float32, by the Box-Muller transform of pairs of uniforms."""
    size = tf.reduce_prod(shape) if tf.is_tensor(shape) else math.prod(shape)
    radius_and_angle = uniform(key, (2, (size + 1) // 2))
    radius = tf.sqrt(-2.0 * tf.math.log(radius_and_angle[0]))
    angle = 2.0 * math.pi * radius_and_angle[1]
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(both[:size], shape)


def random_bytes(key, shape):
    """Uniform unsigned 8-bit integers, four from each 32-bit draw."""
    size = tf.reduce_prod(shape) if tf.is_tensor(shape) else math.prod(shape)
    words = bits(key, ((size + 3) // 4,))
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), (-1,))[:size], shape)
