"""Whether alarms hold their rate on new phantom subjects, and which images are refused.

    python benchmarks/alarm_rates.py RUN [--draws 20] [--score absolute]

RUN is trained on `brain-lesions`. Every draw has subjects of its own, drawn with another seed than
the run's: some healthy ones calibrate an alarm of 5 %, others and those with a lesion are tested.
The same draws are then compared as they are, and with their test images inverted, in another
contrast, enlarged, and of another organ.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

import anomaly
import data
import train
from analysis import alarms, detection
from analysis import anomaly as scores
from sources import phantoms

CALIBRATE, TEST, SLICES, SEED = 30, 40, 3, 12345


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--score", default="absolute")
    arguments = parser.parse_args()
    model, images = train.load(arguments.run), data.images_of(arguments.run)
    score = anomaly.scores_of(model, arguments.run)[arguments.score]
    kind = alarms.Kind(images.train.images[:].mean(axis=0) / 255.0)
    size, each = images.image_shape[0], CALIBRATE + TEST
    count = round(arguments.draws * each / 0.8)
    made, masks, table = phantoms.brains_with_lesions(size, count, SLICES, SEED, share=0.15)
    pixels, subjects = made / np.float32(255), table["subject"].to_numpy()
    found, numbers = looked(score, kind, pixels, subjects)
    ill = pd.Series(masks.any(axis=(1, 2, 3))).groupby(subjects, sort=False).any().to_numpy()
    healthy = np.flatnonzero(~ill)
    sick = found[ill].to_numpy()
    chests, chest_table = phantoms.chests(size, 20, 1, seed=SEED)
    organ = looked(score, kind, chests / np.float32(255), chest_table["subject"].to_numpy())[1]

    rows, code = [], pd.factorize(subjects)[0]
    for draw in range(arguments.draws):
        own = healthy[draw * each : (draw + 1) * each]
        known, new = own[:CALIBRATE], own[CALIBRATE:]
        alarm = alarms.Alarm.of(found.iloc[known], 0.05)
        low, high = alarm.interval(TEST)
        wrong = int(alarm(found.iloc[new]).sum())
        usual = numbers.iloc[known]
        row = {
            "false": wrong,
            "inside": low <= wrong <= high,
            "power": alarm(sick).mean(),
            "accepted": not alarms.unlike(usual, numbers.iloc[new]),
            "another organ": bool(alarms.unlike(usual, organ)),
        }
        some = np.isin(code, new[:10])
        for name, change in SHIFTS.items():
            moved = looked(score, kind, change(pixels[some]), subjects[some])[1]
            row[name] = bool(alarms.unlike(usual, moved))
        rows.append(row)
        print(f"draw {draw + 1}: {wrong} of {TEST} healthy subjects alarmed", flush=True)
    told = pd.DataFrame(rows)
    print(f"false alarms: {told['false'].sum()} of {arguments.draws * TEST} healthy subjects")
    print(f"draws inside their beta-binomial interval: {told['inside'].sum()} of {len(told)}")
    print(f"power: {told['power'].mean():.3f} of {len(sick)} subjects with a lesion")
    print(f"unshifted draws accepted: {told['accepted'].sum()} of {len(told)}")
    for name in ("another organ", *SHIFTS):
        print(f"refused, {name}: {told[name].sum()} of {len(told)}")


if __name__ == "__main__":
    main()
