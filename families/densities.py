"""Priors on latents in closed form: N(0, I), one Gaussian, a mixture of Gaussians."""

import warnings

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from nn import losses
from sources.conditions import Conditions, repeated

COMPONENTS = (1, 2, 5, 10, 20, 50, 100)  # numbers of components that are tried
FLOOR = 1e-6  # variance that is added to every axis, in units of the mean variance


class Prior:
    """A density on latents.

    Attributes:
        kind: Its name in `priors.KINDS`.
        latent_dim: Axes of the latent.
        conditions: `Conditions` that it was fitted with, or None.
        exact: Whether `log_prob` exists.
        clustered: Whether it has several clusters, between which a latent is unfamiliar.
    """

    kind = ""
    exact = True
    clustered = False
    conditions: Conditions | None = None

    def sample(self, n, seed=0, condition=None):
        """`n` latents, float32 `(n, latent_dim)`; the same for the same seed.

        Args:
            n: Number of draws.
            seed: Seed of the draws.
            condition: Dictionary of columns to values, or a table of n rows; only for a prior that
                was fitted with conditions. None: conditions as in the training data.
        """
        raise NotImplementedError

    def sampler(self, condition=None):
        """The draws as a Keras model of Keras' own layers, for programs without this project.

        Args:
            condition: As for `sample`: the same for every draw, a part of the model.

        Returns:
            Model from `noise` of N(0, I) to latents `(batch, latent_dim)`. If there is a choice
            (between components, or conditions of training latents) it has another input, `choice`,
            uniform in [0, 1).
        """
        raise NotImplementedError

    def given(self, n, condition):
        """Conditions of n draws, `(n, width)`, or None.

        Raises:
            ValueError: if the prior was fitted without conditions, or with other ones.
        """
        if condition is None:
            return None
        if self.conditions is None:
            raise ValueError(f"this {self.kind} prior was fitted without conditions")
        if not isinstance(condition, pd.DataFrame):
            names = self.conditions.names
            lacking = [name for name in names if name not in condition]
            if lacking:
                raise ValueError(
                    f"condition: give {', '.join(lacking)} too; this {self.kind} prior was fitted "
                    f"for {', '.join(names)}"
                )
            condition = repeated(condition, n)
        return self.conditions(condition)

    def log_prob(self, z):
        """Log-density in nats at latents `(batch, latent_dim)`; `(batch,)`.

        A TensorFlow function, for `model.rate` and `model.log_weights`.
        """
        raise ValueError(f"the density of a {self.kind} prior cannot be computed")

    def parts(self):
        """Its parameters: `(settings, arrays)`, plain values and named float32 arrays."""
        raise NotImplementedError


# --- closed forms --------------------------------------------------------------------------------


class Normal(Prior):
    """N(0, I), the model's own."""

    kind = "normal"

    def __init__(self, latent_dim):
        self.latent_dim = latent_dim

    @classmethod
    def fitted(cls, z, seed=0):
        return cls(z.shape[1])

    def sample(self, n, seed=0, condition=None):
        self.given(n, condition)
        return np.random.default_rng(seed).normal(size=(n, self.latent_dim)).astype(np.float32)

    def sampler(self, condition=None):
        self.given(1, condition)
        noise = keras.Input((self.latent_dim,), name="noise")
        return keras.Model(noise, keras.layers.Identity()(noise), name="sampler")

    def log_prob(self, z):
        return tf.reduce_sum(losses.log_normal(z, 0.0, 0.0), axis=-1)

    def parts(self):
        return {"kind": self.kind, "latent_dim": self.latent_dim}, {}

    @classmethod
    def of_parts(cls, settings, arrays):
        return cls(settings["latent_dim"])


