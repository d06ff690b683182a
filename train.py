"""Training into a run folder, and a run folder back into a model.

python train.py EXPERIMENT [--model NAME] [--epochs N] [--set field=value ...] [--out DIR]
"""

import argparse
import ast
import hashlib
import importlib.util
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

import config
import data
import files
import judges
import plots
import registry

WEIGHTS = "model.weights.h5"
DIGEST = "model.weights.sha256"
SAMPLES = 64  # latent points that are drawn after every epoch, always the same


def new_run(name: str) -> Path:
    """Makes the folder of a new run in `config.RUNS_DIR`: `name-001`, `name-002`, ..."""
    config.RUNS_DIR.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        run = config.RUNS_DIR / f"{name}-{number:03d}"
        try:
            run.mkdir()
            return run
        except FileExistsError:  # taken, perhaps by a process beside this one
            number += 1


def fit(model, images, settings, run, verbose="auto"):
    """Trains a model and leaves a complete, self-describing run folder.

    The folder gets `settings.json`, `split.csv`, `history.csv` (a row per epoch), `samples/` (the
    same latent points, decoded after every epoch), the weights after every epoch with their
    SHA-256, and `logs/` where TensorBoard is installed.

    Args:
        model: From `registry.from_settings`; compiled here.
        images: `data.ImageData`; the test split is not touched.
        settings: `config.Settings`.
        run: Folder; made where it is missing, refused where it holds a run already.
        verbose: As in Keras: `"auto"` a progress bar, 2 a line per epoch, 0 nothing.

    Returns:
        The history as a table: `epoch` and one column per term and monitor, `val_` ones beside.

    Raises:
        ValueError: where model, images and settings do not fit together.
        FloatingPointError: where the loss stops being a finite number.
    """
    run = Path(run)
    if (run / WEIGHTS).exists():
        raise FileExistsError(f"{run} holds a trained run already; choose another folder")
    if model.image_shape != images.image_shape:
        raise ValueError(
            f"the model takes images of {model.image_shape}, {images.name} has "
            f"{images.image_shape}; build the model with image_shape = {images.image_shape}"
        )
    batches, validation, steps = _batches(model, images, settings)
    model.perceptual = judges.feature_maps(images, settings)
    (run / "samples").mkdir(parents=True, exist_ok=True)
    files.write_json(run / "settings.json", _provenance(settings))
    images.membership().to_csv(run / "split.csv", index=False)

    compile_model(model, settings, steps)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=_callbacks(model, settings, run),
        verbose=verbose,
        shuffle=False,  # the batches come shuffled
    )
    save(model, run)
    return pd.read_csv(run / "history.csv")


def _batches(model, images, settings):
    """What `fit` trains on, what it validates on, and the steps of an epoch."""
    size = settings.batch_size
    options = {"seed": settings.seed, "shift": settings.shift, "flip": settings.flip}
    if not model.uses_labels:
        batches = images.train.batches(size, shuffle=True, **options)
        return batches, images.validation.batches(size), images.train.steps(size)
    if images.label is None:
        raise ValueError(f"{settings.model} learns from labels, and {images.name} has none")
    most = max(split.labels(images.label).max() for split in images.splits.values())
    if most >= settings.classes:
        raise ValueError(
            f"the labels of {images.name} go from 0 to {most}; set classes = {most + 1}"
        )
    batches, steps = images.train.mixed_batches(
        size, images.label, settings.labelled_share, **options
    )
    return batches, images.validation.batches(size, labels=images.label), steps


def compile_model(model, settings, steps):
    """Compiles a model with Adam and the settings' schedule over epochs of `steps` steps."""
    total = steps * settings.epochs
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, total, alpha=0.01)
    elif settings.schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(rate, total, decay_rate=0.01)
    model.plan(total)
    model.compile(
        optimizer=keras.optimizers.Adam(rate, global_clipnorm=settings.clip_norm or None),
        jit_compile={"auto": "auto", "on": True, "off": False}[settings.jit_compile],
        steps_per_execution=settings.steps_per_execution,
    )


