"""Trains models into run folders, and loads them from there.

python train.py EXPERIMENT [--model NAME] [--epochs N] [--set field=value ...] [--out DIR]
python train.py --resume DIR

Both take --strategy auto|none|mirrored|multiworker.
"""

import argparse
import ast
import dataclasses
import sys
import textwrap
from pathlib import Path

import config


def parse_value(text: str):
    """A setting's value from the command line: number, tuple, True or False, otherwise text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def parse_condition(text: str):
    """A column and its value, from `COLUMN=VALUE`; a number where it looks like one."""
    name, sign, words = text.partition("=")
    name, words = name.strip(), words.strip()
    if not sign or not name or not words:
        raise ValueError(f"{text}: write it as COLUMN=VALUE")
    value = parse_value(words)
    return name, value if isinstance(value, bool | int | float) else words


def parse_change(text: str):
    """A column and its new value, or what is added to it as text, from `COLUMN=VALUE`."""
    name, value = parse_condition(text)
    amount = text.partition("=")[2].strip()
    return name, amount if amount[:1] in ("+", "-") else value


def prior_of(run, arguments, model=None):
    """The prior of a run that a command line asks for, with the options of its draws; or None.

    Args:
        run: Run folder.
        arguments: With `prior`, `condition`, `guidance` and `evaluations`.
        model: See `priors.of_run`.
    """
    labels, pairs = runs.labels_of(run), map(parse_condition, arguments.condition)
    condition = {name: labels.coded(name, value) for name, value in pairs}
    options = {name: getattr(arguments, name) for name in ("guidance", "evaluations")}
    options = {name: value for name, value in options.items() if value is not None}
    return priors.of_run(run, arguments.prior, condition, model, **options)


def given(arguments) -> dict:
    """The settings given on the command line, each checked by itself.

    Raises:
        ValueError: if a setting does not exist or its value is not valid; it is named.
    """
    values = {}
    for item in arguments.set:
        name, sign, text = item.partition("=")
        if not sign:
            raise ValueError(f"--set {item}: write it as field=value")
        values[name] = config.checked(name, parse_value(text))
    for name in ("model", "epochs"):
        if getattr(arguments, name) is not None:
            values[name] = config.checked(name, getattr(arguments, name))
    return values


def _fields():
    """All settings with their defaults, as a paragraph."""
    named = (f"{each.name}={each.default!r}" for each in dataclasses.fields(config.Settings))
    return textwrap.fill(
        ", ".join(named), 96, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    )


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(
        description="Train one experiment of config.py.",
        epilog="Fields and their defaults (explained in config.py and docs/models.md):\n"
        + _fields(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", help=", ".join(config.EXPERIMENTS))
    parser.add_argument("--model", help=", ".join(config.MODELS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="any field below"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: a new folder in runs/")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="resume the run in this folder")
    parser.add_argument(
        "--strategy",
        default="auto",
        help="auto, none, mirrored or multiworker: divide the batch among all GPUs of this "
        "machine, or among the workers of TF_CONFIG or SLURM",
    )
    arguments = parser.parse_args(words)
    others = (arguments.experiment, arguments.model, arguments.epochs, arguments.out)
    if arguments.resume and (arguments.set or any(each is not None for each in others)):
        parser.error(
            "--resume takes no other option but --strategy: a run is resumed with its own settings"
        )
    if not arguments.resume and not arguments.experiment:
        parser.error(f"give an experiment: {', '.join(config.EXPERIMENTS)}")
    try:
        given(arguments)
        if arguments.experiment:
            config.settings(arguments.experiment)
    except ValueError as error:
        sys.exit(f"train.py: {error}")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import importlib.util
import json

import keras
import pandas as pd
import tensorflow as tf

import config
import data
from analysis import judges, plots
from families import priors, registry
from nn import distribution, optimizers
from sources import splits
from sources.conditions import Conditions
from storage import checkpoints, disk, runs
from storage.keep import Keep, OneLine, Progress
from storage.runs import load_settings, new_run

__all__ = ["OneLine", "compile_model", "fit", "load", "load_settings", "new_run"]
CONDITIONS = "conditions.json"  # what a conditional model is told, as learned on its images
EMULATED = 3.0  # slowdown from which a processor is told not to support bfloat16
SAMPLES = 64  # latent points that are decoded after every epoch, always the same


def fit(model, images, settings, run, verbose="auto", resume=False, callbacks=()):
    """Trains a model and leaves a complete, self-describing run folder.

    The folder gets `settings.json`, `split.csv`, `history.csv` (a row per epoch), `samples/` (the
    same latent points, decoded after every epoch), the weights with their SHA-256 (the best ones
    with early stopping), the two newest `checkpoints/`, and `logs/` if TensorBoard is installed. An
    interrupted run is resumed with `resume=True` and ends with the same weights, to the bit, on the
    same machine.

    Args:
        model: From `registry.from_settings`; compiled here.
        images: `data.ImageData`; the test split is not touched.
        settings: `config.Settings`.
        run: Folder; made if it is missing, refused if it already contains a run.
        verbose: As in Keras: `"auto"` a progress bar, 2 a line per epoch, 0 nothing.
        resume: Whether to resume the run in the folder, which must have these settings and images.
        callbacks: Additional Keras callbacks.

    Returns:
        The history as a table: `epoch`, and for training and validation (`val_`) one column per
            term and monitor.

    Raises:
        ValueError: if model, images and settings do not fit together, or are not the run's.
        FloatingPointError: if the loss is not finite.
        KeyboardInterrupt: passed on after the state was saved, with the command to resume.
        OSError: if the folder cannot be written or the disk is full; saved files stay whole.
    """
    registry.require_fit(settings)
    run, strategy = Path(run), model.distribute_strategy
    chief = distribution.is_chief(strategy)
    if resume:
        runs.require_same(run, settings, images)
    elif chief and ((run / checkpoints.WEIGHTS).exists() or checkpoints.begun(run)):
        resumed = (
            f", or resume it (python train.py --resume {run})" if checkpoints.begun(run) else ""
        )
        raise FileExistsError(
            f"{run} already contains a trained run; choose another folder{resumed}"
        )
    if model.image_shape != images.image_shape:
        raise ValueError(
            f"the model takes images of {model.image_shape}, {images.name} has "
            f"{images.image_shape}; build the model with image_shape = {images.image_shape}"
        )
    _, _, steps = _batches(model, images, settings)
    if steps % settings.steps_per_execution:
        raise ValueError(
            f"steps_per_execution = {settings.steps_per_execution} does not divide the {steps} "
            f"steps of an epoch; take one of {_divisors(steps)}"
        )
    model.perceptual = judges.feature_maps(images, settings, told=verbose != 0)
    compile_model(model, settings, steps, len(images.train))
    if chief:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        checkpoints.require_room(run, model)
    if chief and not resume:
        runs.begin(run, settings, images)
        if model.conditions is not None:
            disk.write_json(run / CONDITIONS, json.loads(model.conditions.to_json()))

    keep = Keep(model, settings, run, steps, f"python train.py --resume {run}")
    if resume and chief:
        keep.catch_up()
    every = [keep, Progress(), *callbacks]
    if chief and model.has_latent:
        every = [Samples(run), *every]  # samples are written before the checkpoint
    if chief and importlib.util.find_spec("tensorboard"):
        every.append(keras.callbacks.TensorBoard(run / "logs", write_graph=False))
    keep.fit(lambda *done: _batches(model, images, settings, *done)[:2], every, verbose)
    if not chief:
        return pd.DataFrame(keep.rows)
    if settings.patience:
        checkpoints.load(model, run)
    if model.has_latent and runs.own_prior(run) is None:
        _fit_own_prior(model, images, settings, run)
    return pd.read_csv(run / "history.csv")


def _fit_own_prior(model, images, settings, run):
    """Fits the prior of a trained run for its samples; prints the reason if this fails."""
    try:
        prior = priors.own(model, images.train, moves=priors.moves(settings))
    except ValueError as error:
        print(f"{run} keeps N(0, I) as its prior: {error}")
        return
    runs.save_prior(run, prior.kind, *prior.parts(), own=True)


def _divisors(steps):
    return ", ".join(str(each) for each in range(1, min(steps, 64) + 1) if steps % each == 0)


def _batches(model, images, settings, first_epoch=0, skipped=0):
    """Training batches from a position on, validation batches, and the steps of an epoch."""
    size = settings.batch_size
    options = {"seed": settings.seed, "shift": settings.shift, "flip": settings.flip}
    options["first_epoch"] = first_epoch
    told = {"conditions": model.conditions} if model.conditions else {}
    label = images.label if model.uses_labels else None
    if model.uses_labels:
        _require_classes(images, settings)
        options |= {"labels": label, "share": settings.labelled_share}

    def training(part):
        """Endless batches, or slices of them, and how many batches make an epoch."""
        if label is None:
            batches = images.train.batches(size, shuffle=True, part=part, **options, **told)
            return batches, images.train.steps(size)
        return images.train.mixed_batches(size, part=part, **options)

    batches, steps = training(splits.ALL)
    validation = images.validation.batches(size, labels=label, **told)
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return batches.skip(skipped), validation, steps

    def read(context):
        """The slices of the batches that the replicas of one worker read."""
        of = context.num_replicas_in_sync
        count = of // context.num_input_pipelines
        part = splits.Part(context.input_pipeline_id * count, count, of)
        return training(part)[0].skip(skipped * count)

    def everything(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return validation.flat_map(
            lambda *batch: tf.data.Dataset.from_tensors(
                batch if len(batch) > 1 else batch[0]
            ).repeat(count)
        )

    spread = strategy.distribute_datasets_from_function
    return spread(read), spread(everything), steps


def _require_classes(images, settings):
    if images.label is None:
        raise ValueError(f"{settings.model} learns from labels, and {images.name} has none")
    most = max(split.labels(images.label).max() for split in images.splits.values())
    count = max(int(most) + 1, len(images.classes))
    if count != settings.classes:
        raise ValueError(
            f"the labels of {images.name} are 0 to {count - 1}, and classes = {settings.classes}; "
            f"set classes = {count}"
        )


def compile_model(model, settings, steps, images=0):
    """Compiles a model with the settings' optimizer and schedule over epochs of `steps` steps.

    `images` is the number of training images, which some models need.
    """
    total = steps * settings.epochs
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, total, alpha=0.01)
    elif settings.schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(rate, total, decay_rate=0.01)
    model.plan(total, images)
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1 and settings.jit_compile == "on":
        raise ValueError(
            'jit_compile = "on" is not possible with several replicas; set it to "auto"'
        )
    # See `replicas.apply`: each replica clips an equal share of the gradient.
    clip = settings.clip_norm / replicas if settings.clip_norm else None
    with model.distribute_strategy.scope():  # otherwise each replica would have its own optimizer
        model.compile(
            optimizer=optimizers.BY_NAME[settings.optimizer](rate, global_clipnorm=clip),
            jit_compile={"auto": "auto", "on": True, "off": False}[settings.jit_compile],
            steps_per_execution=settings.steps_per_execution,
        )
        if not model.optimizer.built:  # so that a checkpoint can be read into it
            model.optimizer.build(model.trainable_variables)


def load(run):
    """Loads the trained model of a run folder.

    Raises:
        FileNotFoundError: if there is no run or it has no weights.
        ValueError: if the weights were changed after they were written.
    """
    settings = load_settings(run)
    checkpoints.require_plausible(run, registry.count_weights(settings))
    model = registry.from_settings(settings, _conditions_of(run))
    checkpoints.load(model, run)
    return model


def _conditions_of(run):
    path = Path(run) / CONDITIONS
    try:
        return Conditions.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); train the run anew") from error


class Samples(keras.callbacks.Callback):
    """Writes images of the same latent points after every epoch: `samples/epoch_001.png`, ..."""

    def __init__(self, run):
        super().__init__()
        self.folder = Path(run) / "samples"

    def on_epoch_end(self, epoch, logs=None):
        images = self.model.sample(SAMPLES).numpy()
        plots.save_sheet(images, self.folder / f"epoch_{epoch + 1:03d}.png", columns=8)


# --- command line --------------------------------------------------------------------------------


def settings_from(arguments) -> config.Settings:
    """The experiment's settings with the changes of the command line."""
    settings, values = config.settings(arguments.experiment), given(arguments)
    if "model" not in values:
        return dataclasses.replace(settings, **values)
    return registry.with_model(settings, values.pop("model"), **values)


