"""The brain figures and table of docs/results.md, from a trained run.

    OASIS_DIR=... python readme_assets/draw_brain.py runs/oasis --minutes 42

Shows only outputs of the model: OASIS images may not be redistributed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from tables import markdown

import data
import evaluate
import train
from analysis import latent, plots, reconstruction, samples
from nn.batches import in_batches
from storage import runs

HERE = Path(__file__).parent
SIZES = (32, 64)  # of PCA, in addition to as many components as latent axes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", required=True, help="training time, for the table")
    arguments = parser.parse_args()
    settings = runs.load_settings(arguments.run)
    images, model = data.images_of(arguments.run), train.load(arguments.run)

    plots.save(
        plots.image_grid(model.sample(24, seed=1).numpy(), columns=8, width=9.5),
        HERE / "brain_samples.png",
    )
    history = pd.read_csv(arguments.run / "history.csv")
    terms = ("loss", "reconstruction", "dssim", "ssim")
    plots.save(plots.loss_curves(history, terms), HERE / "brain_training.png")

    numbers = evaluate.report(model, images, arguments.run)
    parts = [reconstruction.baselines(images, size) for size in (*SIZES, settings.latent_dim)]
    table = pd.concat([parts[0].iloc[:1], *(part.iloc[1:] for part in parts)])
    name = f"{settings.model}, latent {settings.latent_dim}"
    table.loc[name] = {column: numbers[column]["value"] for column in table.columns}
    pixels = images.test.images[:] / np.float32(255)
    made = in_batches(model.reconstruct, pixels, batch_size=16)
    ssim = reconstruction.likeness(pixels, made)["ssim"]
    by_subject = pd.Series(ssim).groupby(images.test.table["subject"].to_numpy()).mean()

    # Memorisation: distance of samples to their nearest training image, compared with test images.
    training = samples.small(images.train.images, 64)
    pair = (samples.small(each, 64) for each in (model.sample(48, seed=2).numpy(), pixels))
    near = [np.median(latent.nearest(each, training)[1]) for each in pair]

    columns = {"ssim": 3, "ssim_foreground": 3, "psnr": 2, "mse": 5}
    shown = pd.DataFrame({key: table[key].map(f"{{:.{n}f}}".format) for key, n in columns.items()})
    text = [
        "# OASIS",
        "",
        *markdown(shown, "model"),
        "",
        f"{images.note}. Means over {len(pixels)} test images of {len(by_subject)} subjects; the "
        f"{name}'s SSIM by subject has a standard deviation of {by_subject.std():.3f}. "
        f"{model.count_params():,} parameters, {len(history)} epochs on {len(images.train):,} "
        f"slices in {arguments.minutes} minutes on two CPU cores, one seed ({settings.seed}); "
        "settings chosen on the validation subjects. PCA is fitted on the same training slices "
        "and keeps the stated number of components per image.",
        "",
        *(f"- `{key}`: {numbers[key]['protocol']}" for key in columns),
        f"- Median distance of a random sample to its nearest training slice {near[0]:.2f}, of a "
        f"test slice {near[1]:.2f} (Euclidean, both at 64x64). A smaller distance of samples means "
        "that they are smoother than real slices, or copies.",
        f"- Active latent axes: {numbers['active_units']['value']} of {model.latent_dim}.",
        "",
    ]
    (HERE / "brain.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
