"""Instruments for latent spaces: arrays and callables in, arrays out."""

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA


def in_batches(function, *arrays, batch_size=512):
    """A function of tensors applied to long arrays, compiled once, in large batches.

    Args:
        function: Takes a batch `(batch, ...)` of each array, returns one tensor or a tuple of
            tensors of that many rows.
        arrays: Each of shape `(n, ...)`, n at least 1.
        batch_size: Rows per call.

    Returns:
        Array, or tuple of arrays, of n rows.
    """
    n = len(arrays[0])
    if not n:
        raise ValueError("in_batches: there are no rows to work on")
    # One trace serves the full batches and the shorter last one.
    specs = [tf.TensorSpec((None, *each.shape[1:]), tf.as_dtype(each.dtype)) for each in arrays]
    compiled = tf.function(function).get_concrete_function(*specs)
    starts = range(0, n, batch_size)
    parts = [
        compiled(*(tf.convert_to_tensor(each[start : start + batch_size]) for each in arrays))
        for start in starts
    ]
    if isinstance(parts[0], tuple | list):
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
    return np.concatenate(parts)


def encode(model, split, batch_size=512):
    """Posteriors of a split's images, row by row with its table.

    Args:
        model: Anything with `encode(images) -> (z_mean, z_log_var)`.
        split: Anything with `images`.

    Returns:
        `(z_mean, z_log_var)`, float32 arrays of shape `(n, latent_dim)`.
    """
    return in_batches(model.encode, split.images, batch_size=batch_size)


def plane(z):
    """Two coordinates to draw each latent at: its own where it has two, else PCA's first two.

    Args:
        z: Shape `(n, latent_dim)`, latent_dim at least 2.

    Returns:
        `(points, share)`: shape `(n, 2)`, and the share of the variance that they show, in [0, 1].
    """
    z = np.asarray(z)
    if z.shape[1] < 2:
        raise ValueError("a plane needs a latent of at least 2 axes")
    if z.shape[1] == 2:
        return z, 1.0
    pca = PCA(n_components=2, random_state=0)
    return pca.fit_transform(z), float(pca.explained_variance_ratio_.sum())


def manifold(side, extent=2.0):
    """Latents on a square grid of a 2-D latent, row by row from the top left.

    Args:
        side: Points on each side.
        extent: The grid spans [-extent, extent], in standard deviations of the prior.

    Returns:
        Shape `(side * side, 2)`; the first axis grows to the right, the second upwards.
    """
    axis = np.linspace(-extent, extent, side, dtype=np.float32)
    across, up = np.meshgrid(axis, axis[::-1])
    return np.stack([across.ravel(), up.ravel()], axis=1)


def lerp(start, end, steps):
    """Straight path from one latent to another, both ends included; `(steps, latent_dim)`."""
    share = np.linspace(0.0, 1.0, steps, dtype=np.float32)[:, None]
    return (1.0 - share) * np.asarray(start) + share * np.asarray(end)
