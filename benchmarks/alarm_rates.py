"""Whether alarms hold their rate on new subjects, and which images are refused.

    python benchmarks/alarm_rates.py RUN [--draws 20] [--score absolute]

Some healthy subjects calibrate an alarm of 5 %, others and those with a lesion are tested. The same
draws are then compared as they are, and with their test images inverted, in another contrast,
enlarged, and of another organ.

RUN is trained on `brain-lesions`: every draw has phantoms of its own, drawn with another seed than
the run's. Or it is trained on `chest` with `findings = ("No Finding",)`: every draw divides those
patients that it was not trained on anew, so that draws are not independent, and "lesions" are all
findings of patients that it has not seen:

    CHEST_DIR=... python train.py chest --model Denoiser --set "findings=('No Finding',)" \
        --set stratify= --out RUN
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

import anomaly
import data
import train
from analysis import alarms, detection
from analysis import anomaly as scores
from sources import phantoms
from storage import runs

CALIBRATE, TEST, SLICES, SEED = 30, 40, 3, 12345
SHIFTED = 20  # draws whose images are compared with shifted ones, which takes longest


def looked(score, kind, pixels, subjects):
    """Scores of subjects, and what their images are like."""
    maps = scores.smoothed(score(pixels), scores.regions(pixels))
    found = detection.of_subjects(scores.of_images(maps), subjects)
    return found, kind(pixels, maps, subjects)


def magnified(pixels):
    """The middle half of every image at twice its size."""
    height, width = pixels.shape[1:3]
    middle = pixels[:, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return middle.repeat(2, axis=1).repeat(2, axis=2)


SHIFTS = {
    "inverted": lambda pixels: 1.0 - pixels,
    "contrast (grey levels squared)": lambda pixels: pixels**2,
    "enlarged twice": magnified,
}


class Sets(NamedTuple):
    """Subjects that a run was not trained on.

    Attributes:
        pixels: Floats in [0, 1], `(n, height, width, channels)`.
        subjects: Of each image.
        ill: Whether each subject has a lesion, in the order in which they come.
        draws: For each draw the numbers of the healthy subjects that calibrate and of those that
            are tested.
        other: Images of another organ, one per subject.
    """

    pixels: np.ndarray
    subjects: np.ndarray
    ill: np.ndarray
    draws: list
    other: np.ndarray


def phantom_brains(size, draws):
    """Brain templates with and without lesions."""
    each = CALIBRATE + TEST
    count = round(draws * each / 0.8)
    made, masks, table = phantoms.brains_with_lesions(size, count, SLICES, SEED, share=0.15)
    subjects = table["subject"].to_numpy()
    ill = of_each(masks.any(axis=(1, 2, 3)), subjects)
    healthy = np.flatnonzero(~ill)
    groups = [
        np.split(healthy[each * draw : each * (draw + 1)], [CALIBRATE]) for draw in range(draws)
    ]
    chests, _ = phantoms.chests(size, 20, 1, seed=SEED)
    return Sets(made / np.float32(255), subjects, ill, groups, chests / np.float32(255))


def chest_patients(run, images, draws):
    """Patients of NIH ChestX-ray14 that a run was not trained on."""
    settings = replace(runs.load_settings(run), findings=())
    everything = data.load(settings, runs.origin_of(run))
    splits = everything.splits.values()
    table = pd.concat([each.table for each in splits], ignore_index=True)
    pixels = np.concatenate([each.images[:] for each in splits]) / np.float32(255)
    new = ~table["subject"].isin(images.train.table["subject"]).to_numpy()
    table, pixels = table[new], pixels[new]
    subjects = table["subject"].to_numpy()
    free = table["No Finding"].fillna(False).to_numpy(bool)
    ill = ~of_each(free, subjects, "all")
    # Of a patient with and without findings only the images with one count.
    kept = ~(free & ill[pd.factorize(subjects)[0]])
    pixels, subjects = pixels[kept], subjects[kept]
    healthy = np.flatnonzero(~ill)
    generator = np.random.default_rng(SEED)
    groups = [np.array_split(generator.permutation(healthy), 2) for _ in range(draws)]
    brains, _ = phantoms.brains(pixels.shape[1], 20, 1, seed=SEED)
    return Sets(pixels, subjects, ill, groups, brains / np.float32(255))


def of_each(values, subjects, how="any"):
    """Whether any, or all, of each subject's images have a property."""
    return getattr(pd.Series(values).groupby(subjects, sort=False), how)().to_numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--score", default="absolute")
    arguments = parser.parse_args()
    model, images = train.load(arguments.run), data.images_of(arguments.run)
    score = anomaly.scores_of(model, arguments.run)[arguments.score]
    kind = alarms.Kind(images.train.images[:].mean(axis=0) / 255.0)
    if images.embedded:
        sets = phantom_brains(images.image_shape[0], arguments.draws)
    else:
        sets = chest_patients(arguments.run, images, arguments.draws)
    found, numbers = looked(score, kind, sets.pixels, sets.subjects)
    sick = found[sets.ill].to_numpy()
    organ = looked(score, kind, sets.other, np.arange(len(sets.other)))[1]

    rows, code = [], pd.factorize(sets.subjects)[0]
    for draw, (known, new) in enumerate(sets.draws):
        alarm = alarms.Alarm.of(found.iloc[known], 0.05)
        low, high = alarm.interval(len(new))
        wrong = int(alarm(found.iloc[new]).sum())
        usual = numbers.iloc[known]
        row = {
            "tested": len(new),
            "false": wrong,
            "inside": low <= wrong <= high,
            "power": alarm(sick).mean(),
        }
        if draw < SHIFTED:
            row["accepted"] = not alarms.unlike(usual, numbers.iloc[new])
            row["refused, another organ"] = bool(alarms.unlike(usual, organ))
            some = np.isin(code, new[:10])
            for name, change in SHIFTS.items():
                moved = looked(score, kind, change(sets.pixels[some]), sets.subjects[some])[1]
                row[f"refused, {name}"] = bool(alarms.unlike(usual, moved))
        rows.append(row)
    told = pd.DataFrame(rows)
    print(
        f"calibrated on {len(known)}: {told['false'].sum()} false alarms of {told['tested'].sum()} "
        f"tested, {told['false'].sum() / told['tested'].sum():.3f}"
    )
    print(f"draws inside their beta-binomial interval: {told['inside'].sum()} of {len(told)}")
    print(f"power: {told['power'].mean():.3f} of {len(sick)} subjects with a lesion")
    for name in told.columns[told.columns.get_loc("accepted") :]:
        asked = told[name].dropna()
        print(f"{name}: {asked.sum()} of {len(asked)}")


if __name__ == "__main__":
    main()