class Mixture(Prior):
    """Gaussians with full covariances; for each class, if it was fitted with a condition.

    Args:
        weights: Shape `(components,)`, their sum is 1.
        means: Shape `(components, latent_dim)`.
        covariances: Shape `(components, latent_dim, latent_dim)`.
        owners: Row of `values` that each component belongs to, `(components,)`; None without a
            condition.
        conditions: `Conditions` of one category.
        searched: Result of the search: a dictionary of components to held-out nats per latent.
    """

    kind = "mixture"

    def __init__(self, weights, means, covariances, owners=None, conditions=None, searched=None):
        self.weights, self.means, self.covariances = (
            np.asarray(each, np.float64) for each in (weights, means, covariances)
        )
        self.owners, self.conditions = owners, conditions
        self.searched = searched or {}
        self.latent_dim = self.means.shape[1]
        self.roots = np.linalg.cholesky(self.covariances)

    @classmethod
    def fitted(
        cls,
        z,
        seed=0,
        components=None,
        tried=COMPONENTS,
        table=None,
        conditions=None,
        subjects=None,
    ):
        """Fitted by expectation maximisation (scikit-learn).

        Args:
            z: Latents, shape `(n, latent_dim)`, rows in any order.
            seed: Seed of the fit, and of the held-out subjects.
            components: Number of components; None: the number in `tried` with the highest held-out
                likelihood, tried in that order until it decreases.
            tried: Numbers of components, increasing.
            table: n rows; with conditions, each value is fitted separately.
            conditions: `Conditions` of one category.
            subjects: Whose latent each is, shape `(n,)`; None: each is one's own. All latents of a
                subject are held out together.

        Raises:
            ValueError: if there are too few latents for the covariances.
        """
        z = checked(z)
        subjects = np.arange(len(z)) if subjects is None else subjects
        rows, codes = by_subject(subjects, seed)
        if conditions is None:
            found = _mixture(z[rows], codes[rows], seed, components, tried)
            return cls(found.weights_, found.means_, found.covariances_, searched=found.searched)
        if len(conditions.columns) > 1 or not conditions.columns[0].values:
            numbers = [each.name for each in conditions.columns if not each.values]
            what = f"{numbers[0]} is a number" if numbers else "these are several columns"
            raise ValueError(
                f"a mixture needs one category as condition, and {what}; use kind flow or coupling"
            )
        (column,) = conditions.columns
        known = conditions(table)
        fits, owners, shares = [], [], []
        for number in range(len(column.values)):
            own = rows[known[rows, number] == 1]
            if not is_enough(z[own], components or 1):
                raise ValueError(
                    f"{column.name} = {column.values[number]} has {len(own)} latents, too few for "
                    f"covariances of {z.shape[1]} axes; use kind flow or coupling"
                )
            fits.append(_mixture(z[own], codes[own], seed, components, tried))
            owners += [number] * len(fits[-1].weights_)
            shares.append(len(own))
        weights = [each.weights_ * share for each, share in zip(fits, shares, strict=True)]
        whole = np.concatenate(weights) / np.sum(shares)
        means, covariances = (
            np.concatenate([getattr(each, name) for each in fits])
            for name in ("means_", "covariances_")
        )
        return cls(whole, means, covariances, np.array(owners), conditions)

    def sample(self, n, seed=0, condition=None):
        random, values = np.random.default_rng(seed), self._values(n, condition)
        chosen = np.empty(n, int)
        for value in np.unique(values):
            rows = values == value
            chosen[rows] = random.choice(
                len(self.weights), size=rows.sum(), p=self._weights_of(value)
            )
        noise = random.normal(size=(n, self.latent_dim))
        made = np.empty((n, self.latent_dim), np.float32)
        for component in np.unique(chosen):
            rows = chosen == component
            made[rows] = self.means[component] + noise[rows] @ self.roots[component].T
        return made

    def _values(self, n, condition):
        """Number of the category's value for each of n draws; -1: any."""
        given = self.given(n, condition)
        if given is None:
            return np.full(n, -1)
        missing = given[:, -1] == 1
        return np.where(missing, -1, given.argmax(axis=1))

    def _weights_of(self, value):
        """Weights of the components under a value of the category."""
        weights = self.weights if value < 0 else np.where(self.owners == value, self.weights, 0.0)
        return weights / weights.sum()

    def sampler(self, condition=None):
        weights = self._weights_of(self._values(1, condition)[0])
        used, axes = np.flatnonzero(weights), self.latent_dim
        noise = keras.Input((axes,), name="noise")
        if len(used) == 1:
            turned = keras.layers.Dense(axes)
            sampler = keras.Model(noise, turned(noise), name="sampler")
            turned.set_weights([self.roots[used[0]].T, self.means[used[0]]])
            return sampler
        choice = keras.Input((1,), name="choice")
        # Component k is chosen from the k-th edge on; the first edge is 0.
        edges = np.cumsum(weights[used])[:-1].astype(np.float32)
        passed = keras.ops.cast(choice >= edges[None], "int32")
        chosen = keras.ops.sum(passed, axis=-1)
        tables = (self.means[used], self.roots[used].reshape(len(used), -1))
        mean, root = (
            keras.layers.Embedding(len(used), each.shape[1], weights=[each.astype(np.float32)])(
                chosen
            )
            for each in tables
        )
        moved = keras.layers.Dot((2, 1))([keras.layers.Reshape((axes, axes))(root), noise])
        return keras.Model([noise, choice], mean + moved, name="sampler")

    def log_prob(self, z):
        roots = tf.constant(self.roots, tf.float32)
        away = z[None, :, :] - tf.constant(self.means, tf.float32)[:, None, :]  # (k, batch, axes)
        white = tf.linalg.triangular_solve(roots, tf.linalg.matrix_transpose(away))
        inside = tf.reduce_sum(losses.log_normal(white, 0.0, 0.0), axis=1)  # (k, batch)
        volume = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(roots)), axis=-1)
        weights = tf.math.log(tf.constant(self.weights, tf.float32))
        return tf.reduce_logsumexp(inside + (weights - volume)[:, None], axis=0)

    @property
    def clustered(self):
        return len(self.weights) > 1

    def gaussian(self):
        """One Gaussian with the mean and the covariance of the whole mixture."""
        mean = self.weights @ self.means
        away = self.means - mean
        within = np.einsum("k,kij->ij", self.weights, self.covariances)
        return Gaussian([1.0], mean[None], (within + (self.weights * away.T) @ away)[None])

    def parts(self):
        settings = {"kind": self.kind, "searched": self.searched}
        if self.conditions is not None:
            settings["conditions"] = self.conditions.to_json()
        arrays = {
            "weights": self.weights,
            "means": self.means,
            "covariances": self.covariances,
        }
        return settings, arrays | ({} if self.owners is None else {"owners": self.owners})

    @classmethod
    def of_parts(cls, settings, arrays):
        conditions = settings.get("conditions")
        conditions = conditions and Conditions.from_json(conditions)
        return cls(**arrays, conditions=conditions, searched=settings["searched"])


