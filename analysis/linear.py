"""PCA as a linear VAE: the baseline of a model that spends as many nats."""

import numpy as np
from sklearn.decomposition import PCA

from nn.batches import as_float

MOST_IMAGES = 3000  # most training images for the fit


class LinearCode:
    """Codes images by principal components with Gaussian noise, at a chosen rate.

    Each component with a variance above `distortion` becomes an axis of unit variance whose
    posterior leaves just that squared error; the others are left out. Of Gaussian data no code has
    a smaller squared error at the same rate (reverse water-filling: Cover & Thomas, Elements of
    Information Theory, 2nd edition, Theorem 10.3.3).

    Args:
        pca: A fitted `sklearn.decomposition.PCA`.
        distortion: Squared error of each component, in squared grey levels.
        shape: Of an image.
    """

    def __init__(self, pca, distortion, shape):
        self.pca, self.shape = pca, tuple(shape)
        self.used = np.flatnonzero(pca.explained_variance_ > distortion)
        self.scales = np.sqrt(pca.explained_variance_[self.used])
        self.variances = distortion / np.square(self.scales)  # of the posteriors

    @classmethod
    def fitted(cls, training, held_out, nats, seed=0):
        """The code that spends `nats` on a held-out image, on average.

        Args:
            training, held_out: uint8, or floats in [0, 1], shape `(n, height, width, channels)`.
            nats: KL of the posteriors from N(0, I), per image; above 0.
            seed: Of the choice of at most `MOST_IMAGES` training images.

        Raises:
            ValueError: if all components together cannot carry so many nats.
        """
        rows = np.sort(np.random.default_rng(seed).permutation(len(training))[:MOST_IMAGES])
        pca = PCA(svd_solver="full").fit(_flat(training[rows]))
        variances, shape = pca.explained_variance_, training.shape[1:]
        known = pca.transform(_flat(held_out))

        def spent(log_distortion):
            code = cls(pca, np.exp(log_distortion), shape)
            return code._rate(known).mean()

        # Components that are constant in training are noise of the arithmetic.
        low, high = np.log(variances[0]) - 20.0, np.log(variances[0])
        if spent(low) < nats:
            raise ValueError(f"PCA of {len(rows)} images cannot spend {nats:g} nats on an image")
        for _ in range(50):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if spent(middle) > nats else (low, middle)
        return cls(pca, np.exp(0.5 * (low + high)), shape)

    def encode(self, images):
        """`(z_mean, z_log_var)`, each `(n, axes)`."""
        z_mean = np.sqrt(1.0 - self.variances) * self._standard(self.pca.transform(_flat(images)))
        return z_mean, np.broadcast_to(np.log(self.variances), z_mean.shape)

    def decode(self, z):
        """Images in [0, 1] of latents `(n, axes)`."""
        parts = np.sqrt(1.0 - self.variances) * self.scales * z
        made = self.pca.mean_ + parts @ self.pca.components_[self.used]
        return np.clip(made, 0.0, 1.0).astype(np.float32).reshape(-1, *self.shape)

    def rate(self, images):
        """KL of each image's posterior from N(0, I), in nats; `(n,)`."""
        return self._rate(self.pca.transform(_flat(images)))

    def _standard(self, coefficients):
        """Those of PCA that are used, each with variance 1."""
        return coefficients[:, self.used] / self.scales

    def _rate(self, coefficients):
        more = np.square(self._standard(coefficients)) - 1.0
        return 0.5 * ((1.0 - self.variances) * more - np.log(self.variances)).sum(axis=1)


def _flat(images):
    return np.asarray(as_float(np.asarray(images))).reshape(len(images), -1)
