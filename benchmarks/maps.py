"""Reconstructions of models beside PCA of as many numbers, and beside PCA of as many nats.

    python benchmarks/maps.py RUN [RUN ...] [--to FILE.csv]

On the test images of each run: reconstructions from the posteriors' means and from one draw each.
PCA's coefficients are exact numbers; those of a latent carry a few nats each. So PCA comes twice:
with as many exact components as the latent has numbers, and as a linear VAE (`analysis.linear`)
that spends the run's nats on a validation image. Can be interrupted and resumed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rows import resumable

import data
import evaluate
import train
from analysis import features, linear, reconstruction, samples
from nn import metrics
from nn.batches import in_batches


def quality(real, made, seen):
    """SSIM, PSNR, sharpness in units of real images', and the label-free Frechet distance."""
    like = reconstruction.likeness(real, made)
    sharp = metrics.sharpness(made).mean() / metrics.sharpness(real).mean()
    told = {"ssim": like["ssim"].mean(), "psnr": like["psnr"].mean(), "sharpness": sharp}
    distances = samples.in_features(seen(real), seen(made))
    return told | {"frechet": distances.get("frechet", (np.nan,))[0]}


def both(real, encode, decode, seen):
    """Quality of reconstructions from means, and from draws, with a mark."""
    z_mean, z_log_var = encode(real)
    noise = np.random.default_rng(0).normal(size=z_mean.shape).astype(np.float32)
    drawn = z_mean + np.exp(0.5 * z_log_var) * noise
    from_draws = quality(real, decode(drawn), seen)
    return quality(real, decode(z_mean), seen) | {
        f"{name}_drawn": value for name, value in from_draws.items() if name != "frechet"
    }


def rate(model, split):
    """Nats of an image's latent; infinite for a model whose numbers are exact."""
    return float(np.mean(evaluate.likelihoods(model, split.images).get("rate", np.inf)))


def measured(key):
    """One side of one run: `key` has its `run` and its `side`."""
    run = Path(key["run"])
    images, model = data.images_of(run), train.load(run)
    training, real = images.train.images, images.test.images[:] / np.float32(255)
    seen = features.Untrained(training)
    if key["side"] == "model":
        told = both(
            real, lambda x: in_batches(model.encode, x), lambda z: in_batches(model.decode, z), seen
        )
        return {"numbers": model.latent_dim, "nats": rate(model, images.test)} | told
    if key["side"] == "PCA of as many nats":
        nats = rate(model, images.validation)
        code = linear.LinearCode.fitted(training, images.validation.images, nats)
        told = both(real, code.encode, code.decode, seen)
        return {"numbers": len(code.used), "nats": code.rate(real).mean()} | told
    name, made = list(reconstruction.without_network(images, model.latent_dim).items())[-1]
    return {"numbers": int(name.split()[1]), "nats": np.inf} | quality(real, made, seen)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--to", type=Path, default=Path("maps.csv"))
    arguments = parser.parse_args()
    sides = ("model", "PCA of as many numbers", "PCA of as many nats")
    todo = [{"run": str(run), "side": side} for run in arguments.runs for side in sides]
    print(resumable(arguments.to, todo, measured).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
