"""Images with their tables, divided into training, validation and test.

Every source returns `ImageData`, which the rest of the project uses. One of three rules splits the
images; all are pure functions of tables and seeds.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from nn import randomness
from nn.batches import in_batches
from sources import files
from sources.masks import LESION_PIXELS, lesion_pixels

NAMES = ("train", "validation", "test")
PREFETCH = 2  # batches that are prepared in advance


class Part(NamedTuple):
    """Slices of every batch for one reader: of `of` slices, the `count` from `first` on."""

    first: int
    count: int
    of: int


ALL = Part(0, 1, 1)


@dataclass(frozen=True)
class Split:
    """Images and their table, row by row.

    Args:
        images: uint8, shape `(n, height, width, channels)`: an array, or `files.Rows` on disk; or
            other data, such as latents of another model.
        table: One row per image in the same order: `file`, `subject`, labels, covariates.
        digests: Short hash of each image's pixels, or None to compute them.
        masks: Label maps, uint8 `(n, height, width, 1)`, 0 for no label; or None.
    """

    images: np.ndarray | files.Rows
    table: pd.DataFrame
    digests: np.ndarray | None = None
    masks: np.ndarray | files.Rows | None = None

    def __len__(self):
        return len(self.images)

    def hashes(self):
        """Short hash of each image's pixels; list of n."""
        known = self.digests
        return [files.digest(each) for each in self.images] if known is None else list(known)

    def labels(self, column: str):
        """Integer labels of one column, shape `(n,)`; -1 if the table has none."""
        if column not in self.table:
            known = ", ".join(self.table.columns)
            raise ValueError(f"the table has no column {column!r}; it has: {known}")
        return self.table[column].astype("Int32").fillna(-1).to_numpy(np.int32)

    def only(self, rows):
        """The split of some of the rows, in their order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        digests = None if self.digests is None else self.digests[rows]
        masks = None if self.masks is None else _rows(self.masks, rows)
        table = self.table.iloc[rows].reset_index(drop=True)
        return Split(_rows(self.images, rows), table, digests, masks)

    def batches(
        self,
        batch_size,
        shuffle=False,
        seed=0,
        first_epoch=0,
        labels=None,
        shift=0,
        flip="none",
        part=ALL,
        conditions=None,
    ):
        """Batches for `fit`, as uint8; the model's step converts them to floats.

        Args:
            batch_size: Images per batch.
            shuffle: If true, the batches are endless and full; `steps(batch_size)` of them make an
                epoch, whose order depends only on (seed, epoch). If false, they come once, in the
                table's order, and the last may be smaller.
            first_epoch: Epoch at which the endless sequence starts, to resume a run.
            labels: Name of a column; batches are then `(images, labels)`.
            shift: With `shuffle`, every image is shifted by at most so many pixels in each
                direction (its edge is repeated), by a function of (seed, epoch, image).
            flip: With `shuffle`, images are mirrored at random: `"sideways"` (left becomes right),
                `"upright"` (top becomes bottom), or `"none"`.
            part: With `shuffle`, the slices of every batch to return, one after the other, if
                several replicas share it; other images are not read.
            conditions: `conditions.Conditions`; batches are then dictionaries of `"images"`,
                `"conditions"`, float32 `(batch, width)`, and, if requested, `"labels"`.

        Returns:
            `tf.data.Dataset` of uint8 `(batch, height, width, channels)`.
        """
        if not len(self):
            raise ValueError("the split is empty: there are no images for a batch")
        if shuffle:
            self.steps(batch_size)  # refuses a batch larger than the split
            if batch_size % part.of:
                raise ValueError(
                    f"{part.of} replicas cannot share a batch of {batch_size} images evenly; set "
                    "batch_size (and labelled_share) so that each gets equally many"
                )
        numbers = None if labels is None else tf.constant(self.labels(labels))
        known = None if conditions is None else tf.constant(conditions(self.table))
        augmented = shift or flip != "none"

        def order(epoch):
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            rows = tf.random.experimental.stateless_shuffle(tf.range(len(self)), key)
            parts = (rows,)
            if augmented:
                parts = (rows, tf.gather(_draws(seed, epoch, len(self)), rows))
            whole = tf.data.Dataset.from_tensor_slices(parts).batch(batch_size, drop_remainder=True)
            return whole if part == ALL else whole.flat_map(slices)

        def slices(*whole):
            shapes = [(part.of, batch_size // part.of, *each.shape[1:]) for each in whole]
            own = slice(part.first, part.first + part.count)
            cut = (tf.reshape(*pair)[own] for pair in zip(whole, shapes, strict=True))
            return tf.data.Dataset.from_tensor_slices(tuple(cut))

        def gather(rows, draws=None):
            # One call outside of the graph per batch; the array may be in memory or on disk.
            kind = tf.as_dtype(self.images.dtype)
            images = tf.numpy_function(lambda chosen: self.images[chosen], [rows], kind, False)
            images = tf.ensure_shape(images, (rows.shape[0], *self.images.shape[1:]))
            if draws is not None:
                images = _moved(images, draws, shift, flip)
            if known is not None:
                batch = {"images": images, "conditions": tf.gather(known, rows)}
                return batch if numbers is None else batch | {"labels": tf.gather(numbers, rows)}
            return images if numbers is None else (images, tf.gather(numbers, rows))

        if shuffle:
            endless = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
            batches = endless.flat_map(order).map(gather, num_parallel_calls=2)
        else:
            rows = tf.data.Dataset.range(len(self), output_type=tf.int32).batch(batch_size)
            batches = rows.map(gather, num_parallel_calls=2)
        return _untuned(batches.prefetch(PREFETCH))

    def mixed_batches(
        self, batch_size, labels, share=0.5, seed=0, first_epoch=0, shift=0, flip="none", part=ALL
    ):
        """Endless training batches of labelled and unlabelled images.

        Args:
            batch_size: Images per batch.
            labels: Name of a column; an empty cell is an image without a label.
            share: Share of each batch with a label, in [0, 1]; at least one image, at most all that
                have one. Without unlabelled images it is 1.
            seed, first_epoch, shift, flip, part: See `batches`.

        Returns:
            `(batches, steps)`: a `tf.data.Dataset` of `(images, labels, others)`, the first two of
            the same length and `others` without labels; and the steps of an epoch, in which every
            unlabelled image (labelled one, if there are no others) comes once.
        """
        known = self.labels(labels) >= 0
        if not known.any():
            raise ValueError(
                f"no image has a label in the column {labels!r}; at least one is needed"
            )
        if known.all():
            steps = self.steps(batch_size)
            batches = self.batches(batch_size, True, seed, first_epoch, labels, shift, flip, part)
            return batches.map(lambda images, numbers: (images, numbers, images[:0])), steps
        labelled, rest = self.only(known), self.only(~known)

        def with_label(size):
            return min(max(1, round(share * size)), len(labelled), size - 1)

        count = with_label(batch_size)
        if batch_size - count > len(rest):
            most = max(each for each in range(batch_size) if each - with_label(each) <= len(rest))
            raise ValueError(
                f"batch_size = {batch_size}, {count} of them with a label (labelled_share), needs "
                f"{batch_size - count} images without one, but there are {len(rest)}; set "
                f"batch_size to {most} or less"
            )
        steps, rounds = rest.steps(batch_size - count), labelled.steps(count)
        # The labelled images have their own epochs; a resumed run continues at its position.
        done = first_epoch * steps
        first = labelled.batches(count, True, seed, done // rounds, labels, shift, flip, part)
        others = rest.batches(batch_size - count, True, seed, first_epoch, None, shift, flip, part)
        pairs = tf.data.Dataset.zip(first.skip(done % rounds * part.count), others)
        return pairs.map(lambda known, others: (*known, others)), steps

    def augmented(self, epoch, seed=0, shift=0, flip="none"):
        """The images as one epoch of `batches` with these arguments has them; uint8 array."""
        draws = _draws(seed, epoch, len(self)).numpy()
        return in_batches(lambda *batch: _moved(*batch, shift, flip), self.images, draws)

    def steps(self, batch_size):
        """Full batches in an epoch; an error if the split does not fill one."""
        if batch_size > len(self):
            raise ValueError(
                f"batch_size = {batch_size} is more than the {len(self)} training images; "
                f"set it to {len(self)} or less"
            )
        return len(self) // batch_size


@dataclass(frozen=True)
class ImageData:
    """Three disjoint splits of one source, with its description.

    Attributes:
        name: Name for titles and files.
        label: Column of the tables that holds the class, or None.
        classes: Names of the classes; the label is an index into them.
        note: Origin and split of the images: part of every protocol.
        embedded: Whether these are embedded images instead of a user's own.
        factors: Columns of the tables with the true factors of every image, if they are known.
        paths: Paths of the images, by the names of `config.PATHS_OF`; empty for embedded images,
            None if they are not known, as for arrays.
        bits: Bit depth of pictures deeper than 8 bits; 0 if there are none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    label: str | None = None
    classes: tuple[str, ...] = ()
    note: str = ""
    embedded: bool = False
    factors: tuple[str, ...] = ()
    paths: dict | None = None
    bits: int = 0

    @property
    def image_shape(self):
        return self.train.images.shape[1:]

    @property
    def splits(self):
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def membership(self):
        """One row per image: file, subject, split and digest of its pixels."""
        parts = []
        for name, split in self.splits.items():
            rows = split.table[["file", "subject"]].assign(split=name)
            rows["digest"] = split.hashes()
            parts.append(rows)
        return pd.concat(parts, ignore_index=True)


