"""Is the hernia direction correct? On the chest phantom, where the true change is known.

    python benchmarks/hernia.py train runs/phantom      # an encoder, without labels
    python benchmarks/hernia.py measure runs/phantom    # directions, on other subjects
    CHEST_DIR=... python benchmarks/hernia.py real runs/chest    # the same for patients

On the phantom, the encoder is trained on images only. Directions are fitted on 100 images with a
hernia and 300 without, and measured on subjects that neither the encoder nor the direction has
seen.

On patients only the labels are known: five folds by patient over all images; for each fold, encoder
*and* direction are fitted without it.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from scipy import stats

import config
import data
import train
from analysis import directions, evidence, judges, plots
from families import registry
from nn.batches import in_batches
from sources import phantoms, splits
from storage import checkpoints

SIDE = 64
SETTINGS = replace(
    config.EXPERIMENTS["chest"],
    model="VAE",
    widths=(16, 32, 64, 64),
    dense_widths=(128,),
    batch_norm=True,
    latent_dim=48,
    sigma=0.03,
    epochs=30,
    batch_size=64,
    learning_rate=3e-3,
)
POSITIVES, NEGATIVES, HELD_OUT = 100, 300, 400
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
TWIN = 0.2  # size of the hernia that the healthy twin lacks


def learn(run, subjects):
    images = data.chest_phantom(SIDE, subjects=subjects, images=2)
    model = registry.from_settings(SETTINGS)
    print(f"{model.count_params():,} parameters, {len(images.train):,} training images")
    train.fit(model, images, SETTINGS, run, verbose=2)


def sampled(table, positives, negatives, seed=0):
    """Rows of `positives` random images with a hernia and `negatives` without."""
    random, has = np.random.default_rng(seed), table["Hernia"].to_numpy(bool)
    parts = [(np.flatnonzero(has), positives), (np.flatnonzero(~has), negatives)]
    return np.concatenate([random.permutation(rows)[:count] for rows, count in parts])


def measure(run):
    model = train.load(run)
    # Other subjects, which the encoder has not seen either.
    known = data.chest_phantom(SIDE, seed=1, subjects=1500, images=2)
    taken = sampled(known.train.table, POSITIVES, NEGATIVES)
    z, _ = in_batches(model.encode, known.train.images[taken], batch_size=128)
    table = known.train.table.iloc[taken].reset_index(drop=True)

    held = phantoms.chest_factors(HELD_OUT, 2, seed=2)
    pictures = phantoms.render_chests(held, SIDE)
    z_held, _ = in_batches(model.encode, pictures, batch_size=128)
    sizes = held["hernia_size"].to_numpy()
    rows, made = {}, {}
    gauge = judges.gauge(known, "hernia_size", steps=600, widths=(16, 32, 64))
    healthy = np.flatnonzero(sizes == 0)[:200]
    ill = held.iloc[healthy].assign(hernia_size=TWIN, Hernia=True)
    twins, masks = phantoms.hernia_twins(ill, SIDE)
    truth = phantoms.render_chests(ill, SIDE) / 255.0 - twins / 255.0
    for method in directions.METHODS:
        made[method] = directions.Direction.of(z, table, "Hernia", method)
        aucs = evidence.auc_by_third(made[method].project(z_held), sizes > 0, sizes)
        sweep = directions.sweep(model.decode, z_held[healthy], made[method], STRENGTHS)
        response = directions.dose_response(sweep, gauge.values)
        change = sweep[-1] - sweep[0]
        rows[method] = {
            "AUC small": aucs[0],
            "AUC middle": aucs[1],
            "AUC large": aucs[2],
            "estimated size at 0": response["mean"].iloc[0],
            "estimated size at 2": response["mean"].iloc[-1],
            "rises at every step": bool((np.diff(response["mean"]) > 0).all()),
            "energy inside": directions.inside(change, masks).mean(),
            "correlation with twin": directions.alike(change, truth).mean(),
        }
    print(f"size estimator: correlation {gauge.correlation:.3f} on held-out subjects")
    print(pd.DataFrame(rows).round(3).to_string())
    leaks(model)
    nulls(z_held, held)
    shown = healthy[:1]
    sweep = directions.sweep(model.decode, z_held[shown], made["fisher"], STRENGTHS)[:, 0]
    figure = plots.difference_maps(sweep, [f"{each:g}" for each in STRENGTHS])
    plots.save(figure, run / "figures" / "hernia.png")


def leaks(model):
    """Whether a direction is confounded with heart size, if hernias go with large hearts."""
    cosines = {"plain": [], "adjusted": []}
    for seed in range(5):
        factors = phantoms.chest_factors(600, 2, seed=100 + seed, confound=0.8)
        images = phantoms.render_chests(factors, SIDE)
        z, _ = in_batches(model.encode, images, batch_size=128)
        heart = directions.fit(z, factors["heart"])
        for name, adjust in (("plain", ()), ("adjusted", ("heart", "age"))):
            made = directions.Direction.of(z, factors, "Hernia", "fisher", adjust)
            cosines[name].append(made.vector @ heart)
    for name, values in cosines.items():
        print(
            f"confounded by 0.8, cosine with heart size, {name}: "
            f"{np.mean(values):.2f} (sd {np.std(values, ddof=1):.2f} over 5 cohorts)"
        )


def nulls(z, factors):
    """20 random labels per patient instead of the diagnosis (negative control)."""
    subjects = factors["subject"].unique()
    for method in ("mean", "fisher"):
        found = []
        for seed in range(20):
            heads = subjects[np.random.default_rng(seed).uniform(size=len(subjects)) < 0.5]
            labels = factors["subject"].isin(heads)
            found.append(evidence.of(z, labels, factors["subject"], method, permutations=199))
        holds = sum(each.low <= 0.5 <= each.high for each in found)
        uniform = stats.kstest([each.p_value for each in found], "uniform").pvalue
        print(
            f"random labels, {method}: the interval contains 0.5 for {holds} of 20; p-values "
            f"against uniform, Kolmogorov-Smirnov p = {uniform:.2f}"
        )


FINDINGS = ("Hernia", "Cardiomegaly", "Effusion")
FOLDS = 5


def together(images):
    """The pictures of all splits in one array, and their table."""
    parts = images.splits.values()
    pictures = np.concatenate([split.images[:] for split in parts])
    return pictures, pd.concat([split.table for split in parts], ignore_index=True)


def real(run, epochs):
    """Directions of findings against No Finding, of real chest X-rays."""
    settings = replace(SETTINGS, epochs=epochs)
    pictures, table = together(data.load(settings))
    folds = evidence.deal(table["subject"], FOLDS)
    # Validation is on a tenth of the other patients; nothing is chosen on it.
    watching = evidence.deal(table["subject"], 10, seed=1) == 0
    latents = []
    for fold in range(FOLDS):
        place = run / f"fold{fold}"
        if not (place / checkpoints.WEIGHTS).exists():
            places = np.where(folds == fold, "test", np.where(watching, "validation", "train"))
            images = splits.from_table(pictures, table, places, "chest X-rays")
            model = registry.from_settings(settings)
            train.fit(model, images, settings, place, verbose=0)
        model = train.load(place)
        latents.append(in_batches(model.encode, pictures, batch_size=128)[0])
        print(f"fold {fold}: {(folds == fold).sum()} images held out", flush=True)
    latents = np.stack(latents)
    for finding in FINDINGS:
        rows = (table[finding] | table["No Finding"]).to_numpy(bool)
        chosen = table[rows].reset_index(drop=True)
        covariates = directions.design(chosen, ("age", "sex", "view"))
        print(f"{finding} against No Finding")
        for name, method, adjust in (
            ("mean", "mean", None),
            ("fisher", "fisher", None),
            ("fisher, adjusted for age, sex, view", "fisher", covariates),
        ):
            found = evidence.of(
                latents[:, rows],
                chosen[finding],
                chosen["subject"],
                method,
                adjust,
                folds=folds[rows],
            )
            print(f"  {name}: {found}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("act", choices=("train", "measure", "real"))
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--subjects", type=int, default=10_000, help="phantom patients for training"
    )
    parser.add_argument("--epochs", type=int, default=60, help="per fold, on real images")
    arguments = parser.parse_args()
    if arguments.act == "train":
        learn(arguments.run, arguments.subjects)
    elif arguments.act == "real":
        real(arguments.run, arguments.epochs)
    else:
        measure(arguments.run)


if __name__ == "__main__":
    main()
