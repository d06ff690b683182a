"""The same image under another condition, by a conditional model, and measures of such images.

A counterfactual is made in three steps ([Pawlowski et al., 2020](https://arxiv.org/abs/2006.06485),
Section 2): the latent is inferred from the image and its own conditions, a condition is changed,
the latent is decoded under the new ones. The measures are those of
[Monteiro et al., 2023](https://arxiv.org/abs/2303.01274), Section 3, with mean absolute differences
of grey levels as distance.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis import evidence, likelihood
from nn.batches import in_batches

TOGETHER, MOST_DRAWS = 16, 64  # images, and draws of each, that are decoded at a time


def changed(table, changes) -> pd.DataFrame:
    """A table in which some columns have other values.

    Args:
        table: One row per image.
        changes: Dictionary of columns to new values; a text that begins with `+` or `-` is added to
            a number, as in `{"Hernia": True, "age": "+10"}`.

    Raises:
        ValueError: if a column is not there, or an amount is to be added to what is no number or is
            missing in some row.
    """
    new = {}
    for column, value in changes.items():
        if column not in table:
            raise ValueError(
                f"there is no column {column!r} to change; there are: {', '.join(table)}"
            )
        if not (isinstance(value, str) and value[:1] in ("+", "-")):
            new[column] = pd.Series([value] * len(table), index=table.index)
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        unknown = numbers.isna().to_numpy()
        if unknown.any():
            raise ValueError(
                f"{column} = {value}: nothing can be added where {column} is no number, in "
                f"{unknown.sum()} of {len(table)} rows; give the number itself"
            )
        new[column] = numbers + float(value)
    return table.assign(**new)


def decoded(model, images, before, after):
    """Images under their own conditions, and under others.

    Args:
        model: A `families.conditional.Conditional`.
        images: uint8, or floats in [0, 1], `(n, height, width, channels)`.
        before, after: `model.conditions` of two tables of n rows, `(n, width)`.

    Returns:
        `(kept, made)`: floats in [0, 1], of the images' shape. Their difference is the change; the
        first differs from the images by what the model cannot reconstruct.
    """
    z, _ = in_batches(model.encode, images, before)
    return in_batches(model.decode, z, before), in_batches(model.decode, z, after)


def added(images, kept, made):
    """Images with a change, `images + made - kept`: what the model cannot reconstruct stays.

    Args:
        images: uint8, or floats in [0, 1].
        kept, made: From `decoded`.
    """
    return np.clip(_floats(images) + made - kept, 0.0, 1.0)


# --- how good they are ---------------------------------------------------------------------------


def composition(model, images, conditions, rounds=1):
    """How far an image moves if nothing is changed: its distance from its reconstruction, `(n,)`.

    Args:
        model, images: See `decoded`.
        conditions: Of the images, `(n, width)`.
        rounds: How often it is encoded and decoded.
    """
    made = _floats(images)
    for _ in range(rounds):
        made, _ = decoded(model, made, conditions, conditions)
    return distance(made, _floats(images))


def reversibility(model, images, before, after):
    """How far an image moves if it is changed and changed back; `(n,)`.

    The distance of its reconstruction from what the changed image becomes under the first
    conditions, so that the loss by reconstruction counts once.

    Args:
        model, images, before, after: See `decoded`.
    """
    kept, made = decoded(model, images, before, after)
    _, back = decoded(model, made, after, before)
    return distance(back, kept)


def effectiveness(gauge, made, asked):
    """Difference between what an independent network sees and what was asked for; `(n,)`.

    Args:
        gauge: Function from images to a number each, such as `judges.Judge.values`.
        made: Counterfactual images.
        asked: The number that was asked for, or one for each image.
    """
    return np.abs(np.asarray(gauge(made), np.float64) - asked)


def distance(images, others):
    """Mean absolute difference of each pair of images, in grey levels from 0 to 1; `(n,)`."""
    return np.abs(np.asarray(images, np.float64) - others).mean(axis=(1, 2, 3))


def _floats(images):
    images = np.asarray(images[:])
    return images / np.float32(255) if images.dtype == np.uint8 else images


# --- which condition an image has ----------------------------------------------------------------


def log_likelihoods(model, images, choices, draws=8):
    """How likely each image is under each of several conditions.

    By Bayes' rule, with a prior of the choices, this is a classifier:
    `softmax(log_likelihoods + log_prior)`.

    Args:
        model: A `families.conditional.Conditional`.
        images: uint8, or floats in [0, 1], `(n, height, width, channels)`.
        choices: `model.conditions` of a table with a row for each choice, `(choices, width)`.
        draws: See `samples` of `likelihood.log_likelihood`.

    Returns:
        Nats, float32 `(n, choices)`.
    """

    def under(choice):  # each call draws the same noise, so that differences have little
        told = np.tile(choice, (len(images), 1))
        together = TOGETHER, min(draws, MOST_DRAWS)
        return likelihood.log_likelihood(model, images, draws, conditions=told, together=together)

    return np.stack([under(each)[0] for each in np.asarray(choices, np.float32)], axis=1)


# --- what the latent still knows -----------------------------------------------------------------


class Leak(NamedTuple):
    """AUC of the better probe on other subjects, with its 95 % interval; 0.5: it knows nothing."""

    auc: float
    low: float
    high: float

    def __str__(self):
        return f"AUC {self.auc:.2f} (95 % {self.low:.2f} to {self.high:.2f})"


def leak(fitted_on, tested_on, seed=0, draws=1000) -> Leak:
    """Whether a condition can be read from latents that need not hold it.

    Two probes are trained, a logistic regression and boosted trees; the one that does better on the
    test subjects is reported, so the value errs on the side of a leak.

    Args:
        fitted_on: `(z, labels)`: latents `(n, latent_dim)`, and booleans, `(n,)`.
        tested_on: `(z, labels, subjects)` of other subjects.
        seed: Of the trees and the bootstrap over subjects.
        draws: Of the bootstrap.

    Raises:
        ValueError: if a set has rows of one kind only.
    """
    z, labels, subjects = (np.asarray(each) for each in tested_on)
    for name, each in (("training", fitted_on[1]), ("test", labels)):
        if len(set(np.asarray(each, bool))) < 2:
            raise ValueError(f"the {name} rows all have the same label; no leak can be measured")
    probes = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        HistGradientBoostingClassifier(max_iter=100, random_state=seed),
    )
    scores = [
        each.fit(np.asarray(fitted_on[0]), np.asarray(fitted_on[1], bool)).predict_proba(z)[:, 1]
        for each in probes
    ]
    best = max(scores, key=lambda each: evidence.auc_within(each, labels))
    return Leak(*evidence.auc_interval(best, labels, subjects, draws, seed))
