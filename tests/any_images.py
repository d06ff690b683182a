"""Runs every notebook on small image sets of every kind and reports failures.

python tests/any_images.py [--sets NAME ...] [--notebooks NAME ...] [--epochs N] [--keep DIR]
python tests/any_images.py --real mnist=FILE oasis=DIR chest=DIR images=DIR [...]

The sets are made from the embedded images. Each is selected as by a user: with the variables of
`config.py`, or a changed line of it in a copy of the project. Trainings are shortened by
ATLAS_EPOCHS. A claim of a notebook may be False, but no cell may fail.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image
from skimage.transform import resize
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # as a command this file is not started from the project's folder

import config  # noqa: E402
from sources import phantoms  # noqa: E402

NOTEBOOKS = [ROOT / "run.ipynb", *sorted((ROOT / "notebooks").glob("*.ipynb"))]
CHOOSING = ("EXPERIMENT", *config.PATHS, "ATLAS_EMBEDDED", "ATLAS_SEED")


class Chosen(NamedTuple):
    """Selection of a set: environment variables, and replacements in the text of `config.py`."""

    environment: dict
    lines: dict = {}


# --- the sets ------------------------------------------------------------------------------------


def _digits(count, height, width):
    """The first embedded digits, floats in [0, 1], and their labels."""
    bunch = load_digits()
    large = resize(bunch.images[:count] / 16.0, (count, height, width), order=1)
    return large.astype(np.float32), bunch.target[:count]


def _save(image, path):
    """Writes floats in [0, 1] or uint8 as a picture in the format of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image if image.dtype == np.uint8 else np.round(255 * image).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def mnist(folder) -> Chosen:
    """MNIST's file, of 400 digits: 28x28, grey, ten classes."""
    images, labels = _digits(400, 28, 28)
    pixels, path = np.round(255 * images).astype(np.uint8), folder / "mnist.npz"
    parts = {"x_train": pixels[:300], "y_train": labels[:300]}
    np.savez(path, **parts, x_test=pixels[300:], y_test=labels[300:])
    return Chosen({"EXPERIMENT": "mnist", "MNIST_PATH": path})


def labelled(folder) -> Chosen:
    """Four named folders of coloured pictures, not square, of different numbers."""
    images, labels = _digits(400, 36, 28)
    for digit, (name, count) in enumerate(
        {"none": 12, "one": 36, "a pair": 25, "three": 30}.items()
    ):
        for number, image in enumerate(images[labels == digit][:count]):
            tint = 0.4 + 0.6 * np.eye(3)[number % 3]
            _save(image[..., None] * tint, folder / "pictures" / name / f"{number:03d}.png")
    lines = {'dataset="gallery",': 'dataset="gallery",\n        labels="folders",'}
    lines["image_shape=(64, 64, 3)"] = "image_shape=(36, 28, 3)"
    return Chosen({"EXPERIMENT": "gallery", "IMAGES_DIR": folder / "pictures"}, lines)


def colours(folder) -> Chosen:
    """A folder of colour JPEGs of all sizes and proportions, without labels."""
    random = np.random.default_rng(0)
    for number, image in enumerate(phantoms.photos(160, 160)[0]):
        height, width = random.integers(40, 160, 2)
        _save(
            image[:height, :width], folder / "photos" / f"holiday {number // 20}" / f"{number}.jpg"
        )
    return Chosen({"EXPERIMENT": "gallery", "IMAGES_DIR": folder / "photos"})


def oasis(folder) -> Chosen:
    """The layout of OASIS, ten subjects, four slices of each; trained at 256x256."""
    images, _ = phantoms.brains(64, subjects=10, slices=4)
    places = ["train"] * 6 + ["validate"] * 2 + ["test"] * 2
    for row, image in enumerate(images):
        case, number = divmod(row, 4)
        name = f"case_{case:03d}_slice_{number}.nii.png"
        _save(image, folder / "oasis" / f"keras_png_slices_{places[case]}" / name)
    return Chosen({"EXPERIMENT": "brain", "OASIS_DIR": folder / "oasis"})


