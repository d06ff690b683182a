"""Which scores of images mark outliers.

    python benchmarks/outliers.py kinds RUN [RUN ...]
    MNIST_PATH=... python benchmarks/outliers.py digits FOLDER [--seeds 3]

`kinds`: area under ROC of telling 100 test images of a run from pictures of other kinds, by three
columns of `apply.py`.

`digits`: one digit is held out of training and validation, and to be found among the 10,000 test
digits; area under precision and recall. A VAE of four epochs, and a mixture of 50 Gaussians on
draws of its training posteriors; no label is used but to leave the digit out. It can be interrupted
and resumed.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import which_model
from rows import continued, resumable
from sklearn.metrics import average_precision_score, roc_auc_score

import apply
import data
import train
from analysis import anomaly
from families import densities, priors
from nn.batches import as_float, in_batches

HELD_OUT = (1, 4, 5, 7, 9)
COMPONENTS, IMAGES = 50, 100
SETTINGS = which_model.SETTINGS["mnist"]


# --- pictures of other kinds ---------------------------------------------------------------------


def other_kinds(images, random):
    """Dictionary of names to pictures unlike some images, uint8 `(n, height, width, channels)`."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return {
        "flat": np.broadcast_to(means, images.shape).astype(np.uint8),
        "noise": random.integers(0, 256, images.shape).astype(np.uint8),
        "inverted": 255 - images,
        "moved": np.roll(images, images.shape[1] // 4, axis=1),
    }


def kinds(run) -> pd.DataFrame:
    """A row for each score: area under ROC for each kind of picture."""
    model = train.load(run)
    own = np.asarray(data.images_of(run).test.images[:IMAGES])
    table = pd.DataFrame({"file": range(len(own)), "slice": 0})

    def scored(images):
        latents, _ = apply.encode(model, images, table)
        return latents[["unexplained", "ssim", "error"]].assign(ssim=-latents["ssim"])

    usual, truth = scored(own), np.repeat([0, 1], len(own))
    auc = {}
    for name, pictures in other_kinds(own, np.random.default_rng(0)).items():
        both = pd.concat([usual, scored(pictures)])
        auc[name] = {score: roc_auc_score(truth, both[score]) for score in both}
    return pd.DataFrame(auc)


# --- a digit that was held out -------------------------------------------------------------------


def without(images, digit):
    """MNIST without a digit in training and validation."""
    kept = {
        name: split.only(np.flatnonzero(split.table["digit"].astype(str) != str(digit)))
        for name, split in images.splits.items()
        if name != "test"
    }
    return replace(images, **kept)


def found(images, digit, seed, folder) -> dict:
    """Average precision of finding a digit by every score, with the model trained without it."""
    known = without(images, digit)
    model = continued(replace(SETTINGS, seed=seed), known, folder / f"without-{digit}-{seed}")
    test = known.test
    truth = test.table["digit"].astype(str).to_numpy() == str(digit)
    pixels = np.asarray(test.images[:])
    latents, _ = apply.encode(model, pixels, test.table.assign(file="", slice=0))
    z, bound = apply.coordinates(latents), anomaly.bound_of(model)
    draws, _ = priors.draws(model, known.train, seed)
    mixture = densities.Mixture.fitted(draws, seed, COMPONENTS)
    baselines = anomaly.Baselines(known.train.images, seed).scores("squared")
    floats = np.asarray(as_float(pixels))
    scores = {name: score(floats).mean(axis=(1, 2)) for name, score in baselines.items()}
    scores |= {
        "negative bound": in_batches(lambda batch: bound(as_float(batch)), pixels, batch_size=500),
        "unexplained": latents["unexplained"],
        "Mahalanobis": anomaly.latent_distance(z, draws),
        "unlikeliness": anomaly.unlikeliness(z, mixture),
        "unfamiliarity": anomaly.unfamiliarity(z, mixture),
    }
    return {name: average_precision_score(truth, each) for name, each in scores.items()}


def parsed(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="way", required=True)
    ways.add_parser("kinds").add_argument("runs", type=Path, nargs="+", metavar="RUN")
    digits = ways.add_parser("digits")
    digits.add_argument("folder", type=Path)
    digits.add_argument("--seeds", type=int, default=3)
    digits.add_argument("--digits", type=int, nargs="+", default=HELD_OUT)
    return parser.parse_args(words)


def main():
    arguments = parsed()
    if arguments.way == "kinds":
        for run in arguments.runs:
            print(f"{run}\n{kinds(run).round(3).to_string()}")
        return
    images = data.load(SETTINGS)
    todo = [
        {"digit": digit, "seed": seed}
        for seed in range(arguments.seeds)
        for digit in arguments.digits
    ]
    table = resumable(
        arguments.folder / "held_out_digits.csv",
        todo,
        lambda key: found(images, **key, folder=arguments.folder),
    )
    print(table.groupby("digit").mean().drop(columns="seed").T.round(3).to_string())


if __name__ == "__main__":
    main()
