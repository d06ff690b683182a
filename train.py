"""Training into a run folder, and a run folder back into a model.

python train.py EXPERIMENT [--model NAME] [--epochs N] [--set field=value ...] [--out DIR]
python train.py --resume DIR

Both take --strategy auto|none|mirrored|multiworker.
"""

import argparse
import ast
import dataclasses
import importlib.util
import json
import math
import signal
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

import config
import data
from analysis import judges, plots
from families import registry
from nn import distribution
from sources import splits
from storage import checkpoints, disk

SAMPLES = 64  # latent points that are drawn after every epoch, always the same
CHECKPOINT_SECONDS = 10.0  # between two checkpoints at least, so that short epochs stay short
LOOK_STEPS = 20  # between two looks at the loss


def new_run(name: str) -> Path:
    """Makes the folder of a new run in `config.RUNS_DIR`: `name-001`, `name-002`, ..."""
    config.RUNS_DIR.mkdir(parents=True, exist_ok=True)
    name, number = disk.file_name(name), 1
    while True:
        run = config.RUNS_DIR / f"{name}-{number:03d}"
        try:
            run.mkdir()
            return run
        except FileExistsError:  # taken, perhaps by a process beside this one
            number += 1


def fit(model, images, settings, run, verbose="auto", resume=False, callbacks=()):
    """Trains a model and leaves a complete, self-describing run folder.

    The folder gets `settings.json`, `split.csv`, `history.csv` (a row per epoch), `samples/` (the
    same latent points, decoded after every epoch), the weights with their SHA-256 (the best ones
    where training stops early), the two newest `checkpoints/`, and `logs/` where TensorBoard is
    installed. A run that was ended in any way goes on with `resume=True` as if it had not been: to
    the bit, on the same machine.

    Args:
        model: From `registry.from_settings`; compiled here.
        images: `data.ImageData`; the test split is not touched.
        settings: `config.Settings`.
        run: Folder; made where it is missing, refused where it holds a run already.
        verbose: As in Keras: `"auto"` a progress bar, 2 a line per epoch, 0 nothing.
        resume: Whether the folder holds a run of these settings and images that is to go on.
        callbacks: More of Keras' callbacks.

    Returns:
        The history as a table: `epoch` and one column per term and monitor, `val_` ones beside.

    Raises:
        ValueError: where model, images and settings do not fit together, or are not the run's.
        FloatingPointError: where the loss stops being a finite number.
        KeyboardInterrupt: passed on after the state was saved, with the line to go on with.
        OSError: where the folder cannot be written or the disk is full; what is saved stays whole.
    """
    run, strategy = Path(run), model.distribute_strategy
    chief = distribution.is_chief(strategy)
    if resume:
        _require_same(run, settings, images)
    elif chief and ((run / checkpoints.WEIGHTS).exists() or checkpoints.begun(run)):
        resumed = (
            f", or resume it (python train.py --resume {run})" if checkpoints.begun(run) else ""
        )
        raise FileExistsError(f"{run} holds a trained run already; choose another folder{resumed}")
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
    model.perceptual = judges.feature_maps(images, settings)
    compile_model(model, settings, steps, len(images.train))
    if chief:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        checkpoints.require_room(run, model)
    if chief and not resume:
        disk.write_json(run / "settings.json", _provenance(settings, images))
        with disk.replacing(run / "split.csv") as temporary:
            images.membership().to_csv(temporary, index=False, lineterminator="\n")

    state = checkpoints.read(model, run)
    keep = Keep(model, settings, run, state, steps)
    if resume and chief:
        keep.catch_up()
    while not keep.over:
        batches, validation, _ = _batches(model, images, settings, keep.epoch, keep.batch)
        try:
            with _between_steps(keep):
                model.fit(
                    batches,
                    # What is left of an epoch that was broken off is trained by itself.
                    epochs=keep.epoch + 1 if keep.batch else settings.epochs,
                    initial_epoch=keep.epoch,
                    steps_per_epoch=steps - keep.batch,
                    validation_data=validation,
                    callbacks=[*_callbacks(keep, run), *callbacks],
                    verbose=verbose,
                    shuffle=False,  # the batches come shuffled
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(keep.broken_off()) from None
        except tf.errors.OpError as error:
            lost = strategy.num_replicas_in_sync > 1 and distribution.worker_lost(error)
            if not lost:
                raise
            raise ConnectionError(f"{lost} {run}") from error
    if not chief:
        return pd.DataFrame(keep.rows)
    if settings.patience:
        checkpoints.load(model, run)
    return pd.read_csv(run / "history.csv")


@contextmanager
def _between_steps(keep):
    """Lets Ctrl-C wait for the end of a step; a second one does not wait.

    Where it strikes inside other people's code it can be lost (seen), or tear a save.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def wait(*_):
        keep.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _divisors(steps):
    return ", ".join(str(each) for each in range(1, min(steps, 64) + 1) if steps % each == 0)


def require_settings(run, settings):
    """Refuses to go on with a run of other settings, and names the difference."""
    known = load_settings(run).to_dict()
    for name, value in settings.to_dict().items():
        if value != known[name]:
            raise ValueError(
                f"{run} was begun with {name} = {known[name]!r}, not {value!r}; it can only go on "
                "as it was begun"
            )


def _require_same(run, settings, images):
    """Refuses to go on with a run of other settings or other images."""
    require_settings(run, settings)
    if (run / checkpoints.WEIGHTS).exists() and not checkpoints.begun(run):
        raise ValueError(
            f"{run} is a trained run without checkpoints and cannot be resumed; its weights can be "
            "used, and a new training goes into another folder (--out)"
        )
    if (run / "split.csv").is_file():
        before, now = _written_split(run), images.membership()
        if not before.equals(now.reset_index(drop=True).astype(str)):
            raise ValueError(
                f"the images of {images.name} are not those that {run} was begun with: "
                f"{changed(run, images) or 'they come in another order'}; give it the same images, "
                "or train a new run"
            )


def _batches(model, images, settings, first_epoch=0, skipped=0):
    """What `fit` trains on after some batches, what it validates on, and the steps of an epoch."""
    size = settings.batch_size
    options = {"seed": settings.seed, "shift": settings.shift, "flip": settings.flip}
    options["first_epoch"] = first_epoch
    label = images.label if model.uses_labels else None
    if model.uses_labels:
        _require_classes(images, settings)
        options |= {"labels": label, "share": settings.labelled_share}

    def training(part):
        """Endless batches, or slices of them, and how many batches make an epoch."""
        if label is None:
            batches = images.train.batches(size, shuffle=True, part=part, **options)
            return batches, images.train.steps(size)
        return images.train.mixed_batches(size, part=part, **options)

    batches, steps = training(splits.ALL)
    validation = images.validation.batches(size, labels=label)
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return batches.skip(skipped), validation, steps

    def read(context):
        """What the replicas of one worker read, slice after slice."""
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
    if most >= settings.classes:
        raise ValueError(
            f"the labels of {images.name} go from 0 to {most}; set classes = {most + 1}"
        )


def compile_model(model, settings, steps, images=0):
    """Compiles a model with Adam and the settings' schedule over epochs of `steps` steps.

    `images` is how many it is trained on, for models that ask.
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
    # See `replicas.apply`: what each clips is an equal share of the gradient.
    clip = settings.clip_norm / replicas if settings.clip_norm else None
    with model.distribute_strategy.scope():  # else replicas would have optimizers of their own
        model.compile(
            optimizer=keras.optimizers.Adam(rate, global_clipnorm=clip),
            jit_compile={"auto": "auto", "on": True, "off": False}[settings.jit_compile],
            steps_per_execution=settings.steps_per_execution,
        )
        if not model.optimizer.built:  # so that a checkpoint finds its place
            model.optimizer.build(model.trainable_variables)


def load_settings(run) -> config.Settings:
    """The settings of a run; every value is checked before anything is built from it."""
    path = Path(run) / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: there is no {path}")
    try:
        values = json.loads(path.read_text())["settings"]
        return config.Settings.from_dict(values, shortened=False)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as settings: {error}") from error


def _written_split(run):
    """`split.csv` as text: a subject 001 is not the number 1.

    Raises:
        ValueError: where it is missing or is no such table.
    """
    path, needed = Path(run) / "split.csv", ["file", "subject", "split", "size", "digest"]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, lineterminator="\n")
        lacking = set(needed) - set(table)
        problem = f"lacks {', '.join(sorted(lacking))}" if lacking else ""
    except FileNotFoundError:
        problem = "is not there"
    except (ValueError, pd.errors.ParserError) as error:
        problem = f"cannot be read ({str(error).splitlines()[0]})"
    if problem:
        raise ValueError(
            f"{path} {problem}, so nothing says which images {run} was trained on. Numbers of "
            "images that it has not seen can be written elsewhere: evaluate.py with --images PATH "
            "--to FILE"
        )
    return table


