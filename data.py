"""Images from any source as `ImageData`: three splits, each pairing images with a table.

Every source ends in `from_arrays` (or in tables of its own), and `load(settings)` chooses the
source that the settings name.
"""

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from skimage.transform import resize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import config


@dataclass(frozen=True)
class Split:
    """Images and what is known of each, row by row.

    Args:
        images: uint8, shape `(n, height, width, channels)`.
        table: One row per image in the same order: `file`, `subject`, labels, covariates.
    """

    images: np.ndarray
    table: pd.DataFrame

    def __len__(self):
        return len(self.images)

    def labels(self, column: str):
        """Integer labels of one column, shape `(n,)`; -1 where the table has none."""
        if column not in self.table:
            known = ", ".join(self.table.columns)
            raise ValueError(f"the table has no column {column!r}; it has: {known}")
        return self.table[column].fillna(-1).to_numpy(np.int32)

    def batches(self, batch_size, shuffle=False, seed=0, first_epoch=0, labels=None):
        """Batches for `fit`, as uint8; the model's step turns them into floats.

        Args:
            batch_size: Images per batch.
            shuffle: If so, the batches never end and are all full; `steps(batch_size)` of them
                make an epoch, whose order is a function of (seed, epoch) alone. If not, they come
                once, in the table's order, and the last may be smaller.
            first_epoch: Where the endless sequence starts, to go on with an interrupted run.
            labels: Name of a column; batches are then `(images, labels)`.

        Returns:
            `tf.data.Dataset` of uint8 `(batch, height, width, channels)`.
        """
        if not len(self):
            raise ValueError("the split is empty: there is nothing to batch")
        if shuffle:
            self.steps(batch_size)  # refuses a batch larger than the split
        images = tf.constant(self.images)
        numbers = None if labels is None else tf.constant(self.labels(labels))

        def order(epoch):
            rows = tf.range(len(self), dtype=tf.int32)
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            rows = tf.random.experimental.stateless_shuffle(rows, key)
            return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size, drop_remainder=True)

        def gather(rows):
            batch = tf.gather(images, rows)
            return batch if numbers is None else (batch, tf.gather(numbers, rows))

        if shuffle:
            endless = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
            rows = endless.flat_map(order)
        else:
            rows = tf.data.Dataset.range(len(self), output_type=tf.int32).batch(batch_size)
        return rows.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def steps(self, batch_size):
        """Full batches in an epoch; an error where the split does not fill one."""
        if batch_size > len(self):
            raise ValueError(
                f"batch_size = {batch_size} is more than the {len(self)} training images; "
                f"set it to {len(self)} or less"
            )
        return len(self) // batch_size


@dataclass(frozen=True)
class ImageData:
    """Three disjoint splits of one source, and what is known of it.

    Attributes:
        name: For titles and files.
        label: Column of the tables that holds the class, or None.
        classes: Names of the classes; the label is an index into them.
        note: Where the images come from and how they were split: part of every protocol.
        embedded: Whether these are the built-in images that stand in for a user's own.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    label: str | None = None
    classes: tuple[str, ...] = ()
    note: str = ""
    embedded: bool = False

    @property
    def image_shape(self):
        return self.train.images.shape[1:]

    @property
    def splits(self):
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def membership(self):
        """One row per image: file, subject, split, size in bytes and digest of its pixels."""
        parts = []
        for name, split in self.splits.items():
            rows = split.table[["file", "subject"]].assign(split=name)
            rows["size"] = split.images[0].nbytes if len(split) else 0
            rows["digest"] = [
                hashlib.blake2s(image.tobytes(), digest_size=8).hexdigest()
                for image in split.images
            ]
            parts.append(rows)
        return pd.concat(parts, ignore_index=True)


def load(settings) -> ImageData:
    """The images that `settings.dataset` names, in `settings.image_shape`."""
    images = SOURCES[settings.dataset](settings)
    if images.image_shape != settings.image_shape:
        raise ValueError(
            f"settings: image_shape = {settings.image_shape}, but {images.name} comes in "
            f"{images.image_shape}; set image_shape to that"
        )
    if images.embedded:
        print(f"Embedded images: {images.note}")
    return images


# --- arrays --------------------------------------------------------------------------------------


def as_uint8(images, name="images"):
    """Checks an array of images and brings it into the one form that the pipelines know.

    Args:
        images: `(n, height, width)` or `(n, height, width, channels)`, 1 or 3 channels, uint8 in
            0..255 or floats in [0, 1] (kept to 1/255).
        name: How to call the array in an error.

    Returns:
        uint8 `(n, height, width, channels)`.

    Raises:
        ValueError: naming the array, what is wrong with it, where, and what to do.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{name}: shape {images.shape} is no stack of images; give (n, height, width) or "
            "(n, height, width, channels) with 1 or 3 channels"
        )
    if not len(images):
        raise ValueError(f"{name}: there are no images in it; give at least one")
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
            f"{int(np.argmax(bad))}; leave those out or repair them"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{name}: pixels lie in [{low:g}, {high:g}], not in [0, 1]; divide by the full range "
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
    """Any numpy arrays as `ImageData`, split by a seeded rule, stratified where there are labels.

    Args:
        images: See `as_uint8`.
        labels: Whole numbers, shape `(n,)`, or None.
        test_images, test_labels: A test set that is given; else one is split off.
        label: Name of the label's column in the tables.
        classes: Names of the classes; default: the numbers themselves.
        fractions: Shares of validation and test (the latter unused where a test set is given).
        seed: Of the split.
    """
    pixels = as_uint8(images)
    table = _table(name, len(pixels), label, labels)
    rows = np.arange(len(pixels))
    if test_images is not None:
        test = Split(as_uint8(test_images, "test images"), None)
        test = Split(test.images, _table(f"{name}-test", len(test), label, test_labels))
    else:
        rows, held_out = _two_parts(rows, table, label, fractions[1], seed)
        test = Split(pixels[held_out], table.iloc[held_out].reset_index(drop=True))
        fractions = (fractions[0] / (1.0 - fractions[1]),)
    rows, chosen = _two_parts(rows, table, label, fractions[0], seed)
    train = Split(pixels[rows], table.iloc[rows].reset_index(drop=True))
    validation = Split(pixels[chosen], table.iloc[chosen].reset_index(drop=True))
    if labels is not None and not classes:
        classes = tuple(str(number) for number in sorted(set(np.asarray(labels).tolist())))
    column = None if labels is None else label
    return ImageData(name, train, validation, test, column, tuple(classes), note, embedded)


