"""Measures of reconstructions and of latents: pure functions, per image where possible."""

import numpy as np
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors


def ssim(images, reconstructions):
    """Structural similarity of each pair of images.

    [Wang et al., 2004](https://doi.org/10.1109/TIP.2003.819861), Eq. 13, with their constants
    (0.01, 0.03) and Gaussian window (sigma 1.5, 11 pixels wide). Where a side is shorter than 11,
    the window shrinks to the largest odd number of pixels that fits; such values cannot be
    compared with those of larger images.

    Args:
        images: Floats in [0, 1], shape `(batch, height, width, channels)`.
        reconstructions: Same shape and range.

    Returns:
        Shape `(batch,)`, at most 1, no unit; channels are averaged.
    """
    side = min(images.shape[1], images.shape[2], 11)
    window = side if side % 2 else side - 1
    images = tf.cast(images, tf.float32)
    reconstructions = tf.cast(reconstructions, tf.float32)
    return tf.image.ssim(images, reconstructions, max_val=1.0, filter_size=window)


def mse(images, reconstructions):
    """Squared error of each image, averaged over pixels and channels; shape `(batch,)`."""
    return tf.reduce_mean(tf.square(images - reconstructions), axis=(1, 2, 3))


def psnr(images, reconstructions):
    """Peak signal-to-noise ratio of each image in dB; shape `(batch,)`, infinite where equal."""
    return -10.0 * tf.math.log(mse(images, reconstructions)) / tf.math.log(10.0)


def active_units(z_mean, threshold=0.01):
    """How many latent axes say something about the image.

    An axis is active where the variance of its posterior mean over the images exceeds `threshold`
    (Section 5.2 of [Burda et al., 2016](https://arxiv.org/abs/1509.00519)). An axis that has
    collapsed onto the prior has the same mean for every image.

    Args:
        z_mean: Posterior means, shape `(images, latent_dim)`.

    Returns:
        Scalar int32 tensor.
    """
    variance = tf.math.reduce_variance(z_mean, axis=0)
    return tf.reduce_sum(tf.cast(variance > threshold, tf.int32))


def knn_purity(z, labels, neighbours=10):
    """Mean share of a point's nearest neighbours that carry its own label.

    1 where every class is an island of its own, the classes' summed squared shares where labels
    and positions have nothing in common. A point is not its own neighbour.

    Args:
        z: Shape `(images, latent_dim)`; distances are Euclidean.
        labels: Shape `(images,)`.
        neighbours: How many to look at.

    Returns:
        Float in [0, 1].
    """
    z, labels = np.asarray(z), np.asarray(labels)
    if len(z) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {len(z)} images")
    # Asked without points, scikit-learn leaves each point out of its own neighbours.
    index = NearestNeighbors(n_neighbors=neighbours).fit(z).kneighbors(return_distance=False)
    return float(np.mean(labels[index] == labels[:, None]))
