"""The two trained runs that notebook 06 loads if no folder of images is given.

    ATLAS_EMBEDDED=1 python readme_assets/draw_gallery.py FOLDER

Half an hour on two cores. It can be interrupted and resumed. Both runs have about the same time: a
step of a model with a critic costs three to four of a VAE's.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pandas as pd

import config
import data
import train
from families import registry
from storage import checkpoints

HERE = Path(__file__).parent
LONGER = {"ASIntroVAE": 1, "VAE": 3}  # times the epochs of the experiment
KEPT = (checkpoints.WEIGHTS, checkpoints.DIGEST, "settings.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    chosen = config.settings("introspective")
    images = data.load(chosen)
    for kind, longer in LONGER.items():
        settings = replace(chosen, model=kind, epochs=longer * chosen.epochs)
        run = folder / kind
        model = registry.from_settings(settings)
        train.fit(model, images, settings, run, verbose=0, resume=run.exists())
        shipped = HERE / f"photos_{kind.lower()}"
        shipped.mkdir(exist_ok=True)
        for name in KEPT:
            shutil.copy(run / name, shipped / name)
        history = pd.read_csv(run / "history.csv")
        history.to_csv(shipped / "history.csv", index=False, float_format="%.4g")
        print(f"{shipped}: {model.count_params():,} weights", flush=True)


if __name__ == "__main__":
    main()
