"""Samples that are asked for by class: are they of it, and how far from real images?

    python benchmarks/by_class.py RUN COLUMN [--guidance 1 1.5 2] [--evaluations 16]
        [--steps 2000] [--to FILE.csv] [--draw FILE.png]

As many samples as there are test images, with their values of COLUMN: from every prior of the run
that was fitted with this condition alone, from flows with each guidance; of a model that is itself
told COLUMN, from N(0, I) too. Beside them the test images' reconstructions, and as many training
images. A classifier that never sees a latent tells how often it reads what was asked (`agrees`; for
a column of yes and no also `auc`, between samples of both), and gives the features for the
distances from the test images. Can be interrupted and resumed.

The picture has the first samples of each class, none chosen, from the first flow with the last
guidance, and real test images of as many subjects.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rows import resumable
from sklearn.metrics import roc_auc_score

import data
import prior as command
import train
from analysis import features, judges, plots, samples
from families import densities, flow_matching, priors
from nn import metrics
from nn.batches import in_batches
from storage import runs

TOLD = "the model, N(0, I)"
REAL = "training images"
CLASS = "class asked for"
SHOWN = 10  # of each class


def numbered(images, column):
    """The images with a column CLASS: the values of another column, numbered from 0."""
    values = sorted(images.train.table[column].dropna().unique())
    numbers = {value: number for number, value in enumerate(values)}
    splits = {
        name: replace(split, table=split.table.assign(**{CLASS: split.table[column].map(numbers)}))
        for name, split in images.splits.items()
    }
    return replace(images, **splits)


def knows(prior, column):
    """Whether a prior was fitted with this condition alone."""
    return prior.conditions is not None and prior.conditions.names == [column]


def of_prior(model, prior, known, column, options):
    """An image of each row's class, from a prior that was fitted with this condition."""
    asked, pictures = known.labels(CLASS), np.zeros(known.images.shape, np.float32)
    for value in np.unique(asked):
        rows = np.flatnonzero(asked == value)
        condition = {column: known.table[column].iloc[rows[0]]}
        own = priors.Asked(prior, condition=condition, **options)
        pictures[rows] = model.sample(len(rows), int(value), own).numpy()
    return pictures


def picture(model, prior, known, column, options):
    """Samples of every class above real images of it, one of a subject."""
    rows = {}
    for code, value in known.table.groupby(CLASS)[column].first().items():
        own = priors.Asked(prior, condition={column: value}, **options)
        rows[f"asked for {value}"] = model.sample(SHOWN, int(code), own).numpy()
        there = known.table[known.labels(CLASS) == code].drop_duplicates("subject").index
        rows[f"real, {value}"] = known.images[there[:SHOWN]]
    return plots.image_rows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("column")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2000, help="of the classifier; default: 2000")
    parser.add_argument("--to", type=Path, help="default: by_class.csv in RUN")
    parser.add_argument("--draw", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    run, column = arguments.run, arguments.column
    images, model = numbered(data.images_of(run), column), train.load(run)
    known = images.test.only(images.test.labels(CLASS) >= 0)
    judge = judges.judge(images, CLASS, steps=arguments.steps)
    print(f"the classifier: accuracy {judge.accuracy:.4f}, auc {judge.auc:.3f}", flush=True)
    told = [model.conditions(known.table)] if model.conditions else []
    there = {name: priors.of_run(run, name) for name in runs.priors_of(run)}
    there = {name: prior for name, prior in there.items() if knows(prior, column)}
    flows = [each for each in there.values() if isinstance(each, flow_matching.Flow)]
    if arguments.draw and flows:
        options = {"guidance": arguments.guidance[-1], "evaluations": arguments.evaluations}
        plots.save(picture(model, flows[0], known, column, options), arguments.draw)
    real = known.images / np.float32(255)
    seen, edges = features.Untrained(images.train.images), metrics.sharpness(real).mean()
    sides = {"": (judge.features, judge.features(real)), "unlabelled_": (seen, seen(real))}

    def made(source, guidance):
        asked = known.labels(CLASS)
        if source == REAL:
            labelled = np.flatnonzero(images.train.labels(CLASS) >= 0)
            some = images.train.only(np.random.default_rng(0).permutation(labelled)[: len(known)])
            return some.images / np.float32(255), some.labels(CLASS)
        if source in there:
            flow = isinstance(there[source], flow_matching.Flow)
            options = {"guidance": guidance, "evaluations": arguments.evaluations} if flow else {}
            return of_prior(model, there[source], known, column, options), asked
        if source == command.RECONSTRUCTIONS:
            z, _ = in_batches(model.encode, known.images, *told)
        else:
            z = densities.Normal(model.latent_dim).sample(len(known))
        return in_batches(model.decode, z, *told), asked

    def measure(key):
        begun = time.process_time()
        ours, asked = made(key["from"], key["guidance"])
        row = {"seconds": time.process_time() - begun}
        row["agrees"] = np.mean(judge.labels(ours) == asked)
        if len(set(known.labels(CLASS))) == 2:
            row["auc"] = roc_auc_score(asked, judge.values(ours))
        row["sharpness"] = metrics.sharpness(ours).mean() / edges
        for mark, (features_of, theirs) in sides.items():
            distances = samples.in_features(theirs, features_of(ours))
            row |= {mark + name: value for name, (value, _) in distances.items()}
        return row

    todo = [{"from": name, "guidance": 1.0} for name in (REAL, command.RECONSTRUCTIONS)]
    todo += [{"from": TOLD, "guidance": 1.0}] if told else []
    for name, prior in there.items():
        strengths = arguments.guidance if isinstance(prior, flow_matching.Flow) else [1.0]
        todo += [{"from": name, "guidance": each} for each in strengths]
    table = resumable(arguments.to or run / "by_class.csv", todo, measure)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
