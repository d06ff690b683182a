"""Weights and training states on disk: written whole, verified, recoverable after an interruption.

Files are written under another name in the same folder, flushed to the disk, read back, compared,
and then renamed, so a file is never half-written under its own name. The SHA-256 of a weights file
is stored with it. A checkpoint is a folder with everything that is needed to resume training; the
two newest are kept, and damaged ones are skipped.
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
SIZES = ("latent_dim", "image_shape")  # attributes of the model that are stored with its weights
OPTIMIZERS = ("optimizer", "second_optimizer")  # attributes of a model that may hold one


class State(NamedTuple):
    """Position of a training, besides its weights and optimizers.

    Args:
        epoch: Completed epochs.
        batch: Completed steps of the current epoch.
        history: A dictionary for each completed epoch.
        best: Lowest validation loss so far, with early stopping; else None.
        waited: Epochs since that one.
        averages: Running means of the current epoch (`Averages.state`), or None.
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

    The optimizers' state is not included: it has twice the size and is not needed to use a model.

    Raises:
        FloatingPointError: if a weight is not finite; the old file stays.
        OSError: if it cannot be written (a full disk); the old file stays.
    """
    run = Path(run)
    with disk.replacing(run / WEIGHTS) as temporary, _without_optimizers(model):
        new = _write_weights(model, temporary)
        # If the process is killed between two renames, either file may exist: both are listed until
        # then.
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
        ValueError: if they were changed after they were written, or belong to another model.
    """
    weights, digests = Path(run) / WEIGHTS, Path(run) / DIGEST
    if not weights.is_file():
        raise FileNotFoundError(
            f"{run} has no {WEIGHTS}: training ended before any were saved; resume it or train a "
            "new run"
        )
    known = digests.read_text().split() if digests.is_file() else ()
    if sha256(weights) not in known:
        raise ValueError(
            f"{weights} is damaged: its SHA-256 is not the one in {DIGEST}; restore a copy of the "
            "run, or train a new one"
        )
    with _without_optimizers(model):
        _read_weights(model, weights)


def holds(model, run) -> bool:
    """Whether a run's weights are written, whole, and those of the model."""
    own = [np.array(each) for each in model.weights]
    try:
        load(model, run)
        return all(map(np.array_equal, own, map(np.asarray, model.weights)))
    except (OSError, ValueError):
        return False
    finally:
        for variable, value in zip(model.weights, own, strict=True):
            variable.assign(value)


def require_plausible(run, weights):
    """Refuses settings of a much larger model than the one whose weights are stored.

    Args:
        run: Run folder.
        weights: Number of weights by its settings, from `registry.count_weights`.

    Raises:
        ValueError: before anything is built.
    """
    file = Path(run) / WEIGHTS
    stored = file.stat().st_size // 4 if file.is_file() else math.inf
    if weights > 2 * stored + 10**6:
        raise ValueError(
            f"{run}: settings.json describes a model of {weights:,} weights, and {WEIGHTS} holds "
            f"at most {stored:,}; they do not belong to the same run: restore the run's own files"
        )


def sha256(path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(run) -> str:
    """SHA-256 of a run's weights, by which priors, directions, maps and audits know them."""
    return sha256(Path(run) / WEIGHTS)


def _write_weights(model, path):
    """Writes the weights, reads them back, and returns the SHA-256 of the file."""
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
        raise OSError(errno.EIO, f"only {stored} of {expected} numbers were written", str(path))
    return sha256(path)


def _reserve(path, size):
    """Reserves disk space: HDF5 ends the whole process if the disk is full while it writes."""
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
    """Number of values in a weights file; an error if one cannot be read."""
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
        if found is not None:  # older files do not have them
            found, own = np.ravel(found).tolist(), np.ravel(getattr(model, name)).tolist()
            if found != own:
                raise ValueError(
                    f"{path} belongs to a model with {name} = {_plain(found)}, this one has "
                    f"{_plain(own)}; open it with the settings.json of its own run"
                )
    model.load_weights(path)


def _plain(numbers):
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


@contextmanager
def _without_optimizers(model):
    """Removes the optimizers temporarily, because Keras would save them with the model."""
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
    """Writes a checkpoint of a compiled model, and deletes all but the newest.

    Raises:
        FloatingPointError, OSError: As `save`; existing checkpoints are kept.
    """
    final = Path(run) / FOLDER / f"epoch_{state.epoch:06d}_step_{state.batch:08d}"
    with disk.replacing(final) as temporary:
        temporary.mkdir()
        sums = [f"{_write_weights(model, temporary / STATE_WEIGHTS)}  {STATE_WEIGHTS}"]
        _write_text(temporary / STATE, json.dumps(state._asdict(), indent=1) + "\n")
        sums.append(f"{sha256(temporary / STATE)}  {STATE}")
        _write_text(temporary / SUMS, "\n".join(sums) + "\n")
        disk.remove(final)  # damaged: otherwise it would not be written again
    for old in _all(run)[KEPT:]:
        disk.remove(old)


def read(model, run, tell=print):
    """Reads the newest undamaged checkpoint into a compiled model.

    Args:
        model: As it was when the checkpoint was written, compiled.
        run: Run folder.
        tell: Function that is called with a message for each damaged checkpoint.

    Returns:
        `State`; the initial one if there is no checkpoint.

    Raises:
        ValueError: if all checkpoints are damaged.
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
                    f"the weights of its last epoch, {WEIGHTS}, can still be used; give a new "
                    "training another folder (--out)"
                )
            else:
                advice = "delete that folder and resume again to train from the beginning"
            raise ValueError(f"all checkpoints in {Path(run) / FOLDER} are damaged; {advice}")
        return State()
    for each, reason in damaged.items():
        if reason:
            each.rename(each.with_name(f"damaged_{each.name}"))
            tell(f"{each} is damaged ({reason}); set aside as damaged_{each.name}")
    _read_weights(model, place / STATE_WEIGHTS)
    values = json.loads((place / STATE).read_text())
    return State(**values | {"history": tuple(values["history"])})


def begun(run) -> bool:
    """Whether a run folder has a checkpoint, damaged or not."""
    return bool(_all(run))


def require_room(run, model):
    """Checks before training that a run can be written; removes half-written files of a killed one.

    Raises:
        OSError: if the folder cannot be written, or the disk lacks space for the checkpoints.
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
            f"a run of this model needs {needed / 1e6:,.0f} MB and only {free / 1e6:,.0f} MB are "
            "free; free some space or choose another folder",
            str(run),
        )


def _all(run):
    """Checkpoint folders, newest first."""
    return sorted((Path(run) / FOLDER).glob("epoch_*"), reverse=True)


def _damage(place):
    """The damage of a checkpoint, or ""."""
    try:
        lines = (place / SUMS).read_text().splitlines(keepends=True)
        sums = {name: known for known, name in (line.split("  ") for line in lines)}
        for name in (STATE_WEIGHTS, STATE):
            if sums[f"{name}\n"] != sha256(place / name):
                return f"the SHA-256 of {name} differs"
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
