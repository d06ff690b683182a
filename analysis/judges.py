"""Classifiers and regressors trained on images alone, to measure models independently.

They never see a latent, so they can tell whether "add a hernia" added one. Their own held-out
accuracy or correlation is reported with every conclusion.
"""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

import config
from analysis.features import through
from nn import networks
from nn.batches import as_float
from storage import checkpoints, disk
from storage.keep import OneLine

VGG_LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3")
VGG_FILE = "Keras' file vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
SETTLED = 5  # epochs without improvement that end the training of a perceptual classifier
TRUST = 0.8  # AUC or correlation of a network, below which there is no conclusion


class Judge(NamedTuple):
    """A classifier or regressor trained on images only, to measure images of models.

    Its own quality on the `n` held-out test images: `accuracy`, and with two classes `auc`, of a
    classifier (`judge`); `correlation` of a regressor (`gauge`). NaN if they do not apply.
    """

    network: keras.Model
    n: int
    accuracy: float = math.nan
    auc: float = math.nan
    correlation: float = math.nan

    def outputs(self, images):
        """Logits, or predicted numbers, of uint8 images or floats in [0, 1]; `(n, outputs)`."""
        return through(self.network, images)

    def probabilities(self, images):
        """Probability of each class; shape `(n, classes)`."""
        return tf.nn.softmax(self.outputs(images)).numpy()

    def features(self, images):
        """Inputs of its last layer, for distances between sets of images; shape `(n, units)`."""
        network = keras.Model(self.network.input, self.network.get_layer("features").output)
        return through(network, images)

    def labels(self, images):
        """The most likely class of each image, shape `(n,)`."""
        return self.outputs(images).argmax(axis=-1)

    def values(self, images):
        """Prediction of a regressor, or a classifier's log-odds of class 1; shape `(n,)`."""
        outputs = self.outputs(images)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]

    @property
    def trusted(self) -> bool:
        """Whether conclusions may be based on it: AUC, or correlation, of at least `TRUST`."""
        return bool(np.nanmax([self.auc, self.correlation, -1.0]) >= TRUST)


def judge(images, labels=None, seed=0, steps=2000, widths=(32, 64), cache=None) -> Judge:
    """Trains a `classifier`, or reads it from the cache, and tests it on the test split.

    Args:
        images, labels, seed, steps, widths, cache: See `classifier`.
    """
    labels = labels or images.label
    network = classifier(images, labels, seed, steps, widths, cache)
    test = images.test.only(images.test.labels(labels) >= 0)
    unmeasured, truth = Judge(network, len(test)), test.labels(labels)
    auc, outputs = math.nan, network.output_shape[-1]
    if outputs == 2 and len(set(truth)) == 2:
        auc = float(roc_auc_score(truth, unmeasured.values(test.images)))
    accuracy = float(np.mean(unmeasured.labels(test.images) == truth)) if len(test) else math.nan
    return unmeasured._replace(accuracy=accuracy, auc=auc)


def classifier(
    images, labels=None, seed=0, steps=2000, widths=(32, 64), cache=None, patience=0, told=False
):
    """Trains a classifier on the training split, or reads it from the cache.

    The validation split chooses the epoch; the test split is not touched. Images without a label
    are left out.

    Args:
        images: `data.ImageData`.
        labels: Column to predict; default `images.label`.
        seed: Seed of weights, order and dropout.
        steps: Training steps of 128 images, rounded up to whole epochs.
        widths: Filters of the network's stages.
        cache: Folder; default `judges` in `config.RUNS_DIR`.
        patience: Epochs without a better validation after which the training ends; 0: never.
        told: Whether to show progress.

    Returns:
        `keras.Model`, from floats in [0, 1] to logits `(batch, classes)`.
    """
    labels = labels or images.label
    if labels is None:
        raise ValueError(
            f"{images.name} has no labels to train a classifier on; use images with labels"
        )
    images = _known(images, lambda split: split.labels(labels) >= 0, labels)
    targets = {name: split.labels(labels) for name, split in images.splits.items()}
    outputs = int(max(each.max(initial=0) for each in targets.values())) + 1
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = (seed, steps, widths, cache, patience, told)
    return _judging(images, labels, targets, outputs, loss, "accuracy", *options)


