"""Lesions of FLAIR slices found without having been shown one: every score beside every baseline.

    python benchmarks/anomalies.py FOLDER [--runs DIR] [--models NAME ...] [--seeds N]
        [--normalize image|subject] [--to FILE.csv]

FOLDER holds `images/PATIENT/SLICE.png`, and `masks/` of the same names where there is a lesion.
Protocol: 64x64; 40 patients train (their lesion-free slices), 10 validate, 30 test, shuffled with
seed 0; the median and the spread of every slice's tissue made equal (with `--normalize subject` the
98th percentile inside each patient's head); maps median-filtered 3x3; pixels within 5 of the head's
edge count as not marked, so that a lesion there is missed. `lead` is over brightness.
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
from analysis import alarms, detection
from analysis import anomaly as scores
from sources import decoding, files
from storage import checkpoints, runs

MARGIN = 5
STRONGEST = "brightness"  # of the baselines, over which each score's lead is told
PATIENTS = (40, 10)  # that train and validate
CALIBRATE, RATE, DRAWS = 19, 0.05, 200  # of the test patients; of false alarms; of patients
SHARED = config.Settings(
    dataset="gallery",
    image_shape=(64, 64, 1),
    labels="csv",
    label_column="lesion",
    subjects="folders",
    split_column="split",
    lesion_free=True,
    flip="sideways",
    shift=2,
    batch_size=8,
    learning_rate=1e-3,
    schedule="cosine",
)
SETTINGS = {
    "Denoiser": replace(
        SHARED,
        model="Denoiser",
        reconstruction="pixel-gaussian",
        sigma=0.05,
        corrupt_level=0.25,
        corrupt_knots=12,
        widths=(24, 48, 96, 128),
        epochs=16,
    ),
    "VAE": replace(
        SHARED,
        model="VAE",
        widths=(32, 64, 64, 64),
        batch_norm=True,  # without it, and without warm-up, the posterior collapses
        latent_dim=32,
        reconstruction="gaussian",
        sigma=0.1,
        kl_warmup_steps=500,
        epochs=40,
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


def opened(kind, normalize, seed, folder, origin):
    """Scores and baselines of a run, images that choose, test images, and the run's folder."""
    run = folder / f"{kind}-{normalize}-{seed}"
    settings = replace(SETTINGS[kind], seed=seed, normalize=normalize)
    model, images = of_run(run, settings, origin)
    known = anomaly.scores_of(model, run)
    known |= scores.Baselines(images.train.images[:]).scores()
    looked = (anomaly.Looked.of(each, MARGIN) for each in (images.validation, images.test))
    return known, *looked, run


def alarmed(of_images, looked):
    """Shares of patients with an alarm of 5 %, of draws into those that calibrate and the others.

    Lesion-free slices calibrate, the highest of each patient.

    Returns:
        Of the others' lesion-free slices, and of their slices with a lesion; means over draws.
    """
    free, ill = (
        detection.of_subjects(of_images[rows], looked.subjects[rows])
        for rows in (~looked.ill, looked.ill)
    )
    generator, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        names = generator.permutation(free.index)
        alarm = alarms.Alarm.of(free[names[:CALIBRATE]], RATE)
        others = names[CALIBRATE:]
        found.append([alarm(each.reindex(others).dropna()).mean() for each in (free, ill)])
    return np.mean(found, axis=0)


def measured(key, known, choosing, looked, run, folder):
    """A row of the table."""
    name = key["score"]
    maps = anomaly.Maps(folder / "maps", f"{checkpoints.digest_of(run)} {MARGIN}")
    row = anomaly.measures({name: known[name]}, maps, looked, choosing).iloc[0].to_dict()
    on_validation = anomaly.measures({name: known[name]}, maps, choosing, None).iloc[0]
    row["validation_ap"] = on_validation["pixel_ap"]
    found = scores.of_images(maps(name, known[name], looked))
    row["false_alarms"], row["alarms"] = alarmed(found, looked)
    if name != STRONGEST:
        both = (maps(each, known[each], looked) for each in (name, STRONGEST))
        lead = detection.difference(*both, looked.split.masks, looked.subjects)
        row |= {"lead": lead.value, "lead_low": lead.low, "lead_high": lead.high}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("anomalies"), metavar="DIR")
    parser.add_argument("--models", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--normalize", choices=("image", "subject"), default="image")
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
        "Denoiser": ("signed-surprise", "signed", "absolute", "ssim"),
        "VAE": ("signed", "absolute", "ssim", "gradient", "restoration"),
    }
    shared = {"normalize": arguments.normalize}
    todo = [
        {"model": kind, **shared, "seed": seed, "score": score}
        for kind in arguments.models
        for seed in range(arguments.seeds)
        for score in of_model[kind]
    ]
    baselines = ("brightness", "local contrast", "mean image", f"PCA-{scores.COMPONENTS}")
    todo += [
        {"model": arguments.models[0], **shared, "seed": 0, "score": name} for name in baselines
    ]
    runs_of = cache(lambda *key: opened(*key, arguments.runs, origin))

    def measure(key):
        run = (key[name] for name in ("model", "normalize", "seed"))
        return measured(key, *runs_of(*run), arguments.runs)

    found = resumable(arguments.to, todo, measure)
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
