"""Directions of a label in a latent space, the evidence for them, and their effect on images.

A direction can always be fitted; `evidence` tests it on unseen subjects. The functions take and
return arrays and callables, and do not depend on a model.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from nn.batches import in_batches
from storage import disk

METHODS = ("mean", "fisher", "logistic")
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity, for "fisher"
RIDGE = 0.1  # inverse strength of the logistic regression's penalty, on axes of unit variance
FEW = 30  # subjects with the label, below which single numbers are not reliable
KNOTS = (0.1, 0.5, 0.9)  # quantiles of the knots of a covariate's spline
DRAWN = 0.95  # share of bootstraps that must have a direction, for an interval


# --- a direction ---------------------------------------------------------------------------------


def fit(z, target, method="mean", covariates=None):
    """Unit direction along which a label, or any number, grows.

    `"mean"` is the difference of the two class means; for a number, the slope of each axis on it.
    `"fisher"` divides it by the shrunken covariance within the classes: axes that vary between any
    two images (position, exposure) count less, since with few images the means differ there mostly
    by chance. `"logistic"` is the weight vector of a logistic regression with balanced classes.
    With covariates, all methods are adjusted: the slope of each axis on the label is that of a
    linear regression which includes the covariates; for `"logistic"`, the weights are those of the
    latent's residuals, in a regression that includes the covariates too.

    Args:
        z: Latents, shape `(n, latent_dim)`.
        target: Shape `(n,)`: booleans, 0 and 1, or, except for `"logistic"`, any numbers.
        method: One of `METHODS`.
        covariates: Numbers to adjust for, shape `(n, k)`, from `design`; or None.

    Returns:
        float64 `(latent_dim,)` of length 1.

    Raises:
        ValueError: if the target does not vary, or only together with the covariates.
    """
    z = np.asarray(z, np.float64)
    target = np.asarray(target, np.float64)
    if method not in METHODS:
        raise ValueError(f"method = {method!r} is not valid; allowed: {', '.join(METHODS)}")
    others = np.empty((len(z), 0)) if covariates is None else np.asarray(covariates, np.float64)
    if len(np.unique(target)) < 2:
        raise ValueError(
            "all rows have the same label, so there is no direction; add rows with another one"
        )
    # Frisch and Waugh, 1933: the slope with covariates is the slope on the residuals.
    z, rest = without(z, others), without(target, others)
    rest = rest - rest.mean()
    if np.abs(rest).max() < 1e-9:
        raise ValueError("the covariates explain the label entirely; adjust for fewer of them")
    if method == "logistic":
        scale = z.std(axis=0) + 1e-12
        columns = np.concatenate([(z - z.mean(axis=0)) / scale, others], axis=1)
        model = LogisticRegression(C=RIDGE, class_weight="balanced", max_iter=1000)
        vector = model.fit(columns, target > 0.5).coef_[0, : z.shape[1]] / scale
    else:
        vector = rest @ (z - z.mean(axis=0))
        if method == "fisher":
            left = without(z, np.column_stack([others, target]))
            left = left - left.mean(axis=0)
            covariance = left.T @ left / len(z)
            ground = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
            mixed = (1 - SHRINKAGE) * covariance + SHRINKAGE * ground
            vector = np.linalg.solve(mixed + 1e-12 * np.eye(len(mixed)), vector)
    length = np.linalg.norm(vector)
    if not length:
        raise ValueError("the latents do not depend on the label")
    return vector / length


def without(values, covariates, rows=slice(None)):
    """Residuals of a linear regression on the covariates, with the intercept added.

    Args:
        values: Shape `(n,)` or `(n, k)`.
        covariates: Shape `(n, c)`; with c = 0 the values are returned unchanged.
        rows: Rows for the fit of the regression; all rows are adjusted.

    Returns:
        Same shape as the values.
    """
    if not covariates.shape[1]:
        return values
    known = np.column_stack([np.ones(len(covariates)), covariates])
    slopes = np.linalg.lstsq(known[rows], values[rows], rcond=None)[0][1:]
    return values - covariates @ slopes


def design(table, columns):
    """Columns of a table as numbers to adjust for.

    Numbers are standardised and get a second column, for non-linear dependence: a restricted cubic
    spline of three knots, at observed values. (A straight line does not remove a dependence on the
    square of an age.) Text becomes one column per value except the first. A missing number is
    replaced by the mean and marked in a separate column; those rows are not adjusted for the
    number.

    Args:
        table: One row per image.
        columns: Names of columns.

    Returns:
        float64 `(n, k)`.

    Raises:
        ValueError: if there is no such column, or a column of numbers is empty.

    Reference:
        [Harrell, 2015](https://doi.org/10.1007/978-3-319-19425-7), Section 2.4.5.
    """
    parts = []
    for name in columns:
        if name not in table:
            known = ", ".join(map(str, table))
            raise ValueError(f"there is no column {name!r} to adjust for; there are: {known}")
        column = table[name]
        if column.dtype.kind in "biuf":
            values = column.to_numpy(np.float64, na_value=np.nan)
            missing = np.isnan(values)
            if missing.all():
                raise ValueError(f"the column {name!r} has no value in any row; leave it out")
            knots = np.quantile(values[~missing], KNOTS, method="nearest")
            values = np.where(missing, values[~missing].mean(), values)
            parts.append(_standard(values))
            if (np.diff(knots) > 0).all():
                parts.append(_standard(_bend(values, knots)))
            if missing.any():
                parts.append(missing.astype(np.float64))
        else:
            words = column.astype(str)
            parts += [(words == word).to_numpy(np.float64) for word in sorted(set(words))[1:]]
    return np.stack(parts, axis=1) if parts else np.empty((len(table), 0))


def _standard(values):
    return (values - values.mean()) / (values.std() + 1e-12)


def _bend(values, knots):
    """The cubic between three knots that is 0 below and linear above them."""
    first, middle, last = (np.maximum(values - knot, 0) ** 3 for knot in knots)
    share = (knots[1] - knots[0]) / (knots[2] - knots[1])
    return first - middle * (1 + share) + last * share


@dataclass(frozen=True)
class Direction:
    """A unit direction with its unit of strength and its origin.

    Args:
        name: Label that grows along it.
        vector: Shape `(latent_dim,)`, of length 1.
        spread: Standard deviation of the latents' projection on it: strength 2 moves a latent by
            two of them, so that 2 means the same for every model.
        method: One of `METHODS`.
        adjusted_for: Names of the covariates.
        images, subjects: Numbers with the label, and without it.
        source: Free text: run, data, date.

    Raises:
        ValueError: if the vector is not a row of finite numbers, or the spread is not above 0.
    """

    name: str
    vector: np.ndarray
    spread: float
    method: str = "mean"
    adjusted_for: tuple[str, ...] = ()
    images: tuple[int, int] = (0, 0)
    subjects: tuple[int, int] = (0, 0)
    source: str = ""

    def __post_init__(self):
        if np.ndim(self.vector) != 1 or not np.isfinite(self.vector).all():
            raise ValueError("the vector must be one row of finite numbers")
        if not 0 < self.spread < np.inf:
            raise ValueError(f"spread = {self.spread} must be a finite number above 0")

    @classmethod
    def of(cls, z, table, label, method="mean", adjust=(), source=""):
        """The direction of a table's column, from all rows with a value.

        Args:
            z: Latents, row by row with the table.
            table: Table with the label's column, `subject`, and the columns to adjust for.
            label: Name of the label's column. Rows without a value are left out and not counted.
            method: One of `METHODS`.
            adjust: Names of the columns to adjust for; see `design`.
            source: Free text.

        Raises:
            ValueError: see `fit`.
        """
        known = table[label].notna().to_numpy()
        z, table = np.asarray(z, np.float64)[known], table[known]
        target = table[label].to_numpy(bool)
        covariates = design(table, adjust) if adjust else None
        vector = fit(z, target, method, covariates)
        subjects = table["subject"]
        return cls(
            name=label,
            vector=vector,
            spread=float((z @ vector).std()),
            method=method,
            adjusted_for=tuple(adjust),
            images=(int(target.sum()), int((~target).sum())),
            subjects=(subjects[target].nunique(), subjects[~target].nunique()),
            source=source,
        )

    def project(self, z):
        """Projection of every latent on the direction, in units of strength; `(n,)`."""
        return np.asarray(z, np.float64) @ self.vector / self.spread

    def move(self, z, strength):
        """Latents moved by a strength, or by one strength each; same shape."""
        step = np.asarray(strength, np.float64)[..., None] * self.spread * self.vector
        return (np.asarray(z, np.float64) + step).astype(np.float32)

    def save(self, path):
        """Writes the direction and its provenance as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_json(path, asdict(self) | {"vector": [float(each) for each in self.vector]})

    @classmethod
    def load(cls, path, latent_dim=None):
        """A direction from `save`.

        Args:
            path: A JSON file.
            latent_dim: Latent axes of its model, if they are known.

        Raises:
            ValueError: if the file is not a direction, or one of another latent.
        """
        try:
            values = json.loads(Path(path).read_text())
            for name in ("adjusted_for", "images", "subjects"):
                values[name] = tuple(values[name])
            values["vector"] = np.array(values["vector"], np.float64)
            direction = cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read as a direction: {error}") from error
        if latent_dim not in (None, len(direction.vector)):
            raise ValueError(
                f"{path} has {len(direction.vector)} axes and the run's latent {latent_dim}: it "
                "belongs to another run; use one that was made for this run"
            )
        return direction


def cosines(vectors) -> pd.DataFrame:
    """Cosine of every direction with every other; a dictionary of names to unit vectors."""
    stacked = np.stack(list(vectors.values()))
    return pd.DataFrame(stacked @ stacked.T, index=list(vectors), columns=list(vectors))


# --- how far to trust it -------------------------------------------------------------------------


class Evidence(NamedTuple):
    """Evidence for a direction on held-out subjects; see `evidence`.

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
def evidence(
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

    def attempt(*drawn):
        """The AUC of a resample; NaN if it has no direction."""
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
    low, high = _interval(
        auc, np.array([attempt(latents, labels, others, rows) for rows in resamples])
    )

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
    and the p-value permutes their labels (see `evidence`, which fits anew in every repetition and
    answers for the procedure). The stability is that of the fit, on the subjects it was fitted on.

    Args:
        direction: `Direction`.
        fitted_on, tested_on: `(z, labels, subjects, covariates)` of each, as for `evidence`;
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
    low, high = _interval(auc, np.array(drawn))
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
    """Arguments of `evidence` as arrays: `(z, labels, groups, others)`.

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


def _interval(auc, drawn):
    """95 % interval of a value from its bootstrap's spread, on the log-odds scale; within [0, 1].

    NaN if so many resamples failed (are NaN) that the rest would underestimate the spread.
    """

    def logit(share):
        share = np.clip(share, 1e-4, 1 - 1e-4)
        return np.log(share / (1 - share))

    found = drawn[np.isfinite(drawn)]
    if len(found) < max(2, DRAWN * len(drawn)):
        return np.nan, np.nan
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


def auc_by_third(scores, labels, sizes, folds=None) -> list[float]:
    """AUC of the small, the middle and the large third of the rows with the label, against the
    rest.

    Args:
        scores, labels, folds: See `auc_within`.
        sizes: Size of the finding in each row, shape `(n,)`.

    Returns:
        Three numbers, the smallest third first.
    """
    third = np.digitize(sizes, np.quantile(sizes[labels], (1 / 3, 2 / 3)))
    chosen = [~labels | (third == number) for number in range(3)]
    folds = np.zeros(len(scores), int) if folds is None else np.asarray(folds)
    return [auc_within(scores[rows], labels[rows], folds[rows]) for rows in chosen]


# --- what it does to images ----------------------------------------------------------------------


def sweep(decode, z, direction, strengths):
    """Images of some latents moved along a direction; strength 0 is the reconstruction.

    Args:
        decode: Latents `(batch, latent_dim)` to images.
        z: Shape `(n, latent_dim)`.
        direction: `Direction`.
        strengths: Numbers, in units of the direction's spread.

    Returns:
        Shape `(strengths, n, height, width, channels)`.
    """
    moved = np.concatenate([direction.move(z, np.full(len(z), each)) for each in strengths])
    images = in_batches(decode, moved, batch_size=128)
    return images.reshape(len(strengths), len(z), *images.shape[1:])


def dose_response(images, score) -> pd.DataFrame:
    """Response of an independent classifier or regressor to a sweep.

    Args:
        images: From `sweep`.
        score: Function from images `(n, height, width, channels)` to a number each.

    Returns:
        One row per strength: `mean`, and the `standard_error` over images of its difference from
        the first strength (the images are the same, so their own differences cancel).
    """
    scores = np.stack([np.asarray(score(each), np.float64) for each in images])
    changes = scores - scores[0]
    error = changes.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    return pd.DataFrame({"mean": scores.mean(axis=1), "standard_error": error})


def latent_shift(decode, score, z, shifts):
    """Images moved along the gradient of a classifier through the decoder.

    `z + shift * d score(decode(z)) / dz`, each gradient scaled to length 1, so that shifts are in
    units of the latent: [Cohen et al., 2021](https://arxiv.org/abs/2102.09475), Section 2, up to
    that scale. It needs no labelled latents but a differentiable classifier. It finds any change
    that raises the classifier's score, whether or not it is the label.

    Args:
        decode: Latents to images, differentiable.
        score: Images to one number each, differentiable.
        z: Shape `(n, latent_dim)`.
        shifts: Numbers.

    Returns:
        `(images, gradients)`: shapes `(shifts, n, height, width, channels)` and
        `(n, latent_dim)`, the latter of length 1 (0 if the score is flat).
    """

    def gradient(points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            total = tf.reduce_sum(score(decode(points)))
        return tf.math.l2_normalize(tape.gradient(total, points), axis=-1)

    z = np.asarray(z, np.float32)
    gradients = in_batches(gradient, z, batch_size=128)
    moved = np.concatenate([z + np.float32(each) * gradients for each in shifts])
    images = in_batches(decode, moved, batch_size=128)
    return images.reshape(len(shifts), len(z), *images.shape[1:]), gradients


def inside(change, mask, margin=3):
    """Share of a difference's energy within a mask grown by some pixels.

    Args:
        change: Differences of images, shape `(n, height, width, channels)`.
        mask: Booleans, same shape.
        margin: Pixels by which the mask is grown.

    Returns:
        Shape `(n,)`: squared differences inside over all of them.
    """
    energy = np.square(np.asarray(change, np.float64)).sum(axis=-1)
    near = np.stack(
        [
            ndimage.binary_dilation(each, iterations=margin) if margin else each
            for each in mask.any(-1)
        ]
    )
    return (energy * near).sum(axis=(1, 2)) / np.maximum(energy.sum(axis=(1, 2)), 1e-12)


def alike(change, truth):
    """Correlation over pixels of every difference with the true one; shape `(n,)`."""
    pairs = zip(change, truth, strict=True)
    return np.array([np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs])
