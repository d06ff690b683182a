"""The likelihood of test images under a model that is told their class.

    MNIST_PATH=... python benchmarks/class_likelihood.py RUN [--samples 5000] [--images 500]
        [--to FILE.csv]

A row for every prior: N(0, I), and for each class a mixture of Gaussians that is fitted afterwards
on the latents of its training images. `nll` is -log p(x | y): the bound of all test images, minus
its gap by importance sampling on some of them. `over_classes` is the negative logarithm of the mean
of p(x | y) over all classes, which is a density of images and at most log(classes) nats more. Can
be interrupted and resumed.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from rows import resumable
from scipy.special import logsumexp

import data
import train
from analysis import likelihood
from families import densities, priors
from sources.conditions import repeated

PRIORS = ("normal", "mixture")
BOUND_DRAWS = 16  # of each posterior, for the bound of all images
CLASS_DRAWS = 64  # of each posterior under each class, to compare the classes


def log_priors(model, images, column, kind):
    """Log-density of the latents of each class."""
    if kind == "normal":
        return [model.log_prior] * len(images.classes)
    splits = (images.train.only(images.train.labels(column) == each) for each in _values(images))
    known = (priors.draws(model, split, columns=(column,))[0] for split in splits)
    return [densities.Mixture.fitted(z).log_prob for z in known]


def measured(model, images, known, samples, count):
    """Nats of all classes under one prior: the columns in the docstring of the file."""
    column, values = images.label, _values(images)
    splits = [images.test.only(images.test.labels(column) == each) for each in values]
    random, some = np.random.default_rng(0), []
    for split in splits:
        rows = random.permutation(len(split))[: math.ceil(count / len(values))]
        some.append(split.only(np.sort(rows)).images)
    owners = np.repeat(np.arange(len(values)), [len(each) for each in some])

    def weighed(pixels, value, draws, together=likelihood.TOGETHER):
        given = model.conditions(repeated({column: value}, len(pixels)))
        options = {"log_prior": known[value], "conditions": given, "together": together}
        return likelihood.log_likelihood(model, pixels, draws, **options)

    bounds, gaps, under = [], [], []
    for value in values:
        bounds.append(weighed(splits[value].images, value, BOUND_DRAWS, (8, BOUND_DRAWS))[1])
        likely, bound = weighed(some[value], value, samples)
        gaps.append(bound + likely)
        under.append(weighed(np.concatenate(some), value, CLASS_DRAWS)[0])
    bound, gap = np.concatenate(bounds).mean(), np.concatenate(gaps)
    # How much more the sum over classes is than what the true one has: almost nothing.
    under = np.stack(under, axis=1)
    more = logsumexp(under, axis=1) - under[np.arange(len(owners)), owners]
    nll = bound - gap.mean()
    return {
        "images": len(images.test),
        "bound": bound,
        "nll": nll,
        "error": gap.std() / math.sqrt(len(gap)),
        "over_classes": nll + math.log(len(values)) - more.mean(),
    }


def _values(images):
    return range(len(images.classes))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--images", type=int, default=500, help="for the gap, of all classes")
    parser.add_argument("--to", type=Path, help="default: class_likelihood.csv in RUN")
    arguments = parser.parse_args()
    images, model = data.images_of(arguments.run), train.load(arguments.run)

    def measure(key):
        known = log_priors(model, images, images.label, key["prior"])
        return measured(model, images, known, arguments.samples, arguments.images)

    path = arguments.to or arguments.run / "class_likelihood.csv"
    table = resumable(path, [{"prior": kind} for kind in PRIORS], measure)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
