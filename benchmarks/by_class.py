"""Samples that are asked for by class: are they of it, and how far from real images?

    python benchmarks/by_class.py RUN COLUMN [--guidance 1 1.5 2] [--evaluations 16]
        [--to FILE.csv]

As many samples as there are test images, with their values of COLUMN: from every prior of the run
that was fitted with this condition alone, from flows with each guidance; of a model that is itself
told COLUMN, from N(0, I) too. Beside them the test images' reconstructions, and as many training
images. A classifier that never sees a latent tells how often it reads what was asked (`agrees`; for
a column of yes and no also `auc`, between samples of both), and gives the features for the
distances from the test images. Can be interrupted and resumed.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rows import resumable
from sklearn.metrics import roc_auc_score

import data
import train
from analysis import features, judges, samples
from families import densities, flow_matching, priors
from nn import metrics
from nn.batches import in_batches
from storage import runs

TOLD = "the model, N(0, I)"
RECONSTRUCTIONS = "reconstructions"
REAL = "training images"


def priors_of(run, column):
    """Names of the run's priors that were fitted with this condition alone."""
    there = sorted(each.parent.name for each in (Path(run) / runs.PRIORS).glob("*/prior.json"))
    known = {name: priors.of_run(run, name).conditions for name in there}
    return [
        name
        for name, each in known.items()
        if each is not None and [one.name for one in each.columns] == [column]
    ]


def made(run, model, images, known, column, key, evaluations):
    """Images of one row of the table, and the classes that they were asked to have."""
    source, asked = key["from"], known.labels(column)
    told = [model.conditions(known.table)] if model.conditions else []
    if source == RECONSTRUCTIONS:
        z, _ = in_batches(model.encode, known.images, *told)
        return in_batches(model.decode, z, *told), asked
    if source == REAL:
        labelled = np.flatnonzero(images.train.labels(column) >= 0)
        some = images.train.only(np.random.default_rng(0).permutation(labelled)[: len(known)])
        return some.images / np.float32(255), some.labels(column)
    if source == TOLD:
        z = densities.Normal(model.latent_dim).sample(len(known))
        return in_batches(model.decode, z, *told), asked
    pictures = np.zeros(known.images.shape, np.float32)
    for value in np.unique(asked):
        rows, options = np.flatnonzero(asked == value), {}
        if guided(run, source):
            options = {"guidance": key["guidance"], "evaluations": evaluations}
        condition = {column: known.table[column].iloc[rows[0]]}
        prior = priors.of_run(run, source, condition, **options)
        pictures[rows] = model.sample(len(rows), int(value), prior).numpy()
    return pictures, asked


def guided(run, name):
    return isinstance(priors.of_run(run, name), flow_matching.Flow)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("column")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--to", type=Path, help="default: by_class.csv in RUN")
    arguments = parser.parse_args()
    run, column = arguments.run, arguments.column
    images, model = data.images_of(run), train.load(run)
    known = images.test.only(images.test.labels(column) >= 0)
    real = known.images / np.float32(255)
    judge = judges.judge(images, column)
    print(f"the classifier: accuracy {judge.accuracy:.4f}, auc {judge.auc:.3f}", flush=True)
    theirs, seen = judge.features(real), features.Untrained(images.train.images)

    def measure(key):
        begun = time.process_time()
        ours, asked = made(run, model, images, known, column, key, arguments.evaluations)
        told = {"seconds": time.process_time() - begun}
        told["agrees"] = np.mean(judge.labels(ours) == asked)
        if len(set(known.labels(column))) == 2:
            told["auc"] = roc_auc_score(asked, judge.values(ours))
        told["sharpness"] = metrics.sharpness(ours).mean() / metrics.sharpness(real).mean()
        for mark, reference, features_of in (
            ("", theirs, judge.features),
            ("unlabelled_", seen(real), seen),
        ):
            distances = samples.in_features(reference, features_of(ours))
            told |= {mark + name: value for name, (value, _) in distances.items()}
        return told

    todo = [{"from": name, "guidance": 1.0} for name in (REAL, RECONSTRUCTIONS)]
    if model.conditions:
        todo.append({"from": TOLD, "guidance": 1.0})
    for name in priors_of(run, column):
        strengths = arguments.guidance if guided(run, name) else [1.0]
        todo += [{"from": name, "guidance": each} for each in strengths]
    table = resumable(arguments.to or run / "by_class.csv", todo, measure)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
