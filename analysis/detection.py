"""How well scores find lesions: measures over pixels, images and subjects, with intervals.

Images of a subject are alike, so every interval is a bootstrap over subjects.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

BINS = 4096  # of scores; average precision of exact scores differs by less than 0.001
DRAWS = 500  # of the bootstrap
LEVEL = 0.95  # of its intervals


class Counts(NamedTuple):
    """Pixels of every subject by their scores.

    Attributes:
        edges: Lowest score of each bin but the first, increasing, `(bins - 1,)`.
        lesion, healthy: Pixels in each bin, `(subjects, bins)`.
    """

    edges: np.ndarray
    lesion: np.ndarray
    healthy: np.ndarray

    @classmethod
    def of(cls, maps, masks, subjects):
        """Counts of all pixels of some images.

        Pixels that were left out have the score 0 like all others: a lesion there is missed.

        Args:
            maps: `(n, height, width)`.
            masks: Not 0 where there is a lesion, `(n, height, width)` or with a last axis of 1.
            subjects: Subject of each image, `(n,)`.

        Raises:
            ValueError: if no pixel has a lesion, or every one.
        """
        truth = np.asarray(masks).reshape(maps.shape) != 0
        if truth.all() or not truth.any():
            what = "every pixel" if truth.all() else "no pixel"
            raise ValueError(f"{what} of {len(maps)} masks has a lesion: nothing can be measured")
        edges = _edges(maps, truth)
        codes, names = pd.factorize(np.asarray(subjects))
        counted = np.zeros((2, len(names), len(edges) + 1), np.int64)
        for code in range(len(names)):
            own = codes == code
            bins = np.searchsorted(edges, maps[own].ravel(), side="right")
            inside = truth[own].ravel()
            for kind in (0, 1):
                counted[kind, code] = np.bincount(bins[inside == kind], minlength=len(edges) + 1)
        return cls(edges, counted[1], counted[0])


def _edges(maps, truth):
    """Limits of bins: all scores where there are few, else quantiles, half of them of lesions."""
    values = np.unique(maps)
    if len(values) <= BINS:
        return values[1:]
    shares = np.linspace(0.0, 1.0, BINS // 2)
    both = (np.quantile(each, shares, method="nearest") for each in (maps[truth], maps))
    return np.unique(np.concatenate(list(both)))[1:]


def _above(counts, weights):
    """Pixels at or above every threshold, the highest first, each subject so many times."""
    lesion, healthy = (
        np.cumsum((weights @ each)[..., ::-1], axis=-1) for each in (counts.lesion, counts.healthy)
    )
    return lesion, healthy


def average_precision(counts, weights=None):
    """Area under precision and recall of pixels, the sum of scikit-learn's.

    Args:
        counts: `Counts`.
        weights: How often each subject counts, `(subjects,)` or `(draws, subjects)`; None: once.
    """
    lesion, healthy = _above(counts, _once(counts) if weights is None else weights)
    gained = np.diff(lesion, axis=-1, prepend=0)
    precision = lesion / np.maximum(lesion + healthy, 1)
    return (precision * gained).sum(axis=-1) / _some(lesion)


def dice(counts, threshold, weights=None):
    """Dice coefficient of all lesion pixels and those whose score is at least a threshold.

    Args:
        threshold: One of `counts.edges`, or another score, which is rounded up to one.
        weights: See `average_precision`.
    """
    place = len(counts.edges) - np.searchsorted(counts.edges, threshold, side="left") - 1
    lesion, healthy = _above(counts, _once(counts) if weights is None else weights)
    if place < 0:  # above all scores
        return 0.0 / _some(lesion)
    return _dices(lesion, healthy)[..., place]


def _dices(lesion, healthy):
    return 2 * lesion / (lesion + healthy + _some(lesion)[..., None])


def _some(lesion):
    """Lesion pixels in all; NaN in a draw without any, where nothing can be found or missed."""
    found = lesion[..., -1]
    return np.where(found > 0, found, np.nan)


def best_dice(counts, weights=None):
    """The best Dice coefficient over all thresholds, and its threshold.

    On the images that it is measured on it is an upper bound: nobody knows their best threshold.
    """
    lesion, healthy = _above(counts, _once(counts) if weights is None else weights)
    if not len(counts.edges):  # all scores are the same
        return 0.0 / _some(lesion), np.nan
    scores = _dices(lesion, healthy)[..., : len(counts.edges)]
    place = scores.argmax(axis=-1)
    return scores.max(axis=-1), counts.edges[len(counts.edges) - 1 - place]


def _once(counts):
    return np.ones(len(counts.lesion), np.int64)


def auroc(scores, ill) -> float:
    """Share of pairs in which the ill one scores higher; NaN unless there are ill and healthy."""
    ill = np.asarray(ill, bool)
    if ill.all() or not ill.any():
        return math.nan
    return float(roc_auc_score(ill, scores))


def aurocs(scores, ill, weights) -> np.ndarray:
    """`auroc` of many resamplings at once.

    Args:
        scores, ill: `(n,)` each.
        weights: How often each counts, `(draws, n)`.

    Returns:
        `(draws,)`, NaN where a draw has no ill or no healthy ones.
    """
    order = np.argsort(scores, kind="stable")
    ranked, ill = np.asarray(scores)[order], np.asarray(ill, bool)[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of groups of equal scores
    weights = np.asarray(weights, np.float64)[:, order]
    sick, well = (np.add.reduceat(weights * chosen, starts, axis=1) for chosen in (ill, ~ill))
    below = np.cumsum(well, axis=1) - 0.5 * well  # half of what is equal
    pairs = sick.sum(axis=1) * well.sum(axis=1)
    return np.where(pairs > 0, (sick * below).sum(axis=1) / np.maximum(pairs, 1e-12), np.nan)


def of_subjects(scores, subjects) -> pd.Series:
    """The score of each subject: the highest of its images'."""
    return pd.Series(np.asarray(scores)).groupby(np.asarray(subjects), sort=False).max()


