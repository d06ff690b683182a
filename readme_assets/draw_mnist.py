"""The MNIST figures and table of docs/results.md, from trained runs.

    python readme_assets/draw_mnist.py runs/mnist --beside runs/keras-example

Reads `metrics.json` of each run as `evaluate.py` wrote it; draws from the first.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import tables

import data
import train
from analysis import latent, plots
from nn.batches import in_batches

HERE = Path(__file__).parent


def draw(run):
    images = data.images_of(run)
    model = train.load(run)
    originals = images.test.images[:16]
    rows = {"original": originals, "reconstruction": model.reconstruct(originals).numpy()}
    plots.save(plots.image_rows(rows, width=9.5), HERE / "mnist_reconstructions.png")
    samples = model.sample(80, seed=1).numpy()
    plots.save(plots.image_grid(samples, columns=20, width=9.5), HERE / "mnist_samples.png")
    plots.save(plots.loss_curves(pd.read_csv(run / "history.csv")), HERE / "mnist_training.png")

    z_mean, _ = latent.encode(model, images.test)
    points, share = latent.plane(z_mean)
    labels = images.test.labels("digit")
    title = f"Posterior means of {len(labels):,} test images, PCA ({share:.0%} of the variance)"
    figure = plots.latent_map(points, labels, images.classes, title, ("PC 1", "PC 2"))
    plots.save(figure, HERE / "mnist_latent_map.png")

    # From one test digit of each class to the next: the first that the table lists.
    first = [z_mean[np.argmax(labels == digit)] for digit in range(10)]
    ways = [latent.lerp(first[digit], first[(digit + 1) % 10], 16) for digit in range(0, 10, 2)]
    decoded = in_batches(model.decode, np.concatenate(ways))
    plots.save(plots.image_grid(decoded, columns=16, width=9.5), HERE / "mnist_paths.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    draw(arguments.run)
    tables.of_runs([arguments.run, *arguments.beside], "MNIST", HERE / "mnist.md")


if __name__ == "__main__":
    main()
