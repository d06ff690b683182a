"""What each term of the loss buys a latent map, and what each nat buys: OASIS at 64x64.

    OASIS_DIR=... python benchmarks/map_terms.py FOLDER [--cases NAME ...] [--epochs 2] [--to CSV]

Every case is the `brain-map` experiment at 64x64 with the changes below, and learns from as many
steps; the table has its minutes of processor time. A critic begins in the middle. On the test
slices: reconstructions from the posteriors' means, beside a linear VAE that spends as many nats
(`analysis.linear`). Can be interrupted and resumed.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import maps
import numpy as np
from rows import resumable, trained

import config
import data
from storage import disk

CASES = {
    "map of 8 x 8 x 8": {},
    "without DSSIM": {"dssim_weight": 0.0},
    "with a critic": {
        "model": "VAE-GAN",
        "upsampling": "nearest",
        "critic_weight": 0.75,
    },
    "with a classifier's maps": {
        "perceptual": "classifier",
        "perceptual_label": "slice",
        "perceptual_weight": 4000.0,
    },
    "no KL": {"model": "Autoencoder", "beta": 1.0},
    "Adam": {"optimizer": "adam", "learning_rate": 2e-3},
    "no group norm": {"group_norm": False},
    "no residual blocks": {"residual": False},
    "beta 0.05": {"beta": 0.05},
    "beta 0.5": {"beta": 0.5},
    "8 x 8 x 2": {"latent_map": (8, 8, 2)},
    "8 x 8 x 32": {"latent_map": (8, 8, 32)},
    "16 x 16 x 2": {"latent_map": (16, 16, 2)},
    "16 x 16 x 8": {"latent_map": (16, 16, 8)},
    "16 x 16 x 8, beta 0.05": {"latent_map": (16, 16, 8), "beta": 0.05},
    "16 x 16 x 8, beta 0.5": {"latent_map": (16, 16, 8), "beta": 0.5},
}


def settings_of(case, epochs, images=0):
    base = dataclasses.replace(
        config.settings("brain-map"), image_shape=(64, 64, 1), latent_map=(8, 8, 8)
    )
    changes = dict(CASES[case])
    if "critic_weight" in changes:
        half = epochs * (images // base.batch_size) // 2
        changes |= {"critic_start": half, "critic_warmup_steps": half // 4}
    return dataclasses.replace(base, epochs=epochs, **changes)


def measured(case, images, arguments):
    settings = settings_of(case, arguments.epochs, len(images.train))
    run = arguments.folder / disk.file_name(case)
    model, seconds = trained(settings, images, run)
    told = {"steps": int(model.steps), "minutes": seconds / 60}
    told |= maps.measured({"run": run, "side": "model"})
    if np.isinf(told["nats"]):  # no PCA spends as many
        return told
    pca = maps.measured({"run": run, "side": "PCA of as many nats"})
    return told | {f"pca_{name}": value for name, value in pca.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--to", type=Path, help="default: map_terms.csv in FOLDER")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    images = data.load(settings_of(next(iter(CASES)), 1))
    table = resumable(
        arguments.to or arguments.folder / "map_terms.csv",
        [{"case": case} for case in arguments.cases],
        lambda key: measured(key["case"], images, arguments),
    )
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
