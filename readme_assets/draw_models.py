"""The tables and figures of "which model?", from benchmarks/which_model.py.

    python readme_assets/draw_models.py FOLDER

FOLDER is the one that the benchmark filled. Samples are of the last seed, and none is chosen.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "benchmarks"))

import pandas as pd
from tables import markdown, over_seeds
from which_model import run_name

import evaluate
import prior
import train
from analysis import plots
from families import priors

HERE = Path(__file__).parent
TITLES = {"mnist": "MNIST", "brain": "OASIS", "phantom": "Chest phantom"}
RATE = (("rate", "rate, nats"), ("distortion", "distortion, nats"))
SHARPNESS = ("sample_sharpness", "sharpness of samples / real images")
MADE = """Every model with the same networks, images and number of epochs, measured on test images.
Settings are in `benchmarks/which_model.py`, which trains and measures
(`python benchmarks/which_model.py FOLDER --data mnist`, `brain` or `phantom`);
`python readme_assets/draw_models.py FOLDER` draws.

![runs as points: rate against distortion, samples against time](which_model.png)"""
BY = ("the Frechet distance on MNIST", "the density of held-out latents on OASIS")
ACROSS = 7  # columns of a table; wider ones do not fit a screen
BETTER = {name: evaluate.ARROWS[each[1]] for name, each in evaluate.PROTOCOL.items()}


def draw_samples(rows, name, folder):
    """The first samples of every model of the last seed, if its runs exist."""
    last = rows["seed"].max()
    runs = {model: folder / run_name(name, model, last) for model in rows["model"].unique()}
    if missing := [run for run in runs.values() if not run.exists()]:
        print(f"{missing[0]} is missing: no samples of {name} drawn")
        return
    drawn = {model: train.load(run).sample(14).numpy() for model, run in runs.items()}
    plots.save(plots.image_rows(drawn, width=9.0), HERE / f"which_{name}_samples.png")


def draw_with_priors(rows, name, folder):
    """The same, from each model's best prior, for the models whose runs exist."""
    drawn, rows = {}, rows.dropna(subset="prior")
    for row in rows[rows["seed"] == rows["seed"].max()].itertuples():
        run = folder / run_name(name, row.model, row.seed)
        if run.exists():
            best = None if row.prior == prior.OWN else priors.of_run(run, row.prior)
            drawn[row.model] = train.load(run).sample(14, prior=best).numpy()
    if drawn:
        plots.save(plots.image_rows(drawn, width=9.0), HERE / f"which_{name}_priors.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    text, panels, measured = [f"# Which model?\n\n{MADE}\n"], {}, set()
    for name, title in TITLES.items():
        path = folder / f"which_{name}.csv"
        if not path.exists():
            print(f"{path} is missing and left out")
            continue
        rows = pd.read_csv(path)
        shutil.copy(path, HERE / path.name)
        table = over_seeds(rows)
        measured |= set(table.columns)
        # In the protocol's order; a CSV whose first model has no bound has another one.
        marked = [key for key in table if "@" in key]
        table = table[["seconds", *(key for key in BETTER if key in table), *marked]]
        table.columns = [f"{key}{BETTER.get(key, '')}" for key in table.columns]
        seeds = rows["seed"].nunique()
        text += [f"## {title}, mean ± standard deviation over {seeds} seeds", ""]
        for first in range(0, table.shape[1], ACROSS):
            text += [*markdown(table.iloc[:, first : first + ACROSS], "model"), ""]
        if name == "phantom":  # measured for disentanglement: a table is enough
            continue
        draw_samples(rows, name, folder)
        if "prior" in rows:
            draw_with_priors(rows, name, folder)
        panels[f"{title}: rate and distortion"] = (rows, *RATE)
        samples = ("frechet", "Frechet distance") if "frechet" in rows else SHARPNESS
        # Without the autoencoder, which has no prior and would compress the scale of all others.
        trained_with = rows[rows["model"] != "Autoencoder"]
        panels[f"{title}: samples and time"] = (trained_with, ("seconds", "CPU seconds"), samples)
    text += [
        "- `seconds`: CPU time of training",
        "- `NAME@prior`, `NAME@reconstructions`: samples of the model's best prior, and its "
        "reconstructions, compared with the test images; `sharpness` in units of theirs, "
        "`wasserstein` the mean of `metrics.sliced_wasserstein` over its levels. Of N(0, I), one "
        "Gaussian and a mixture, the best prior was chosen on the validation images, by "
        + " and ".join(BY),
    ]
    protocols = {key: each for key, (_, _, each) in evaluate.PROTOCOL.items() if key in measured}
    text += [f"- `{key}`: {each}" for key, each in protocols.items()]
    (HERE / "which_model.md").write_text("\n".join([*text, ""]))
    if panels:
        plots.save(plots.trade(panels, width=9.0, across=2), HERE / "which_model.png")


if __name__ == "__main__":
    main()
