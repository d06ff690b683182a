"""Draws interpolations and a map of the digits run that comes with the project: `digits_*`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import config
import data
import train
from analysis import latent, plots
from nn.batches import in_batches

HERE = Path(__file__).parent
SHOWN = 8  # interpolations side by side
FRAMES = 16


def main():
    run = HERE / "digits_run"
    model = train.load(run)
    images = data.load(config.settings("digits"))
    z, _ = latent.encode(model, images.test)
    random = np.random.default_rng(0)
    ends = random.permutation(len(z))[: 2 * SHOWN].reshape(SHOWN, 2)
    paths = np.stack([latent.slerp(z[a], z[b], FRAMES) for a, b in ends], axis=1)
    made = in_batches(model.decode, paths.reshape(-1, model.latent_dim))
    made = made.reshape(FRAMES, SHOWN, *model.image_shape)
    frames = np.stack([plots.tile(each, columns=8) for each in made])
    there_and_back = np.concatenate([frames, frames[-2:0:-1]])
    plots.save_gif(there_and_back, HERE / "digits_interpolation.gif", hold=0.0, scale=2)
    z, _ = latent.encode(model, images.train)
    points, share = latent.plane(z)
    figure = plots.thumbnails(
        points,
        images.train.images,
        labels=images.train.labels(images.label),
        title=f"training digits by their latents, {model.latent_dim} axes",
        names=plots.plane_names(points, share),
    )
    plots.save(figure, HERE / "digits_map.png")


if __name__ == "__main__":
    main()