def _rows(images, rows):
    return images.only(rows) if isinstance(images, files.Rows) else images[rows]


def _untuned(batches):
    """The batches, with `tf.data` autotuning turned off: there is nothing to tune.

    The tuner's thread sleeps for 10 ms, then twice as long, and so on, and the end of an iterator
    often waits for it: a `fit` that is done after 6 seconds then returns after 10.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _draws(seed, epoch, count):
    """Three numbers in (0, 1) for each image: how it is moved down, across, and mirrored."""
    return randomness.uniform(randomness.key(seed, epoch, "augment"), (count, 3))


def _moved(images, draws, shift, flip):
    """Every image of a batch, shifted and mirrored by its own three numbers in (0, 1)."""
    _, height, width, _ = images.shape
    steps = tf.cast(tf.floor(draws[:, :2] * (2 * shift + 1)), tf.int32) - shift
    down = tf.clip_by_value(tf.range(height) + steps[:, :1], 0, height - 1)
    across = tf.clip_by_value(tf.range(width) + steps[:, 1:], 0, width - 1)
    mirrored = draws[:, 2:] < 0.5
    if flip == "sideways":
        across = tf.where(mirrored, width - 1 - across, across)
    elif flip == "upright":
        down = tf.where(mirrored, height - 1 - down, down)
    images = tf.gather(images, down, axis=1, batch_dims=1)
    moved = tf.gather(tf.transpose(images, (0, 2, 1, 3)), across, axis=1, batch_dims=1)
    return tf.transpose(moved, (0, 2, 1, 3))


# --- from tables and arrays ----------------------------------------------------------------------


def from_table(images, table, places, name, label=None, classes=(), note="", masks=None, **known):
    """Images with a table, split by `places`; no subject may be in two splits.

    Args:
        images: uint8 array or `files.Rows`, n images.
        table: n rows with `file`, `subject` and other columns; a column `digest` is moved to
            `Split.digests`.
        places: One of `NAMES` for each image, or another value to leave the image out.
        masks: See `Split`, for all n images, or None; they give the column `lesion_pixels`.
        label, classes, name, note, **known: See `ImageData`.
    """
    if masks is not None:
        if masks.shape[:3] != images.shape[:3]:
            raise ValueError(
                f"{name}: masks of shape {masks.shape} do not fit images of {images.shape}; give "
                "one of the same height and width for each image"
            )
        table = table.assign(**{LESION_PIXELS: lesion_pixels(masks)})
    both = shared(table["subject"], places)
    if both:
        raise ValueError(
            f"{name}: {len(both)} subjects are in more than one split, {both[0]!r} for example; "
            "numbers measured on such a split would be too optimistic. Put all images of a subject "
            "into one split"
        )
    digests = table["digest"].to_numpy() if "digest" in table else None
    table = table.drop(columns="digest", errors="ignore")

    def part(place):
        rows = np.flatnonzero(np.asarray(places) == place)
        return Split(images, table, digests, masks).only(rows)

    return ImageData(name, *map(part, NAMES), label, tuple(classes), note, **known)


def as_uint8(images, name="images"):
    """Checks an array of images and converts it to uint8, the form of all pipelines.

    Args:
        images: `(n, height, width)` or `(n, height, width, channels)`, 1 or 3 channels, uint8 in
            0..255 or floats in [0, 1] (kept to 1/255).
        name: Name of the array in errors.

    Returns:
        uint8 `(n, height, width, channels)`.

    Raises:
        ValueError: for a wrong array, with what is wrong, where, and what to do.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{name}: shape {images.shape} is not a stack of images; give (n, height, width) or "
            "(n, height, width, channels) with 1 or 3 channels"
        )
    if not len(images):
        raise ValueError(f"{name}: the array has no images; give at least one")
    if images.dtype == np.uint8:
        return images
    if images.dtype == bool:
        return images.astype(np.uint8) * 255
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name}: dtype {images.dtype}; give uint8 in 0..255 or floats in [0, 1]")
    bad = ~np.isfinite(images).all(axis=(1, 2, 3))
    if bad.any():
        raise ValueError(
            f"{name}: NaN or infinite pixels in {bad.sum()} images, the first at index "
            f"{int(np.argmax(bad))}; remove or repair them"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{name}: pixels are in [{low:g}, {high:g}], not in [0, 1]; divide by the full range "
            "(255 for 8-bit values), or give uint8"
        )
    return np.round(images * 255.0).astype(np.uint8)


