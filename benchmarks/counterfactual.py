"""The same patient with a hernia: conditional VAEs beside directions, on the chest phantom.

    python benchmarks/counterfactual.py FOLDER [--seeds 0 1 2] [--models NAME ...] [--subjects 3000]

Each model is trained on 70 % of so many phantom patients with two images each, and measured on
others. Of 200 images without a hernia, each is changed to have one of a fifth of the width (for a
model that is told only whether there is one: to have one), and compared with the true twin, the
same patient drawn with such a hernia:

- correlation of the change with the true one; share of its energy inside the true mask, grown by 3
  pixels; mean absolute error of the image with the change to the true twin, in units of the error
  of doing nothing;
- the size that an independent network estimates, divided by the asked one, at 0.12, 0.2 and 0.28;
- AUC of the small, middle and large third of hernias by Bayes' rule, from the likelihoods of the
  image under no hernia and under six sizes, and the correlation of the sizes so read (the posterior
  mean) with the true ones;
- composition and reversibility, in grey levels from 0 to 1; leak: AUC of a hernia from the latent.

No image without a hernia says where it would be or how much of it would be gas, so no model can be
right about every twin. Two rows without a model say how good one could be: the formulas of the
phantom, drawn with another place and gas, once or as the mean of 60.

The direction is Fisher's, of a VAE with the same networks, fitted on the training images' labels,
at the strength whose mean estimated size is a fifth. The flow is a prior of the same VAE that is
told the size: a latent is carried to its noise without a hernia, and back with one. `M2` is told
only whether there is one. Rows with Muon take a third of the epochs. Can be interrupted and
resumed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from hernia import SETTINGS, SIDE
from rows import continued, resumable
from scipy import special

import data
from analysis import counterfactual, directions, evidence, judges, latent
from families import priors, registry
from nn.batches import in_batches
from sources import phantoms

TWIN, SIZES = 0.2, (0.12, 0.2, 0.28)
HEALTHY = 200
TOLD = {"model": "ConditionalVAE"}
FORMULAS = {"formulas, one draw": 1, "formulas, mean of 60": 60}
MUON = {"optimizer": "muon", "learning_rate": 5e-3, "epochs": 10}
FLOW = "flow, told size"  # on the latents of the direction's VAE
MODELS = {
    "direction": {},
    FLOW: {},
    "M2": {"model": "M2", "classes": 2},
    "told Hernia": TOLD | {"conditions": ("Hernia",)},
    "told size": TOLD | {"conditions": ("hernia_size",)},
    "told size, leak 3000": TOLD | {"conditions": ("hernia_size",), "leak_weight": 3000.0},
    "told size, leak 3000, change 1": TOLD
    | {"conditions": ("hernia_size",), "leak_weight": 3000.0, "change_weight": 1.0},
    "told size, leak 10000, change 1": TOLD
    | {"conditions": ("hernia_size",), "leak_weight": 10_000.0, "change_weight": 1.0},
    "told size, leak 3000, change 1, Muon": TOLD
    | {"conditions": ("hernia_size",), "leak_weight": 3000.0, "change_weight": 1.0}
    | MUON,
    "told size in stages": TOLD | {"conditions": ("hernia_size",), "told_in": "stages"},
    "told size in stages, leak 300": TOLD
    | {"conditions": ("hernia_size",), "told_in": "stages", "leak_weight": 300.0},
    "told size in stages, leak 3000": TOLD
    | {"conditions": ("hernia_size",), "told_in": "stages", "leak_weight": 3000.0},
    "told size in stages, leak 3000, change 10": TOLD
    | {"conditions": ("hernia_size",), "told_in": "stages"}
    | {"leak_weight": 3000.0, "change_weight": 10.0},
}


def asked(model, table, size):
    """The conditions of images that have a hernia of this size."""
    name = model.conditions.columns[0].name
    return model.conditions(table.assign(**{name: size if name == "hernia_size" else size > 0}))


class Held:
    """Patients that no model has seen, their twins, and a network that estimates sizes."""

    def __init__(self):
        self.table = phantoms.chest_factors(400, 2, seed=2)
        self.images = phantoms.render_chests(self.table, SIDE)
        self.rows = np.flatnonzero(self.table["hernia_size"] == 0)[:HEALTHY]
        self.healthy = self.table.iloc[self.rows].reset_index(drop=True)
        ill = self.healthy.assign(hernia_size=TWIN, Hernia=True)
        self.plain, self.masks = phantoms.hernia_twins(ill, SIDE)
        self.twins = phantoms.render_chests(ill, SIDE)
        self.truth = self.twins / 255.0 - self.plain / 255.0
        known = data.chest_phantom(SIDE, seed=1, subjects=1500, images=2)
        self.gauge = judges.gauge(known, "hernia_size", steps=600, widths=(16, 32, 64))

    def by_formulas(self, draws):
        """Measures of the mean image over true hernias of other places and amounts of gas."""
        free = phantoms.chest_factors(draws * len(self.healthy), 1, seed=3)
        free = free[["gas", "hernia_x"]].to_numpy().reshape(draws, -1, 2)

        def mean(size):
            ill = self.healthy.assign(hernia_size=size, Hernia=True)
            others = (ill.assign(gas=one[:, 0], hernia_x=one[:, 1]) for one in free)
            return sum(phantoms.render_chests(each, SIDE) / 255.0 for each in others) / draws

        told = self.compared(self.plain / 255.0, mean(TWIN))
        seen = {size: self.gauge.values(mean(size)).mean() / size for size in SIZES}
        return told | {f"size at {size}": ratio for size, ratio in seen.items()}

    def compared(self, kept, made):
        """Measures of one change against the true one."""
        change, plain = made - kept, self.plain / 255.0
        whole = counterfactual.added(self.plain, kept, made)
        return {
            "correlation": directions.alike(change, self.truth).mean(),
            "energy inside": directions.inside(change, self.masks).mean(),
            "error to the twin": counterfactual.distance(whole, self.twins / 255.0).mean()
            / counterfactual.distance(plain, self.twins / 255.0).mean(),
        }


def by_direction(model, images, held):
    """Measures of Fisher's direction at the strength with the asked mean size."""
    z, _ = latent.encode(model, images.train)
    direction = directions.Direction.of(z, images.train.table, "Hernia", "fisher")
    own, _ = in_batches(model.encode, held.plain)
    strengths = np.linspace(0.0, 6.0, 25)
    sweep = directions.sweep(model.decode, own, direction, strengths)
    sizes = directions.dose_response(sweep, held.gauge.values)["mean"].to_numpy()
    best = {size: int(np.abs(sizes - size).argmin()) for size in SIZES}
    told = held.compared(sweep[0], sweep[best[TWIN]])
    told |= {f"size at {size}": sizes[best[size]] / size for size in SIZES}
    return told | {"composition": counterfactual.distance(sweep[0], held.plain / 255.0).mean()}


