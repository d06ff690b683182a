"""Means of the terms of one step, and running means over steps."""

import math

import keras
import numpy as np
import tensorflow as tf

from nn import replicas


def reduced(terms):
    """Means of named terms, each `(batch,)` or a scalar, and the sum of them: `(dict, scalar)`."""
    means = {name: tf.reduce_mean(term) for name, term in terms.items()}
    return means, tf.add_n(list(means.values()))


class Averages(keras.metrics.Metric):
    """Running means over images of named scalars, in one variable and with one update per step.

    The names are those of the first update (`MOST` at most), so a model need not declare its terms.
    A term that is missing in a later batch, such as one of labels, becomes NaN. The first term is
    the loss; `finite_until` is the number of images after which its mean was last finite.
    """

    MOST = 32

    def __init__(self, name="averages"):
        super().__init__(name=name)
        self.names = ()
        # Every replica holds the sums over all replicas.
        alike = {"initializer": "zeros", "aggregation": replicas.ALIKE}
        self.totals = self.add_variable((self.MOST,), name="totals", **alike)
        self.images = self.add_variable((), dtype="int64", name="images", **alike)
        self.finite_until = self.add_variable((), dtype="int64", name="finite_until", **alike)

    def update_state(self, means, images):
        """Takes the means over one batch of that many images."""
        if not self.names:
            self.names = tuple(means)
        means = tf.stack([means.get(name, math.nan) for name in self.names])
        images = replicas.count() * images
        sums = tf.cast(images, tf.float32) * replicas.mean(means)
        self.totals.assign_add(tf.pad(sums, [[0, self.MOST - len(self.names)]]))
        self.images.assign_add(tf.cast(images, tf.int64))
        finite = tf.math.is_finite(self.totals[0])
        self.finite_until.assign(tf.where(finite, self.images.value, self.finite_until.value))

    @property
    def state(self):
        """State for `restore`, as plain values for JSON; a float32 is exact there."""
        totals = self.totals.numpy()[: len(self.names)].tolist()
        images, until = (int(each.numpy()) for each in (self.images, self.finite_until))
        return {"names": self.names, "totals": totals, "images": images, "finite_until": until}

    def restore(self, state):
        self.names = tuple(state["names"])
        self.totals.assign(np.pad(state["totals"], (0, self.MOST - len(self.names))))
        self.images.assign(state["images"])
        self.finite_until.assign(state["finite_until"])

    def result(self):
        if not self.names:
            return {}
        means = self.totals / tf.cast(tf.maximum(self.images.value, 1), tf.float32)
        return dict(zip(self.names, tf.unstack(means)[: len(self.names)], strict=True))
