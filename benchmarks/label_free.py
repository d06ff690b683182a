"""Do distances in features without labels rank models as those of a trained classifier do?

    python benchmarks/label_free.py FOLDER

FOLDER holds runs on images with labels, such as those that `which_model.py --data mnist` leaves.
Three sets of images of each model are compared with the test images: samples from N(0, I), samples
of the prior that the run got in training, and its reconstructions. Features: those of the
classifier; of untrained networks of three seeds (`analysis.features.Untrained`); and, to see what
the convolutions bring, whitened principal components of the pixels. Told are Spearman's rank
correlations of the distances with the classifier's, over all sets and over each kind of set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import resumable

import data
import train
from analysis import features, judges, samples
from families import priors
from nn.batches import in_batches

SEEDS = (0, 1, 2)


def spaces(images, judge):
    """Functions from images to features, by name."""
    reference = images.train.images
    found = {"classifier": judge.features}
    for seed in SEEDS:
        found[f"untrained {seed}"] = features.Untrained(reference, seed=seed)
    some = reference[: features.REFERENCES]
    found["pixels"] = features.of_pixels(some, features.UNITS, whiten=True)
    return found


def compare(folder):
    """A row for each set of images of each run, with all distances."""
    folders = sorted(path.parent for path in folder.glob("*/settings.json"))
    images = data.images_of(folders[0])
    known = spaces(images, judges.judge(images, cache=folder))
    real = images.test.images / np.float32(255)
    theirs = {name: space(real) for name, space in known.items()}

    def measure(key):
        run = folder / key["run"]
        model = train.load(run)
        if key["images"] == "reconstructions":
            made = in_batches(model.reconstruct, images.test.images)
        else:
            own = priors.of_run(run) if key["images"] == "own prior" else None
            made = samples.drawn(model, len(real), own)
        row = {}
        for name, space in known.items():
            values = samples.in_features(theirs[name], space(made))
            row |= {f"{each}, {name}": value for each, (value, _) in values.items()}
        return row

    todo = [
        {"run": each.name, "images": kind}
        for each in folders
        for kind in ("N(0, I)", "own prior", "reconstructions")
    ]
    return resumable(folder / "label_free.csv", todo, measure)


def correlations(table):
    """Spearman's rank correlation of every distance with the classifier's."""
    groups = {"all": table} | dict(tuple(table.groupby("images", sort=False)))
    rows = []
    for kind, part in groups.items():
        for space in [f"untrained {seed}" for seed in SEEDS] + ["pixels"]:
            row = {"images": kind, "features": space, "n": len(part)}
            for name in samples.IN_FEATURES:
                row[name] = part[f"{name}, {space}"].corr(
                    part[f"{name}, classifier"], method="spearman"
                )
            rows.append(row)
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    table = compare(folder)
    print(correlations(table).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