def _table(name, n, label, labels):
    files = [f"{name}/{row:05d}" for row in range(n)]
    table = pd.DataFrame({"file": files, "subject": files})  # every image is its own subject
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (n,):
            raise ValueError(f"labels: shape {labels.shape} beside {n} images; give one for each")
        table[label] = labels.astype(np.int32)
    return table


def _two_parts(rows, table, label, fraction, seed):
    strata = table[label].to_numpy()[rows] if label in table else None
    if strata is not None and np.unique(strata, return_counts=True)[1].min() < 2:
        strata = None  # a class of one image cannot stand on both sides
    first, second = train_test_split(
        rows, test_size=fraction, random_state=seed, shuffle=True, stratify=strata
    )
    return np.sort(first), np.sort(second)


# --- embedded digits and MNIST -------------------------------------------------------------------


def digits(settings) -> ImageData:
    """scikit-learn's 1,797 handwritten digits (8x8, real, by 43 people), enlarged to 32x32."""
    bunch = load_digits()
    # They touch their frame; a margin of one pixel sets them free, as MNIST's are.
    small = np.pad(bunch.images / 16.0, ((0, 0), (1, 1), (1, 1)))
    height, width, _ = settings.image_shape
    large = resize(small, (len(small), height, width), order=3, mode="edge", anti_aliasing=False)
    return from_arrays(
        np.clip(large, 0.0, 1.0),
        bunch.target,
        name="digits",
        label="digit",
        seed=settings.split_seed,
        note=(
            "scikit-learn's 1,797 handwritten digits, 8x8 and a margin of one pixel, enlarged "
            f"bicubically to {height}x{width}; 70 / 15 / 15 % split, stratified by digit, "
            f"split seed {settings.split_seed}"
        ),
        embedded=True,
    )


def mnist(settings) -> ImageData:
    """MNIST from `config.MNIST_PATH`, Keras' cache or a download; its own test set is kept."""
    with np.load(_mnist_file(), allow_pickle=False) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
        if missing:
            raise ValueError(
                f"MNIST_PATH: {_mnist_file()} lacks {', '.join(sorted(missing))}; "
                "give the mnist.npz that Keras distributes"
            )
        x_train, y_train = arrays["x_train"], arrays["y_train"]
        x_test, y_test = arrays["x_test"], arrays["y_test"]
    return from_arrays(
        x_train,
        y_train,
        test_images=x_test,
        test_labels=y_test,
        name="mnist",
        label="digit",
        fractions=(1.0 / 12.0,),
        seed=settings.split_seed,
        note=(
            "MNIST, 55,000 training and 5,000 validation images split from its 60,000 "
            f"(stratified by digit, split seed {settings.split_seed}), its 10,000 test images"
        ),
    )


def _mnist_file() -> Path:
    if config.MNIST_PATH is not None:
        if not config.MNIST_PATH.is_file():
            raise FileNotFoundError(
                f"MNIST_PATH: there is no file {config.MNIST_PATH}; correct the path in config.py "
                'or the environment, or take EXPERIMENT = "digits", which is embedded'
            )
        return config.MNIST_PATH
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets/mnist.npz"
    if not cached.is_file() and not config.EMBEDDED:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(20)  # a firewall that swallows packets would hang us for ever
        try:
            keras.datasets.mnist.load_data()
        except Exception as error:  # Keras raises a bare Exception for a failed download
            cause = f"the download failed ({str(error).splitlines()[0]})"
            raise FileNotFoundError(_no_mnist(cached, cause)) from error
        finally:
            socket.setdefaulttimeout(before)
    if not cached.is_file():
        raise FileNotFoundError(_no_mnist(cached, "ATLAS_EMBEDDED=1 forbids the download"))
    return cached


def _no_mnist(cached, cause):
    return (
        f"MNIST is neither at MNIST_PATH (not set) nor at {cached}, and {cause}. Put mnist.npz "
        'there or set MNIST_PATH in config.py; or take EXPERIMENT = "digits", which is embedded'
    )


SOURCES = {"digits": digits, "mnist": mnist}
