"""Features of images that need no labels, to compare sets of images and to look for copies.

`analysis.judges` has those of a classifier, for images with labels.
"""

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from nn import networks
from nn.batches import as_float, in_batches
from nn.metrics import small

UNITS = 32
REFERENCES = 10_000  # most images that the axes are found on,
PIXELS = 2**25  # and most pixels of them together


def through(network, images):
    """Outputs of a network for many uint8 images or floats in [0, 1]."""
    return in_batches(
        lambda batch: network(as_float(batch), training=False),
        np.asarray(images),
        batch_size=128,
    )


class Untrained:
    """Features of a convolutional network with random weights, as whitened principal components.

    Random features rank generative models much as trained ones do
    ([Lee et al., 2022](https://arxiv.org/abs/2208.09218)). They need no label and no training, and
    the same seed gives the same network everywhere; the axes are found on reference images, so
    distances are compared only where these are the same. Every axis has variance 1 over them.

    Args:
        reference: Images that the axes are found on, uint8 or floats in [0, 1],
            `(n, height, width, channels)`; of many, some are drawn at random.
        units: Number of axes; fewer if there are fewer reference images.
        seed: Of the network's weights and of the reference images that are drawn.

    Call arguments:
        images: Of the reference images' shape, uint8 or floats in [0, 1].

    Returns:
        float32 `(n, units)`.
    """

    def __init__(self, reference, units=UNITS, seed=0):
        shape = reference.shape[1:]
        self.network = networks.untrained(shape, seed)
        count = min(REFERENCES, max(2 * units, PIXELS // math.prod(shape)))
        rows = np.sort(np.random.default_rng(seed).permutation(len(reference))[:count])
        found = through(self.network, reference[rows])
        units = min(units, len(found) - 1, found.shape[1])
        self.axes = PCA(units, whiten=True, svd_solver="randomized", random_state=seed)
        with np.errstate(invalid="ignore"):  # the share of no variance, if all images are flat
            self.axes.fit(found)

    def __call__(self, images):
        return self.axes.transform(through(self.network, images)).astype(np.float32)


def of_pixels(reference, units, whiten=False):
    """A function from images to the first principal components of their pixels.

    Args:
        reference: Images that the components are found on, averaged to at most 32 pixels a side.
        units: Number of components; fewer if there are fewer reference images or pixels.
        whiten: Whether every component is scaled to variance 1.
    """

    def flat(images):
        return small(images).reshape(len(images), -1)

    known = flat(reference)
    units = min(units, *known.shape)
    axes = PCA(units, whiten=whiten, svd_solver="randomized", random_state=0).fit(known)
    return lambda images: axes.transform(flat(images))


def inception(weights):
    """A function that computes features of Keras' InceptionV3, to compare sets of images.

    Args:
        weights: Keras' file of its ImageNet weights without the top
            (`inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`).

    Returns:
        Function from uint8 images or floats in [0, 1] to features `(n, 2048)`.

    Raises:
        OSError: if the file is missing or does not contain these weights.
    """
    if not Path(weights).is_file():
        raise OSError(f"{weights} is missing; give Keras' file of InceptionV3's weights")
    try:
        network = keras.applications.InceptionV3(weights=weights, include_top=False, pooling="avg")
    except ValueError as error:
        raise OSError(
            f"{weights} does not contain InceptionV3's weights without the top: {error}"
        ) from error

    def features(batch):
        pixels = tf.image.resize(as_float(batch), (299, 299))
        return network(2.0 * tf.repeat(pixels, 3 // batch.shape[-1], axis=-1) - 1.0, training=False)

    return lambda images: in_batches(features, np.asarray(images), batch_size=32)
