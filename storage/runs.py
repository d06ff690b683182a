"""Run folders: making them, reading them, and comparing them with what is to be resumed.

`settings.json` keeps the settings, the paths of the images and the versions of TensorFlow and
Keras. `split.csv` records which images are in which split, each with the digest of its pixels.
"""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import config
from storage import checkpoints, disk

SETTINGS, SPLIT, PRIORS = "settings.json", "split.csv", "priors"


def new_run(name: str) -> Path:
    """Makes the folder of a new run in `config.RUNS_DIR`: `name-001`, `name-002`, ..."""
    config.RUNS_DIR.mkdir(parents=True, exist_ok=True)
    name, number = disk.file_name(name), 1
    while True:
        run = config.RUNS_DIR / f"{name}-{number:03d}"
        try:
            run.mkdir()
            return run
        except FileExistsError:  # taken, perhaps by another process
            number += 1


def begin(run, settings, images):
    """Writes `settings.json` and `split.csv`, before the training."""
    disk.write_json(run / SETTINGS, _provenance(settings, images))
    with disk.replacing(run / SPLIT) as temporary:
        images.membership().to_csv(temporary, index=False, lineterminator="\n")


def _provenance(settings, images):
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    known = {"settings": settings.to_dict(), "versions": versions}
    if images.label is not None:
        known["labels"] = {"column": images.label, "classes": list(map(str, images.classes))}
    if images.paths is not None:
        paths = {name: str(Path(path).absolute()) for name, path in images.paths.items()}
        known["images"] = {"paths": paths, "bits": images.bits}
    return known


def load_settings(run) -> config.Settings:
    """The settings of a run; every value is checked before anything is built from it.

    Raises:
        FileNotFoundError: if this is not a run folder.
        ValueError: if its settings cannot be read.
    """
    return _read(run)[0]


class Origin(NamedTuple):
    """Paths and bit depth of a dataset; the settings hold the rest.

    Attributes:
        paths: Names of `config.PATHS_OF` to paths. A name that is missing is not set, and embedded
            images are used instead.
        bits: Bit depth of pictures deeper than 8 bits, whose values go up to `2**bits - 1`. 0:
            found from the files (`sources.files`).
        whole: Whether all images of a folder are test images.
    """

    paths: dict
    bits: int = 0
    whole: bool = False


def origin_of(run) -> Origin | None:
    """Paths of the images that a run was trained on, or None if the run does not record them.

    Raises:
        FileNotFoundError, ValueError: See `load_settings`.
    """
    known = _read(run)[1].get("images")
    if known is None:
        return None
    try:
        paths = {str(name): Path(text) for name, text in known["paths"].items()}
        return Origin(paths, int(known["bits"]))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{Path(run) / SETTINGS}: images does not record their paths ({error})"
        ) from error


class Labels(NamedTuple):
    """What a run knows of the label of its images.

    Attributes:
        column: Column of the tables, None if it is not known.
        classes: Names of its classes, by their numbers.
    """

    column: str | None = None
    classes: tuple[str, ...] = ()

    def coded(self, column, value):
        """The value of a column as tables hold it: of the label, the number of a class's name.

        Args:
            column: Its name.
            value: What a user calls it.

        Raises:
            ValueError: if there is no class of this name.
        """
        text = str(value)
        if column != self.column or not self.classes:
            return value
        for name in (text, text.removesuffix(".0")):  # numbers of a column with a gap have a point
            if name in self.classes:
                return self.classes.index(name)
        # Where the names are words, a number is that of a class.
        number = _is_number(text) or text in ("True", "False")
        if any(map(_is_number, self.classes)) or not number:
            raise ValueError(f"{column} = {text} is none of the classes: {', '.join(self.classes)}")
        return value


def labels_of(run) -> Labels:
    """The label of a run's images, from its `settings.json`.

    Raises:
        FileNotFoundError: if this is not a run folder.
        ValueError: if its settings cannot be read.
    """
    known = _read(run)[1].get("labels")
    if known is None:
        return Labels()
    try:
        return Labels(str(known["column"]), tuple(map(str, known["classes"])))
    except (LookupError, TypeError) as error:
        raise ValueError(f"{Path(run) / SETTINGS}: labels does not name classes") from error


def _is_number(text):
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _read(run):
    """Settings, and the whole content of `settings.json`."""
    path = Path(run) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: there is no {path}")
    try:
        written = json.loads(path.read_text())
        settings = config.Settings.from_dict(written["settings"], shortened=False)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as settings: {error}") from error
    return settings, written