def from_arrays(
    images,
    labels=None,
    test_images=None,
    test_labels=None,
    name="arrays",
    label="label",
    classes=(),
    fractions=(0.15, 0.15),
    seed=0,
    note="",
    embedded=False,
) -> ImageData:
    """Numpy arrays as `ImageData`, split by a seeded rule, stratified by label if there are labels.

    Args:
        images: See `as_uint8`.
        labels: Whole numbers, shape `(n,)`, -1 if an image has none; or None.
        test_images, test_labels: A separate test set; None: one is split off.
        label: Name of the label's column in the tables.
        classes: Names of the classes 0, 1, ...; default: the numbers that occur, as names; the
            tables then hold their positions in that order.
        fractions: Shares of validation and test (the latter is not used if a test set is given).
        seed: Of the split.
    """
    pixels = as_uint8(images)
    if labels is not None:
        labels, test_labels, classes = _coded(labels, test_labels, classes)
    table = _table(name, len(pixels), label, labels)
    strata = None if labels is None else table[label].to_numpy()
    places = np.full(len(pixels), "train", dtype="<U10")
    rows, share = np.arange(len(pixels)), fractions[0]
    if test_images is None:
        rows, held_out = two_parts(rows, strata, fractions[1], seed)
        places[held_out] = "test"
        share = fractions[0] / (1.0 - fractions[1])
    else:
        test_pixels = as_uint8(test_images, "test images")
        test_table = _table(f"{name}-test", len(test_pixels), label, test_labels)
        pixels, table = np.concatenate([pixels, test_pixels]), pd.concat([table, test_table])
        places = np.concatenate([places, np.full(len(test_pixels), "test")])
    chosen = two_parts(rows, None if strata is None else strata[rows], share, seed)[1]
    places[chosen] = "validation"
    column = None if labels is None else label
    return from_table(pixels, table, places, name, column, classes, note, embedded=embedded)