def by_bayes(model, held):
    """AUC by thirds and the correlation of sizes that the model reads by Bayes' rule."""
    sizes = held.table["hernia_size"].to_numpy()
    tried = np.concatenate([[0.0], np.linspace(*phantoms.HERNIA_SIZES, 6)])
    if model.conditions.columns[0].name != "hernia_size":
        tried = tried[[0, -1]]
    choices = np.concatenate([asked(model, held.table[:1], each) for each in tried])
    likely = counterfactual.log_likelihoods(model, held.images, choices)
    share = phantoms.HERNIA_SHARE
    prior = np.log(np.append(1 - share, np.full(len(tried) - 1, share / (len(tried) - 1))))
    posterior = special.softmax(likely + prior, axis=1)
    odds = special.logsumexp(likely[:, 1:], axis=1) - likely[:, 0]
    thirds = evidence.auc_by_third(odds, sizes > 0, sizes)
    names = (f"Bayes, {third}" for third in ("small", "middle", "large"))
    told = dict(zip(names, thirds, strict=True))
    return told | {"Bayes, correlation": np.corrcoef(posterior @ tried, sizes)[0, 1]}


def of_sizes(held, kept, with_hernia):
    """Measures of `with_hernia(size)`, the images with a hernia, for each of `SIZES`."""
    told = {}
    for size in SIZES:
        made = with_hernia(size)
        told[f"size at {size}"] = held.gauge.values(made).mean() / size
        if size == TWIN:
            told |= held.compared(kept, made)
    return told