def require_settings(run, settings):
    """Refuses to resume a run with other settings, and names the difference."""
    known = load_settings(run).to_dict()
    for name, value in settings.to_dict().items():
        if value != known[name]:
            raise ValueError(
                f"{run} was started with {name} = {known[name]!r}, not {value!r}; it can only be "
                "resumed with the same settings"
            )


def require_same(run, settings, images):
    """Refuses to resume a run with other settings or other images."""
    run = Path(run)
    require_settings(run, settings)
    if (run / checkpoints.WEIGHTS).exists() and not checkpoints.begun(run):
        raise ValueError(
            f"{run} is a trained run without checkpoints and cannot be resumed; its weights can be "
            "used; give a new training another folder (--out)"
        )
    if (run / SPLIT).is_file():
        before, now = written_split(run), images.membership()
        if not before.equals(now.reset_index(drop=True).astype(str)):
            raise ValueError(
                f"the images of {images.name} are not those that {run} was trained on: "
                f"{changed(run, images) or 'they are in another order'}; give it the same images, "
                "or train a new run"
            )


def changed(run, images) -> str:
    """Differences between the present images and those that a run was trained on, or ""."""
    before, now = (
        each.assign(place=each.groupby("file").cumcount())  # a volume has a row for each slice
        for each in (written_split(run), images.membership().astype(str))
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


def written_split(run):
    """`split.csv` as text: a subject 001 is not the number 1.

    Raises:
        ValueError: if it is missing or not such a table.
    """
    path, needed = Path(run) / SPLIT, ["file", "subject", "split", "digest"]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, lineterminator="\n")
        lacking = set(needed) - set(table)
        problem = f"lacks {', '.join(sorted(lacking))}" if lacking else ""
    except FileNotFoundError:
        problem = "is missing"
    except (ValueError, pd.errors.ParserError) as error:
        problem = f"cannot be read ({str(error).splitlines()[0]})"
    if problem:
        raise ValueError(
            f"{path} {problem}, so the training images of {run} are unknown. Numbers of unseen "
            "images can be written elsewhere: evaluate.py with --images PATH --to FILE"
        )
    return table[needed]


# --- priors beside a run -------------------------------------------------------------------------


def prior_folder(run, name) -> Path:
    """Folder of a prior of a run."""
    return Path(run) / PRIORS / disk.file_name(name)


def save_prior(run, name, settings, arrays, own=False):
    """Saves a prior in a run, with the hash of the weights whose latents it was fitted on.

    Args:
        run: Run folder, with weights.
        name: Name of the prior.
        settings: Plain values.
        arrays: NumPy arrays by name.
        own: Whether it becomes the run's own, which `own_prior` names.
    """
    folder = prior_folder(run, name)
    folder.mkdir(parents=True, exist_ok=True)
    with disk.replacing(folder / "arrays.npz") as temporary:
        np.savez(temporary, **arrays)
    known = {"settings": settings, "arrays": checkpoints.sha256(folder / "arrays.npz")}
    known["weights"] = checkpoints.digest_of(run)
    disk.write_json(folder / "prior.json", known)
    if own:
        choose_prior(run, name)


def choose_prior(run, name):
    """Makes a prior the run's own."""
    disk.write_json(Path(run) / PRIORS / "own.json", {"name": name})


def own_prior(run) -> str | None:
    """Name of the run's own prior, or None."""
    path = Path(run) / PRIORS / "own.json"
    try:
        return str(json.loads(path.read_text())["name"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it") from error


def priors_of(run) -> list[str]:
    """Names of the priors in a run's folder."""
    return sorted(each.parent.name for each in (Path(run) / PRIORS).glob("*/prior.json"))


def load_prior(run, name):
    """The saved prior: `(settings, arrays)`.

    Raises:
        ValueError: if there is none of this name, it is damaged, or the weights have changed.
    """
    folder = prior_folder(run, name)
    kind, _, columns = name.partition("-") if name != "two-stage" else (name, "", "")
    told = f" --condition {columns.replace('-', ' ')}" if columns else ""
    again = f"fit it: python prior.py {run} --kind {kind}{told}"
    if not (folder / "prior.json").is_file():
        there = priors_of(run)
        raise ValueError(
            f"{run} has no prior {name!r} (there are: normal, {', '.join(there)}); {again}"
        )
    try:
        known = json.loads((folder / "prior.json").read_text())
        settings, digest, weights = known["settings"], known["arrays"], known["weights"]
        if checkpoints.sha256(folder / "arrays.npz") != digest:
            raise ValueError("its arrays are not those that were written")
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            arrays = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder} is damaged ({error}); {again}") from error
    if checkpoints.digest_of(run) != weights:
        raise ValueError(f"{folder} was fitted on other weights than those of {run}; {again}")
    return settings, arrays
