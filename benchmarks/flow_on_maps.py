"""What a flow on latent maps can do: samples, and holes filled, on the test images of a run.

    python benchmarks/flow_on_maps.py RUN FOLDER [--prior flow] [--beside OTHER_RUN ...]
        [--tables samples told_apart holes] [--evaluations 4 8 16 32 64]

Three tables in FOLDER, each of which can be interrupted and resumed:

- `samples.csv`: as many samples as there are test images, by the evaluations of the network for
  each; beside them N(0, I), the run's other priors, its reconstructions, as many real training
  images, and the samples of other runs on the same images (from their own priors). Seconds are
  those of 1,000 samples.
- `told_apart.csv`: AUC of a small classifier that is trained to tell real training images from
  samples, on test images and other samples; beside it the same for reconstructions of these images.
- `holes.csv`: a square hole with a quarter of the image's sides, at a random place inside the
  object, in every test image: root mean squared error inside of it, of single draws and of the mean
  of four; beside it the mean training image, and the conditional mean of a Gaussian with the
  principal components of the training images.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import resumable

import data
import prior as command
import train
from analysis import filling, judges, samples
from families import flow_matching, priors
from nn.batches import in_batches
from sources.splits import Split
from storage import runs

TABLES = ("samples", "told_apart", "holes")
EVALUATIONS = (4, 8, 16, 32, 64)
TIMED = 1000
STEPS, WIDTHS = 300, (8, 16)  # of the classifier: four minutes on a core at 128x128
DRAWS = 4
REAL = "training images"


class Sets:
    """A run's model and images, and sets of images that its priors make."""

    def __init__(self, run, name):
        self.run, self.name = Path(run), name
        self.model, self.images = train.load(run), data.images_of(run)

    def prior(self, name, evaluations=None):
        options = {"evaluations": int(evaluations)} if evaluations else {}
        return priors.of_run(self.run, name, **options)

    def made(self, name, split, evaluations=None, seed=0):
        """As many images as a split has: samples of a prior, or reconstructions."""
        if name == command.RECONSTRUCTIONS:
            return in_batches(self.model.reconstruct, split.images)
        if name == REAL:
            rows = np.random.default_rng(seed).permutation(len(self.images.train))[: len(split)]
            return self.images.train.only(rows).images[:] / np.float32(255)
        prior = self.prior(name, evaluations)
        return self.model.sample(len(split), seed, prior).numpy()


def priors_of(run):
    return [priors.NORMAL, *runs.priors_of(run)]


def sampled(sets, others, to, evaluations):
    """Table of samples, of the flow with each number of evaluations."""
    known = samples.Compared(sets.model, sets.images, sets.images.test, None, None)

    def measure(key):
        if key["run"] != str(sets.run):
            other = others[key["run"]]
            return command.measured(other.made(None, sets.images.test), known)
        made = sets.made(key["prior"], sets.images.test, key["evaluations"])
        begun = time.monotonic()
        if key["prior"] not in (command.RECONSTRUCTIONS, REAL):
            sets.model.sample(TIMED, 1, sets.prior(key["prior"], key["evaluations"]))
        return {"seconds": time.monotonic() - begun} | command.measured(made, known)

    todo = [(name, 0) for name in priors_of(sets.run) if name != sets.name]
    todo += [(sets.name, number) for number in evaluations]
    todo += [(command.RECONSTRUCTIONS, 0), (REAL, 0)]
    todo = [{"run": str(sets.run), "prior": name, "evaluations": each} for name, each in todo]
    todo += [{"run": run, "prior": "own", "evaluations": 0} for run in others]
    return resumable(to, todo, measure)


def told_apart(sets, others, to):
    """Table of a classifier's AUC."""

    def measure(key):
        source = sets if key["run"] == str(sets.run) else others[key["run"]]
        name = None if key["made by"] == "own" else key["made by"]
        parts = {}
        for seed, (part, split) in enumerate(sets.images.splits.items()):
            made = np.rint(255 * np.clip(source.made(name, split, seed=10 + seed), 0, 1))
            both = np.concatenate([split.images[:], made.astype(np.uint8)])
            marks = np.repeat([0, 1], len(split))
            names = [f"{part}/{number}" for number in range(len(both))]
            table = pd.DataFrame({"file": names, "subject": names, "made": marks})
            parts[part] = Split(both, table)
        images = replace(sets.images, **parts, label="made", classes=("real", "made"))
        options = {"seed": key["seed"], "steps": STEPS, "widths": WIDTHS}
        judge = judges.judge(images, **options, cache=to.parent / "judges")
        return {"auc": judge.auc, "accuracy": judge.accuracy}

    todo = [
        {"run": run, "made by": name, "seed": 0}
        for run, name in [
            (str(sets.run), sets.name),
            (str(sets.run), command.RECONSTRUCTIONS),
            *((run, "own") for run in others),
        ]
    ]
    return resumable(to, todo, measure)


def square_holes(images, seed=0):
    """A square of a quarter of the sides in each image, its middle on a pixel above the mean."""
    random, (count, height, width) = np.random.default_rng(seed), images.shape[:3]
    high, wide, holes = height // 4, width // 4, np.zeros((count, height, width), bool)
    for image, hole in zip(images.mean(axis=-1), holes, strict=True):
        inside = np.argwhere(image > image.mean())
        row, column = inside[random.integers(len(inside))]
        top = np.clip(row - high // 2, 0, height - high)
        left = np.clip(column - wide // 2, 0, width - wide)
        hole[top : top + high, left : left + wide] = True
    return holes


def filled(sets, to):
    """Table of holes."""
    test = sets.images.test.images[:] / np.float32(255)
    training = sets.images.train.images[:]
    holes = square_holes(test)

    def error(made):
        inside = np.square(made - test)[holes].reshape(len(test), -1)
        return np.sqrt(inside.mean(axis=1))

    def measure(key):
        if key["filled by"] == "mean training image":
            mean = training.mean(axis=0, dtype=np.float64).astype(np.float32) / 255
            return {"error": error(np.broadcast_to(mean, test.shape)).mean()}
        if key["filled by"] == "PCA":
            return {"error": error(filling.by_gaussian(training, test, holes)).mean()}
        flow = sets.prior(sets.name)
        draws = np.stack(
            [filling.filled(sets.model, flow, test, holes, seed) for seed in range(DRAWS)]
        )
        single = np.stack([error(each) for each in draws])
        inside = draws[:, holes].reshape(DRAWS, len(test), -1)
        return {
            "error": single.mean(),
            "error of the mean draw": error(draws.mean(axis=0)).mean(),
            "spread": np.sqrt(inside.var(axis=0, ddof=1).mean()),
        }

    todo = [
        {"run": str(sets.run), "filled by": name}
        for name in ("mean training image", "PCA", sets.name)
    ]
    return resumable(to, todo, measure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prior", default=flow_matching.Flow.kind, help="its flow; default: flow")
    parser.add_argument("--beside", nargs="+", default=[], metavar="RUN")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--evaluations", nargs="+", type=int, default=EVALUATIONS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sets = Sets(arguments.run, arguments.prior)
    others = {run: Sets(run, None) for run in arguments.beside}
    make = {
        "samples": partial(sampled, sets, others, evaluations=arguments.evaluations),
        "told_apart": partial(told_apart, sets, others),
        "holes": partial(filled, sets),
    }
    for name in arguments.tables:
        table = make[name](to=arguments.folder / f"{name}.csv")
        print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
