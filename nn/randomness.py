"""All random numbers of a graph: reproducible, resumable, the same under XLA.

TensorFlow's stateless *floats* differ between XLA and the plain graph when the seed is known only
at run time; its *integers* agree. So all numbers here are made from philox integers. A draw is a
pure function of a key, and a key is a function of (seed, step, name of the stream). The only state
is the step, so a resumed run continues exactly.
"""

import math
import zlib
from typing import NamedTuple

import tensorflow as tf

from nn import replicas


class PartsKey(NamedTuple):
    """Key of a draw for a batch that consists of parts, each shared by all replicas."""

    numbers: tf.Tensor
    rows: tuple


CORRUPTIONS = ("none", "gaussian", "mask", "coarse")


def key(seed: int, step, stream: str, parts=None):
    """Key of one draw: equal arguments give equal numbers, other arguments independent ones.

    Args:
        seed: Whole number, the run's seed.
        step: Scalar integer (tensor or not), the step that draws.
        stream: What is drawn (`"noise"`, `"prior"`, ...); two draws of a step never share one.
        parts: Rows of each part, if the batch consists of several; they matter only with several
            replicas.

    Returns:
        int64 tensor of shape `(2,)`; with parts, a `PartsKey`.
    """
    pair = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    name = tf.constant(zlib.crc32(stream.encode()), tf.int64)
    numbers = tf.random.experimental.stateless_fold_in(pair, name, alg="philox")
    return numbers if parts is None else PartsKey(numbers, tuple(parts))


def of_replica(key):
    """A separate key for this replica, for draws that may differ from those on a single device."""
    if replicas.count() == 1:
        return key
    return tf.random.experimental.stateless_fold_in(key, replicas.number(), alg="philox")


def _shared(draw):
    """A draw for the rows of a batch; with several replicas each gets its rows of the whole
    draw."""

    def drawn(key, shape):
        numbers, parts = key if isinstance(key, PartsKey) else (key, None)
        count = replicas.count()
        if count == 1:
            return draw(numbers, shape)
        shape = tf.convert_to_tensor(shape)
        whole = draw(numbers, tf.concat([count * shape[:1], shape[1:]], axis=0))
        at, pieces = 0, []
        for rows in parts or (shape[0],):
            start = at + replicas.number() * rows
            pieces.append(whole[start : start + rows])
            at += count * rows
        return tf.concat(pieces, axis=0)

    drawn.__doc__ = draw.__doc__
    return drawn


def bits(key, shape):
    """Uniform unsigned 32-bit integers of the given shape."""
    return tf.random.stateless_uniform(
        shape, key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )


def _uniform(key, shape):
    """Uniform float32 in the open interval (0, 1): odd multiples of 2**-24, each exact."""
    upper = tf.bitwise.right_shift(bits(key, shape), tf.constant(9, tf.uint32))
    # Through int32, which both XLA and the plain graph convert to float32 exactly.
    return (tf.cast(tf.cast(upper, tf.int32), tf.float32) + 0.5) * 2.0**-23


def _normal(key, shape):
    """Standard normal float32, by the Box-Muller transform of pairs of uniforms."""
    size = tf.reduce_prod(shape) if tf.is_tensor(shape) else math.prod(shape)
    radius_and_angle = _uniform(key, (2, (size + 1) // 2))
    radius = tf.sqrt(-2.0 * tf.math.log(radius_and_angle[0]))
    angle = 2.0 * math.pi * radius_and_angle[1]
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(both[:size], shape)


uniform, normal = _shared(_uniform), _shared(_normal)


def random_bytes(key, shape):
    """Uniform unsigned 8-bit integers, four from each 32-bit draw."""
    size = tf.reduce_prod(shape) if tf.is_tensor(shape) else math.prod(shape)
    words = bits(key, ((size + 3) // 4,))
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), (-1,))[:size], shape)


def binary(images, key):
    """Samples binary images: pixel = 1 with its grey value as probability, else 0; same shape."""
    return tf.cast(uniform(key, tf.shape(images)) < images, tf.float32)


def corrupted(images, kind, level, key, knots=8):
    """Corrupted images, the input of a denoising model.

    Args:
        images: Floats in [0, 1].
        kind: One of `CORRUPTIONS`: `"gaussian"` noise, clipped to [0, 1]; `"mask"`: pixels set to
            0; `"coarse"`: smooth noise (`coarse`) on what is not black, clipped; `"none"`.
        level: Standard deviation of that noise, or share of pixels.
        key: See `key`.
        knots: Of coarse noise, see `coarse`.
    """
    if kind == "coarse":
        return noised(images, level * coarse(key, tf.shape(images), images.shape, knots))
    if kind == "gaussian":
        noise = level * normal(key, tf.shape(images))
        return tf.clip_by_value(images + noise, 0.0, 1.0)
    if kind == "mask":
        kept = uniform(key, tf.shape(images)) >= level
        return images * tf.cast(kept, tf.float32)
    return images


def noised(images, noise):
    """Images with noise on what is not black, clipped to [0, 1]."""
    return tf.clip_by_value(images + tf.where(images > 0.0, noise, 0.0), 0.0, 1.0)


def coarse(key, shape, known, knots=8):
    """Noise as smooth as large spots: normal numbers on a grid, interpolated between its knots.

    The grid has `knots` knots along the shorter side and lies at another place in every image, so
    that no pixel is always a knot. All channels get the same noise.
    [Kascenas et al., 2022](https://openreview.net/forum?id=Bm8-t_ggzNd) train denoisers with it to
    find lesions.

    Args:
        key: See `key`.
        shape: Of the images, `(batch, height, width, channels)`, a tensor or not.
        known: The same as far as it is known; height and width must be.
        knots: At most as many as the shorter side has pixels; with more, every pixel is one.

    Returns:
        float32 `(batch, height, width, 1)`, of unit variance at the knots.
    """
    height, width = known[1:3]
    cell = max(1.0, min(height, width) / knots)
    down, across = (math.ceil(side / cell) + 2 for side in (height, width))
    # One draw, so that replicas can share it: the grid's numbers, and two for its place.
    drawn = normal(key, (shape[0], down * across + 2))
    grid = tf.reshape(drawn[:, 2:], (-1, down, across))
    place = 0.5 + 0.5 * tf.math.erf(drawn[:, :2] / math.sqrt(2.0))  # uniform in (0, 1)

    def weights(side, count, first):
        at = tf.range(side, dtype=tf.float32) / cell + first[:, None]
        away = tf.abs(at[:, :, None] - tf.range(count, dtype=tf.float32))
        return tf.nn.relu(1.0 - away)

    rows, columns = weights(height, down, place[:, 0]), weights(width, across, place[:, 1])
    return tf.matmul(tf.matmul(rows, grid), columns, transpose_b=True)[..., None]
