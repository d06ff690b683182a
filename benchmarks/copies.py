"""Does `audit.py` find what was planted, and is it silent where nothing is copied?

    python benchmarks/copies.py FOLDER

Planted: 20 of the 1,257 training digits are put in 2, 10 or 100 times, and a VAE with 16 axes is
trained as usual; or it is trained on 28 digits alone. Samples of the prior that the run gets in
training are audited, three seeds each. Which of the 20 are found is counted: they are known.

Null: the held-out digits in two random halves, one of which poses as the training set, 20 times,
for the samples of the undisturbed run. All p must be uniform, though the samples are not.

The benchmark can be interrupted and resumed, run by run.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import resumable, trained
from scipy import stats

import config
import data
import train
from analysis import copies, samples
from families import priors

PLANTED, FEW = 20, 28
SAMPLES = 5000
SETTINGS = replace(config.settings("digits"), latent_dim=16)
KINDS = {"as they are": 1, "twice": 2, "10 times": 10, "100 times": 100, f"{FEW} digits alone": 0}
SEEDS = (0, 1, 2)
HALVES = 20


def planted(images, times, seed):
    """The images with some training images put in several times, and the numbers of these."""
    rows = np.arange(len(images.train))
    if not times:
        return replace(images, train=images.train.only(rows[:FEW])), rows[:FEW]
    chosen = np.random.default_rng(seed).permutation(rows)[:PLANTED]
    rows = np.concatenate([rows, np.repeat(chosen, times - 1)])
    return replace(images, train=images.train.only(rows)), chosen


def made(model, run):
    """Samples of the prior that a run got in training."""
    return samples.drawn(model, SAMPLES, priors.of_run(run))


def find(images, folder):
    """What is found of what was planted."""

    def measure(key):
        more, chosen = planted(images, KINDS[key["planted"]], key["seed"])
        settings = replace(SETTINGS, seed=key["seed"])
        if len(more.train) < settings.batch_size:
            settings = replace(settings, batch_size=len(more.train), epochs=400)
        run = folder / f"digits-{key['planted'].replace(' ', '-')}-{key['seed']}"
        model, _ = trained(settings, more, run)
        audit = copies.Audit(model, copies.Known.of_images(more))
        names = set(images.train.table["subject"].iloc[chosen].astype(str))
        row = {"reconstructions": audit.reconstructions.auc}
        for space, found in audit.samples(made(model, run)).items():
            listed = set(found.copied["subject"][: found.count])
            row |= {
                f"found, {space}": found.count,
                f"of the planted, {space}": len(listed & names),
                f"lowest q, {space}": found.copied["q"][0],
                f"auc, {space}": found.samples.auc,
                f"p, {space}": found.samples.p,
                f"C_T, {space}": found.c_t,
                f"p of C_T, {space}": found.p,
            }
        return row

    todo = [{"planted": kind, "seed": seed} for seed in SEEDS for kind in KINDS]
    return resumable(folder / "copies.csv", todo, measure)


def null(images, folder):
    """p of halves of the held-out images, for samples of the undisturbed run."""
    run = folder / "digits-as-they-are-0"
    known = copies.Known.of_images(images)
    rows = np.flatnonzero(~known.trained)

    def measure(key):
        half = np.random.default_rng(key["half"]).permutation(len(rows)) < len(rows) // 2
        posing = copies.Known(known.images[rows], known.subjects[rows], half)
        model = train.load(run)
        draws = model.sample(SAMPLES, seed=100 + key["half"], prior=priors.of_run(run)).numpy()
        audit = copies.Audit(model, posing)
        row = {"p, reconstructions": audit.reconstructions.p}
        for space, found in audit.samples(draws).items():
            row |= {f"p, {space}": found.samples.p, f"found, {space}": found.count}
        return row

    return resumable(folder / "null.csv", [{"half": half} for half in range(HALVES)], measure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images = data.load(SETTINGS)
    with pd.option_context("display.width", None, "display.max_columns", None):
        found = find(images, folder).drop(columns="seed").groupby("planted", sort=False)
        print("mean over seeds", found.mean().T.to_string(float_format="{:.3g}".format), sep="\n")
        print("highest", found.max().T.to_string(float_format="{:.2g}".format), sep="\n")
        table = null(images, folder)
    for name in [name for name in table if name.startswith("p,")]:
        print(f"null, {name}: {stats.kstest(table[name], 'uniform')}")
    print(f"null, found: {table.filter(like='found').sum().to_dict()}")


if __name__ == "__main__":
    main()
