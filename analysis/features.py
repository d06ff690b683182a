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

UNITS = 32
REFERENCES = 10_000  # most images that the axes are found on,
PIXELS = 2**25  # and most pixels of them together


class Untrained:
    """Features of a convolutional network with random weights, as whitened principal components.

    Random features rank generative models much as trained ones do
    ([Lee et al., 2022](https://arxiv.org/abs/2208.09218)). They need no label and no training, and
    the same seed gives the same network everywhere; the axes are found on reference images, so
    distances are compared only where these are the same. Every axis has variance 1 over them.

    Args:
        *references: Arrays of images that the axes are found on, uint8 or floats in [0, 1], each
            `(n, height, width, channels)`; of many, some are drawn at random.
        units: Number of axes; fewer if there are fewer references.
        seed: Of the network's weights and of the references that are drawn.

    Call arguments:
        images: Of the references' shape, uint8 or floats in [0, 1].

    Returns:
        float32 `(n, units)`.
    """

    def __init__(self, *references, units=UNITS, seed=0):
        shape = references[0].shape[1:]
        self.network = networks.untrained(shape, seed)
        count = min(REFERENCES, max(2 * units, PIXELS // math.prod(shape)))
        total = sum(map(len, references))
        share = min(1.0, count / total)
        random = np.random.default_rng(seed)
        found = []
        for images in references:
            size = max(1, round(share * len(images)))
            rows = np.sort(random.permutation(len(images))[:size])
            found.append(self._through(images[rows]))
        found = np.concatenate(found)
        units = min(units, len(found) - 1, found.shape[1])
        self.axes = PCA(units, whiten=True, svd_solver="randomized", random_state=seed)
        with np.errstate(invalid="ignore"):  # the share of no variance, if all images are flat
            self.axes.fit(found)

    def _through(self, images):
        return in_batches(
            lambda batch: self.network(as_float(batch), training=False),
            np.asarray(images),
            batch_size=128,
        )

    def __call__(self, images):
        return self.axes.transform(self._through(images)).astype(np.float32)


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
