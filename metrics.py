"""Measures of reconstructions and of latents: pure functions, per image where possible."""

import numpy as np
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors


def ssim(images, reconstructions):
    """Structural similarity of each pair of images.

    [Wang et al., 2004](https://doi.org/10.1109/TIP.2003.819861), Eq. 13, with their constants
    (0.01, 0.03) and Gaussian window (sigma 1.5, 11 pixels wide, inside the image only). Where a
    side is shorter than 11, the window shrinks to the largest odd number of pixels that fits; such
    values cannot be compared with those of larger images. The window is applied as two products
    with banded matrices: with its gradient a third of the time of `tf.image.ssim` on a CPU.

    Args:
        images: Floats in [0, 1], shape `(batch, height, width, channels)`.
        reconstructions: Same shape and range.

    Returns:
        Shape `(batch,)`, at most 1, no unit; channels are averaged.
    """
    return tf.reduce_mean(ssim_map(images, reconstructions), axis=(1, 2, 3))


def ssim_foreground(images, reconstructions, level=0.05):
    """SSIM averaged over the places where the original is not black.

    Black margins are easy to draw again, and where they fill half of an image they lift its SSIM
    whatever the rest looks like. A place counts where the window's mean of the original, over all
    channels, exceeds `level`; an image without such a place gets 1.

    Returns:
        Shape `(batch,)`.
    """
    similarity, brightness = _compared(images, reconstructions)
    counts = tf.cast(tf.reduce_mean(brightness, axis=-1) > level, tf.float32)
    places = tf.reduce_sum(counts, axis=(1, 2))
    total = tf.reduce_sum(tf.reduce_mean(similarity, axis=-1) * counts, axis=(1, 2))
    return tf.where(places > 0, total / tf.maximum(places, 1.0), 1.0)


def ssim_map(images, reconstructions):
    """SSIM at every place where the whole window fits; `(batch, rows, columns, channels)`."""
    return _compared(images, reconstructions)[0]


def _compared(images, reconstructions):
    """SSIM and the window's mean of the original at every place where the whole window fits."""
    _, height, width, channels = images.shape
    side = min(height, width, 11)
    side = side if side % 2 else side - 1
    down, across = _windows(height, side), _windows(width, side)
    rows, columns = down.shape[1], across.shape[1]

    def blur(x):
        # Two plain matrix products: columns by rows comes out, the axes are put right at the end.
        x = tf.reshape(tf.matmul(tf.reshape(x, (-1, width)), across), (-1, height, columns))
        x = tf.reshape(tf.transpose(x, (0, 2, 1)), (-1, height))
        return tf.reshape(tf.matmul(x, down), (-1, columns, rows))

    def upright(x):
        return tf.transpose(tf.reshape(x, (-1, channels, columns, rows)), (0, 3, 2, 1))

    x, y = (
        tf.reshape(tf.transpose(tf.cast(each, tf.float32), (0, 3, 1, 2)), (-1, height, width))
        for each in (images, reconstructions)
    )
    mean_x, mean_y = blur(x), blur(y)
    squares = tf.square(mean_x) + tf.square(mean_y)
    products = mean_x * mean_y
    variances = blur(tf.square(x) + tf.square(y)) - squares
    covariance = blur(x * y) - products
    luminance = (2.0 * products + 0.01**2) / (squares + 0.01**2)
    similarity = luminance * (2.0 * covariance + 0.03**2) / (variances + 0.03**2)
    return upright(similarity), upright(mean_x)


def _windows(length, side):
    """Matrix `(length, length - side + 1)` whose columns are the Gaussian window at every place."""
    window = np.exp(-0.5 * ((np.arange(side) - side // 2) / 1.5) ** 2)
    matrix = np.zeros((length, length - side + 1), np.float32)
    for place in range(matrix.shape[1]):
        matrix[place : place + side, place] = window / window.sum()
    return tf.constant(matrix)


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


def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error: how far confidence lies from accuracy.

    Images are put into bins of equal width by the probability of their likeliest class; the error
    is the mean of `|accuracy - confidence|` over bins, weighted by the images in each
    ([Guo et al., 2017](https://arxiv.org/abs/1706.04599), Eq. 3).

    Args:
        probabilities: Shape `(images, classes)`, rows that sum to 1.
        labels: Whole numbers, shape `(images,)`.
        bins: Between 0 and 1.

    Returns:
        `(error, table)`: a float in [0, 1], and one row per bin that holds images, with the means
        `confidence` and `accuracy` and the number `n`, a structured array.
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == np.asarray(labels)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [
        (confidence[bin_of == each].mean(), right[bin_of == each].mean(), np.sum(bin_of == each))
        for each in np.unique(bin_of)
    ]
    table = np.array(rows, dtype=[("confidence", float), ("accuracy", float), ("n", int)])
    gaps = np.abs(table["accuracy"] - table["confidence"])
    return float(np.average(gaps, weights=table["n"])), table


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