def changed(run, images) -> str:
    """What differs between the images of now and those that a run was trained on, or ""."""
    before, now = (
        each.assign(place=each.groupby("file").cumcount())  # a volume has a row for each slice
        for each in (_written_split(run), images.membership().astype(str))
    )
    names = ["file", "place"]
    both = before.merge(now, on=names, how="outer", suffixes=("_before", ""), indicator=True)
    kept = both[both["_merge"] == "both"]
    counts = {
        "gone": (both["_merge"] == "left_only").sum(),
        "new": (both["_merge"] == "right_only").sum(),
        "in another split": (kept["split"] != kept["split_before"]).sum(),
        "with other pixels": (kept["digest"] != kept["digest_before"]).sum(),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def load(run):
    """The trained model of a run folder, in this process or a fresh one.

    Raises:
        FileNotFoundError: where there is no run, or one without weights.
        ValueError: where the weights are not the ones that were written.
    """
    settings = load_settings(run)
    checkpoints.require_plausible(run, registry.count_weights(settings))
    model = registry.from_settings(settings)
    checkpoints.load(model, run)
    return model


def origin_of(run) -> data.Origin | None:
    """Where the images of a run lay when it was trained, or None where the run does not say."""
    load_settings(run)  # says what is wrong with the file
    path = Path(run) / "settings.json"
    known = json.loads(path.read_text()).get("images")
    if known is None:
        return None
    try:
        paths = {str(name): Path(text) for name, text in known["paths"].items()}
        return data.Origin(paths, int(known["bits"]))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: images does not say where they lie ({error})") from error


def images_of(run) -> data.ImageData:
    """The images that a run was trained on, from where they lay.

    A path of `config.py` or the environment that differs is named, and is taken only where the
    run's own leads nowhere any more. A run that does not say where its images lay, as those that
    come with this project, has those of `config.py`.

    Raises:
        ValueError, FileNotFoundError: See `data.load`.
    """
    settings, origin = load_settings(run), origin_of(run)
    here = config.paths(settings.dataset)
    if origin is None:
        places = ", ".join(f"{name} = {path}" for name, path in here.items())
        print(f"{run} does not say where its images lay; taken: {places or 'the embedded images'}")
        return data.load(settings)
    for name in config.PATHS_OF[settings.dataset]:
        own, other = origin.paths.get(name), here.get(name)
        if other is None or (own is not None and own == other.absolute()):
            continue
        if own is None or own.exists():
            lay = "the embedded images" if own is None else own
            print(f"{run} was trained on {lay}; {name} = {other} is not used")
        else:
            print(f"{own}, which {run} was trained on, is not there; taken: {name} = {other}")
            origin.paths[name] = other
    return data.load(settings, origin)


def _provenance(settings, images):
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    known = {"settings": settings.to_dict(), "versions": versions}
    if images.paths is not None:
        paths = {name: str(Path(path).absolute()) for name, path in images.paths.items()}
        known["images"] = {"paths": paths, "bits": images.bits}
    return known


# --- callbacks -----------------------------------------------------------------------------------


def _callbacks(keep, run):
    if not keep.chief:
        return [keep, Progress()]
    callbacks = [Samples(run), keep, Progress()]
    if importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(run / "logs", write_graph=False))
    return callbacks


