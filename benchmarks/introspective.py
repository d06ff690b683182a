"""Introspective models beside a VAE of the same networks and time: what does sharpness cost?

    MNIST_PATH=... IMAGES_DIR=... python benchmarks/introspective.py FOLDER [--data mnist|paintings]

Twelve minutes a run, three models, two seeds, two sets: two and a half hours on two cores.
It goes on where it was stopped, run by run. Lengths are in epochs, chosen once so that each model
has about the same time; the seconds taken are in the table.

MNIST, padded to 32x32: 10,000 samples against the 10,000 test images, in the features of a
classifier of ours. Paintings, 64x64: sliced Wasserstein distance of patches, samples against
held-out paintings, for there are too few for a distribution of features. Both: PSNR and SSIM of
held-out reconstructions, and sharpness in units of the real images'.
"""

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import pandas as pd

import config
import data
import files
import judges
import latent
import metrics
import model as models
import plots
import registry
import train

MODELS = ("VAE", "SoftIntroVAE", "ASIntroVAE")
SEEDS = (0, 1)
BASE = {
    "residual": True,
    "upsampling": "nearest",
    "reconstruction": "gaussian",
    "schedule": "constant",
}
SETTINGS = {
    "mnist": config.Settings(
        dataset="mnist",
        image_shape=(32, 32, 1),
        widths=(16, 32, 64),
        latent_dim=32,
        sigma=0.3,
        batch_size=64,
        learning_rate=5e-4,
        **BASE,
    ),
    "paintings": config.Settings(
        dataset="gallery",
        image_shape=(64, 64, 3),
        widths=(16, 32, 64, 64),
        latent_dim=64,
        sigma=0.2,
        batch_size=16,
        shift=2,
        flip="sideways",
        learning_rate=5e-4,
        **BASE,
    ),
}
EPOCHS = {  # about twelve minutes on two cores
    ("mnist", "VAE"): 20,
    ("mnist", "SoftIntroVAE"): 5,
    ("mnist", "ASIntroVAE"): 5,
    ("paintings", "VAE"): 1600,
    ("paintings", "SoftIntroVAE"): 450,
    ("paintings", "ASIntroVAE"): 450,
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


def measured(name, model, images, judge, seed):
    """Numbers on held-out images: of reconstructions, and of as many samples."""
    held_out = images.test.images[:]
    if name == "paintings":  # thirty alone are too few
        held_out = np.concatenate([images.validation.images[:], held_out])
    real = held_out.astype(np.float32) / 255.0
    again = latent.in_batches(model.reconstruct, real)
    sharp = metrics.sharpness(real).mean()
    found = {
        "psnr": latent.in_batches(metrics.psnr, real, again).mean(),
        "ssim": latent.in_batches(metrics.ssim, real, again).mean(),
        "sharpness of reconstructions": metrics.sharpness(again).mean() / sharp,
    }

    def samples(number):
        draws = models.prior_draws(len(real), model.latent_dim, 100 * seed + number)
        return latent.in_batches(model.decode, draws)

    found["sharpness of samples"] = metrics.sharpness(samples(0)).mean() / sharp
    if judge is None:
        distances = [metrics.sliced_wasserstein(real, samples(each), each) for each in range(DRAWS)]
        found |= {
            f"sliced Wasserstein {level}": np.mean([each[level] for each in distances])
            for level in distances[0]
        }
        return found
    features, made = judge.features(real), judge.features(samples(0))
    kernel, error = metrics.kernel_distance(features, made)
    return found | {
        "Frechet": metrics.frechet_distance(features, made),
        "kernel": kernel,
        "kernel's error": error,
    }


def floor(name, images, judge):
    """The same distances between two sets of real images: nothing can be expected to go below."""
    if judge is None:
        held_out = np.concatenate([images.validation.images[:], images.test.images[:]])
        real, others = (
            each.astype(np.float32) / 255.0
            for each in (held_out, images.train.images[: len(held_out)])
        )
        found = metrics.sliced_wasserstein(real, others)
        return {f"sliced Wasserstein {level}": value for level, value in found.items()}
    features = judge.features(images.test.images[:])
    others = judge.features(images.train.images[: len(features)])
    kernel, error = metrics.kernel_distance(features, others)
    return {
        "Frechet": metrics.frechet_distance(features, others),
        "kernel": kernel,
        "kernel's error": error,
    }


def compare(name, folder):
    images = loaded(name)
    judge = judges.judge(images, cache=folder) if images.label else None
    if judge:
        print(f"judge: accuracy {judge.accuracy:.4f}")
    results = folder / f"{name}.csv"
    rows = pd.read_csv(results).to_dict("records") if results.exists() else []
    done = {(row["model"], row["seed"]) for row in rows}
    todo = [("real images", 0)] + [(kind, seed) for seed in SEEDS for kind in MODELS]
    for kind, seed in todo:
        if (kind, seed) in done:
            continue
        row = {"model": kind, "seed": seed}
        if kind == "real images":
            row |= floor(name, images, judge)
        else:
            epochs = EPOCHS[name, kind]
            settings = replace(SETTINGS[name], model=kind, seed=seed, epochs=epochs)
            run = folder / f"{name}-{kind}-{seed}"
            model = registry.from_settings(settings)
            start = time.perf_counter()
            if (run / train.DIGEST).exists():  # stopped in the middle: from the beginning
                shutil.rmtree(run)
            train.fit(model, images, settings, run, verbose=0)
            row |= {"epochs": epochs, "seconds": round(time.perf_counter() - start)}
            row |= measured(name, model, images, judge, seed)
            plots.save_sheet(model.sample(40).numpy(), folder / f"{run.name}-samples.png", 10)
            shown = images.test.images[:10].astype(np.float32) / 255.0
            pair = np.concatenate([shown, model.reconstruct(shown).numpy()])
            plots.save_sheet(pair, folder / f"{run.name}-reconstructions.png", 10)
        rows.append(row)
        print(
            {
                key: value if isinstance(value, str) else round(float(value), 4)
                for key, value in row.items()
            },
            flush=True,
        )
        with files.replacing(results) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.5g")
        keras.backend.clear_session()
    print(pd.DataFrame(rows).groupby("model").mean(numeric_only=True).round(3).to_string())


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