def _coded(labels, test_labels, classes):
    """Labels as indices of the classes, which are the values that occur if no names are given."""
    given = [None if each is None else np.asarray(each) for each in (labels, test_labels)]
    for each in given:
        if each is not None and not (each.dtype == bool or np.issubdtype(each.dtype, np.integer)):
            raise ValueError(f"labels: dtype {each.dtype}; give whole numbers, -1 if there is none")
    known = np.unique(
        np.concatenate([each.ravel().astype(int) for each in given if each is not None])
    )
    known = known[known >= 0]
    if len(classes):
        if len(known) and known[-1] >= len(classes):
            raise ValueError(
                f"labels: {known[-1]} is not one of {len(classes)} classes, counted from 0"
            )
        return *given, tuple(classes)
    codes = [
        None if each is None else np.where(each < 0, -1, np.searchsorted(known, each))
        for each in given
    ]
    return *codes, tuple(str(number) for number in known)


def _table(name, n, label, labels):
    names = [f"{name}/{row:05d}" for row in range(n)]
    table = pd.DataFrame({"file": names, "subject": names})  # every image is its own subject
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (n,):
            raise ValueError(f"labels: shape {labels.shape} for {n} images; give one for each")
        table[label] = labels.astype(np.int32)
    return table


# --- splitting rules -----------------------------------------------------------------------------


