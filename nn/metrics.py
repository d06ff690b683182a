"""Measures of reconstructions, latents and samples: pure functions, per image if possible."""

import numpy as np
import tensorflow as tf
from scipy import ndimage
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from nn.batches import as_float, in_batches


def ssim(images, reconstructions):
    """Structural similarity of each pair of images.

    [Wang et al., 2004](https://doi.org/10.1109/TIP.2003.819861), Eq. 13, with their constants
    (0.01, 0.03) and Gaussian window (sigma 1.5, 11 pixels wide, inside the image only). If a side
    is shorter than 11, the window shrinks to the largest odd number of pixels that fits; such
    values cannot be compared with those of larger images. The window is applied as two products
    with banded matrices, which with the gradient takes a third of the time of `tf.image.ssim` on a
    CPU.

    Args:
        images: Floats in [0, 1], shape `(batch, height, width, channels)`.
        reconstructions: Same shape and range.

    Returns:
        Shape `(batch,)`, at most 1, no unit; channels are averaged.
    """
    return tf.reduce_mean(ssim_map(images, reconstructions), axis=(1, 2, 3))


def ssim_foreground(images, reconstructions, level=0.05):
    """SSIM averaged over the positions where the original is not black.

    Black margins are easy to reconstruct and raise the SSIM of the whole image. A position counts
    if the window's mean of the original, over all channels, exceeds `level`; an image without such
    a position gets 1.

    Returns:
        Shape `(batch,)`.
    """
    similarity, brightness = _compared(images, reconstructions)
    counts = tf.cast(tf.reduce_mean(brightness, axis=-1) > level, tf.float32)
    places = tf.reduce_sum(counts, axis=(1, 2))
    total = tf.reduce_sum(tf.reduce_mean(similarity, axis=-1) * counts, axis=(1, 2))
    return tf.where(places > 0, total / tf.maximum(places, 1.0), 1.0)


def ms_ssim(images, reconstructions):
    """Structural similarity on five scales, [Wang et al., 2003](https://doi.org/10.1109/ACSSC.2003.1292216).

    Args:
        images: Floats in [0, 1], shape `(batch, height, width, channels)`, at least
            `LEAST_FOR_SCALES` pixels high and wide.
        reconstructions: Same shape and range.

    Returns:
        Shape `(batch,)`, at most 1.
    """
    return tf.image.ssim_multiscale(images, reconstructions, max_val=1.0)


def has_scales(shape) -> bool:
    """Whether images of a shape `(..., height, width, channels)` are large enough for `ms_ssim`."""
    return min(shape[-3:-1]) >= LEAST_FOR_SCALES


def ssim_map(images, reconstructions):
    """SSIM at every position where the whole window fits; `(batch, rows, columns, channels)`."""
    return _compared(images, reconstructions)[0]