def leaked(images, held, z, theirs):
    """AUC of a hernia from the latents of the training images, and of others."""
    leak = counterfactual.leak(
        (z, images.train.table["Hernia"].to_numpy(bool)),
        (theirs, held.table["Hernia"].to_numpy(bool), held.table["subject"]),
    )
    return {"leak": leak.auc, "leak low": leak.low, "leak high": leak.high}


def by_flow(model, images, held):
    """Measures of a flow prior on the model's latents that is told the size of the hernia."""
    prior = priors.fit("flow", model, images.train, columns=("hernia_size",))

    def noise(pixels, table):
        return prior.noise_of(in_batches(model.encode, pixels)[0], table[["hernia_size"]])

    own = noise(held.plain, held.healthy)

    def decoded(size):
        table = held.healthy.assign(hernia_size=size)[["hernia_size"]]
        return in_batches(model.decode, prior.of_noise(own, table))

    kept = decoded(0.0)
    told = of_sizes(held, kept, decoded)
    told["composition"] = counterfactual.distance(kept, held.plain / 255.0).mean()
    both = noise(images.train.images[:], images.train.table), noise(held.images, held.table)
    return told | leaked(images, held, *both)


def by_class(model, images, held):
    """Measures of `M2`, which is told whether there is a hernia."""
    own, _ = in_batches(model.encode, held.plain, np.zeros(len(held.plain), np.int32))
    kept, made = (
        in_batches(model.decode, own, np.full(len(own), value, np.int32)) for value in (0, 1)
    )
    told = of_sizes(held, kept, lambda size: made)
    told["composition"] = counterfactual.distance(kept, held.plain / 255.0).mean()
    z, theirs = (
        in_batches(model.encode, pixels, table["Hernia"].to_numpy(np.int32))[0]
        for pixels, table in (
            (images.train.images[:], images.train.table),
            (held.images, held.table),
        )
    )
    odds = np.diff(np.log(in_batches(model.classify, held.images) + 1e-30), axis=1)[:, 0]
    sizes = held.table["hernia_size"].to_numpy()
    thirds = evidence.auc_by_third(odds, sizes > 0, sizes)
    names = (f"Bayes, {third}" for third in ("small", "middle", "large"))
    return told | dict(zip(names, thirds, strict=True)) | leaked(images, held, z, theirs)


def by_condition(model, images, held):
    before = asked(model, held.healthy, 0.0)
    kept, _ = counterfactual.decoded(model, held.plain, before, before)

    def with_hernia(size):
        after = asked(model, held.healthy, size)
        return counterfactual.decoded(model, held.plain, before, after)[1]

    told = of_sizes(held, kept, with_hernia) | by_bayes(model, held)
    after = asked(model, held.healthy, TWIN)
    told["composition"] = counterfactual.composition(model, held.plain, before).mean()
    told["reversibility"] = counterfactual.reversibility(model, held.plain, before, after).mean()
    z, _ = in_batches(model.encode, images.train.images[:], model.conditions(images.train.table))
    theirs, _ = in_batches(model.encode, held.images, model.conditions(held.table))
    return told | leaked(images, held, z, theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", default=[*FORMULAS, *MODELS], metavar="NAME")
    parser.add_argument("--subjects", type=int, default=3000, help="default: 3000")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    images = data.chest_phantom(SIDE, subjects=arguments.subjects, images=2)
    held = Held()
    print(f"size estimator: correlation {held.gauge.correlation:.3f}")

    def measure(key):
        if key["model"] in FORMULAS:
            return held.by_formulas(FORMULAS[key["model"]])
        settings = registry.with_model(
            SETTINGS, seed=key["seed"], **{"model": "VAE"} | MODELS[key["model"]]
        )
        trained_as = "direction" if key["model"] == FLOW else key["model"]
        name = f"{trained_as}-{key['seed']}".replace(", ", "-").replace(" ", "_")
        model = continued(settings, images, arguments.folder / name)
        way = by_condition if model.conditions else by_direction
        way = {FLOW: by_flow, "M2": by_class}.get(key["model"], way)
        return way(model, images, held)

    todo = [{"model": name, "seed": seed} for seed in arguments.seeds for name in arguments.models]
    found = resumable(arguments.folder / "counterfactual.csv", todo, measure)
    groups = found.drop(columns="seed").groupby("model", sort=False)
    print(groups.mean().round(3).T.to_string(), groups.std().round(3).T.to_string(), sep="\n")


if __name__ == "__main__":
    main()
