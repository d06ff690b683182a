"""Held-out paintings from their latent maps, for docs/results.md.

    IMAGES_DIR=... python readme_assets/draw_painting_maps.py RUN

Only outputs of the model are shown, no painting of the folder.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import data
import train
from analysis import plots
from nn.batches import in_batches

HERE = Path(__file__).parent
SHOWN = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    held_out = data.images_of(run).test.images[:SHOWN] / np.float32(255)
    made = in_batches(train.load(run).reconstruct, held_out)
    plots.save_sheet(made, HERE / "paintings_map.png", columns=SHOWN)


if __name__ == "__main__":
    main()