def _compared(images, reconstructions):
    """SSIM and the window's mean of the original at every position where the whole window fits."""
    _, height, width, channels = images.shape
    side = min(height, width, 11)
    side = side if side % 2 else side - 1
    down, across = _windows(height, side), _windows(width, side)
    rows, columns = down.shape[1], across.shape[1]

    def blur(x):
        # Two plain matrix products; the result is columns by rows, so the axes are swapped at the
        # end.
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
    """Matrix `(length, length - side + 1)` whose columns are the Gaussian window at every
    position."""
    window = np.exp(-0.5 * ((np.arange(side) - side // 2) / 1.5) ** 2)
    matrix = np.zeros((length, length - side + 1), np.float32)
    for place in range(matrix.shape[1]):
        matrix[place : place + side, place] = window / window.sum()
    return tf.constant(matrix)


def mse(images, reconstructions):
    """Squared error of each image, averaged over pixels and channels; shape `(batch,)`."""
    return tf.reduce_mean(tf.square(images - reconstructions), axis=(1, 2, 3))


def psnr(images, reconstructions):
    """Peak signal-to-noise ratio of each image in dB; shape `(batch,)`, infinite if equal."""
    return -10.0 * tf.math.log(mse(images, reconstructions)) / tf.math.log(10.0)


def active_units(z_mean, threshold=0.01):
    """Number of active latent axes.

    An axis is active if the variance of its posterior mean over the images exceeds `threshold`
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
    """Expected calibration error: mean difference between confidence and accuracy.

    Images are put into bins of equal width by the probability of their most likely class; the error
    is the mean of `|accuracy - confidence|` over bins, weighted by the images in each
    ([Guo et al., 2017](https://arxiv.org/abs/1706.04599), Eq. 3).

    Args:
        probabilities: Shape `(images, classes)`, rows that sum to 1.
        labels: Whole numbers, shape `(images,)`; -1: no label, left out.
        bins: Number of bins between 0 and 1.

    Returns:
        `(error, table)`: a float in [0, 1], and one row per bin that holds images, with the means
        `confidence` and `accuracy` and the number `n`, a structured array.
    """
    known = np.asarray(labels) >= 0
    probabilities = np.asarray(probabilities, np.float64)[known]
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == np.asarray(labels)[known]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [
        (confidence[bin_of == each].mean(), right[bin_of == each].mean(), np.sum(bin_of == each))
        for each in np.unique(bin_of)
    ]
    table = np.array(rows, dtype=[("confidence", float), ("accuracy", float), ("n", int)])
    gaps = np.abs(table["accuracy"] - table["confidence"])
    return float(np.average(gaps, weights=table["n"])), table


def knn_purity(z, labels, neighbours=10):
    """Mean share of a point's nearest neighbours that have its label.

    1 if every class forms its own cluster; the sum of the squared class shares if labels and
    positions are independent. A point is not its own neighbour. Points without a label are left
    out.

    Args:
        z: Shape `(images, latent_dim)`; distances are Euclidean.
        labels: Whole numbers, shape `(images,)`; -1: no label.
        neighbours: Number of neighbours.

    Returns:
        Float in [0, 1].
    """
    z, labels = np.asarray(z), np.asarray(labels)
    z, labels = z[labels >= 0], labels[labels >= 0]
    if len(z) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {len(z)} images with a label")
    # Without an argument, scikit-learn does not count a point as its own neighbour.
    index = NearestNeighbors(n_neighbors=neighbours).fit(z).kneighbors(return_distance=False)
    return float(np.mean(labels[index] == labels[:, None]))


# --- sets of images ------------------------------------------------------------------------------

# Settings of sliced Wasserstein distances, as in Karras et al. (2018).
PATCH = 7
PATCHES = 128  # per image and level
PROJECTIONS = 512
SMALLEST = 16  # side of the coarsest level
REACH = 3  # the distance to this neighbour is the radius of an image
LEAST_FOR_SCALES = 176  # pixels: the window of 11 still fits the fifth scale
BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def frechet_distance(features, others):
    """Frechet distance between Gaussians fitted to two sets of features.

    `|m - n|^2 + tr(S + T - 2 (S T)^(1/2))`, Eq. 6 of
    [Heusel et al., 2017](https://arxiv.org/abs/1706.08500). With Inception's features it is called
    FID; values with another network cannot be compared with it. It is biased upwards for small
    sets.

    Args:
        features, others: Shape `(images, units)`, more images than units.

    Returns:
        Float, 0 or more, in squared units of the features.
    """
    features, others = np.asarray(features, np.float64), np.asarray(others, np.float64)
    means = features.mean(axis=0) - others.mean(axis=0)
    one, two = np.cov(features, rowvar=False), np.cov(others, rowvar=False)
    # (S T)^(1/2) has the trace of (S^(1/2) T S^(1/2))^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(np.atleast_2d(one))
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.atleast_2d(two) @ root)
    trace = np.trace(np.atleast_2d(one + two)) - 2.0 * np.sqrt(np.maximum(inner, 0.0)).sum()
    return float(means @ means + trace)


def kernel_distance(features, others, block=1000):
    """Kernel distance between two sets of features: squared MMD, unbiased, with a cubic kernel.

    `k(x, y) = (x.y / units + 1)^3`, averaged over blocks of images, as KID is in
    [Binkowski et al., 2018](https://arxiv.org/abs/1801.01401), Section 4; KID uses Inception's
    features. Unlike `frechet_distance` it has no bias from small sets.

    Args:
        features, others: Shape `(images, units)`.
        block: Images of each set in a block.

    Returns:
        `(mean, standard error over blocks)`; the error is NaN if there is one block.
    """
    features, others = np.asarray(features, np.float64), np.asarray(others, np.float64)
    size = min(block, len(features), len(others))
    blocks = min(len(features), len(others)) // size
    found = []
    for start in range(0, blocks * size, size):
        x, y = features[start : start + size], others[start : start + size]
        within = sum(_off_diagonal_mean(_cubic(each, each)) for each in (x, y))
        found.append(within - 2.0 * _cubic(x, y).mean())
    error = np.std(found, ddof=1) / np.sqrt(blocks) if blocks > 1 else np.nan
    return float(np.mean(found)), float(error)


def precision_recall(features, others, neighbours=REACH):
    """Precision and recall of generated images.

    [Kynkaanniemi et al., 2019](https://arxiv.org/abs/1904.06991), Eq. 1 and 2: the radius of an
    image is the distance to its neighbour number `neighbours` in its own set. Precision is the
    share of `others` within the radius of one of `features`; recall is the share of `features`
    within the radius of one of `others`.

    Args:
        features: Of real images, shape `(n, units)`.
        others: Of generated images, shape `(m, units)`.
        neighbours: Number of neighbours, fewer than images in either set.

    Returns:
        `(precision, recall)`.
    """
    return _within_reach(others, features, neighbours), _within_reach(features, others, neighbours)


def _within_reach(points, centres, neighbours):
    """Share of points within the radius of a centre."""
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(centres)
    reach = search.kneighbors()[0][:, -1]  # without an argument, no point is its own neighbour
    within = pairwise_distances_chunked(
        points, centres, reduce_func=lambda distances, _: (distances <= reach).any(axis=1)
    )
    return float(np.concatenate(list(within)).mean())


def _cubic(x, y):
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _off_diagonal_mean(square):
    return (square.sum() - np.trace(square)) / (len(square) * (len(square) - 1))


def sliced_wasserstein(images, others, seed=0):
    """Sliced Wasserstein distance of patches on every level of a Laplacian pyramid.

    Section 5 of [Karras et al., 2018](https://arxiv.org/abs/1710.10196): patches of 7x7 pixels at
    random positions of every level, each channel normalised to mean 0 and sd 1, compared along
    random directions. It needs no network. The finest level measures sharpness and noise, the
    coarsest large structures. The sets must have the same size. Smaller sets give larger distances,
    also between two draws of one distribution, so report that lower limit too.

    Args:
        images, others: Floats in [0, 1], same shape `(images, height, width, channels)`.
        seed: Seed of positions and directions.

    Returns:
        Dict from the level's height in pixels to the distance, in thousandths of a standard
        deviation as in the paper, finest first.
    """
    images, others = np.asarray(images, np.float32), np.asarray(others, np.float32)
    if images.shape != others.shape:
        raise ValueError(
            f"the sets must have the same shape, not {images.shape} and {others.shape}"
        )
    random = np.random.default_rng(seed)
    levels = zip(_laplacian_pyramid(images), _laplacian_pyramid(others), strict=True)
    distances = {}
    for one, two in levels:
        patches = [_patches(each, random) for each in (one, two)]
        distances[one.shape[1]] = 1000.0 * wasserstein_along_directions(*patches, random)
    return distances


def wasserstein_along_directions(points, others, random):
    """Mean distance between two sorted sets of points, along random directions.

    Args:
        points, others: Shape `(n, axes)`.
        random: NumPy generator of the directions.
    """
    directions = random.normal(size=(points.shape[1], PROJECTIONS)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    total = 0.0
    for each in np.array_split(directions, 16, axis=1):  # in parts, to save memory
        gaps = np.sort(points @ each, axis=0) - np.sort(others @ each, axis=0)
        total += np.abs(gaps).mean(axis=0).sum()
    return float(total / PROJECTIONS)


def _laplacian_pyramid(images):
    """Details of each size, finest first, and the coarse rest of the image."""
    levels = []
    while min(images.shape[1:3]) >= 2 * SMALLEST:
        half = _blurred(images)[:, ::2, ::2]
        spread = np.zeros_like(images)
        spread[:, ::2, ::2] = 4.0 * half
        levels.append(images - _blurred(spread))
        images = half
    return [*levels, images]


def _blurred(images):
    for axis in (1, 2):
        images = ndimage.convolve1d(images, BINOMIAL, axis=axis, mode="mirror")
    return images


def _patches(images, random):
    """Patches at random positions, `(images * PATCHES, values)`, channels normalised."""
    count, height, width, channels = images.shape
    rows = random.integers(0, height - PATCH + 1, (count, PATCHES, 1, 1))
    columns = random.integers(0, width - PATCH + 1, (count, PATCHES, 1, 1))
    span = np.arange(PATCH)
    which = np.arange(count)[:, None, None, None]
    patches = images[which, rows + span[:, None], columns + span]
    patches = patches.reshape(-1, PATCH * PATCH, channels)
    patches = patches - patches.mean(axis=(0, 1))
    patches /= np.maximum(patches.std(axis=(0, 1)), 1e-8)
    return patches.reshape(len(patches), -1)


def sharpness(images):
    """Variance of each image's Laplacian: 0 if it is flat, large where edges are hard.

    The focus measure of [Pech-Pacheco et al., 2000](https://doi.org/10.1109/ICPR.2000.903548).
    Noise counts as sharpness, so higher is not always better: compare with real images.

    Args:
        images: Floats in [0, 1], shape `(batch, height, width, channels)`.

    Returns:
        NumPy array `(batch,)`, averaged over channels.
    """
    images = np.asarray(images, np.float32)
    inner = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return (around - 4.0 * inner).var(axis=(1, 2)).mean(axis=-1)


def small(images, side=32):
    """Images averaged to at most `side` pixels high and wide; floats in [0, 1]."""

    def shrunk(batch):
        height, width = batch.shape[1:3]
        factor = max(1.0, max(height, width) / side)
        shape = (max(1, round(height / factor)), max(1, round(width / factor)))
        return tf.image.resize(as_float(batch), shape, method="area")

    return in_batches(shrunk, images)