def _warn_if_emulated(precision):
    slowdown = distribution.bfloat16_slowdown() if precision == "bfloat16" else 0.0
    if slowdown > EMULATED:
        print(
            f"This processor does not support bfloat16: convolutions take {slowdown:.0f} times as "
            "long as in float32. Stop, and leave --set precision=bfloat16 out."
        )


def main(words=None):
    arguments = parsed(words)
    try:
        strategy = distribution.strategy(arguments.strategy)
        if arguments.resume:
            settings = load_settings(arguments.resume)
            images = data.images_of(arguments.resume)
        else:
            settings = settings_from(arguments)
            registry.require_fit(settings)
            images = data.load(settings)
        with strategy.scope():
            model = registry.from_settings(settings, registry.conditions_of(settings, images))
        run = arguments.resume or arguments.out or new_run(arguments.experiment)
        replicas = strategy.num_replicas_in_sync
        print(
            f"Training {settings.model} ({model.count_params():,} parameters) on "
            f"{len(images.train):,} images of {images.name} into {run}"
            + (f", shared by {replicas} replicas" if replicas > 1 else "")
        )
        _warn_if_emulated(settings.precision)
        fit(model, images, settings, run, resume=arguments.resume is not None)
    except KeyboardInterrupt as stopped:
        print(f"\ntrain.py: {str(stopped) or 'stopped outside of the training'}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    print(f"Done: {run}. To measure it: python evaluate.py {run}")


if __name__ == "__main__":
    main()
