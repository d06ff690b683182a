"""Maps of what is abnormal in images: scores of trained models, and baselines without one.

Every function takes arrays and functions and returns one map per image, `(n, height, width)`, high
where a pixel looks abnormal. Maps are never scaled by image: a healthy one stays dark.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from nn import metrics, randomness
from nn.batches import as_float, in_batches
from sources import heads

TOP = 0.01  # share of an image's pixels whose mean is the score of the image: 40 at 64x64
MEDIAN = 3  # side of the median filter of every map
COMPONENTS = 32
MOST_IMAGES = 3000  # most training images for a baseline's fit
RESIDUALS = ("signed", "absolute", "squared")


# --- scores from reconstructions -----------------------------------------------------------------


def residual(images, made, kind="signed"):
    """What a reconstruction lacks, `images - made`, or its size.

    Args:
        images, made: Floats in [0, 1], `(n, height, width, channels)`.
        kind: `"signed"`, high where the image is brighter; `"absolute"`; or `"squared"`.
    """
    away = (np.asarray(images, np.float32) - np.asarray(made, np.float32)).mean(axis=-1)
    return {"signed": away, "absolute": np.abs(away), "squared": np.square(away)}[kind]


def surprise(images, expected, kind="signed"):
    """What a reconstruction lacks, in standard deviations that the model itself expects.

    Where healthy images differ most (eyes, folds, edges) the model knows little, and the same
    difference counts less.

    Args:
        images: Floats in [0, 1], `(n, height, width, channels)`.
        expected: Means, then standard deviations, `(n, height, width, 2 * channels)`
            (`denoising.Denoiser.expected`).
        kind: See `residual`.

    References: [Kendall & Gal, 2017](https://arxiv.org/abs/1703.04977), Eq. 5
    """
    means, spreads = np.split(np.asarray(expected, np.float32), 2, axis=-1)
    return residual(np.asarray(images, np.float32) / spreads, means / spreads, kind)


def ssim_residual(images, made):
    """1 - SSIM around every pixel; images continue as their mirror beyond their edges.

    Args:
        images, made: Floats in [0, 1], `(n, height, width, channels)`.
    """
    side = min(*images.shape[1:3], 11)
    side -= 1 - side % 2
    around = ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0))
    pair = (
        np.pad(np.asarray(each, np.float32), around, mode="symmetric") for each in (images, made)
    )
    likeness = in_batches(lambda x, y: _ssim(x, y, images.shape), *pair)
    return 1.0 - likeness.mean(axis=-1)


def _ssim(x, y, shape):
    # Of images smaller than the window the padding makes more places than there are pixels.
    return metrics.ssim_map(x, y)[:, : shape[1], : shape[2]]


def denoised(reconstruct, images, noise=None):
    """What a denoiser leaves of images, averaged over several draws of noise.

    Args:
        reconstruct: Images, floats in [0, 1], to images or to other maps.
        images: Floats in [0, 1], `(n, height, width, channels)`.
        noise: Function from the number of a draw and a batch to the corrupted batch, and the number
            of draws: `coarse_noise`. None: the images as they are.

    Returns:
        The mean of what `reconstruct` gives.
    """
    corrupt, draws = noise or ((lambda number, batch: batch), 1)

    def mean(batch):
        return sum(reconstruct(corrupt(number, batch)) for number in range(draws)) / draws

    return in_batches(mean, np.asarray(images, np.float32))


def coarse_noise(level, draws, seed=0, knots=8):
    """Draws of coarse noise for `denoised`, the same for every image.

    Args:
        level: Standard deviation.
        draws: Number of them.
        seed: Of the draws.
        knots: See `randomness.coarse`.
    """

    def corrupt(number, batch):
        key = randomness.key(seed, number, "anomaly")
        shared = randomness.coarse(key, (1,), (1, *batch.shape[1:]), knots)
        return randomness.noised(batch, level * shared)

    return corrupt, draws


# --- scores from the bound -----------------------------------------------------------------------


def bound_of(model):
    """The negative bound of a VAE as a function of images, at the posteriors' means.

    Args:
        model: A trained `model.VAE`.

    Returns:
        Function from floats in [0, 1] to nats, `(batch,)`.
    """

    def bound(images):
        result = model.forward(images, training=False, step=0)
        logits = model.logits_of(result.z_mean, training=False)
        distortion, rate = model.bound(result._replace(logits=logits, targets=images))
        return distortion if rate is None else distortion + rate

    return bound


def gradient(bound, images):
    """Size of the gradient of the negative bound at every pixel, in nats per grey level.

    Args:
        bound: From `bound_of`.
        images: Floats in [0, 1], `(n, height, width, channels)`.

    References: [Zimmerer et al., 2019](https://arxiv.org/abs/1907.12258)
    """
    return np.abs(in_batches(lambda batch: _slope(bound, batch), images)).mean(axis=-1)


def _slope(function, images):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        value = tf.reduce_sum(function(images))
    return tape.gradient(value, images)


def restored(bound, images, steps=40, rate=1e-3, weight=5.0):
    """Images moved towards what a model finds likely, with few changes.

    Gradient descent on `bound(x) + weight * TV(x - image)`, TV the total variation: a lesion is
    replaced where that makes the image likelier. The map is `residual` of image and restoration.

    Args:
        bound: From `bound_of`.
        images: Floats in [0, 1], `(n, height, width, channels)`.
        steps: Of the descent.
        rate: Grey levels per step for a gradient of 1 nat per grey level.
        weight: Nats per unit of total variation.

    Returns:
        Floats in [0, 1], of the images' shape.

    References: [You et al., 2019](https://proceedings.mlr.press/v102/you19a.html), Eq. 6
    """

    def restore(batch):
        def total(x):
            change = x - batch
            down, across = change[:, 1:] - change[:, :-1], change[:, :, 1:] - change[:, :, :-1]
            # Smooth at 0, where the absolute value has no slope.
            varied = (tf.reduce_sum(tf.sqrt(each**2 + 1e-6), (1, 2, 3)) for each in (down, across))
            return bound(x) + weight * sum(varied)

        def step(number, x):
            return number + 1, tf.clip_by_value(x - rate * _slope(total, x), 0.0, 1.0)

        return tf.while_loop(lambda number, x: number < steps, step, (0, batch))[1]

    return in_batches(restore, images)


def flowed(model, flow, images, share=0.4, seed=0):
    """Reconstructions of latents that went part of the way to noise and flowed back.

    Args:
        model: A trained model with a latent map.
        flow: Its `families.flow_matching.Flow`.
        images: Floats in [0, 1], `(n, height, width, channels)`.
        share: Of the way to noise, in (0, 1).
        seed: Of the noise.

    Raises:
        ValueError: if the latent is a vector.
    """
    if not model.latent_map:
        raise ValueError("flowing back needs a model with a latent_map; this one has a vector")
    z, _ = in_batches(model.encode, images)
    return in_batches(model.decode, np.asarray(flow.varied(z, share, seed=seed), np.float32))


# --- against healthy images ----------------------------------------------------------------------


class Usual(NamedTuple):
    """Mean and standard deviation of healthy maps at every pixel, `(height, width)`."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, maps):
        """Those of healthy images that nothing was trained on, `(n, height, width)`, n above 1."""
        if len(maps) < 2:
            raise ValueError(f"{len(maps)} healthy maps do not show what is usual; give more")
        spread = maps.std(axis=0, ddof=1)
        # Where healthy maps hardly differ, a z would be a division by nothing.
        return cls(maps.mean(axis=0), np.maximum(spread, 0.1 * spread.max() + 1e-12))

    def z(self, maps):
        """Maps in standard deviations of healthy ones at the same place."""
        return (maps - self.mean) / self.spread


def latent_distance(z, healthy):
    """Mahalanobis distance of latents from healthy ones, whose covariance is shrunken; `(n,)`.

    One number per image, without a map.

    Args:
        z: `(n, latent_dim)`.
        healthy: Latents of healthy images, `(m, latent_dim)`.

    References: [Ledoit & Wolf, 2004](https://doi.org/10.1016/S0047-259X(03)00096-4)
    """
    return np.sqrt(LedoitWolf().fit(np.asarray(healthy, np.float64)).mahalanobis(z))


def unlikeliness(z, prior):
    """Negative log-density of latents under a prior of `families.priors`, in nats; `(n,)`."""
    return -np.asarray(prior.log_prob(tf.convert_to_tensor(z, tf.float32)))


def unfamiliarity(z, mixture):
    """How much likelier latents are under one broad Gaussian than under a mixture, in nats; `(n,)`.

    High between the clusters of the latents that the mixture was fitted on: an image of a kind that
    the model can draw and has not seen. One Gaussian with the mixture's mean and covariance takes
    away what all latents share, above all their distance from the middle.

    Args:
        z: `(n, latent_dim)`.
        mixture: `families.densities.Mixture`.

    References: [Ren et al., 2019](https://arxiv.org/abs/1906.02845), Eq. 3, the ratio of the
        density to that of a background model
    """
    return unlikeliness(z, mixture) - unlikeliness(z, mixture.gaussian())


# --- baselines -----------------------------------------------------------------------------------


def brightness(images):
    """The grey levels themselves."""
    return np.asarray(images, np.float32).mean(axis=-1)


def contrast(images, width=1 / 16):
    """How much brighter a pixel is than its surroundings.

    Args:
        images: Floats in [0, 1], `(n, height, width, channels)`.
        width: Standard deviation of the Gaussian window, as a share of the height.
    """
    grey = brightness(images)
    spread = width * grey.shape[1]
    return grey - ndimage.gaussian_filter(grey, (0, spread, spread))


class Baselines:
    """Scores without a network, fitted to healthy training images.

    Args:
        training: uint8, or floats in [0, 1], `(n, height, width, channels)`.
        seed: Of the choice of at most `MOST_IMAGES`.
    """

    def __init__(self, training, seed=0):
        rows = np.sort(np.random.default_rng(seed).permutation(len(training))[:MOST_IMAGES])
        known = np.asarray(as_float(np.asarray(training[rows])))
        self.shape = known.shape[1:]
        count = min(COMPONENTS, len(known) - 1, known[0].size)
        self.pca = PCA(count, svd_solver="randomized", random_state=seed)
        self.pca.fit(known.reshape(len(known), -1))

    def scores(self, kind="signed"):
        """Dictionary of names to functions from images, floats in [0, 1], to maps.

        Args:
            kind: Of the residuals and of the contrast, see `residual`: that of the score that they
                stand beside.
        """
        return {
            "brightness": brightness,
            "local contrast": lambda images: residual(contrast(images)[..., None], 0.0, kind),
            "mean image": lambda images: residual(images, self.mean, kind),
            f"PCA-{self.pca.n_components_}": lambda images: residual(
                images, self.projected(images), kind
            ),
        }

    @property
    def mean(self):
        return self.pca.mean_.reshape(self.shape)

    def projected(self, images):
        """Images projected onto the principal components."""
        flat = np.asarray(images, np.float32).reshape(len(images), -1)
        return self.pca.inverse_transform(self.pca.transform(flat)).reshape(images.shape)


# --- images and subjects -------------------------------------------------------------------------


def regions(images, margin=None):
    """The pixels that count, the same for every score: `(n, height, width)`.

    Args:
        images: Floats in [0, 1], `(n, height, width, channels)`, black outside of the head
            (`heads.normalized`).
        margin: Pixels at the head's edge that are left out; None: the whole image counts.
    """
    if margin is None:
        return np.ones(images.shape[:3], bool)
    return heads.inside(heads.heads(images, level=0.0), margin)


def smoothed(maps, region):
    """Maps after a median filter, 0 where pixels do not count.

    Args:
        maps: `(n, height, width)`.
        region: From `regions`.
    """
    return np.where(region, ndimage.median_filter(maps, (1, MEDIAN, MEDIAN)), 0.0).astype(
        np.float32
    )


def of_images(maps, share=TOP):
    """The score of each image: the mean of its highest pixels; `(n,)`.

    Args:
        maps: `(n, height, width)`.
        share: Of all pixels of an image.
    """
    flat = maps.reshape(len(maps), -1)
    count = max(1, int(share * flat.shape[1]))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)
