"""Weights and training states on disk: written whole, verified, recoverable after an interruption.

Whatever is written is first written under another name in the same folder, flushed to the disk,
read back and compared, and only then takes its name; so a name never stands for half a file. A
weights file has its SHA-256 beside it. A checkpoint is a folder with everything that training on
needs; the two newest are kept, and one that was damaged since is passed over.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from storage import disk

WEIGHTS = "model.weights.h5"
DIGEST = "model.weights.sha256"
FOLDER = "checkpoints"
STATE_WEIGHTS, STATE, SUMS = "state.weights.h5", "state.json", "sha256sums"
ADVICE = "Lower learning_rate, or set clip_norm (1000 is a start)"
KEPT = 2
SIZES = ("latent_dim", "image_shape")  # of a model that has them, kept with its weights
OPTIMIZERS = ("optimizer", "second_optimizer")  # where a model may have them


class State(NamedTuple):
    """Position of a training, besides its weights and optimizers.

    Args:
        epoch: Epochs that are over.
        batch: Steps of the one that has begun.
        history: A dictionary for each epoch that is over.
        best: Least validation loss, where training stops early; else None.
        waited: Epochs since then.
        averages: Running means of the epoch that has begun (`Averages.state`), or None.
    """

    epoch: int = 0
    batch: int = 0
    history: tuple = ()
    best: float | None = None
    waited: int = 0
    averages: dict | None = None


# --- weights -------------------------------------------------------------------------------------


def save(model, run):
    """Writes a run's weights and their SHA-256.

    The optimizers' state stays out: it is twice the size, and using a model does not need it.

    Raises:
        FloatingPointError: if a weight is not finite; the old file stays.
        OSError: if it cannot be written (a full disk); the old file stays.
    """
    run = Path(run)
    with disk.replacing(run / WEIGHTS) as temporary, _without_optimizers(model):
        new = _write_weights(model, temporary)
        # A kill between two renames leaves one of the two files: both are listed meanwhile.
        old = sha256(run / WEIGHTS) if (run / WEIGHTS).exists() else new
        _list_digests(run, new, old)
    _list_digests(run, new)


def _list_digests(run, *sums):
    with disk.replacing(run / DIGEST) as temporary:
        _write_text(temporary, "".join(f"{each}  {WEIGHTS}\n" for each in sums))


def load(model, run):
    """Reads a run's weights into a model.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are not the ones that were written, or another model's.
    """
    weights, digests = Path(run) / WEIGHTS, Path(run) / DIGEST
    if not weights.is_file():
        raise FileNotFoundError(f"{run} has no {WEIGHTS}: training ended before any were saved")
    known = digests.read_text().split() if digests.is_file() else ()
    if sha256(weights) not in known:
        raise ValueError(f"{weights} is damaged: its SHA-256 is not the one in {DIGEST}")
    with _without_optimizers(model):
        _read_weights(model, weights)


def require_plausible(run, weights):
    """Refuses settings that ask for a far larger model than the one whose weights are there.

    Args:
        run: Run folder.
        weights: Of the model that its settings describe, from `registry.count_weights`.

    Raises:
        ValueError: before anything is built.
    """
    file = Path(run) / WEIGHTS
    stored = file.stat().st_size // 4 if file.is_file() else math.inf
    if weights > 2 * stored + 10**6:
        raise ValueError(
            f"{run}: settings.json describes a model of {weights:,} weights, and {WEIGHTS} holds "
            f"at most {stored:,}; they do not belong to the same run"
        )


def sha256(path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_weights(model, path):
    """Writes and reads back; returns the SHA-256 of what is on the disk."""
    for variable in _saved(model):
        value = np.asarray(variable)
        if not np.isfinite(value).all():
            raise FloatingPointError(
                f"{variable.path} is not finite; files saved earlier are kept. {ADVICE}"
            )
    expected = _count(_saved(model))
    try:
        _reserve(path, 4 * expected + 4096 * (len(_saved(model)) + 16))
        model.save_weights(path)
        with h5py.File(path, "r+") as file:
            for name in SIZES:
                if hasattr(model, name):
                    file.attrs[name] = getattr(model, name)
        _flush(path)
        stored = _numbers(path)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(
            errno.EIO,
            f"cannot write the weights ({str(error).splitlines()[0]}; {free:,.0f} MB free); files "
            "saved earlier are kept",
            str(path.parent),
        ) from error
    if stored != expected:
        raise OSError(errno.EIO, f"{stored} numbers were written of {expected}", str(path))
    return sha256(path)


def _reserve(path, size):
    """Asks the disk for room: HDF5 ends the whole process where it fills up while it writes."""
    with open(path, "wb") as file:
        file.write(bytes(size))
    path.unlink()


def _saved(model):
    """Every variable that Keras writes with a model: its own and those of its optimizers."""
    optimizers = (getattr(model, name, None) for name in OPTIMIZERS)
    return [*model.weights, *(each for one in optimizers if one for each in one.variables)]


def _count(variables):
    return sum(int(np.prod(each.shape)) for each in variables)


def _numbers(path):
    """How many numbers a weights file holds; an error where one cannot be read."""
    found = []

    def read(_, each):
        if isinstance(each, h5py.Dataset):
            found.append(np.size(each[()]))

    with h5py.File(path) as file:
        file.visititems(read)
    return sum(found)


def _read_weights(model, path):
    with h5py.File(path) as file:
        sizes = {name: file.attrs.get(name) for name in SIZES}
    for name, found in sizes.items():
        if found is not None:  # files from before these were written
            found, own = np.ravel(found).tolist(), np.ravel(getattr(model, name)).tolist()
            if found != own:
                raise ValueError(
                    f"{path} is of a model with {name} = {_plain(found)}, and this one has "
                    f"{_plain(own)}; open it with the settings.json of its own run"
                )
    model.load_weights(path)


def _plain(numbers):
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


@contextmanager
def _without_optimizers(model):
    """For a while the model has no optimizers: Keras saves what hangs on it."""
    held = {name: getattr(model, name) for name in OPTIMIZERS if hasattr(model, name)}
    try:
        for name in held:
            setattr(model, name, None)
        yield
    finally:
        for name, optimizer in held.items():
            setattr(model, name, optimizer)


# --- checkpoints ---------------------------------------------------------------------------------


def write(model, run, state):
    """Writes a checkpoint of a compiled model, and lets go of all but the newest.

    Raises:
        FloatingPointError, OSError: As `save`; the checkpoints that are there stay.
    """
    final = Path(run) / FOLDER / f"epoch_{state.epoch:06d}_step_{state.batch:08d}"
    with disk.replacing(final) as temporary:
        temporary.mkdir()
        sums = [f"{_write_weights(model, temporary / STATE_WEIGHTS)}  {STATE_WEIGHTS}"]
        _write_text(temporary / STATE, json.dumps(state._asdict(), indent=1) + "\n")
        sums.append(f"{sha256(temporary / STATE)}  {STATE}")
        _write_text(temporary / SUMS, "\n".join(sums) + "\n")
        disk.remove(final)  # damaged, or it would not have been made again
    for old in _all(run)[KEPT:]:
        disk.remove(old)


def read(model, run, tell=print):
    """Reads the newest checkpoint that is whole into a compiled model.

    Args:
        model: As it was when the checkpoint was written, compiled.
        run: Run folder.
        tell: Function that gets a sentence for each damaged checkpoint.

    Returns:
        `State`; that of a training which has not begun where there is no checkpoint.

    Raises:
        ValueError: if there are checkpoints and none is whole.
    """
    damaged = {}
    for place in _all(run):
        damaged[place] = _damage(place)
        if not damaged[place]:
            break
    else:
        if damaged:
            if (Path(run) / WEIGHTS).exists():
                advice = (
                    f"the weights of its last epoch, {WEIGHTS}, can still be used; a new training "
                    "goes into another folder (--out)"
                )
            else:
                advice = "delete that folder and resume again, to train from the beginning"
            raise ValueError(f"no checkpoint in {Path(run) / FOLDER} is whole; {advice}")
        return State()
    for each, reason in damaged.items():
        if reason:
            each.rename(each.with_name(f"damaged_{each.name}"))
            tell(f"{each} is damaged ({reason}); set aside as damaged_{each.name}")
    _read_weights(model, place / STATE_WEIGHTS)
    values = json.loads((place / STATE).read_text())
    return State(**values | {"history": tuple(values["history"])})


def begun(run) -> bool:
    """Whether a run folder holds a checkpoint, whole or not."""
    return bool(_all(run))


def require_room(run, model):
    """Makes sure before training that a run can be written; takes away what a kill left half done.

    Raises:
        OSError: if the folder cannot be written, or the disk is too full for the checkpoints.
    """
    run = Path(run)
    _write_text(run / f"{disk.SAVING}probe", "")
    for left in list(run.rglob(f"{disk.SAVING}*")):
        disk.remove(left)
    own, state = 4 * _count(model.weights), 4 * _count(_saved(model))
    needed, free = (KEPT + 1) * state + 2 * own, shutil.disk_usage(run).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"a run of this model needs {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; "
            "make room or choose another folder",
            str(run),
        )


def _all(run):
    """Checkpoint folders, newest first."""
    return sorted((Path(run) / FOLDER).glob("epoch_*"), reverse=True)


def _damage(place):
    """What is wrong with a checkpoint, or nothing."""
    try:
        lines = (place / SUMS).read_text().splitlines(keepends=True)
        sums = {name: known for known, name in (line.split("  ") for line in lines)}
        for name in (STATE_WEIGHTS, STATE):
            if sums[f"{name}\n"] != sha256(place / name):
                return f"the SHA-256 of {name} is another"
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (ValueError, KeyError):
        return f"{SUMS} cannot be read"
    return ""


def _write_text(path, text):
    with open(path, "w") as file:
        file.write(text)
    _flush(path)


def _flush(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
