"""Introspective models compared with a VAE of the same networks and training time.

    MNIST_PATH=... IMAGES_DIR=... python benchmarks/introspective.py FOLDER [--data mnist|paintings]

Three models, two seeds, two sets: three hours on one core (`TF_NUM_INTRAOP_THREADS=1`; the two sets
can run at the same time). It can be interrupted and resumed, run by run. Lengths are in epochs,
chosen once so that each model has about the same time; the seconds in the table are CPU time, which
other work does not affect. An introspective step costs three to four of a VAE's, so a VAE of
equally many steps is added.

MNIST, padded to 32x32: 10,000 samples against the 10,000 test images, in the features of our own
classifier. Paintings, 64x64: sliced Wasserstein distance of patches, samples against held-out
paintings, because there are too few for a distribution of features. Both: PSNR and SSIM of held-out
reconstructions, and sharpness in units of the real images'.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import resumable, trained

import config
import data
from analysis import judges, plots
from families import registry
from nn import metrics
from nn.batches import in_batches

SEEDS = (0, 1)
BASE = {"residual": True, "upsampling": "nearest", "schedule": "cosine"}
SETTINGS = {
    "mnist": config.Settings(
        dataset="mnist",
        image_shape=(32, 32, 1),
        widths=(16, 32, 64),
        latent_dim=10,  # with 32 the aggregated posterior differs more from the prior
        beta=1.5,
        gamma=0.25,
        batch_size=64,
        learning_rate=2e-3,
        **BASE,
    ),
    "paintings": config.Settings(
        dataset="gallery",
        image_shape=(64, 64, 3),
        widths=(16, 32, 64, 64),
        latent_dim=64,
        reconstruction="gaussian",
        sigma=0.3,
        gamma=0.5,
        most_push=0.3,
        batch_size=16,
        shift=2,
        flip="sideways",
        learning_rate=1e-3,
        **BASE,
    ),
}
SHORT = "VAE, as many steps"
EPOCHS = {
    "mnist": {"SoftIntroVAE": 5, "ASIntroVAE": 5, "VAE": 20, SHORT: 5},
    "paintings": {"SoftIntroVAE": 400, "ASIntroVAE": 400, "VAE": 1200, SHORT: 400},
}
DRAWS = 5  # sets of samples for the sliced Wasserstein distance


def loaded(name):
    """The images of one comparison; MNIST padded with black to 32x32."""
    settings = SETTINGS[name]
    if name != "mnist":
        return data.load(settings)
    small = data.load(replace(settings, image_shape=(28, 28, 1)))
    edges = ((0, 0), (2, 2), (2, 2), (0, 0))
    padded = {
        key: replace(split, images=np.pad(split.images[:], edges), digests=None)
        for key, split in small.splits.items()
    }
    return replace(small, name="mnist 32x32", **padded)


def held_out(images, judge):
    """Images that no model was trained on, as floats; few paintings: both held-out splits."""
    pixels = images.test.images[:]
    if judge is None:  # paintings: thirty alone are too few
        pixels = np.concatenate([images.validation.images[:], pixels])
    return pixels.astype(np.float32) / 255.0


def distances(real, others, judge, seed=0):
    """Distances between two sets of images, by name."""
    if judge is None:
        levels = metrics.sliced_wasserstein(real, others, seed)
        return {f"sliced Wasserstein {level}": value for level, value in levels.items()}
    features, found = judge.features(real), judge.features(others)
    kernel, error = metrics.kernel_distance(features, found)
    frechet = metrics.frechet_distance(features, found)
    return {"Frechet": frechet, "kernel": kernel, "kernel's error": error}


def measured(model, real, judge, seed):
    """Numbers of a model's reconstructions of held-out images, and of equally many samples."""
    again = in_batches(model.reconstruct, real)
    sharp = metrics.sharpness(real).mean()
    found = {
        "psnr": in_batches(metrics.psnr, real, again).mean(),
        "ssim": in_batches(metrics.ssim, real, again).mean(),
        "sharpness of reconstructions": metrics.sharpness(again).mean() / sharp,
    }

    def samples(number):
        draws = model.draw_prior(len(real), 100 * seed + number)
        return in_batches(model.decode, draws)

    made = samples(0)
    found["sharpness of samples"] = metrics.sharpness(made).mean() / sharp
    if judge is not None:
        return found | distances(real, made, judge)
    draws = [distances(real, samples(each), None, each) for each in range(DRAWS)]
    return found | pd.DataFrame(draws).mean().to_dict()


def floor(real, images, judge):
    """The same distances between two sets of real images, a lower limit for models."""
    others = images.train.images[: len(real)].astype(np.float32) / 255.0
    return distances(real, others, judge)


def compare(name, folder):
    images = loaded(name)
    judge = judges.judge(images, cache=folder) if images.label else None
    if judge:
        print(f"judge: accuracy {judge.accuracy:.4f}")
    real = held_out(images, judge)

    def measure(key):
        kind, seed = key["model"], key["seed"]
        if kind == "real images":
            return floor(real, images, judge)
        epochs = EPOCHS[name][kind]
        made = "VAE" if kind == SHORT else kind
        settings = registry.with_model(SETTINGS[name], made, seed=seed, epochs=epochs)
        run = folder / f"{name}-{made}-{epochs}-{seed}"
        model, seconds = trained(settings, images, run)
        found = {"epochs": epochs, "seconds": seconds}
        plots.save_sheet(model.sample(40).numpy(), folder / f"{run.name}-samples.png", 10)
        shown = images.test.images[:10].astype(np.float32) / 255.0
        pair = np.concatenate([shown, model.reconstruct(shown).numpy()])
        plots.save_sheet(pair, folder / f"{run.name}-reconstructions.png", 10)
        return found | measured(model, real, judge, seed)

    todo = [{"model": "real images", "seed": 0}]
    todo += [{"model": kind, "seed": seed} for seed in SEEDS for kind in EPOCHS[name]]
    found = resumable(folder / f"{name}.csv", todo, measure)
    print(found.groupby("model").mean(numeric_only=True).round(3).to_string())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", choices=tuple(SETTINGS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in (arguments.data,) if arguments.data else SETTINGS:
        compare(name, arguments.folder)


if __name__ == "__main__":
    main()