class Keep(keras.callbacks.Callback):
    """Keeps a training's history, weights and checkpoints, and ends it where it should end.

    Args:
        model: Compiled.
        settings: `config.Settings`.
        run: Run folder.
        state: `checkpoints.State` to go on from, read into the model.
        steps: Of an epoch.

    Attributes:
        epoch: Epochs that are over.
        batch: Steps of the next one that are done: only between a resume and that epoch's end.
        asked: Whether somebody wants the training to stop after this step.
        over: Whether nothing is left to train.
    """

    def __init__(self, model, settings, run, state, steps):
        super().__init__()
        self.trained = model  # Keras sets `model`, and only when it begins
        self.chief = distribution.is_chief(model.distribute_strategy)
        self.settings = settings
        self.steps = steps
        trained = int(model.steps.numpy())
        self.before = trained - state.epoch * steps - state.batch  # of other trainings
        self.run = Path(run)
        self.epoch, self.batch = state.epoch, state.batch
        self.rows = list(state.history)
        self.best = math.inf if state.best is None else state.best
        self.waited = state.waited
        self.averages = state.averages
        self.asked = False
        self.looked = 0  # steps of this epoch after which the loss was last looked at
        self.written = -math.inf  # when, on the clock that never turns back

    @property
    def over(self):
        stopped = self.settings.patience and self.waited >= self.settings.patience
        return self.epoch >= self.settings.epochs or bool(stopped)

    def on_epoch_begin(self, epoch, logs=None):
        self.looked = 0
        if self.batch:  # Keras has just set the running means to 0
            self.model.averages.restore(self.averages)

    def on_train_batch_end(self, batch, logs=None):
        # `batch` is the last step of several where they are executed together. The last one of an
        # epoch is looked at before the validation, which resets what says where the loss broke.
        done = batch + 1
        if done - self.looked >= LOOK_STEPS or done >= self.steps - self.batch or not self.looked:
            self.looked = done
            self._require_finite(logs)
        self._stop_if_asked()

    def _stop_if_asked(self):
        if self.asked:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        self._require_finite(logs)
        self.epoch, self.batch, self.averages = epoch + 1, 0, None
        self.rows.append({"epoch": epoch} | {name: float(value) for name, value in logs.items()})
        better = logs["val_loss"] < self.best
        self.best = float(min(self.best, logs["val_loss"]))
        self.waited = 0 if better else self.waited + 1
        self.model.stop_training = self.over
        if self.over or time.monotonic() - self.written >= CHECKPOINT_SECONDS:
            self._write()
        if self.settings.patience and better and self.chief:
            checkpoints.save(self.model, self.run)
        self._stop_if_asked()  # during the validation, which is short enough to wait for

    def catch_up(self):
        """Saves the weights that a kill right after their checkpoint left unsaved."""
        if self.epoch and not self.batch and not (self.settings.patience and self.waited):
            checkpoints.save(self.trained, self.run)

    def broken_off(self):
        """Saves a training that was interrupted, and says how it goes on."""
        done = int(self.trained.steps.numpy()) - self.before - self.epoch * self.steps
        if done < self.steps:  # else torn out of the validation: that epoch is trained again
            if done:
                self.batch, self.averages = done, self.trained.averages.state
            self._write()
        return (
            f"training was interrupted in epoch {self.epoch + 1} of {self.settings.epochs}. "
            f"To go on where it was: python train.py --resume {self.run}"
        )

    def _write(self):
        if not self.chief:
            return
        if self.rows:
            with disk.replacing(self.run / "history.csv") as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)
        best = self.best if math.isfinite(self.best) else None
        position = (self.epoch, self.batch, tuple(self.rows), best, self.waited, self.averages)
        checkpoints.write(self.trained, self.run, checkpoints.State(*position))
        if not self.settings.patience:
            checkpoints.save(self.trained, self.run)
        self.written = time.monotonic()

    def _require_finite(self, logs):
        advice = "what was saved before is kept. " + checkpoints.ADVICE
        if not math.isfinite(logs["loss"]):
            step = int(self.model.averages.finite_until.numpy()) // self.settings.batch_size + 1
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {step} of epoch {self.epoch + 1}; {advice}"
            )
        if not math.isfinite(logs.get("val_loss", 0.0)):
            raise FloatingPointError(
                f"the validation loss is {logs['val_loss']} after epoch {self.epoch + 1}; {advice}"
            )


