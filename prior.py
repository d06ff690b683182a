"""Fits priors on a run's latents and compares their samples.

    python prior.py RUN [--kind NAME ...] [--seeds N] [--by MEASURE]
    python prior.py RUN --kind mixture flow --condition COLUMN [COLUMN ...]

Fits priors of several kinds on the latents of the training images, compares their samples with the
*validation* images, chooses one, and reports it on the *test* images, compared with N(0, I) and
with the model's own reconstructions, which show what its decoder can do. The priors are saved
in `RUN/priors/`, the table in `RUN/priors/priors.csv`, a row of samples of each in `priors.png`;
the chosen one becomes the run's own. With `--condition` the priors are fitted, saved and shown, but
none is chosen.
"""

import argparse
import sys
from pathlib import Path

import config

COMPARED = ("gaussian", "mixture", "coupling", "flow")
BY = {
    **dict.fromkeys(("frechet", "unlabelled_frechet", "wasserstein"), "lower"),
    "nats": "higher",
}


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument(
        "--kind",
        nargs="+",
        default=list(COMPARED),
        metavar="NAME",
        help=f"gaussian, mixture, two-stage, coupling, flow; default: {' '.join(COMPARED)}",
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds per kind; default: 1")
    parser.add_argument(
        "--components", type=int, help="of the mixture; default: chosen on held-out latents"
    )
    parser.add_argument("--steps", type=int, default=4000, help="training steps of trained kinds")
    parser.add_argument("--width", type=int, help="of the layers of trained kinds")
    parser.add_argument(
        "--batch-size",
        type=int,
        help="latents of a training step of trained kinds; default: 256, of maps 64",
    )
    parser.add_argument(
        "--condition",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="condition on these columns of the images' table",
    )
    parser.add_argument(
        "--by",
        choices=BY,
        help="how to choose: frechet, a distance in the features of a classifier of the labels, "
        "which is trained once; unlabelled_frechet, in those of an untrained network; wasserstein, "
        "between small patches of images; or nats, the density of held-out latents, which flow and "
        "two-stage do not have. Default: frechet where there are labels, else nats, or "
        "unlabelled_frechet if some kind has none (of few images wasserstein)",
    )
    arguments = parser.parse_args(words)
    for name in ("seeds", "steps", "components", "width", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: give 1 or more")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import os
import time

import numpy as np
import pandas as pd

import data
import train
from analysis import features, judges, plots, samples
from families import priors
from nn import metrics
from nn.batches import in_batches
from storage import checkpoints, disk, runs

LEAST = 200  # validation images for a Frechet distance: more than the classifier has features
SHOWN = 12  # samples in a row of the figure, the first ones
TRAINED = ("steps", "width", "batch_size")  # options of trained kinds
OWN = "N(0, I)"
RECONSTRUCTIONS = "reconstructions"
IN_FEATURES = (
    *("frechet", "precision", "recall"),
    *("unlabelled_frechet", "unlabelled_precision", "unlabelled_recall"),
)


def measured(made, compared) -> dict:
    """Distances of generated images from real ones.

    Args:
        made: Floats in [0, 1], `(n, height, width, channels)`.
        compared: `samples.Compared` of the real images.

    Returns:
        `sharpness`, in units of the real images'; `wasserstein`, the mean over the levels of
        `metrics.sliced_wasserstein`; `unlabelled_frechet`, `unlabelled_precision` and
        `unlabelled_recall`, and with a judge `frechet`, `precision` and `recall`.
    """
    values, count = compared(made), min(len(made), len(compared.real))
    levels = metrics.sliced_wasserstein(compared.real[:count], made[:count])
    found = {
        "sharpness": values["sample_sharpness"][0],
        "wasserstein": float(np.mean(list(levels.values()))),
    }
    return found | {name: values[name][0] for name in IN_FEATURES if name in values}


def fitted(run, kind, model, split, seed, options):
    """A prior, and the wall-clock and CPU seconds of its fit."""
    clock, processor = time.monotonic(), sum(os.times()[:2])
    chosen = {}
    if kind == "mixture" and options["components"]:
        chosen["components"] = options["components"]
    if kind in ("two-stage", "coupling", "flow"):
        # Of these weights: a training on other latents must not be taken for this one.
        digest = checkpoints.digest_of(run)[:8]
        folder = runs.prior_folder(run, _name(kind, options["columns"]))
        sizes = {name: options[name] for name in TRAINED if options.get(name)}
        # The batch is marked: a width and a batch of one number are two trainings.
        marks = {"batch_size": "b"}
        named = (f"{marks.get(name, '')}{size}" for name, size in sizes.items())
        folder /= "-".join(["training", digest, *named, str(seed)])
        chosen |= {"folder": folder, "told": True, **sizes}
    moves = priors.moves(runs.load_settings(run))
    known = (options["columns"], options["categories"], moves)
    prior = priors.fit(kind, model, split, seed, *known, **chosen)
    return prior, time.monotonic() - clock, sum(os.times()[:2]) - processor


def compared(run, model, images, kinds, seeds=1, judge=None, **options):
    """Fits priors and compares their samples with a run's validation images.

    Args:
        run: Run folder, where the priors are saved.
        model: Its model.
        images: Its images.
        kinds: Names of `priors.KINDS`.
        seeds: Seeds per kind.
        judge: `judges.Judge`, or None.
        **options: `components`, `columns`, `categories`, and those of `TRAINED`.

    Returns:
        `(table, fitted)`: a row for each kind and seed, including N(0, I) and the reconstructions;
            and the priors of seed 0, by kind.
    """
    count = len(images.validation)
    known = samples.Compared(model, images, images.validation, judge, None)
    rows = [{"prior": OWN, **measured(samples.drawn(model, count), known)}]
    z, _ = priors.draws(model, images.validation)
    rows[0]["nats"] = float(np.mean(in_batches(model.log_prior, z)))
    again = in_batches(model.reconstruct, images.validation.images)
    found = {}
    for kind in kinds:
        for seed in range(seeds):
            prior, clock, processor = fitted(run, kind, model, images.train, seed, options)
            row = {"prior": kind, "seed": seed, "fit, s": clock, "fit, processor s": processor}
            if prior.exact and prior.conditions is None:
                row["nats"] = float(np.mean(in_batches(prior.log_prob, z)))
            row |= measured(samples.drawn(model, count, prior), known)
            rows.append(row)
            if not seed:
                found[kind] = prior
                runs.save_prior(run, _name(kind, options["columns"]), *prior.parts())
            print(_line(row))
    rows.append({"prior": RECONSTRUCTIONS, **measured(again, known)})
    return pd.DataFrame(rows), found


def _name(kind, columns):
    return "-".join([kind, *columns])


def _line(row):
    numbers = (f"{key} {value:.3g}" for key, value in row.items() if key not in ("prior", "seed"))
    return f"{row['prior']}: {', '.join(numbers)}"


def chosen(table, by) -> str:
    """The prior whose samples are closest to the validation images, averaged over its seeds."""
    tried = table[table["prior"] != RECONSTRUCTIONS].groupby("prior")[by].mean().dropna()
    return str(tried.idxmin() if BY[by] == "lower" else tried.idxmax())


def _without_labels(split):
    """The measure of samples beside so many images without labels."""
    return "unlabelled_frechet" if len(split) > features.UNITS else "wasserstein"


def told(model, images, name, prior, judge=None):
    """The chosen prior (None: N(0, I)) on the test images: rows of `measured`, and a sentence."""
    by = "frechet" if judge else _without_labels(images.test)
    known, count = samples.Compared(model, images, images.test, judge, None), len(images.test)
    made = {OWN: samples.drawn(model, count)}
    if prior is not None:
        made[name] = samples.drawn(model, count, prior)
    made[RECONSTRUCTIONS] = in_batches(model.reconstruct, images.test.images)
    rows = {each: measured(pictures, known) for each, pictures in made.items()}
    values = {each: f"{row[by]:.3g}" for each, row in rows.items()}
    sentence = (
        f"Test images, {by} (lower is nearer): prior {name} {values[name]}, {OWN} {values[OWN]}; "
        f"the model's reconstructions {values[RECONSTRUCTIONS]}. Sharpness (real images' is 1): "
        f"{rows[name]['sharpness']:.2f}, {rows[OWN]['sharpness']:.2f}; "
        f"{rows[RECONSTRUCTIONS]['sharpness']:.2f}."
    )
    return pd.DataFrame(rows).T, sentence


def figure(model, images, found):
    """A row of samples for each prior, the first ones of seed 0, with real images."""
    rows = {"real": images.test.images[:SHOWN], OWN: model.sample(SHOWN).numpy()}
    for name, prior in found.items():
        rows[name] = model.sample(SHOWN, prior=prior).numpy()
    rows[RECONSTRUCTIONS] = model.reconstruct(images.test.images[:SHOWN]).numpy()
    return plots.image_rows(rows)


def main(words=None):
    arguments = parsed(words)
    run = arguments.run
    options = {
        "components": arguments.components,
        **{name: getattr(arguments, name) for name in TRAINED},
        "columns": tuple(arguments.condition),
    }
    try:
        for kind in arguments.kind:
            if kind not in priors.KINDS:
                allowed = ", ".join(priors.KINDS)
                raise ValueError(f"there is no kind of prior {kind!r}; allowed: {allowed}")
        images, model = data.images_of(run), train.load(run)
        if not model.has_latent:
            raise ValueError(f"{run}: a {type(model).__name__} has no latent for a prior")
        options["categories"] = (images.label,)  # a class is a number, and no quantity
        labelled = images.label is not None and len(images.classes) > 1
        enough = labelled and len(images.validation) >= LEAST
        exact = all(priors.KINDS[kind].exact for kind in arguments.kind)
        plain = "nats" if exact else _without_labels(images.validation)
        by = arguments.by or ("frechet" if enough else plain)
        if by == "nats" and not exact and not options["columns"]:
            raise ValueError(
                "--by nats: not every kind of these has a density "
                f"({', '.join(arguments.kind)}); compare them by unlabelled_frechet"
            )
        judge = None
        if by == "frechet":
            if not enough:
                raise ValueError(
                    f"--by frechet needs labels and {LEAST} validation images; {images.name} has "
                    f"{len(images.validation)}{'' if labelled else ' and no labels'}; use nats"
                )
            print(f"training the classifier of {images.name}, or reading it from the cache")
            judge = judges.judge(images)
        begun = time.monotonic()
        table, found = compared(
            run, model, images, arguments.kind, arguments.seeds, judge, **options
        )
        with disk.replacing(run / runs.PRIORS / "priors.csv") as temporary:
            table.to_csv(temporary, index=False)
        plots.save(figure(model, images, found), run / runs.PRIORS / "priors.png")
        print(f"Compared on the validation images in {time.monotonic() - begun:.0f} s:")
        with pd.option_context("display.width", None, "display.max_columns", None):
            print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
        if options["columns"]:
            return
        best, before = chosen(table, by), runs.own_prior(run)
        runs.choose_prior(run, priors.NORMAL if best == OWN else best)
        if best == OWN:
            left = f", and no longer from {before}" if before not in (None, priors.NORMAL) else ""
            print(f"{OWN} is best; the run draws from it{left}.")
            return
        _, sentence = told(model, images, best, found[best], judge)
        print(sentence)
        print(f"The run now draws from it: python apply.py {run} --generate 100")
    except KeyboardInterrupt:
        print("\nprior.py: stopped; run the same command to continue", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"prior.py: {error}")


if __name__ == "__main__":
    main()