class Gaussian(Mixture):
    """One Gaussian with a shrunken covariance (Ledoit & Wolf, 2004)."""

    kind = "gaussian"

    @classmethod
    def fitted(cls, z, seed=0):
        z = checked(z)
        found = LedoitWolf().fit(z)
        floor = FLOOR * np.mean(z.var(axis=0)) * np.eye(z.shape[1])
        return cls([1.0], found.location_[None], (found.covariance_ + floor)[None])


def by_subject(subjects, seed):
    """All rows, in random order of the subjects, and a number for each row's subject."""
    codes, known = pd.factorize(np.asarray(subjects))
    place = np.argsort(np.random.default_rng(seed).permutation(len(known)))
    return np.argsort(place[codes], kind="stable"), codes


def rows_of_first(subjects, one_in):
    """How many rows the first of so many subjects have, at least one subject's.

    Args:
        subjects: Of the rows, those of one subject together.
        one_in: 5: the first fifth of the subjects.
    """
    numbers, known = pd.factorize(subjects)
    return int((numbers < max(1, len(known) // one_in)).sum())


def _mixture(z, subjects, seed, components, tried):
    """scikit-learn's mixture; its `searched` has the likelihoods of the search.

    The first fifth of the subjects is held out in the search. Their rows come together.
    """
    _require_enough(z, components or 1)
    if components is not None:
        fitted = _fitted(z, components, seed)
        fitted.searched = {}
        return fitted
    first = rows_of_first(subjects, 5)
    held_out, kept, searched = z[:first], z[first:], {}
    for count in tried:
        if not is_enough(kept, count):
            break
        searched[count] = float(_fitted(kept, count, seed).score(held_out))
        if searched[count] < max(searched.values()):
            break
    best = max(searched, key=searched.get) if searched else 1
    fitted = _fitted(z, best, seed)
    fitted.searched = searched
    return fitted


def _fitted(z, components, seed):
    floor = FLOOR * float(np.mean(z.var(axis=0)))
    mixture = GaussianMixture(components, random_state=seed, reg_covar=floor, max_iter=100)
    with warnings.catch_warnings():  # a fit that has not converged is measured like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        # On many small products several threads of BLAS wait for each other: 17 times as long.
        with threadpool_limits(1):
            return mixture.fit(z)


def is_enough(z, components):
    """Whether every component has twice as many latents as axes, on average."""
    return components * 2 * (z.shape[1] + 1) <= len(z)


def _require_enough(z, components):
    if not is_enough(z, components):
        raise ValueError(
            f"{components} full covariances of {z.shape[1]} axes cannot be estimated from {len(z)} "
            "latents; use kind gaussian, whose covariance is shrunken, or fewer components"
        )


def checked(z):
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(
            f"a prior is fitted on latents (n, latent_dim), n at least 2; got {z.shape}"
        )
    if not np.isfinite(z).all():
        raise ValueError("a prior is fitted on finite latents; some of these are not")
    still = np.flatnonzero(z.var(axis=0) == 0)
    if len(still):
        raise ValueError(
            f"axis {still[0]} of the latent is the same for every image and has no density; use "
            "fewer axes (latent_dim)"
        )
    return z