def chest(folder) -> Chosen:
    """The layout of NIH ChestX-ray14: 40 patients, two images of each, hernias and healthy."""
    factors = phantoms.chest_factors(40, 2, seed=3, confound=0.5)
    images = phantoms.render_chests(factors, 64)
    patients = pd.factorize(factors["subject"])[0] + 1
    names = [f"{patient:08d}_{row % 2:03d}.png" for row, patient in enumerate(patients)]
    for name, image in zip(names, images, strict=True):
        _save(image, folder / "chest" / "images" / name)
    columns = {
        "Image Index": names,
        "Finding Labels": np.where(factors["Hernia"], "Hernia|Effusion", "No Finding"),
        "Follow-up #": np.arange(len(names)) % 2,
        "Patient ID": patients,
        "Patient Age": factors["age"].astype(int),
        "Patient Gender": factors["sex"],
        "View Position": factors["view"],
    }
    table = pd.DataFrame(columns).to_csv(index=False).splitlines()
    # Its own header has a comma inside two names.
    ends = [",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"]
    ends += [",2048,2048,0.168,0.168"] * len(names)
    text = "".join(f"{line}{end}\n" for line, end in zip(table, ends, strict=True))
    (folder / "chest" / "Data_Entry_2017_v2020.csv").write_text(text)
    return Chosen({"EXPERIMENT": "chest", "CHEST_DIR": folder / "chest"})


def volumes(folder) -> Chosen:
    """A subject in each file: 18 NIfTI volumes of different shapes, several slices of each."""
    import nibabel

    random = np.random.default_rng(0)
    (folder / "volumes").mkdir(parents=True)
    for number in range(18):
        shape = random.integers(20, 30, 3)
        at = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
        middle, radii = random.uniform(-0.2, 0.2, 3), random.uniform(0.4, 0.9, 3)
        away = np.square((at - middle[:, None, None, None]) / radii[:, None, None, None]).sum(
            axis=0
        )
        values = 900 * np.exp(-2 * away) + 20 * random.normal(size=shape)
        volume = nibabel.Nifti1Image(values.astype(np.float32), np.eye(4))
        nibabel.save(volume, folder / "volumes" / f"subject_{number:02d}.nii.gz")
    return Chosen({"EXPERIMENT": "gallery", "IMAGES_DIR": folder / "volumes"})


def forty(folder) -> Chosen:
    """Forty grey PNGs in all: 28 to learn from, 6 to validate, 6 to test."""
    for number, image in enumerate(_digits(40, 50, 50)[0]):
        _save(image, folder / "few" / f"image_a{number:02d}.png")  # these names give this split
    lines = {"image_shape=(64, 64, 3)": "image_shape=(50, 50, 1)"}
    return Chosen({"EXPERIMENT": "gallery", "IMAGES_DIR": folder / "few"}, lines)


def maps(folder) -> Chosen:
    """Embedded slices with a latent that is a map."""
    return Chosen({"EXPERIMENT": "brain-map", "ATLAS_EMBEDDED": "1"})


MADE = (mnist, labelled, colours, oasis, chest, volumes, forty, maps)
SETS = {each.__name__: each for each in MADE}
REAL = {  # experiment and path variable of a user's own
    "mnist": ("mnist", "MNIST_PATH"),
    "oasis": ("brain", "OASIS_DIR"),
    "chest": ("chest", "CHEST_DIR"),
    "images": ("gallery", "IMAGES_DIR"),
}


# --- a notebook on a set -------------------------------------------------------------------------


class Trial(NamedTuple):
    """Result of one notebook: seconds, and the failure, or "" in `fault`."""

    seconds: float
    fault: str = ""


def project(chosen, folder) -> Path:
    """A copy of the project in a new folder, with the changed lines in its `config.py`."""
    copy = Path(folder) / "project"
    (copy / "notebooks").mkdir(parents=True)
    for path in (*ROOT.glob("*.py"), *NOTEBOOKS):
        shutil.copy(path, copy / path.relative_to(ROOT))
    rooms = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    for name in (*rooms, "benchmarks", "readme_assets"):
        (copy / name).symlink_to(ROOT / name)
    text = (copy / "config.py").read_text()
    for before, after in chosen.lines.items():
        if before not in text:
            raise ValueError(f"config.py has no {before!r} any more")
        text = text.replace(before, after)
    (copy / "config.py").write_text(text)
    return copy


