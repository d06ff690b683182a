"""Directions of a label in a latent space, and their effect on images.

A direction can always be fitted; `analysis.evidence` tests it on unseen subjects. The functions
take and return arrays and callables, and do not depend on a model.
"""

import ast
import json
import operator
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from nn.batches import in_batches
from storage import disk

METHODS = ("mean", "fisher", "logistic")
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity, for "fisher"
RIDGE = 0.1  # inverse strength of the logistic regression's penalty, on axes of unit variance
COMPARE = {  # how a label can be made from a column
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
KNOTS = (0.1, 0.5, 0.9)  # quantiles of the knots of a covariate's spline


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


def labelled(table, text):
    """Which rows of a table have a label, as nullable booleans.

    Args:
        table: One row per image.
        text: Name of a column of yes or no, or a comparison such as `digit==3` or `age>60`.

    Raises:
        ValueError: if there is no such column, or it is not yes or no and not compared.
    """
    parts = re.fullmatch(r"\s*(.+?)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*", text)
    column = parts[1] if parts else text
    if column not in table:
        known = ", ".join(each for each in table if each not in ("file", "subject"))
        raise ValueError(f"{text}: the images have no column {column!r}; there are: {known}")
    values = table[column]
    if parts is None:
        if not set(values.dropna().unique()) <= {0, 1}:
            raise ValueError(f"{text}: {column} is not yes or no; compare it: {column}==...")
        return values.astype("boolean")
    try:
        value = ast.literal_eval(parts[3])
    except (ValueError, SyntaxError):
        value = parts[3]
    try:
        has = COMPARE[parts[2]](values.astype(str) if isinstance(value, str) else values, value)
    except TypeError as error:
        raise ValueError(f"{text}: {column} cannot be compared so ({error})") from error
    return pd.Series(has, index=values.index).astype("boolean").mask(values.isna())


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
            words = column.astype(object).where(column.notna(), "missing").astype(str)
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

    def save(self, path, weights=None):
        """Writes the direction and its provenance as JSON.

        Args:
            path: Of the file.
            weights: SHA-256 of the weights of its model, so that `load` knows them again.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = asdict(self) | {"vector": [float(each) for each in self.vector]}
        disk.write_json(path, values | ({"weights": weights} if weights else {}))

    @classmethod
    def load(cls, path, latent_dim=None, weights=None):
        """A direction from `save`.

        Args:
            path: A JSON file.
            latent_dim: Latent axes of its model, if they are known.
            weights: SHA-256 of the weights of its model, if they are known.

        Raises:
            ValueError: if the file is not a direction, or one of another latent or other weights.
        """
        try:
            values = json.loads(Path(path).read_text())
            own = values.pop("weights", None)
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
        if None not in (own, weights) and own != weights:
            raise ValueError(
                f"{path} was fitted on other weights than the run's; find it in this run: "
                f"apply.py RUN --find {direction.name!r}"
            )
        return direction


def cosines(vectors) -> pd.DataFrame:
    """Cosine of every direction with every other; a dictionary of names to unit vectors."""
    stacked = np.stack(list(vectors.values()))
    return pd.DataFrame(stacked @ stacked.T, index=list(vectors), columns=list(vectors))


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
