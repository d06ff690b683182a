"""Two MNIST models with two latent axes side by side: without a classifier, and with one.

    python sweep.py mnist --over model=VAE,SemiSupervisedVAE --set latent_dim=2 \\
        --set class_weight=50 --epochs 12 --out runs/two-axes
    python readme_assets/draw_two_axes.py runs/two-axes

Draws clusters of test images, the decoded grid, and reconstructions of both into
`mnist_two_axes_*.png`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from sklearn.metrics import silhouette_score

import data
import evaluate
import train
from analysis import latent, plots, reconstruction
from nn import metrics
from nn.batches import in_batches
from storage import runs

HERE = Path(__file__).parent
SIDE, EXTENT, SHOWN = 16, 2.0, 4000  # of the grid; test images in the maps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    found = sorted(path.parent for path in arguments.folder.glob("*/settings.json"))
    models = {runs.load_settings(run).model: train.load(run) for run in found}
    images = data.images_of(found[0])
    truth, real = images.test.labels(images.label), images.test.images[:] / np.float32(255)
    rows = {"original": images.test.images[:14]}
    for name in ("VAE", "SemiSupervisedVAE"):
        model = models[name]
        z, _ = latent.encode(model, images.test)
        again = in_batches(model.reconstruct, images.test.images)
        near = metrics.knn_purity(z, truth, evaluate.NEIGHBOURS)
        apart = silhouette_score(z[:SHOWN], truth[:SHOWN])
        ssim = reconstruction.likeness(real, again)["ssim"].mean()
        print(f"{name}: purity {near:.3f}, silhouette {apart:.2f}, SSIM {ssim:.3f}")
        title = f"{name}: purity {near:.2f}, silhouette {apart:.2f}"
        figure = plots.latent_map(z[:SHOWN], truth[:SHOWN], images.classes, title)
        plots.save(figure, HERE / f"mnist_two_axes_{name.lower()}.png")
        grid = in_batches(model.decode, latent.manifold(SIDE, EXTENT))
        title = f"{name}: decoded from -{EXTENT:g} to {EXTENT:g} along both axes"
        figure = plots.image_grid(grid, SIDE, title=title, gap=0, width=5.0)
        plots.save(figure, HERE / f"mnist_two_axes_{name.lower()}_grid.png")
        rows[f"{name}\nSSIM {ssim:.2f}"] = again[:14]
    plots.save(plots.image_rows(rows, width=9.5), HERE / "mnist_two_axes_reconstructions.png")


if __name__ == "__main__":
    main()