def tried(notebook, copy, chosen, epochs=1, timeout=3600) -> Trial:
    """Executes a notebook of the project in a fresh kernel, in the copy, on the chosen images.

    Args:
        notebook: One of `NOTEBOOKS`.
        copy: From `project`; gets the executed notebook, `runs` and `cache`.
        chosen: Selection of the images.
        epochs: Most epochs of every training.
        timeout: Seconds that one cell may take.
    """
    path = copy / notebook.relative_to(ROOT)
    environment = {name: text for name, text in os.environ.items() if name not in CHOOSING}
    environment |= {name: str(value) for name, value in chosen.environment.items()}
    environment |= {"RUNS_DIR": str(copy / "runs"), "CACHE_DIR": str(copy / "cache")}
    environment["ATLAS_EPOCHS"] = str(epochs)
    executed = nbformat.read(path, as_version=4)
    for cell in executed.cells:  # removes earlier outputs
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    place = {"metadata": {"path": str(path.parent)}}
    cells = []
    client = NotebookClient(
        executed,
        timeout=timeout,
        kernel_name="python3",
        resources=place,
        on_cell_execute=lambda cell, cell_index: cells.append(cell),
    )
    began, fault = time.monotonic(), ""
    try:
        client.execute(env=environment, stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        fault = f"{_beginning(cells)}\n    {error.ename}: {_last_line(error.evalue)}"
    except (CellTimeoutError, DeadKernelError) as error:
        fault = f"{_beginning(cells)}\n    {type(error).__name__}: {_last_line(str(error))}"
    nbformat.write(executed, path)
    return Trial(time.monotonic() - began, fault)


def _beginning(cells):
    """First line of code of the last cell that was started."""
    lines = cells[-1].source.splitlines() if cells else ["the kernel's start"]
    return next(line for line in lines if line.strip() and not line.startswith("# NBVAL"))


def _last_line(text):
    lines = re.sub("\x1b\\[[0-9;]*m", "", text).strip().splitlines()
    return lines[-1].strip() if lines else ""


# --- command line --------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description="Run every notebook on every kind of images.")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--notebooks", nargs="+", metavar="NAME", help="or how it begins, as in 03")
    parser.add_argument(
        "--real", nargs="+", metavar="KIND=PATH", help=f"images of your own: {', '.join(REAL)}"
    )
    parser.add_argument("--epochs", type=int, default=1, help="of every training at most")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="gets the executed notebooks")
    arguments = parser.parse_args()
    named = arguments.notebooks or [""]
    notebooks = [each for each in NOTEBOOKS if each.name.startswith(tuple(named))]
    if not notebooks:
        parser.error(f"--notebooks: none begins like {' or '.join(named)}")

    makers = {}
    for item in arguments.real or ():
        kind, _, path = item.partition("=")
        if kind not in REAL or not Path(path).exists():
            parser.error(f"--real {item}: write {'=PATH, '.join(REAL)}=PATH, of what is there")
        experiment, variable = REAL[kind]
        chosen = Chosen({"EXPERIMENT": experiment, variable: Path(path).resolve()})
        makers[f"real {kind}"] = lambda _, chosen=chosen: chosen
    for name in arguments.sets or ([] if arguments.real else SETS):
        if name not in SETS:
            parser.error(f"--sets {name}: choose from {', '.join(SETS)}")
        makers[name] = SETS[name]

    fell = 0
    for name, make in makers.items():
        with tempfile.TemporaryDirectory(prefix="latent-atlas-") as folder:
            chosen = make(Path(folder))
            copy = project(chosen, folder)
            for notebook in notebooks:
                trial = tried(notebook, copy, chosen, arguments.epochs)
                fell += bool(trial.fault)
                said = f"FELL at {trial.fault}" if trial.fault else "ended"
                print(f"{name:12} {notebook.stem:26} {trial.seconds:5.0f} s  {said}", flush=True)
                if arguments.keep:
                    kept = arguments.keep / name.replace(" ", "_")
                    kept.mkdir(parents=True, exist_ok=True)
                    shutil.copy(copy / notebook.relative_to(ROOT), kept)
    print(f"{len(makers) * len(notebooks) - fell} ended, {fell} fell")
    sys.exit(1 if fell else 0)


if __name__ == "__main__":
    main()
