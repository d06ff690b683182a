"""Lesions of FLAIR slices found without having been shown one: every score beside every baseline.

    python benchmarks/anomalies.py FOLDER [--runs DIR] [--models NAME ...] [--seeds N]
        [--to FILE.csv]

FOLDER holds `images/PATIENT/SLICE.png`, and `masks/` of the same names where there is a lesion.
Protocol: 64x64; 40 patients train (their lesion-free slices), 10 validate, 30 test, shuffled with
seed 0; grey levels divided by each patient's 98th percentile inside the head; maps median-filtered
3x3; pixels within 5 of the head's edge count as not marked, so that a lesion there is missed.
Settings and the threshold of a Dice coefficient are chosen on the validation patients alone.
Intervals are a bootstrap over test patients. Can be interrupted and resumed.
"""

import argparse
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import continued, resumable

import anomaly
import config
import data
from analysis import anomaly as scores
from sources import decoding, files
from storage import checkpoints, runs

MARGIN = 5
PATIENTS = (40, 10)  # that train and validate
SHARED = config.Settings(
    dataset="gallery",
    image_shape=(64, 64, 1),
    labels="csv",
    label_column="lesion",
    subjects="folders",
    split_column="split",
    normalize="subject",
    lesion_free=True,
    reconstruction="gaussian",
    flip="sideways",
    shift=2,
    batch_size=16,
    schedule="cosine",
)
SETTINGS = {
    "Denoiser": replace(
        SHARED,
        model="Denoiser",
        corrupt_level=0.24,
        widths=(24, 48, 96, 128),
        epochs=24,
        learning_rate=1e-3,
    ),
    "VAE": replace(
        SHARED,
        model="VAE",
        widths=(32, 64, 64, 64),
        batch_norm=True,  # without it, and without warm-up, the posterior collapses
        latent_dim=32,
        sigma=0.1,
        kl_warmup_steps=500,
        epochs=40,
        learning_rate=1e-3,
    ),
}


def patients(folder, path):
    """Writes the table of files, patients and splits."""
    names = files.listed(folder / "images", decoding.PICTURES)
    subjects = [name.split("/")[0] for name in names]
    order = np.random.default_rng(0).permutation(sorted(set(subjects)))
    train, validation = np.cumsum(PATIENTS)
    places = dict.fromkeys(order, "test") | dict.fromkeys(order[:validation], "validation")
    places |= dict.fromkeys(order[:train], "train")
    table = pd.DataFrame({"file": names, "subject": subjects})
    table["split"] = table["subject"].map(places)
    there = [(folder / "masks" / name).is_file() for name in names]
    table["lesion"] = np.where(there, "yes", "no")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def of_run(run, settings, origin):
    """The model of a run, trained here if there is none, and its images."""
    images = data.load(settings, origin)
    return continued(settings, images, run), images


def opened(kind, seed, folder, origin):
    """Scores and baselines of a run, images that choose, test images, and the run's folder."""
    run = folder / f"{kind}-{seed}"
    model, images = of_run(run, replace(SETTINGS[kind], seed=seed), origin)
    known = anomaly.scores_of(model, run)
    known |= scores.Baselines(images.train.images[:]).scores()
    looked = (anomaly.Looked.of(each, MARGIN) for each in (images.validation, images.test))
    return known, *looked, run


def measured(key, known, choosing, looked, run, folder):
    """A row of the table."""
    own = {key["score"]: known[key["score"]]}
    maps = anomaly.Maps(
        folder / "maps", f"{checkpoints.sha256(run / checkpoints.WEIGHTS)} {MARGIN}"
    )
    row = anomaly.measures(own, maps, looked, choosing).iloc[0].to_dict()
    on_validation = anomaly.measures(own, maps, choosing, None).iloc[0]
    return row | {"validation_ap": on_validation["pixel_ap"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("anomalies"), metavar="DIR")
    parser.add_argument("--models", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=Path("anomalies.csv"))
    arguments = parser.parse_args()
    table = arguments.runs / "patients.csv"
    patients(arguments.folder, table)
    origin = runs.Origin(
        {
            "IMAGES_DIR": arguments.folder / "images",
            "MASKS_DIR": arguments.folder / "masks",
            "LABELS_CSV": table,
        }
    )
    of_model = {
        "Denoiser": ("signed", "absolute", "ssim"),
        "VAE": ("signed", "absolute", "ssim", "gradient", "restoration"),
    }
    todo = [
        {"model": kind, "seed": seed, "score": score}
        for kind in arguments.models
        for seed in range(arguments.seeds)
        for score in of_model[kind]
    ]
    baselines = ("brightness", "local contrast", "mean image", f"PCA-{scores.COMPONENTS}")
    todo += [{"model": arguments.models[0], "seed": 0, "score": name} for name in baselines]
    runs_of = cache(lambda kind, seed: opened(kind, seed, arguments.runs, origin))
    found = resumable(
        arguments.to,
        todo,
        lambda key: measured(key, *runs_of(key["model"], key["seed"]), arguments.runs),
    )
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
