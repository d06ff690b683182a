"""Held-out paintings from their latent maps, and samples of a flow, for docs/results.md.

    IMAGES_DIR=... python readme_assets/draw_painting_maps.py RUN [--prior flow]

Writes `paintings_map.png` and, with a prior, `paintings_map_samples.png`, the first samples, beside
this script. Only outputs of the model are shown, no painting of the folder.
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
from nn.batches import in_batches

HERE = Path(__file__).parent
SHOWN = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prior")
    arguments = parser.parse_args()
    model, run = train.load(arguments.run), arguments.run
    held_out = data.images_of(run).test.images[:SHOWN] / np.float32(255)
    made = in_batches(model.reconstruct, held_out)
    plots.save_sheet(made, HERE / "paintings_map.png", columns=SHOWN)
    if arguments.prior:
        drawn = model.sample(2 * SHOWN, 0, priors.of_run(run, arguments.prior)).numpy()
        plots.save_sheet(drawn, HERE / "paintings_map_samples.png", columns=SHOWN)


if __name__ == "__main__":
    main()