def gauge(images, column, seed=0, steps=2000, widths=(32, 64), cache=None) -> Judge:
    """Trains a regressor from images to a number, or reads it from the cache.

    The test split measures its correlation. Images without the number are left out.

    Args:
        images: `data.ImageData`.
        column: Column of numbers in its tables.
        seed, steps, widths, cache: See `classifier`.
    """
    images = _known(images, lambda split: split.table[column].notna().to_numpy(), column)
    targets = {
        name: split.table[column].to_numpy(np.float32) for name, split in images.splits.items()
    }
    loss = keras.losses.MeanSquaredError()
    spread = float(targets["train"].std()) or 1.0
    middle = float(targets["train"].mean())
    scaled = {name: (each - middle) / spread for name, each in targets.items()}
    network = _judging(images, column, scaled, 1, loss, "mse", seed, steps, widths, cache)
    # The last layer's weights are scaled back to the column's unit.
    last = network.layers[-1]
    kernel, bias = last.get_weights()
    last.set_weights([kernel * spread, bias * spread + middle])
    unmeasured = Judge(network, len(images.test))
    correlation = math.nan
    if len(images.test) > 1:
        read = unmeasured.values(images.test.images)
        correlation = float(np.corrcoef(read, targets["test"])[0, 1])
    return unmeasured._replace(correlation=correlation)


def _known(images, has, column):
    """The images that have a target, by a function from a split to booleans."""
    rows = {name: has(split) for name, split in images.splits.items()}
    for name in ("train", "validation"):
        if not rows[name].any():
            raise ValueError(f"{images.name}: no {name} image has a value in {column!r}")
    some = {name: each for name, each in rows.items() if not each.all()}
    return replace(images, **{name: images.splits[name].only(each) for name, each in some.items()})


