"""What can be asked of a trained run: its map, its axes, samples, paths and directions.

`Atlas` is the part of the page of `explore.py` that knows no browser: it answers in arrays, and in
sentences where something is missing or makes no sense for the run.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from analysis import anomaly, evidence, latent
from analysis.directions import Direction, design, labelled
from analysis.planes import Planes
from families import priors
from nn import metrics
from nn.batches import as_float, in_batches, in_parts, rows_at_a_time
from storage import checkpoints, disk, runs

MOST = 10_000  # images on a map; of more, a random part is shown
SLIDERS = 8  # axes that get a slider at a time
FEW = 12  # values of a text that a map can tell apart by colour
NORMAL = "N(0, I)"
PATHS = ("straight", "spherical", "through data")
MARKS = ("ssim", "error", "unfamiliar")  # columns measured here that may mark outliers
LEFT_OUT = ("digest", "noise_seed")  # columns that say nothing of an image


class Axis(NamedTuple):
    """A direction that a slider moves along: `vector` `(latent_dim,)` from the mean latent."""

    name: str
    vector: np.ndarray
    centre: float  # of the latents' projections,
    spread: float  # and their standard deviation
    nats: float  # mean KL; NaN if it has none


def chosen(counts, most, seed=0):
    """Rows of several splits that are shown together, at most so many, drawn at random.

    Args:
        counts: Images in each split.
        most: Most rows in all.
        seed: Of the draw.

    Returns:
        An array of sorted rows for each split.
    """
    total = sum(counts)
    if total <= most:
        return [np.arange(count) for count in counts]
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:most])
    ends = np.cumsum(counts)
    return [
        rows[(rows >= end - count) & (rows < end)] - (end - count)
        for count, end in zip(counts, ends, strict=True)
    ]


class Atlas:
    """A run opened to be explored, with what it has.

    Args:
        run: Run folder.
        model: Its model, or None if it cannot be opened.
        split: `splits.Split` of the images that are shown, or None.
        name: What the images are, for titles.
        total: Images that these were drawn from.
        label: Column of the table that holds the class, or None.
        classes: Names of its classes.
        lacks: Sentences: what the run does not have, and why.

    Attributes:
        map: `planes.Planes` of the latents, or None.
        table: Table of the images, with `error` and `ssim` of their reconstructions.
        z, z_log_var: Posteriors, `(n, latent_dim)`, or None.
        axes: `Axis` of each slider.
        priors: Names to priors; None is N(0, I).
        directions: Names to saved directions.
    """

    def __init__(self, run, model, split=None, name="", total=0, label=None, classes=(), lacks=()):
        self.run, self.model, self.name = Path(run), model, name
        self.images = None if split is None or model is None else split.images
        self.total = total or (0 if self.images is None else len(self.images))
        self.label, self.classes = label, tuple(classes)
        self.lacks = list(lacks)
        self.table = pd.DataFrame()
        self.z = self.z_log_var = None
        self.map = None
        self.directions, self.priors, self.axes = {}, {}, []
        if model is None:
            return
        if self.images is not None:
            self._measure(split.table)
        if not model.needs_class:
            shape = tf.TensorSpec((None, model.latent_dim), tf.float32)
            self._decode = tf.function(model.decode, input_signature=[shape])
            self.decode(np.zeros((1, model.latent_dim)))  # traced here, not at the first move
            self.axes = self._axes()
            self._open_directions()
        self._open_priors()

    @property
    def called(self):
        """The run's name, as a file may be called."""
        return disk.file_name(self.run.resolve().name)

    def about(self) -> str:
        """Model and images in one line."""
        if self.model is None:
            return "no model"
        kind = type(self.model).__name__
        if self.images is None:
            return f"{kind}. {self.about_latent()} No images."
        of = "" if len(self) == self.total else f" of {self.total:,}"
        return f"{kind}, {len(self):,}{of} images of {self.name}. {self.about_latent()}"

    def __len__(self):
        return 0 if self.images is None else len(self.images)

    # --- what it has ---------------------------------------------------------------------------

    def _measure(self, table):
        """Latents of the images, and how like each its reconstruction is."""

        def measured(batch):
            images = as_float(batch)
            z_mean, z_log_var = self.model.encode(images)
            made = self.model.reconstruct(images)
            return z_mean, z_log_var, metrics.mse(images, made), metrics.ssim(images, made)

        size = max(1, rows_at_a_time(self.images.shape) // 4)
        found = in_batches(measured, self.images, batch_size=size)
        self.z, self.z_log_var = found[:2]
        table = table.reset_index(drop=True)
        if "subject" not in table:
            table = table.assign(subject=table["file"])
        self.table = table.assign(error=found[2].astype(float), ssim=found[3].astype(float))
        self.map = Planes(self.z, self.z_log_var)

    def _axes(self):
        """Axes for sliders: those with the highest KL; of a map its principal components."""
        size = self.model.latent_dim
        if self.z is None:
            if self.model.latent_map:
                return []
            return [Axis(f"z_{axis}", np.eye(size)[axis], 0.0, 1.0, np.nan) for axis in range(size)]
        if not self.model.latent_map:
            order, nats = latent.by_kl(self.z, self.z_log_var)
            return [
                Axis(
                    f"z_{axis}", np.eye(size)[axis], 0.0, float(self.z[:, axis].std()), float(each)
                )
                for axis, each in zip(order, nats, strict=True)
            ]
        left = self.z - self.z.mean(axis=0)
        _, lengths, vectors = np.linalg.svd(left, full_matrices=False)
        spreads = lengths / np.sqrt(len(left))
        kept = zip(vectors[:SLIDERS], spreads[:SLIDERS], strict=True)
        return [
            Axis(
                f"component {number}",
                vector,
                float(self.z.mean(axis=0) @ vector),
                float(spread),
                np.nan,
            )
            for number, (vector, spread) in enumerate(kept, 1)
        ]

    def _open_directions(self):
        own = self.model.latent_dim, checkpoints.digest_of(self.run)
        for path in sorted((self.run / "directions").glob("*.json")):
            try:
                found = Direction.load(path, *own)
                self.directions[found.name] = found
            except (ValueError, OSError) as error:
                self.lacks.append(str(error))

    def _open_priors(self):
        self.priors = {NORMAL: None}
        for name in runs.priors_of(self.run):
            try:
                self.priors[name] = priors.of_run(self.run, name)
            except (ValueError, OSError) as error:
                self.lacks.append(str(error))
        own = self.priors[self.own_prior]
        if self.z is not None and own is not None and own.clustered:
            self.table["unfamiliar"] = anomaly.unfamiliarity(self.z, own)

    @property
    def own_prior(self):
        """Name of the prior that samples come from unless another is chosen."""
        try:
            name = runs.own_prior(self.run)
        except ValueError:
            return NORMAL
        return name if name in self.priors else NORMAL

    def refusal(self, tool) -> str:
        """Why a tool (`"map"`, `"sliders"`, `"samples"`, `"directions"`, `"paths"`) cannot be used
        with this run, and what can; "" if it can."""
        if self.model is None:
            return "The run's model cannot be opened: see the page About."
        if tool == "samples":
            return ""
        if tool in ("map", "directions", "paths") and self.images is None:
            if tool != "directions" or not self.directions:
                return "This needs images, and those of the run are not there: see the page About."
        if tool != "map" and self.model.needs_class:
            return (
                "The decoder of this model (M2) needs a class besides the latent, so a latent "
                "alone is no image. Samples, which get their classes, can be drawn."
            )
        if tool == "map" and self.model.latent_dim < 2:
            return "A map needs a latent of at least two axes."
        if tool == "sliders" and self.model.latent_map and self.images is None:
            return (
                f"{self.about_latent()} A slider for one of them moves one spot of the image; "
                "sliders along principal components need images, which are not there."
            )
        return ""

    def about_latent(self) -> str:
        """The form of the latent, as a sentence."""
        shape = self.model.latent_map
        if not shape:
            return f"The latent has {self.model.latent_dim} axes."
        return (
            f"The latent is a map of {' x '.join(map(str, shape))} = "
            f"{self.model.latent_dim:,} numbers."
        )

    def about_sliders(self) -> str:
        """What the sliders move."""
        if self.model.latent_map:
            return (
                f"{self.about_latent()} One of them moves one spot of the image, so the sliders "
                "move along principal components of the images' latents, in standard deviations."
            )
        if self.z is None:
            return f"{self.about_latent()} Without images their order says nothing."
        if np.isfinite(self.axes[0].nats):
            return "Axes in the order of their KL (nats per image); values are those of the latent."
        return "Axes in the order of their variance; values are those of the latent."

    # --- images and latents --------------------------------------------------------------------

    def image(self, row):
        """Image of a row; floats in [0, 1], `(height, width, channels)`."""
        return np.asarray(self.images[np.array([row])][0]) / np.float32(255)

    def reconstruction(self, row):
        """Its reconstruction; same shape."""
        shown = self.image(row)[None]
        if self.model.needs_class:
            return np.asarray(self.model.reconstruct(shown)[0])
        return self.decode(self.z[row][None])[0]

    def decode(self, z):
        """Images in [0, 1] of latents `(n, latent_dim)`."""
        z = np.asarray(z, np.float32)
        size = max(1, rows_at_a_time((len(z), *self.model.image_shape)) // 4)
        return in_parts(self._decode, z, rows=size).numpy()

    def nearest(self, z, count=6, without=None):
        """Rows of the images whose latents are nearest to one, and their distances."""
        away = np.linalg.norm(self.z - np.asarray(z, np.float32), axis=1)
        if without is not None:
            away[without] = np.inf
        rows = np.argsort(away, kind="stable")[: min(count, len(away) - (without is not None))]
        return rows, away[rows]

    def start(self, row=None):
        """Latent that sliders start from: of an image, or the mean of all; `(latent_dim,)`."""
        if row is not None:
            return self.z[row]
        if self.z is None:
            return np.zeros(self.model.latent_dim, np.float32)
        return self.z.mean(axis=0)

    def values(self, z):
        """Values of a latent on the sliders' axes, in the order of `axes`."""
        if not self.axes:
            return np.empty(0)
        vectors = np.stack([axis.vector for axis in self.axes])
        found = vectors @ np.asarray(z, np.float64) - [axis.centre for axis in self.axes]
        return found / [axis.spread for axis in self.axes] if self.model.latent_map else found

    def moved(self, z, values):
        """A latent with some sliders' values, a dictionary of axis names to numbers."""
        z, now = np.asarray(z, np.float64), self.values(z)
        for number, axis in enumerate(self.axes):
            if axis.name in values:
                unit = axis.spread if self.model.latent_map else 1.0
                z = z + (values[axis.name] - now[number]) * unit * axis.vector
        return z.astype(np.float32)

    def drawn(self, prior, seed=0, count=1):
        """Latents drawn from a prior of the run; `(count, latent_dim)`."""
        return np.asarray(self.model.draw_prior(count, seed, self.priors[prior]))

    def samples(self, prior, count=25, seed=0):
        """Images decoded from draws of a prior."""
        if self.model.uses_labels:
            return np.asarray(self.model.generate(count, seed, prior=self.priors[prior])[0])
        return self.decode(self.drawn(prior, seed, count))

    # --- columns -------------------------------------------------------------------------------

    def columns(self):
        """Columns that a map can be coloured by: the label first, text of many values last."""
        if self.images is None:
            return []
        found, many = [], set()
        for name in self.table:
            values = self.table[name].nunique()
            text = is_text(self.table[name])
            if name in LEFT_OUT or (text and values == len(self.table)):
                continue
            if values > 1 or name == self.label:
                found.append(name)
                many |= {name} if text and values > FEW else set()
        return sorted(found, key=lambda name: (name != self.label, name in many))

    @property
    def scores(self):
        """Columns of anomaly scores that came with the run."""
        return [name for name in self.table if name.startswith("score")]

    @property
    def marks(self):
        """Columns that may mark outliers, those that came with the run first."""
        return [*self.scores, *(name for name in MARKS if name in self.table)]

    def worst(self, column, count):
        """Rows that a column marks as outliers: lowest SSIM, or highest of anything else."""
        values = self.table[column].to_numpy(float)
        values = values if column == "ssim" else -values
        known = np.flatnonzero(np.isfinite(values))
        return known[np.argsort(values[known], kind="stable")][:count]

    # --- paths ---------------------------------------------------------------------------------

    def path(self, rows, kind="spherical", frames=40):
        """Latents of a path over some images, in their order; `(frames, latent_dim)`.

        Args:
            rows: At least two rows.
            kind: One of `PATHS`.
            frames: Their number, all ends included.
        """
        if len(rows) < 2:
            raise ValueError("a path needs at least two images")
        pairs = list(zip(rows[:-1], rows[1:], strict=True))
        if kind == "through data":
            found = [latent.through_data(self.z, *pair) for pair in pairs]
            rows = np.concatenate([found[0], *(each[1:] for each in found[1:])])
            return latent.along(self.z[rows], frames)
        if kind == "straight":
            return latent.along(self.z[list(rows)], frames)
        parts = [latent.slerp(self.z[a], self.z[b], frames) for a, b in pairs]
        return latent.along(np.concatenate(parts), frames)

    # --- directions ----------------------------------------------------------------------------

    def labels(self, label):
        """Booleans of a column or a comparison, NA where unknown; see `directions.labelled`.

        A pair of lists of rows is also a label: those with it, and those without.
        """
        if isinstance(label, str):
            return labelled(self.table, label)
        has = pd.Series(pd.NA, index=self.table.index, dtype="boolean")
        has.iloc[list(label[1])] = False
        has.iloc[list(label[0])] = True
        return has

    def _told(self, label, adjust=()):
        """Latents, labels, and table of the rows with a known label."""
        has = self.labels(label)
        known = has.notna().to_numpy()
        target = has[known].to_numpy(bool)
        if target.all() or not target.any():
            raise ValueError(
                f"{int(target.sum())} of {len(target)} images have it; a direction needs images "
                "with it and without"
            )
        table = self.table[known].reset_index(drop=True)
        return self.z[known], target, table, design(table, adjust) if adjust else None

    def direction(self, label, method="fisher", adjust=()) -> Direction:
        """A saved direction by its name, or a new one of a label, from all images shown.

        Args:
            label: Name of a saved direction, or as of `labels`.
            method: One of `directions.METHODS`.
            adjust: Columns to adjust for.
        """
        if isinstance(label, str) and label in self.directions:
            return self.directions[label]
        z, target, table, _ = self._told(label, adjust)
        name = label if isinstance(label, str) else "two groups"
        source = f"{self.run.name}: {len(table)} images of {self.name}"
        return Direction.of(z, table.assign(**{name: target}), name, method, adjust, source)

    def evidence(self, label, method="fisher", adjust=(), seed=0, progress=None):
        """The evidence for a new direction, on subjects that each fit has not seen."""
        z, target, table, covariates = self._told(label, adjust)
        return evidence.of(
            z, target, table["subject"], method, covariates, seed=seed, progress=progress
        )

    def tested(self, direction, seed=0):
        """AUC of a saved direction on the images shown, where its name says what it is; or None."""
        try:
            _, target, _, _ = self._told(direction.name)
        except ValueError:
            return None
        known = self.labels(direction.name).notna().to_numpy()
        return evidence.auc_within(direction.project(self.z[known]), target)

    def save_direction(self, direction):
        """Keeps a direction with the run, for `apply.py` too; returns its path."""
        path = self.run / "directions" / f"{disk.file_name(direction.name)}.json"
        direction.save(path, checkpoints.digest_of(self.run))
        self.directions[direction.name] = direction
        return path

    def effect(self, direction, z, strength, reach=4.0):
        """An image before and after a move, and the limit of a scale that serves all moves.

        Args:
            direction: `Direction`.
            z: Latent, `(latent_dim,)`.
            strength: In standard deviations.
            reach: The largest strength of the scale.

        Returns:
            `(before, after, limit)`: images, and the largest change, averaged over channels, at
            plus or minus `reach`.
        """
        strengths = np.array([0.0, strength, -reach, reach])
        made = self.decode(direction.move(np.repeat(np.asarray(z)[None], 4, axis=0), strengths))
        grey = made.mean(axis=-1)
        return made[0], made[1], max(float(np.abs(grey[2:] - grey[0]).max()), 1e-3)

    # --- what leaves it ------------------------------------------------------------------------

    def rows_as_table(self, rows=None):
        """Table and latents of some rows, or of all, as one table."""
        rows = np.arange(len(self)) if rows is None or not len(rows) else np.asarray(rows)
        axes = pd.DataFrame(self.z[rows], columns=[f"z_{i}" for i in range(self.z.shape[1])])
        return pd.concat([self.table.iloc[rows].reset_index(drop=True), axes], axis=1)


def is_text(column):
    """Whether a column of a table holds text."""
    return not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
