"""All models on one set of images for equally many epochs, measured by one protocol.

    MNIST_PATH=... OASIS_DIR=... python benchmarks/which_model.py FOLDER --data mnist|brain|phantom

Same networks, same epochs, same split; other differences are in MODELS. Common settings were not
tuned to any one; `gamma` and `most_push`, which introspective models alone read, are those of
`introspective.py`. A step of IWAE or of an introspective model costs about four of the others', so
a VAE of about the same time is added. Times are CPU times, which other work affects little. The
benchmark can be interrupted and resumed, run by run.

Samples are drawn from N(0, I) and from the model's best prior: of N(0, I), one Gaussian and a
mixture, each fitted on training latents, the one that is best on the *validation* images (by
Frechet distance in the judge's features on MNIST, by the density of held-out latents on brains).
Columns `NAME@prior` and `NAME@reconstructions` compare its samples and the model's reconstructions
with the test images.

MNIST at 28x28, two seeds: grey pixels as Bernoulli probabilities, because introspective models
cannot take binary draws; these bounds are not those of the literature. Brain slices at 64x64, two
seeds. Phantom, five seeds: disentanglement. `IntroVAE` is left out: its margin must be set by hand
for every set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pandas as pd
from rows import resumable, trained

import config
import data
import evaluate
import prior
from analysis import judges
from families import registry

PRIORS = ("gaussian", "mixture")  # that are fitted on the latents of every model
BASE = {"schedule": "cosine", "learning_rate": 2e-3}
SETTINGS = {
    "mnist": config.Settings(
        dataset="mnist",
        image_shape=(28, 28, 1),
        widths=(32, 64),
        dense_widths=(256,),
        latent_dim=16,
        gamma=0.25,
        epochs=4,
        batch_size=128,
        **BASE,
    ),
    "brain": config.Settings(
        dataset="brain",
        image_shape=(64, 64, 1),
        flip="upright",
        widths=(16, 32, 64, 64),
        dense_widths=(128,),
        latent_dim=32,
        reconstruction="gaussian",
        sigma=0.1,
        gamma=0.5,
        most_push=0.3,
        epochs=20,
        batch_size=32,
        # With 2e-3 one of two autoencoders gave black images from its first steps on.
        **(BASE | {"learning_rate": 1e-3}),
    ),
    "phantom": config.Settings(
        dataset="chest",
        image_shape=(64, 64, 1),
        widths=(16, 32, 64, 64),
        dense_widths=(128,),
        latent_dim=10,
        reconstruction="gaussian",
        sigma=0.1,
        epochs=24,
        batch_size=64,
        **BASE,
    ),
}
PLAIN = {
    "Autoencoder": {"model": "Autoencoder"},
    "VAE": {"model": "VAE"},
    "VAE, beta 4": {"model": "VAE", "beta": 4.0},
    "BetaTCVAE, beta 4": {"model": "BetaTCVAE", "beta": 4.0},
    "IWAE, k 5": {"model": "IWAE", "k": 5},
    "InfoVAE": {"model": "InfoVAE"},
    "MMD-AE": {"model": "MMD-AE"},
    "AAE": {"model": "AAE"},
    "SoftIntroVAE": {"model": "SoftIntroVAE"},
    "ASIntroVAE": {"model": "ASIntroVAE"},
}
LABELLED = {
    "SemiSupervisedVAE, all labels": {"model": "SemiSupervisedVAE"},
    "M2, all labels": {"model": "M2", "labelled_share": 1.0},
}


def longer(name):
    """A VAE with the training time of the most expensive models."""
    return {"VAE, 4 x epochs": {"model": "VAE", "epochs": 4 * SETTINGS[name].epochs}}


MODELS = {
    "mnist": PLAIN | LABELLED | longer("mnist"),
    "brain": PLAIN | longer("brain"),
    "phantom": {
        "VAE": {"model": "VAE"},
        "VAE, beta 8": {"model": "VAE", "beta": 8.0},
        "BetaTCVAE, beta 8": {"model": "BetaTCVAE", "beta": 8.0},
    },
}
SEEDS = {"mnist": (0, 1), "brain": (0, 1), "phantom": (0, 1, 2, 3, 4)}


def loaded(name):
    """Images of one comparison; more phantoms than the embedded set, for stable scores."""
    if name == "phantom":
        return data.chest_phantom(64, subjects=3000, images=2)
    return data.load(SETTINGS[name])


def run_name(name, model, seed):
    """Name of the folder of one run of a comparison."""
    return f"{name}-{model.replace(', ', '-').replace(' ', '')}-{seed}"


def with_best_prior(run, model, images, judge):
    """Test images against samples of the model's best prior, and against its reconstructions."""
    options = {"components": None, "columns": (), "categories": ()}
    table, found = prior.compared(run, model, images, PRIORS, judge=judge, **options)
    best = prior.chosen(table, "frechet" if judge else "nats")
    numbers, _ = prior.told(model, images, best, found.get(best), judge)
    whose = {best: "prior", prior.RECONSTRUCTIONS: prior.RECONSTRUCTIONS}
    return {"prior": best} | {
        f"{metric}@{called}": numbers.loc[name, metric]
        for name, called in whose.items()
        for metric in numbers
    }


def compare(name, folder, chosen=None):
    images = loaded(name)
    judge = judges.judge(images, cache=folder) if name == "mnist" else None
    if judge:
        print(f"judge: accuracy {judge.accuracy:.4f}")

    def measure(key):
        changes = {"model": SETTINGS[name].model, **MODELS[name][key["model"]]}
        settings = registry.with_model(SETTINGS[name], seed=key["seed"], **changes)
        run = folder / run_name(name, **key)
        model, seconds = trained(settings, images, run)
        numbers = evaluate.report(model, images, run, judge=judge)
        row = {"seconds": seconds} | {metric: each["value"] for metric, each in numbers.items()}
        return row if name == "phantom" else row | with_best_prior(run, model, images, judge)

    todo = [
        {"model": kind, "seed": seed} for seed in SEEDS[name] for kind in chosen or MODELS[name]
    ]
    found = resumable(folder / f"which_{name}.csv", todo, measure).drop(columns="seed")
    groups = found.select_dtypes("number").groupby(found["model"], sort=False)
    with pd.option_context("display.width", None, "display.max_columns", None):
        print(f"{name}: mean, then standard deviation over {len(SEEDS[name])} seeds")
        print(groups.mean().round(4).T.to_string(), groups.std().round(4).T.to_string(), sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", choices=tuple(SETTINGS), required=True)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="default: all of MODELS")
    arguments = parser.parse_args()
    if unknown := set(arguments.models or ()) - set(MODELS[arguments.data]):
        parser.error(f"--models {', '.join(unknown)}: allowed: {', '.join(MODELS[arguments.data])}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    compare(arguments.data, arguments.folder, arguments.models)


if __name__ == "__main__":
    main()