def save(model, run):
    """Writes a run's weights under another name, then renames: the old file is never half new.

    The optimizer's state stays out: it is twice the size, and using a model does not need it.
    """
    run = Path(run)
    temporary = run / f"saving.{WEIGHTS}"
    # Keras saves what hangs on the model.
    held = {
        name: getattr(model, name)
        for name in ("optimizer", "second_optimizer")
        if hasattr(model, name)
    }
    try:
        for name in held:
            setattr(model, name, None)
        model.save_weights(temporary)
    finally:
        for name, optimizer in held.items():
            setattr(model, name, optimizer)
    digest = _sha256(temporary)
    os.replace(temporary, run / WEIGHTS)
    (run / DIGEST).write_text(f"{digest}  {WEIGHTS}\n")


def load_settings(run) -> config.Settings:
    """The settings of a run; every value is checked before anything is built from it."""
    path = Path(run) / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: there is no {path}")
    try:
        values = json.loads(path.read_text())["settings"]
        return config.Settings.from_dict(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as settings: {error}") from error


def load(run):
    """The trained model of a run folder, in this process or a fresh one.

    Raises:
        FileNotFoundError: where there is no run, or one without weights.
        ValueError: where the weights are not the ones that were written.
    """
    run = Path(run)
    model = registry.from_settings(load_settings(run))
    weights = run / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(
            f"{run} has no {WEIGHTS}: its training did not reach an epoch's end"
        )
    if (run / DIGEST).read_text().split()[0] != _sha256(weights):
        raise ValueError(f"{weights} is damaged: its SHA-256 is not the one in {DIGEST}")
    model.load_weights(weights)
    return model


def _provenance(settings):
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return {"settings": settings.to_dict(), "versions": versions}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- callbacks -----------------------------------------------------------------------------------


def _callbacks(model, settings, run):
    callbacks = [Finite(), keras.callbacks.CSVLogger(run / "history.csv"), Samples(run), Save(run)]
    if settings.patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=settings.patience, restore_best_weights=True
            )
        )
    if importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(run / "logs", write_graph=False))
    return callbacks


class Finite(keras.callbacks.Callback):
    """Ends a training whose loss is not a finite number, before its weights are saved."""

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", math.nan)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} after epoch {epoch + 1}; the weights of the last good epoch "
                "are kept. Lower learning_rate, or set clip_norm (1000 is a start)"
            )


class Samples(keras.callbacks.Callback):
    """After every epoch, the images at the same latent points: `samples/epoch_001.png`, ..."""

    def __init__(self, run):
        super().__init__()
        self.folder = Path(run) / "samples"

    def on_epoch_end(self, epoch, logs=None):
        images = self.model.sample(SAMPLES).numpy()
        plots.save_sheet(images, self.folder / f"epoch_{epoch + 1:03d}.png", columns=8)


class Save(keras.callbacks.Callback):
    """After every epoch, the weights."""

    def __init__(self, run):
        super().__init__()
        self.run = Path(run)

    def on_epoch_end(self, epoch, logs=None):
        save(self.model, self.run)


# --- command line --------------------------------------------------------------------------------


def parse_value(text: str):
    """A setting's value from the command line: a number, a tuple, True or False, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def settings_from(arguments) -> config.Settings:
    """The experiment's settings with what the command line changes."""
    values = config.settings(arguments.experiment).to_dict()
    for item in arguments.set:
        name, sign, text = item.partition("=")
        if not sign:
            raise ValueError(f"--set {item}: write it as field=value")
        values[name] = parse_value(text)
    settings = config.Settings.from_dict(values)
    if arguments.model:
        settings = replace(settings, model=arguments.model)
    if arguments.epochs is not None:
        settings = replace(settings, epochs=arguments.epochs)
    return settings


def main(words=None):
    parser = argparse.ArgumentParser(description="Train one experiment of config.py.")
    parser.add_argument("experiment", help=", ".join(config.EXPERIMENTS))
    parser.add_argument("--model", help=", ".join(registry.REGISTRY))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: a new folder in runs/")
    arguments = parser.parse_args(words)
    try:
        settings = settings_from(arguments)
        images = data.load(settings)
        model = registry.from_settings(settings)
        run = arguments.out or new_run(arguments.experiment)
        print(
            f"Training {settings.model} ({model.count_params():,} parameters) on "
            f"{len(images.train):,} images of {images.name} into {run}"
        )
        fit(model, images, settings, run)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    print(f"Done: {run}. Its numbers: python evaluate.py {run}")


if __name__ == "__main__":
    main()
