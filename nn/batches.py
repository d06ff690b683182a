"""Batches: their forms, and functions applied to long arrays batch by batch."""

import math

import keras
import numpy as np
import tensorflow as tf

ROWS = 512  # per call of `in_batches`,
NUMBERS = 2**23  # and most numbers of these rows, input or output
PIXELS = 2**20  # encoded at a time: enough to use all cores, with little memory


def in_batches(function, *arrays, batch_size=None, told=""):
    """A function of tensors applied to long arrays, compiled once, in large batches.

    Args:
        function: Takes a batch `(batch, ...)` of each array, returns one tensor or a tuple of
            tensors of that many rows.
        arrays: Each of shape `(n, ...)`, n at least 1.
        batch_size: Rows per call; default: `ROWS`, or fewer for large images.
        told: Title of a progress bar; "": no progress bar.

    Returns:
        Array, or tuple of arrays, of n rows.
    """
    n = len(arrays[0])
    if not n:
        raise ValueError("in_batches: the arrays are empty")
    # One trace serves the full batches and the shorter last one.
    specs = [tf.TensorSpec((None, *each.shape[1:]), tf.as_dtype(each.dtype)) for each in arrays]
    compiled = tf.function(function).get_concrete_function(*specs)
    if batch_size is None:
        largest = max(map(_numbers, (*specs, *tf.nest.flatten(compiled.structured_outputs))))
        batch_size = max(1, min(ROWS, NUMBERS // largest))
    if told:
        print(told)
    bar = keras.utils.Progbar(n, verbose=int(bool(told)), unit_name="image")
    parts = []
    for start in range(0, n, batch_size):
        batch = (tf.convert_to_tensor(each[start : start + batch_size]) for each in arrays)
        parts.append(compiled(*batch))
        bar.update(min(n, start + batch_size))
    if isinstance(parts[0], tuple | list):
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
    return np.concatenate(parts)


def in_parts(function, *arrays, rows):
    """A function of arrays applied to `rows` rows of each at a time, so that memory suffices.

    Unlike `in_batches` it compiles nothing, which is faster for few rows.

    Args:
        function: Takes rows of each array, returns a tensor of as many rows.
        arrays: Each of shape `(n, ...)`.
        rows: At least 1.

    Returns:
        Tensor of n rows.
    """
    starts = range(0, max(1, len(arrays[0])), rows)
    return tf.concat([function(*(each[at : at + rows] for each in arrays)) for at in starts], 0)


def _numbers(tensor):
    """Numbers per row, as far as the shape is known."""
    return math.prod(side or 1 for side in tensor.shape[1:]) if tensor.shape.rank else 1


def rows_at_a_time(shape):
    """Number of images of an array `(n, height, width, channels)` that have `PIXELS` pixels."""
    return max(1, PIXELS // (shape[1] * shape[2]))


def as_float(images):
    """uint8 images to float32 in [0, 1]; floats pass."""
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)


def parts(batch):
    """Images and labels of a batch in any of the forms that `splits` makes.

    Args:
        batch: Images; `(images, labels)`; `(images, labels, others)`, whose `others` are images
            without a label, and whose labels are all known; or a dictionary of `"images"` and, if
            there are any, `"labels"` and `"conditions"`.

    Returns:
        `(images, labels)`; the labels of `others` are -1, without any labels, None.
    """
    if isinstance(batch, dict):
        return batch["images"], batch.get("labels")
    if not isinstance(batch, tuple | list):
        return batch, None
    if len(batch) == 2:
        return tuple(batch)
    images, labels, others = batch
    unknown = tf.fill((tf.shape(others)[0],), tf.constant(-1, labels.dtype))
    return tf.concat([images, others], axis=0), tf.concat([labels, unknown], axis=0)


def rows_of_parts(batch):
    """Rows of each part of a batch of `(images, labels, others)`; None for a batch of one part.

    If replicas share a batch, each holds a slice of every part.
    """
    if not isinstance(batch, tuple | list) or len(batch) < 3:
        return None
    return tuple(tf.shape(each)[0] for each in (batch[0], batch[2]))