class Measure(NamedTuple):
    """A number and its 95 % interval over subjects; NaN where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self):
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def measured(maps, scores, masks, subjects, threshold=None, seed=0) -> dict:
    """Every measure of one score.

    Args:
        maps: `(n, height, width)`, or None for a score without maps.
        scores: Of each image, `(n,)`.
        masks: See `Counts.of`.
        subjects: Subject of each image, `(n,)`.
        threshold: Of pixels, chosen on other subjects (`best_dice`); None: there is none.
        seed: Of the bootstrap.

    Returns:
        Dictionary of names to `Measure`: `pixel_ap`, `best_dice` (an upper bound), `dice` (at the
        threshold), `slice_auroc`, `subject_auroc` (NaN where all subjects are ill, or none).
    """
    subjects = np.asarray(subjects)
    codes, names = pd.factorize(subjects)
    ill = np.asarray(masks).reshape(len(subjects), -1).any(axis=1)
    draws = _resampled(len(names), seed)
    found = {}
    if maps is not None:
        counts = Counts.of(maps, masks, subjects)
        found["pixel_ap"] = _interval(average_precision(counts), average_precision(counts, draws))
        found["best_dice"] = _interval(best_dice(counts)[0], best_dice(counts, draws)[0])
        if threshold is not None:
            found["dice"] = _interval(dice(counts, threshold), dice(counts, threshold, draws))
    found["slice_auroc"] = _interval(auroc(scores, ill), aurocs(scores, ill, draws[:, codes]))
    worst = of_subjects(scores, codes).sort_index().to_numpy()
    of_ill = of_subjects(ill, codes).sort_index().to_numpy()
    found["subject_auroc"] = _interval(auroc(worst, of_ill), aurocs(worst, of_ill, draws))
    return found


def _resampled(count, seed):
    """How often each of so many subjects counts in each draw, `(draws, count)`."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)


def _interval(value, drawn):
    drawn = np.asarray(drawn, np.float64)
    if np.isnan(value) or np.isnan(drawn).all():
        return Measure(float(value))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(float(value), float(low), float(high))


def difference(maps, others, masks, subjects, seed=0) -> Measure:
    """How much higher the average precision of one score is than another's, on the same subjects.

    Only where the whole interval is above 0 is one said to beat the other.

    Args:
        maps, others: `(n, height, width)` each.
        masks, subjects: See `Counts.of`.
        seed: Of the bootstrap.
    """
    both = [Counts.of(each, masks, subjects) for each in (maps, others)]
    names = len(set(np.asarray(subjects).tolist()))
    draws = _resampled(names, seed)
    value = np.subtract(*(average_precision(each) for each in both))
    return _interval(value, np.subtract(*(average_precision(each, draws) for each in both)))
