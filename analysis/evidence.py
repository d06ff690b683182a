"""Evidence for a direction of a label: is it there on subjects that it was not fitted on?

A direction can always be fitted (`analysis.directions`). Whole subjects are held out, drawn and
exchanged, because images of one subject are alike.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from analysis.directions import fit, without

FEW = 30  # subjects with the label, below which single numbers are not reliable
DRAWN = 0.95  # share of bootstraps that must have a direction, for an interval


class Evidence(NamedTuple):
    """Evidence for a direction on held-out subjects; see `of`.

    `auc` with its 95 % interval `low` to `high`, `p_value`, `stability`; `scores` are the held-out
    projections, adjusted if there are covariates, and `folds` the fold of each row. Interval and
    stability are NaN if too few subjects have the label to compute them.
    """

    auc: float
    low: float
    high: float
    p_value: float
    stability: float
    images: tuple[int, int]
    subjects: tuple[int, int]
    scores: np.ndarray
    folds: np.ndarray

    @property
    def established(self) -> bool:
        """Whether both interval and permutation test show that the latent contains the label."""
        return self.low > 0.5 and self.p_value < 0.05

    @property
    def caution(self) -> str:
        """What cannot be concluded; empty if nothing limits the conclusion."""
        said = []
        if np.isnan(self.low):
            said.append("not established: too few subjects with the label for an interval")
        elif not self.established:
            chance = self.p_value >= 0.05
            why = "not significant in the permutation test" if chance else "0.5 is in the interval"
            said.append(f"not established: {why}")
        if self.subjects[0] < FEW:
            said.append(
                f"only {self.subjects[0]} subjects have the label: an effect can neither be sized "
                f"nor excluded with fewer than {FEW}"
            )
        if np.isnan(self.stability):
            said.append("half of the subjects is too few to fit a direction")
        elif self.stability < 0.5:
            said.append("directions of two halves of the subjects differ")
        return "; ".join(said)

    def __str__(self):
        interval = f"95 % {self.low:.2f} to {self.high:.2f}"
        cosine = f"split-half cosine {self.stability:.2f}"
        text = (
            f"AUC {self.auc:.2f} ({'no interval' if np.isnan(self.low) else interval}), "
            f"p = {self.p_value:.3g}, "
            f"{'no split-half cosine' if np.isnan(self.stability) else cosine}, "
            f"{self.images[0]} images of "
            f"{self.subjects[0]} subjects with the label, {self.images[1]} of {self.subjects[1]} "
            "without"
        )
        return f"{text}. Caution: {self.caution}" if self.caution else text


# Many small products: several threads of BLAS would wait for each other (ten times as long).
@threadpool_limits.wrap(limits=1)
def of(
    z,
    labels,
    subjects,
    method="mean",
    covariates=None,
    folds=5,
    bootstraps=200,
    permutations=499,
    halves=25,
    seed=0,
    progress=None,
) -> Evidence:
    """Tests a direction on unseen subjects.

    Subjects are put into folds regardless of labels; each fold is projected on the direction of the
    others. The AUC counts pairs within folds. Its interval is a bootstrap of the whole procedure,
    including the fits, over subjects, separately with and without the label. (Resampling scores
    alone treats the directions as fixed, and its intervals were too narrow: they excluded 0.5 for
    too many random labels.) The p-value repeats the whole procedure with labels permuted between
    subjects of equally many images, `(1 + k) / (1 + B)` with k the permutations with at least the
    same AUC ([Phipson & Smyth, 2010](https://doi.org/10.2202/1544-6115.1585)). The stability is the
    mean cosine between the directions of two random halves of the subjects.

    With covariates the null hypothesis is that the latent depends only on them: a label that is
    correlated with age adds nothing beyond age. The held-out projections are adjusted too, by a
    regression on the covariates in the other folds; an AUC of 0.5 means that the label does not
    explain the residuals. Permutations exchange a subject's labels and covariates *together*,
    relative to the residuals of the latents, so the correlation of label and covariates stays as it
    is ([Freedman & Lane, 1983](https://doi.org/10.1080/07350015.1983.10509354), with whole subjects
    exchanged as in [Winkler et al., 2014](https://doi.org/10.1016/j.neuroimage.2014.01.060)). Only
    linear effects of the covariates' columns are removed: take the columns from `design`, which
    adds splines. A covariate that is missing, or recorded with error, adjusts only in part.
    `benchmarks/evidence.py` measures the level and the power.

    Args:
        z: Latents, shape `(n, latent_dim)`; or one such array per fold, `(folds, n, latent_dim)`,
            if an encoder was trained without each fold.
        labels: Booleans, or 0 and 1, shape `(n,)`; none may be missing, because every row gets a
            score.
        subjects: Shape `(n,)`.
        method: One of `METHODS`.
        covariates: Numbers to adjust for, shape `(n, k)`, from `design`; or None.
        folds: Their number, or the fold of each row, shape `(n,)`.
        bootstraps, permutations, halves: Numbers of repetitions.
        seed: Seed of all random choices.
        progress: Called with the share in [0, 1] that is done, after each repetition; or None.

    Returns:
        `Evidence`.

    Raises:
        ValueError: if labels are missing, or too few subjects have the label to fit a direction
            without each fold.
    """
    z, labels, groups, others = _checked(z, labels, subjects, covariates)
    random = np.random.default_rng(seed)
    if np.ndim(folds) == 0:
        folds = deal(groups, folds, seed)
    folds = np.unique(folds, return_inverse=True)[1]
    latents = z if z.ndim == 3 else np.broadcast_to(z, (folds.max() + 1, *z.shape))
    if len(latents) != folds.max() + 1:
        raise ValueError(f"{len(latents)} arrays of latents for {folds.max() + 1} folds")

    def held_out(latents, target, others, rows=slice(None)):
        """AUC of some rows (which may repeat), and their held-out projections."""
        wanted, known, place = target[rows], others[rows], folds[rows]
        scores = np.empty(len(wanted))
        for fold in range(folds.max() + 1):
            seen, points = place != fold, latents[fold][rows]
            vector = fit(points[seen], wanted[seen], method, known[seen])
            scores[~seen] = without(points @ vector, known, seen)[~seen]
        return auc_within(scores, wanted, place), scores

    done = 0

    def attempt(*drawn):
        """The AUC of a resample; NaN if it has no direction."""
        nonlocal done
        done += 1
        if progress is not None:
            progress(done / (bootstraps + permutations))
        try:
            return held_out(*drawn)[0]
        except ValueError:
            return np.nan

    try:
        auc, scores = held_out(latents, labels, others)
    except ValueError as error:
        raise ValueError(
            "a direction needs several subjects with the label, not all in one fold (another seed "
            f"makes other folds): {error}"
        ) from error
    if np.isnan(auc):
        raise ValueError("no fold has rows both with and without the label; use fewer folds")

    resamples = _resampled(labels, groups, bootstraps, random)
    drawn = [attempt(latents, labels, others, rows) for rows in resamples]
    low, high = _interval(auc, np.array(drawn), min(_counts(labels, groups)["subjects"]))

    left = [without(each, others) for each in latents]
    found = []
    for _ in range(permutations):
        order = permuted(np.arange(len(labels)), groups, random)
        found.append(attempt(left, labels[order], others[order]))
    # Permutations without a direction are not counted: such labels would have raised an error.
    counted = int(np.isfinite(found).sum())
    as_good = int((np.array(found) >= auc).sum())
    return Evidence(
        auc=auc,
        low=float(low),
        high=float(high),
        p_value=(1 + as_good) / (1 + counted),
        stability=_stability(latents[0], labels, groups, method, others, halves, random),
        **_counts(labels, groups),
        scores=scores,
        folds=folds,
    )


@threadpool_limits.wrap(limits=1)
def confirm(
    direction,
    fitted_on,
    tested_on,
    bootstraps=999,
    permutations=999,
    halves=25,
    seed=0,
) -> Evidence:
    """Tests a direction that is already fitted on subjects that it was not fitted on.

    The direction is fixed, and the question is about it alone: does *it* separate new subjects? So
    the interval is a bootstrap of the test subjects' scores, separately with and without the label,
    and the p-value permutes their labels (see `of`, which fits anew in every repetition and
    answers for the procedure). The stability is that of the fit, on the subjects it was fitted on.

    Args:
        direction: `Direction`.
        fitted_on, tested_on: `(z, labels, subjects, covariates)` of each, as for `of`;
            covariates may be None. With covariates, scores are adjusted among the test subjects.
        bootstraps, permutations, halves: Numbers of repetitions.
        seed: Seed of all random choices.

    Returns:
        `Evidence`, whose `folds` are all 0.

    Raises:
        ValueError: if labels are missing, or all test images have the same.
    """
    random = np.random.default_rng(seed)
    before, told, whose, adjusted = _checked(*fitted_on)
    z, labels, groups, others = _checked(*tested_on)
    raw = direction.project(z)
    scores = without(raw, others)
    auc = auc_within(scores, labels)
    if np.isnan(auc):
        raise ValueError("the test subjects need images with the label and without it")
    drawn = [
        auc_within(without(raw[rows], others[rows]), labels[rows])
        for rows in _resampled(labels, groups, bootstraps, random)
    ]
    low, high = _interval(auc, np.array(drawn), min(_counts(labels, groups)["subjects"]))
    as_good = 0
    for _ in range(permutations):
        order = permuted(np.arange(len(labels)), groups, random)
        as_good += auc_within(without(scores, others[order]), labels[order]) >= auc
    return Evidence(
        auc=auc,
        low=float(low),
        high=float(high),
        p_value=(1 + as_good) / (1 + permutations),
        stability=_stability(before, told, whose, direction.method, adjusted, halves, random),
        **_counts(labels, groups),
        scores=scores,
        folds=np.zeros(len(labels), int),
    )


def _checked(z, labels, subjects, covariates):
    """Arguments of `of` as arrays: `(z, labels, groups, others)`.

    Subjects become numbers from 0, and no covariates an array without columns.
    """
    missing = int(pd.isna(labels).sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(labels)} labels are missing: leave those rows out of every "
            "argument, with known = table[label].notna()"
        )
    others = np.empty((len(labels), 0)) if covariates is None else covariates
    groups = np.unique(np.asarray(subjects), return_inverse=True)[1]
    return (
        np.asarray(z, np.float64),
        np.asarray(labels, bool),
        groups,
        np.asarray(others, np.float64),
    )


def _resampled(labels, groups, times, random):
    """Rows of each bootstrap over subjects, drawn separately with and without the label."""
    of_subject = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    has = np.bincount(groups, labels) > 0
    for _ in range(times):
        chosen = [random.choice(np.flatnonzero(kind), int(kind.sum())) for kind in (has, ~has)]
        yield np.concatenate([of_subject[each] for each in np.concatenate(chosen)])


def _stability(z, labels, groups, method, others, halves, random):
    """Mean cosine between the directions of two random halves of the subjects; NaN without any."""
    has, cosine = np.bincount(groups, labels) > 0, []
    for pair in _halves(groups, has, halves, random):
        try:
            one, other = (fit(z[h], labels[h], method, others[h]) for h in pair)
        except ValueError:
            continue
        cosine.append(one @ other)
    return float(np.mean(cosine)) if cosine else np.nan


def _counts(labels, groups):
    """Images and subjects, each with the label and without it."""
    kinds = (labels, ~labels)
    return {
        "images": tuple(int(kind.sum()) for kind in kinds),
        "subjects": tuple(int((np.bincount(groups, kind) > 0).sum()) for kind in kinds),
    }


def _interval(auc, drawn, fewest):
    """95 % interval of a value from its bootstrap's spread, on the log-odds scale; within [0, 1].

    NaN if so many resamples failed (are NaN) that the rest would underestimate the spread. After a
    perfect separation all are the same and say nothing of it: then the interval is that of so many
    pairs in order, of as many pairs, as there are subjects of the rarer kind
    ([Clopper & Pearson, 1934](https://doi.org/10.1093/biomet/26.4.404)).
    """

    def logit(share):
        share = np.clip(share, 1e-4, 1 - 1e-4)
        return np.log(share / (1 - share))

    found = drawn[np.isfinite(drawn)]
    if len(found) < max(2, DRAWN * len(drawn)):
        return np.nan, np.nan
    if np.ptp(found) == 0 and auc in (0.0, 1.0):
        return stats.binomtest(round(auc * fewest), fewest).proportion_ci(method="exact")
    spread = np.std(logit(found), ddof=1)
    ends = logit(auc) + np.array([-1.96, 1.96]) * spread
    return 1 / (1 + np.exp(-ends))


def deal(subjects, folds, seed=0):
    """A fold for every row, the same for all rows of a subject; a function of subjects and seed
    only."""
    _, groups = np.unique(np.asarray(subjects), return_inverse=True)
    count = groups.max() + 1
    if count < folds:
        raise ValueError(f"{count} subjects cannot fill {folds} folds; use fewer folds")
    return np.random.default_rng(seed).permutation(np.arange(count) % folds)[groups]


def permuted(labels, groups, random):
    """Labels permuted between subjects of equally many images; a subject's labels stay together.

    Args:
        labels: Shape `(n,)`.
        groups: Number of each row's subject.
        random: `numpy.random.Generator`.
    """
    order = np.argsort(groups, kind="stable")  # puts the rows of a subject next to each other
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    mixed = np.empty_like(labels)
    for size in np.unique(sizes[sizes > 0]):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        mixed[rows] = labels[rows[random.permutation(len(rows))]]
    return mixed


def _halves(groups, has, times, random):
    """Rows of two random halves of the subjects, with equally many that have the label."""
    for _ in range(times):
        side = np.empty(len(has), int)
        for kind in (has, ~has):
            count = int(kind.sum())
            side[kind] = random.permutation((np.arange(count) + random.integers(2)) % 2)
        yield np.flatnonzero(side[groups] == 0), np.flatnonzero(side[groups] == 1)


def auc_within(scores, labels, folds=None) -> float:
    """Area under the ROC curve, counting only pairs of rows of one fold.

    The share of pairs (with the label, without) in which the first has the higher score; ties
    count half. Scores of different folds come from different directions and are not compared.

    Args:
        scores, labels: Shape `(n,)`.
        folds: Shape `(n,)`, or None for one fold.

    Returns:
        In [0, 1]; NaN if there is no pair.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    folds = np.zeros(len(scores), int) if folds is None else np.asarray(folds)
    won, pairs = 0.0, 0
    for fold in np.unique(folds):
        yes, no = (scores[(folds == fold) & (labels == kind)] for kind in (True, False))
        no = np.sort(no)
        won += sum(np.searchsorted(no, yes, side).sum() for side in ("left", "right")) / 2
        pairs += len(yes) * len(no)
    return float(won / pairs) if pairs else float("nan")


def auc_interval(scores, labels, subjects, draws=1000, seed=0):
    """AUC of some scores with its 95 % interval, by a bootstrap over subjects.

    Args:
        scores, labels: See `auc_within`.
        subjects: Whose row each is, shape `(n,)`.
        draws: Of the bootstrap.
        seed: Of the draws.

    Returns:
        `(auc, low, high)`.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    _, groups = np.unique(np.asarray(subjects), return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = [
        auc_within(scores[rows], labels[rows]) for rows in _resampled(labels, groups, draws, random)
    ]
    auc = auc_within(scores, labels)
    fewest = min(_counts(labels, groups)["subjects"])
    return (auc, *map(float, _interval(auc, np.array(drawn), fewest)))


def auc_by_third(scores, labels, sizes, folds=None) -> list[float]:
    """AUC of the small, the middle and the large third of the rows with the label, against the
    rest.

    Args:
        scores, labels, folds: See `auc_within`.
        sizes: Size of the finding in each row, shape `(n,)`.

    Returns:
        Three numbers, the smallest third first.
    """
    scores, labels, sizes = np.asarray(scores), np.asarray(labels, bool), np.asarray(sizes)
    third = np.digitize(sizes, np.quantile(sizes[labels], (1 / 3, 2 / 3)))
    chosen = [~labels | (third == number) for number in range(3)]
    folds = np.zeros(len(scores), int) if folds is None else np.asarray(folds)
    return [auc_within(scores[rows], labels[rows], folds[rows]) for rows in chosen]
