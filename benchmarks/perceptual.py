"""Effect of structural similarity and a perceptual distance on reconstructions.

    python benchmarks/perceptual.py FOLDER

One VAE on two embedded sets, three seeds on digits and two on brains: squared error alone, with a
narrower Gaussian (as many nats in the latent as with the other losses, by pixel errors alone), with
DSSIM, with the distance in the feature maps of a classifier trained on the training images. An hour
on two cores; can be interrupted and resumed. Weights were chosen on validation images so that the
latents hold about equally much information, which the column `rate` shows.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rows import resumable

import config
import data
import evaluate
import train
from analysis import judges, plots
from families import registry
from nn import losses, metrics
from nn.batches import in_batches
from storage import checkpoints

SEEDS = {"digits": (0, 1, 2), "brain": (0, 1)}
SETS = {
    "digits": config.Settings(
        dataset="digits",
        image_shape=(32, 32, 1),
        widths=(16, 32, 64),
        dense_widths=(64,),
        latent_dim=16,
        reconstruction="gaussian",
        sigma=0.2,
        epochs=60,
        batch_size=64,
        learning_rate=2e-3,
        schedule="cosine",
    ),
    "brain": config.Settings(
        dataset="brain",
        image_shape=(64, 64, 1),
        flip="upright",
        widths=(16, 32, 64, 64),
        dense_widths=(128,),
        latent_dim=32,
        reconstruction="gaussian",
        sigma=0.1,
        perceptual_label="slice",
        epochs=12,
        batch_size=32,
        learning_rate=2e-3,
        schedule="cosine",
    ),
}
TERMS = {
    "digits": {
        "pixels": {},
        "pixels, narrower": {"sigma": 0.14},
        "with DSSIM": {"dssim_weight": 200.0},
        "with classifier's maps": {"perceptual": "classifier", "perceptual_weight": 100.0},
    },
    "brain": {
        "pixels": {},
        "pixels, narrower": {"sigma": 0.07},
        "with DSSIM": {"dssim_weight": 2000.0},
        "with classifier's maps": {"perceptual": "classifier", "perceptual_weight": 1000.0},
    },
}
SHOWN = ("ssim", "psnr", "rate")


def measured(model, images, split, own):
    """Numbers of the reconstructions of a split; `own` computes the feature maps that are
    compared."""
    numbers = evaluate.report(model, images, split=split)
    real = images.splits[split].images[:].astype(np.float32) / 255.0
    again = in_batches(model.reconstruct, real)
    return {name: numbers[name]["value"] for name in SHOWN} | {
        "sharpness": metrics.sharpness(again).mean() / metrics.sharpness(real).mean(),
        "maps": in_batches(
            lambda one, two: losses.perceptual(own(one), own(two)), real, again
        ).mean(),
    }


def compare(name, folder, split):
    settings = SETS[name]
    images = data.load(settings)
    own = judges.feature_maps(images, replace(settings, perceptual="classifier", seed=99))

    def measure(key):
        chosen = replace(settings, seed=key["seed"], **TERMS[name][key["terms"]])
        run = folder / f"{name}-{key['terms'].replace(' ', '-')}-{key['seed']}"
        if not (run / checkpoints.WEIGHTS).exists():
            train.fit(registry.from_settings(chosen), images, chosen, run, verbose=0)
        model = train.load(run)
        shown = images.test.images[:12].astype(np.float32) / 255.0
        pair = np.concatenate([shown, model.reconstruct(shown).numpy()])
        plots.save_sheet(pair, folder / f"{run.name}.png", 12)
        return measured(model, images, split, own)

    todo = [{"terms": terms, "seed": seed} for seed in SEEDS[name] for terms in TERMS[name]]
    found = resumable(folder / f"{name}-{split}.csv", todo, measure)
    numbers = found.drop(columns="seed").groupby("terms", sort=False)
    print(f"{name}, {split} images: mean, then sd over {len(SEEDS[name])} seeds")
    print(numbers.mean().round(4).to_string(), numbers.std().round(4).to_string(), sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        compare(name, arguments.folder, arguments.split)


if __name__ == "__main__":
    main()