class Progress(keras.callbacks.ProgbarLogger):
    """Keras' progress line, of the numbers that tell how a training goes.

    All of them would fill three lines of a terminal, the `kl` twice; they are in `history.csv`.
    """

    SHOWN = ("loss", "kl", "ssim", "active_units", "accuracy", "val_loss", "val_ssim")

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {name: logs[name] for name in self.SHOWN if name in (logs or {})}


class OneLine(keras.callbacks.Callback):
    """A whole training in one line: epoch, losses, time left; for `fit(..., verbose=0)`.

    Args:
        name: At the beginning of the line.
    """

    def __init__(self, name="training"):
        super().__init__()
        self.name = name

    def on_train_begin(self, logs=None):
        self.began, self.first = time.monotonic(), None
        self.shown, self.width = self.began, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.first = epoch if self.first is None else self.first

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.shown > 1.0:
            self._show((batch + 1) / self.params["steps"], f"loss {float(logs['loss']):.1f}")

    def on_epoch_end(self, epoch, logs=None):
        validation = f", validation {logs['val_loss']:.1f}" if "val_loss" in logs else ""
        self._show(1.0, f"loss {logs['loss']:.1f}{validation}")

    def on_train_end(self, logs=None):
        print()

    def _show(self, share, losses):
        self.shown = time.monotonic()
        done, spent = self.epoch + share, self.shown - self.began
        left = spent / (done - self.first) * (self.params["epochs"] - done)
        said = f"{left:.0f} s left" if left else f"{spent:.0f} s"
        line = f"{self.name}: epoch {self.epoch + 1} of {self.params['epochs']}, {losses}, {said}"
        print(f"\r{line:<{self.width}}", end="", flush=True)  # covers the line before
        self.width = len(line)


