"""Samples of a flow on the latent maps of a run of brain slices, none chosen, for the results.

    OASIS_DIR=... python readme_assets/draw_map.py RUN [--prior flow] [--evaluations 32]

Writes `brain_map_samples.png` beside this script; into `RUN/figures` the same above as many real
test slices of other subjects, which are not for publication.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import data
import train
from analysis import plots
from families import priors

HERE = Path(__file__).parent
COUNT = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prior", default="flow")
    parser.add_argument("--evaluations", type=int, default=32)
    arguments = parser.parse_args()
    prior = priors.of_run(arguments.run, arguments.prior, evaluations=arguments.evaluations)
    made = train.load(arguments.run).sample(2 * COUNT, 0, prior).numpy()
    plots.save_sheet(made, HERE / "brain_map_samples.png", columns=COUNT)
    test = data.images_of(arguments.run).test
    first = np.unique(test.table["subject"], return_index=True)[1][:COUNT]
    rows = {"samples": made[:COUNT], "test slices": test.images[:][first]}
    plots.save(plots.image_rows(rows), arguments.run / "figures" / "samples_and_slices.png")


if __name__ == "__main__":
    main()
