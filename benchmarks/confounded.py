"""What a counterfactual gets wrong that is not told the common cause, on a chest phantom.

    python benchmarks/confounded.py FOLDER [--seeds 0 1 2]

In these phantoms age is a cause of heart size and of hernias (`phantoms.chest_factors`,
`aging=0.8`), and a hernia changes nothing but itself: with a hernia the heart must stay as it is,
and 20 years later it must be larger. Models are trained on 1,400 patients with two images each at
32x32, and measured on 300 images without a hernia of other patients:

- `heart, with a hernia`: change of the heart's size, in standard deviations of patients, as a
  network sees it that was trained on phantoms without these causes; 0 is right;
- `heart, 20 years older`: the same for `age=+20`; 1 is right (0.8 of 20 years in units of 16);
- `correlation`: of the change by a hernia with the true one.

The first row is drawn by the formulas: what the network sees where the truth is known. Beside the
told models are Fisher's directions of a plain VAE, with and without adjustment for age, as long as
a true hernia's mean change. Can be interrupted and resumed.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from hernia import SETTINGS
from rows import continued, resumable

import data
from analysis import counterfactual, directions, judges, latent
from families import registry
from nn.batches import in_batches
from sources import phantoms

SIDE, AGING, YEARS, HEALTHY = 32, 0.8, 20, 300
COMMON = replace(SETTINGS, image_shape=(SIDE, SIDE, 1), widths=(32, 64, 64), latent_dim=32)
TOLD = {"model": "ConditionalVAE", "leak_weight": 1000.0}
FORMULAS = "formulas"
MODELS = {
    FORMULAS: None,
    "direction": {"model": "VAE"},
    "direction, adjusted for age": {"model": "VAE"},
    "told Hernia": TOLD | {"conditions": ("Hernia",)},
    "told Hernia and age": TOLD | {"conditions": ("Hernia", "age")},
}


class Held:
    """Images of patients that no model has seen, and a network that estimates heart sizes."""

    def __init__(self):
        table = phantoms.chest_factors(400, 2, seed=2, aging=AGING)
        rows = np.flatnonzero(~table["Hernia"])[:HEALTHY]
        self.table = table.iloc[rows].reset_index(drop=True)
        self.images = phantoms.render_chests(self.table, SIDE)
        size = table.loc[table["Hernia"], "hernia_size"].mean()
        self.ill = self.drawn(Hernia=True, hernia_size=size)
        self.older = self.drawn(
            age=self.table["age"] + YEARS,
            heart=self.table["heart"] + AGING * YEARS / phantoms.AGE_SD * phantoms.HEART_SD,
        )
        self.truth = self.ill - self.images / 255.0
        known = data.chest_phantom(SIDE, seed=1, subjects=1500, images=2)
        self.gauge = judges.gauge(known, "heart", steps=600, widths=(16, 32, 64))

    def drawn(self, **changes):
        return phantoms.render_chests(self.table.assign(**changes), SIDE) / 255.0

    def heart(self, kept, made):
        """Mean change of the estimated heart size, in standard deviations."""
        return (self.gauge.values(made) - self.gauge.values(kept)).mean() / phantoms.HEART_SD

    def measures(self, kept, ill, older=None):
        told = {
            "heart, with a hernia": self.heart(kept, ill),
            "correlation": directions.alike(ill - kept, self.truth).mean(),
        }
        return told if older is None else told | {"heart, 20 years older": self.heart(kept, older)}


def by_direction(model, images, held, adjust):
    z, _ = latent.encode(model, images.train)
    direction = directions.Direction.of(z, images.train.table, "Hernia", "fisher", adjust=adjust)
    own, _ = in_batches(model.encode, held.images)
    sweep = directions.sweep(model.decode, own, direction, np.linspace(0.0, 6.0, 25))
    large = np.abs(sweep - sweep[0]).mean(axis=(1, 2, 3, 4))
    best = int(np.abs(large - np.abs(held.truth).mean()).argmin())
    return held.measures(sweep[0], sweep[best])


def by_condition(model, held):
    def asked(**changes):
        return model.conditions(counterfactual.changed(held.table, changes))

    before = model.conditions(held.table)
    kept, ill = counterfactual.decoded(model, held.images, before, asked(Hernia=True))
    older = None
    if len(model.conditions.columns) > 1:
        _, older = counterfactual.decoded(model, held.images, before, asked(age=f"+{YEARS}"))
    return held.measures(kept, ill, older)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    images = data.chest_phantom(SIDE, subjects=2000, images=2, aging=AGING)
    held = Held()
    print(f"estimate of heart size: correlation {held.gauge.correlation:.3f}")

    def measure(key):
        name, seed = key["model"], key["seed"]
        if name == FORMULAS:
            return held.measures(held.images / 255.0, held.ill, held.older)
        settings = registry.with_model(COMMON, seed=seed, **MODELS[name])
        run = arguments.folder / f"{name.split(',')[0]}-{seed}".replace(" ", "_")
        model = continued(settings, images, run)
        if model.conditions:
            return by_condition(model, held)
        adjust = ("age",) if "adjusted" in name else ()
        return by_direction(model, images, held, adjust)

    todo = [{"model": name, "seed": seed} for seed in arguments.seeds for name in MODELS]
    found = resumable(arguments.folder / "confounded.csv", todo, measure)
    groups = found.drop(columns="seed").groupby("model", sort=False)
    print(groups.mean().round(2).T.to_string(), groups.std().round(2).T.to_string(), sep="\n")


if __name__ == "__main__":
    main()
