"""Maps of lesions in the embedded brain template, for the README.

    python readme_assets/draw_anomalies.py

Writes `anomaly_maps.png` beside this script: the first slice with a lesion of over 60 pixels of
the first seven test subjects that have one, and the middle slice of the first two healthy ones.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import anomaly
import data
import train
from analysis import anomaly as scores
from analysis import plots

HERE = Path(__file__).parent
ILL, FREE, MIDDLE = 7, 2, 4
LIMIT = 0.3  # grey levels at the end of the scale


def main():
    run = HERE / "brain_denoiser"
    model, test = train.load(run), data.images_of(run).test
    pixels = test.images[:] / np.float32(255)
    subjects, size = test.table["subject"].to_numpy(), test.table["lesion_pixels"].to_numpy()

    def first(rows, count):
        return rows[np.sort(np.unique(subjects[rows], return_index=True)[1])[:count]]

    healthy = ~np.isin(subjects, subjects[size > 0])
    middle = test.table["slice"].to_numpy() == MIDDLE
    rows = np.r_[
        first(np.flatnonzero(size > 60), ILL), first(np.flatnonzero(healthy & middle), FREE)
    ]
    shown = pixels[rows]
    maps = anomaly.scores_of(model, run)["absolute"](shown)
    maps = scores.smoothed(maps, scores.regions(shown))
    made = scores.denoised(model.reconstruct, shown, anomaly.noise_of(model))
    figure = plots.anomalies(shown, made, maps, LIMIT, test.masks[rows], label="difference")
    plots.save(figure, HERE / "anomaly_maps.png")


if __name__ == "__main__":
    main()
