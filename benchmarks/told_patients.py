"""What a network that has never met the model sees in changed chest X-rays of real patients.

    CHEST_DIR=... python benchmarks/told_patients.py FOLDER [--epochs 60] [--leak-weight 3000]

NIH's patients in three parts, in turn: a `ConditionalVAE` that is told age, sex, view and findings
learns on one, a classifier of each (a regressor of age) on the second, and the third is changed:
age by 20 years, everything else to its other value. `reached`: the mean change that the network
sees, in units of the mean difference that it sees between real images of the third part with and
without (for age, between images of 20 years' difference, by linear regression). `own quality` is
its AUC (for age its correlation) on them: below 0.8 nothing can be said. Can be interrupted and
resumed.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from hernia import SETTINGS, together
from rows import continued, resumable

import data
from analysis import counterfactual, evidence, judges
from families import registry
from sources import splits

FINDINGS = ("Cardiomegaly", "Effusion", "Hernia")
VALUES = {"sex": ("M", "F"), "view": ("PA", "AP"), **dict.fromkeys(FINDINGS, (False, True))}
COLUMNS = ("age", *VALUES)
YEARS = 20.0
FOLDS = 3
STEPS = 300  # of each network


def parts(loaded, fold):
    """Images of the model, and those of the networks that see; both with the same test images."""
    pictures, table = together(loaded)
    for name, (_, value) in VALUES.items():
        table[f"has {name}"] = (table[name] == value).where(table[name].notna()).astype("Int32")
    places = (evidence.deal(table["subject"], FOLDS) + fold) % FOLDS
    watching = evidence.deal(table["subject"], 10, seed=1) == 0  # nothing is chosen on it

    def of(part):
        rows = (places == part) | (places == 2)
        named = np.where(places == 2, "test", np.where(watching, "validation", "train"))[rows]
        kept = table[rows].reset_index(drop=True)
        return splits.from_table(pictures[rows], kept, named, "chest X-rays")

    return of(0), of(1)


def changed(table, column):
    """The table with the asked change, and the sign of what should be seen of it."""
    if column == "age":
        return counterfactual.changed(table, {"age": f"+{YEARS:g}"}), np.ones(len(table))
    has = table[f"has {column}"].to_numpy(bool)
    without, with_it = VALUES[column]
    other = [without if each else with_it for each in has]
    return table.assign(**{column: other}), np.where(has, -1.0, 1.0)


def measured(model, others, column):
    """How much of the asked change of one column a network sees; see the file's docstring."""
    test = others.test.only(others.test.table[column].notna().to_numpy())
    if column == "age":
        network = judges.gauge(others, "age", steps=STEPS)
        values, quality = network.values(test.images), network.correlation
        real = YEARS * np.polyfit(test.table["age"].to_numpy(np.float64), values, 1)[0]
    else:
        network = judges.judge(others, f"has {column}", steps=STEPS)
        values, quality = network.values(test.images), network.auc
        has = test.table[f"has {column}"].to_numpy(bool)
        real = values[has].mean() - values[~has].mean()
    after, signs = changed(test.table, column)
    before, after = model.conditions(test.table), model.conditions(after)
    kept, made = counterfactual.decoded(model, test.images, before, after)
    shift = signs * (network.values(made) - network.values(kept))
    return {
        "images": len(test),
        "own quality": quality,
        "reached": shift.mean() / real,
        "right way": np.mean(shift * np.sign(real) > 0),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--leak-weight", type=float, default=3000.0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    settings = replace(SETTINGS, epochs=arguments.epochs)
    loaded = data.load(settings)
    told = {"conditions": COLUMNS, "leak_weight": arguments.leak_weight}
    settings = registry.with_model(settings, model="ConditionalVAE", **told)
    known = {}

    def measure(key):
        fold = key["fold"]
        if fold not in known:
            ours, others = parts(loaded, fold)
            known[fold] = continued(settings, ours, arguments.folder / f"fold{fold}"), others
        return measured(*known[fold], key["told"])

    todo = [{"fold": fold, "told": name} for fold in range(FOLDS) for name in COLUMNS]
    table = resumable(arguments.folder / "told_patients.csv", todo, measure)
    groups = table.drop(columns="fold").groupby("told", sort=False)
    print(groups.mean().round(3).to_string(), groups.std().round(3).to_string(), sep="\n")


if __name__ == "__main__":
    main()