class Samples(keras.callbacks.Callback):
    """After every epoch, the images at the same latent points: `samples/epoch_001.png`, ..."""

    def __init__(self, run):
        super().__init__()
        self.folder = Path(run) / "samples"

    def on_epoch_end(self, epoch, logs=None):
        images = self.model.sample(SAMPLES).numpy()
        plots.save_sheet(images, self.folder / f"epoch_{epoch + 1:03d}.png", columns=8)


# --- command line --------------------------------------------------------------------------------


def parse_value(text: str):
    """A setting's value from the command line: a number, a tuple, True or False, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
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
        settings = dataclasses.replace(settings, model=arguments.model)
    if arguments.epochs is not None:
        settings = dataclasses.replace(settings, epochs=arguments.epochs)
    return settings


def _fields():
    """All settings with their defaults, as a paragraph."""
    named = (f"{each.name}={each.default!r}" for each in dataclasses.fields(config.Settings))
    return textwrap.fill(
        ", ".join(named), 96, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    )


def main(words=None):
    parser = argparse.ArgumentParser(
        description="Train one experiment of config.py.",
        epilog=f"Fields and their defaults (config.py says what each is):\n{_fields()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", help=", ".join(config.EXPERIMENTS))
    parser.add_argument("--model", help=", ".join(registry.REGISTRY))
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="any field below"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: a new folder in runs/")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in there")
    parser.add_argument(
        "--strategy",
        choices=distribution.NAMES,
        default="auto",
        help="who shares the batch: all GPUs of this machine, or the workers of TF_CONFIG or SLURM",
    )
    arguments = parser.parse_args(words)
    others = (arguments.experiment, arguments.model, arguments.epochs, arguments.out)
    if arguments.resume and (arguments.set or any(each is not None for each in others)):
        parser.error("--resume stands alone: a run goes on as it was begun")
    if not arguments.resume and not arguments.experiment:
        parser.error(f"name an experiment: {', '.join(config.EXPERIMENTS)}")
    try:
        strategy = distribution.strategy(arguments.strategy)
        if arguments.resume:
            settings = load_settings(arguments.resume)
            images = images_of(arguments.resume)
        else:
            settings = settings_from(arguments)
            images = data.load(settings)
        with strategy.scope():
            model = registry.from_settings(settings)
        run = arguments.resume or arguments.out or new_run(arguments.experiment)
        replicas = strategy.num_replicas_in_sync
        print(
            f"Training {settings.model} ({model.count_params():,} parameters) on "
            f"{len(images.train):,} images of {images.name} into {run}"
            + (f", shared by {replicas} replicas" if replicas > 1 else "")
        )
        fit(model, images, settings, run, resume=arguments.resume is not None)
    except KeyboardInterrupt as stopped:
        print(f"\ntrain.py: {stopped or 'stopped before training began'}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    print(f"Done: {run}. Its numbers: python evaluate.py {run}")


if __name__ == "__main__":
    main()
