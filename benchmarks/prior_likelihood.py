"""How much likelihood does a prior bring that is fitted afterwards? By number of Gaussians.

    python benchmarks/prior_likelihood.py RUN [--samples 640] [--images 500] [--to FILE.csv]
    python benchmarks/prior_likelihood.py RUN --draw FILE.csv FIGURE.png

Mixtures of 1 to 100 Gaussians are fitted to draws of the training posteriors; the networks stay as
they are. For each: the density of the validation images' latents, by which `prior.py` chooses; the
bound of all test images; and their likelihood by importance sampling, as the bound minus the gap of
some test images, the same ones for every prior. Can be interrupted and resumed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rows import resumable

import data
import evaluate
import train
from analysis import likelihood, plots
from families import densities, priors
from nn.batches import in_batches


def measured(run, samples, count, path):
    images, model = data.images_of(run), train.load(run)
    z, _ = priors.draws(model, images.train)
    held_out, _ = priors.draws(model, images.validation)

    def measure(key):
        log_prior = model.log_prior
        if key["gaussians"]:
            log_prior = densities.Mixture.fitted(z, components=key["gaussians"]).log_prob
        bound = evaluate.likelihoods(model, images.test.images, log_prior=log_prior)
        gap, error = likelihood.importance_gap(
            model, images.test.images, samples, count, log_prior=log_prior
        )
        middle = float(bound["negative_elbo"].mean())
        return {
            "validation_nats": float(np.mean(in_batches(log_prior, held_out))),
            "negative_elbo": middle,
            "nll": middle - float(gap),
            "error": float(error),
        }

    todo = [{"gaussians": count} for count in (0, *densities.COMPONENTS)]
    print(resumable(path, todo, measure).round(3).to_string(index=False))


def draw(path, figure):
    rows = pd.read_csv(path)
    plain, rows = rows[rows["gaussians"] == 0].iloc[0], rows[rows["gaussians"] > 0]
    lines = {
        "bound of test images": plain["negative_elbo"] - rows["negative_elbo"],
        "likelihood of test images": plain["nll"] - rows["nll"],
        "density of validation latents": rows["validation_nats"] - plain["validation_nats"],
    }
    title = f"N(0, I): bound {plain['negative_elbo']:.2f}, likelihood {plain['nll']:.2f} nats"
    made = plots.curve(
        rows["gaussians"], lines, "Gaussians", "nats gained", log=True, width=6.5, title=title
    )
    plots.save(made, figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=640)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--to", type=Path, default=Path("prior_likelihood.csv"))
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("CSV", "PNG"))
    arguments = parser.parse_args()
    if arguments.draw:
        draw(*arguments.draw)
    else:
        measured(arguments.run, arguments.samples, arguments.images, arguments.to)


if __name__ == "__main__":
    main()