def _judging(
    images, name, targets, outputs, loss, metric, seed, steps, widths, cache, patience=0, told=False
):
    """A network trained to predict the targets, or read from the cache."""
    network = networks.classifier(images.image_shape, outputs, widths, seed=seed)
    content = hashlib.blake2s(digest_size=8)
    for part in (images.train.images[:], targets["train"], np.array([seed, steps, *widths])):
        content.update(np.ascontiguousarray(part))
    if patience:
        content.update(f"patience {patience}".encode())
    if config.MOST_EPOCHS:  # a shortened training must not replace a full one
        content.update(str(config.MOST_EPOCHS).encode())
    folder = Path(cache or config.RUNS_DIR / "judges")
    named = disk.file_name(f"{images.name}-{name}-{content.hexdigest()}")
    kept = folder / f"{named}.weights.h5"
    disk.remove_left(folder)
    if kept.is_file() and _read_whole(network, kept):
        return network
    batch_size = min(128, len(images.train))
    per_epoch = images.train.steps(batch_size)
    epochs = min(-(-steps // per_epoch), config.MOST_EPOCHS or steps)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * per_epoch, alpha=0.01)
    network.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, metrics=[metric])
    network.fit(
        _judged(images.train, targets["train"], batch_size, seed),
        epochs=epochs,
        steps_per_epoch=per_epoch,
        validation_data=_judged(images.validation, targets["validation"], batch_size),
        callbacks=[
            keras.callbacks.EarlyStopping(
                f"val_{metric}", patience=patience or epochs, restore_best_weights=True
            ),
            *([OneLine(f"network of {name}")] if told else []),
        ],
        verbose=0,
        shuffle=False,
    )
    with disk.replacing(kept) as temporary:
        network.save_weights(temporary)
        digest = checkpoints.sha256(temporary)
    with disk.replacing(kept.with_suffix(".sha256")) as temporary:
        temporary.write_text(digest)
    return network


def _read_whole(network, kept):
    """Reads a network's weights; False, with a printed message, if they are damaged."""
    digest = kept.with_suffix(".sha256")
    try:
        # Older networks have no digest; then only the file format is checked.
        if not digest.is_file() or digest.read_text() == checkpoints.sha256(kept):
            network.load_weights(kept)
            return True
    except (OSError, ValueError, KeyError):
        pass
    print(f"{kept} is damaged; the network is trained again")
    return False


def _judged(split, targets, batch_size, seed=None):
    """Batches of float images and their targets; endless and shuffled if there is a seed."""
    table = split.table.assign(row=np.arange(len(split)))
    numbered = replace(split, table=table)
    batches = numbered.batches(batch_size, seed is not None, seed=seed or 0, labels="row")
    known = tf.constant(targets)
    return batches.map(lambda pixels, rows: (as_float(pixels), tf.gather(known, rows)))


def feature_maps(images, settings, told=False):
    """The feature maps of `settings.perceptual`, as a function, or None for `"none"`.

    `"classifier"` is a `classifier` of `settings.perceptual_label`, trained on the same training
    images (from the cache the second time, whatever the run); its maps are those after every
    convolution stage. It ends when it has not improved for `SETTLED` epochs. `"vgg16"` is VGG16
    with the weights of ImageNet, from `settings.perceptual_file`, Keras' cache or a download.

    Args:
        images: `data.ImageData`.
        settings: `config.Settings`.
        told: Whether to show progress.

    Returns:
        Function from float images `(batch, height, width, channels)` in [0, 1] to a list of maps;
        it is differentiable.

    Raises:
        ValueError: if there is no label to train the classifier.
        OSError: if the weights are neither on disk nor downloadable.
    """
    if settings.perceptual == "none":
        return None
    if settings.perceptual == "classifier":
        label = settings.perceptual_label or images.label
        if label is None or label not in images.train.table:
            raise ValueError(
                f"perceptual = 'classifier' needs a label, and {images.name} has no "
                f"{label or 'label'}; set perceptual_label to a column of its table"
            )
        network = classifier(images, label, seed=settings.seed, patience=SETTLED, told=told)
        stages = [each.name for each in network.layers if isinstance(each, keras.layers.Add)]
        cut = networks.maps(network, stages)
        return lambda pixels: cut(pixels, training=False)
    file = settings.perceptual_file
    if file and not Path(file).expanduser().is_file():
        raise OSError(f"perceptual_file = {file!r}: there is no such file; give {VGG_FILE}")
    weights = Path(file).expanduser() if file else "imagenet"
    try:
        network = keras.applications.VGG16(weights=weights, include_top=False)
    except Exception as error:  # Keras raises a bare one if the download fails
        if file:
            raise OSError(
                f"perceptual_file = {file!r} does not contain VGG16's weights without the top "
                f"({error}); give {VGG_FILE}"
            ) from error
        raise OSError(
            "perceptual = 'vgg16': its ImageNet weights are not in Keras' cache and could not be "
            f"downloaded ({error}); set perceptual_file to {VGG_FILE}, or use perceptual = "
            "'classifier'"
        ) from error
    cut = networks.maps(network, VGG_LAYERS)

    def of_colours(pixels):
        pixels = tf.repeat(pixels, 3 // pixels.shape[-1], axis=-1)
        return cut(keras.applications.vgg16.preprocess_input(255.0 * pixels), training=False)

    return of_colours


def conclusion(judge, response, what) -> str:
    """A dose-response curve in words; no conclusion if its network is not good enough.

    Args:
        judge: `Judge` that measured the curve.
        response: From `directions.dose_response`, strengths ascending.
        what: Name of the measured quantity.
    """
    if not judge.trusted:
        kind, value = "correlation", judge.correlation
        if not math.isnan(judge.auc):
            kind, value = "AUC", judge.auc
        return f"no conclusion: the network's own held-out {kind} is {value:.2f}, under {TRUST}"
    means = response["mean"].to_numpy()
    change, error = means[-1] - means[0], response["standard_error"].iloc[-1]
    if abs(change) < 2 * error:
        return f"no significant change of {what} ({change:+.3g}, standard error {error:.2g})"
    steady = "at every step" if (np.diff(means) * np.sign(change) > 0).all() else "not steadily"
    way = "rises" if change > 0 else "falls"
    return f"{what} {way} by {abs(change):.3g} (standard error {error:.2g}), {steady}"