def by_hash(subjects, seed=0, shares=(0.15, 0.15)):
    """Splits by a hash of the subject's name; adding subjects does not move others.

    Args:
        subjects: One name per image, shape `(n,)`; all images of a subject go together.
        seed: Seed of the split.
        shares: Expected shares of validation and test; with few subjects the true ones differ.

    Returns:
        Array of `NAMES`, shape `(n,)`.
    """
    validation, test = shares

    def place(subject):
        mark = hashlib.blake2s(f"{seed}/{subject}".encode(), digest_size=8).digest()
        point = int.from_bytes(mark, "big") / 2**64
        return "test" if point < test else "validation" if point < test + validation else "train"

    places = {subject: place(subject) for subject in set(subjects)}
    return np.array([places[subject] for subject in subjects])


def by_group(subjects, strata, seed=0, folds=5):
    """Splits subjects into equal parts, stratified by a label: one for validation, one for test.

    scikit-learn's StratifiedGroupKFold. Unlike `by_hash`, a new image may move others.

    Args:
        subjects: One name per image, shape `(n,)`.
        strata: The label to stratify by, shape `(n,)`.
        folds: Parts; validation and test get one each, so 5 gives 20 % each.
    """
    strata, subjects = np.asarray(strata), np.asarray(subjects)
    rule = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    places = np.full(len(strata), "train", dtype="<U10")
    parts = [held_out for _, held_out in rule.split(strata, strata, subjects)]
    places[parts[0]], places[parts[1]] = "test", "validation"
    return places


def two_parts(rows, strata, share, seed=0):
    """Rows in two disjoint parts, the second of the given share, stratified if possible.

    Args:
        rows: Indices, shape `(n,)`.
        strata: A label for each row, or None.
    """
    if strata is not None:
        sizes = np.unique(strata, return_counts=True)[1]
        held_out = math.ceil(share * len(rows))
        if sizes.min() < 2 or min(held_out, len(rows) - held_out) < len(sizes):
            strata = None  # not every class can be in both parts
    first, second = train_test_split(
        rows, test_size=share, random_state=seed, shuffle=True, stratify=strata
    )
    return np.sort(first), np.sort(second)


def few_labels(images, per_class, seed=0) -> ImageData:
    """The same images, with the labels of all but a few training images removed.

    Hidden labels are removed from the table. Validation and test keep theirs. Choosing settings on
    a large labelled validation set is not few-label learning.

    Args:
        images: `ImageData` with a label.
        per_class: Training images of each class that keep theirs.
        seed: Seed of the choice.
    """
    if images.label is None:
        raise ValueError(f"{images.name} has no labels; set labels_per_class = 0")
    numbers, random = images.train.labels(images.label), np.random.default_rng(seed)
    kept = []
    for label in np.unique(numbers[numbers >= 0]):
        rows = np.flatnonzero(numbers == label)
        if len(rows) < per_class:
            name = images.classes[label] if images.classes else label
            raise ValueError(
                f"labels_per_class = {per_class}, but the class {name} of {images.name} has "
                f"{len(rows)} training images; set it to that or less"
            )
        kept.append(random.permutation(rows)[:per_class])
    few = pd.array(np.full(len(numbers), pd.NA), dtype="Int32")
    few[np.concatenate(kept)] = numbers[np.concatenate(kept)]
    table = images.train.table.assign(**{images.label: few})
    note = f"{images.note}; {per_class} labels per class, the others hidden (draw {seed})"
    return replace(images, train=replace(images.train, table=table), note=note)


def without_lesions(images) -> ImageData:
    """The same images, without those training images that have a lesion.

    Validation and test keep theirs: thresholds are chosen and numbers measured on them.

    Args:
        images: `ImageData` with masks.

    Raises:
        ValueError: if there are no masks, or no training image is without a lesion.
    """
    if images.train.masks is None:
        raise ValueError(
            f"lesion_free = True, but {images.name} has no masks; set MASKS_DIR, or lesion_free = "
            "False"
        )
    healthy = (images.train.table[LESION_PIXELS] == 0).to_numpy()
    if not healthy.any():
        raise ValueError(
            f"lesion_free = True, but all {len(healthy)} training images of {images.name} have a "
            "lesion"
        )
    note = f"{images.note}; trained on the {healthy.sum():,} of {len(healthy):,} without a lesion"
    return replace(images, train=images.train.only(healthy), note=note)


def shared(subjects, places):
    """Subjects that are in more than one split; a valid split has none."""
    where = {}
    for subject, place in zip(subjects, places, strict=True):
        where.setdefault(subject, set()).add(place)
    return sorted(subject for subject, places in where.items() if len(places) > 1)
