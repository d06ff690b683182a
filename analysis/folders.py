"""Images written into a folder under their files' names, with a table."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import plots
from sources import decoding
from storage import disk


def picture_names(table) -> list[str]:
    """A name in `.png` for each row of a table, from its `file` and `slice`; no two are alike.

    `a.png` stays `a.png`; what it would collide with, such as `a.jpg`, becomes `a.jpg.png`.
    """
    many = table.groupby("file")["slice"].transform("size") > 1
    wanted = [
        _short(f"{name}.slice{number}" if several else name)
        for name, number, several in zip(table["file"], table["slice"], many, strict=True)
    ]
    taken = {name for name in wanted if name.endswith(".png")}
    made = []
    for name in wanted:
        new = name
        if not name.endswith(".png"):
            ending = decoding.suffix(name)
            new = (
                name.removesuffix(name[-len(ending) :]) if ending in decoding.PICTURES else name
            ) + ".png"
            if new in taken:
                new = f"{name}.png"
            while new in taken:
                new += ".png"
            taken.add(new)
        made.append(new)
    return made


def _short(name):
    """A path whose last part leaves room for an ending: most disks allow 255 bytes."""
    folder, slash, last = name.rpartition("/")
    return name if len(last.encode()) <= 240 else f"{folder}{slash}{disk.file_name(last)}"


def save_images(images, table, folder):
    """Writes every image under its file's own name, as PNG; a volume's with their slice."""
    folder = Path(folder)
    for image, name in zip(images, picture_names(table), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save_image(image, path)


def save_table(table, path):
    """Writes a table as CSV or Parquet, as the path's ending says."""
    with disk.replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
            return
        try:
            table.to_parquet(temporary, index=False)
        except ImportError:
            raise ValueError("Parquet needs pyarrow: pip install pyarrow, or take csv") from None


def generate(model, n, folder, classes=(), seed=0, prior=None, **options):
    """Makes a labelled data set: images in a folder for each class, and `labels.csv`.

    Args:
        model: A trained model. One that knows labels gives each image its own; the images of
            another lie in the folder itself.
        n: Number of images.
        folder: New or empty.
        classes: Names of the classes; default: their numbers.
        seed: The same images for the same seed.
        prior: That latents are drawn from, of `families.priors`; None: N(0, I).
        **options: Of the model's `generate`: `label`, or `confidence`.

    Returns:
        The table that was written: `file`, relative to the folder, and `label`.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    if model.uses_labels:
        images, labels = model.generate(n, seed, prior=prior, **options)
        labels = np.asarray(labels)
        known = [str(each) for each in (classes or range(int(labels.max()) + 1))]
        names, folders = [known[label] for label in labels], disk.file_names(known)
        places = [f"{folders[label]}/{i:05d}" for i, label in enumerate(labels)]
        table = pd.DataFrame({"file": places})
        table["label"] = names
    else:
        images = model.sample(n, seed, prior)
        table = pd.DataFrame({"file": [f"{i:05d}" for i in range(n)]})
    save_images(images.numpy(), table.assign(slice=0), folder)
    table["file"] += ".png"
    save_table(table, folder / "labels.csv")
    return table
