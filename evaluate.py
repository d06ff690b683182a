"""One measuring protocol for every model.

python evaluate.py RUN [RUN ...] [--nll [SAMPLES]] [--judge] [--inception WEIGHTS]
python evaluate.py RUN --images PATH --to FILE.json      # other images than the run's own
python evaluate.py RUN --split train --to FILE.json      # its training images
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import config

SAMPLES = 5000  # of each posterior: Burda et al., 2016


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description="Measure trained runs on their test images.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--nll",
        type=int,
        nargs="?",
        const=SAMPLES,
        default=0,
        metavar="SAMPLES",
        help="also estimate the likelihood by importance sampling, so many draws an image; without "
        f"a number {SAMPLES:,}, which takes half an hour on MNIST",
    )
    parser.add_argument(
        "--judge",
        action="store_true",
        help="compare samples with real images in the features of a classifier, trained once: "
        "a minute at 28x28, an hour at 256x256",
    )
    parser.add_argument(
        "--inception",
        type=Path,
        metavar="WEIGHTS",
        help="Keras' file of InceptionV3's ImageNet weights without the top, for a "
        "Frechet distance similar to FID",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="measure these images instead, in the same layout as the training images (needs --to)",
    )
    parser.add_argument(
        "--prior",
        action="append",
        default=[],
        metavar="NAME",
        help="measure samples (and the bound) under this prior of the run too, as name@prior; own "
        "is the one that the run got in training (prior.py fits others)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="test",
        help="which of the run's images; other numbers than those of the test images need --to",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="where the numbers go; default: RUN/metrics.json"
    )
    arguments = parser.parse_args(words)
    if arguments.nll < 0:
        parser.error("--nll: samples are counted from 1")
    if arguments.images and not arguments.to:
        parser.error("--images needs --to FILE: other images' numbers do not replace the run's")
    if arguments.split != "test" and not arguments.to:
        parser.error(f"--split {arguments.split} needs --to FILE: the run keeps its test numbers")
    if arguments.to and len(arguments.runs) > 1:
        parser.error("--to takes the numbers of one run")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import json
import math

import numpy as np
import pandas as pd
import tensorflow as tf

import config
import data
import train
from analysis import factors, features, judges, latent, likelihood, reconstruction
from analysis.samples import IN_FEATURES, NEARER, UNLABELLED, Compared, drawn
from families import priors
from nn import metrics
from nn.batches import as_float, in_batches
from storage import checkpoints, disk, runs

DRAWS = 5  # fixed draws of binary pixels and of z for each image
NEIGHBOURS = 10

# Unit, which way is better, and how it is computed. The order is that of the table.
PROTOCOL = {
    "negative_elbo": (
        "nats per image",
        "lower",
        f"rate + distortion at beta = 1, mean over {DRAWS} fixed draws",
    ),
    "nll": (
        "nats per image",
        "lower",
        "negative_elbo minus the gap between bound and likelihood, estimated by importance "
        "sampling; standard error of the gap",
    ),
    "rate": ("nats per image", "", "KL of the posterior from N(0, I), analytic"),
    "distortion": (
        "nats per image",
        "lower",
        f"negative log-likelihood of the targets, one z for each of {DRAWS} fixed draws",
    ),
    "ssim": ("", "higher", "reconstruction from the posterior mean against the grey image"),
    "ssim_foreground": (
        "",
        "higher",
        "as ssim, only where the original's local mean exceeds 0.05: black margins left out",
    ),
    "psnr": ("dB", "higher", "as ssim; mean over images of each image's dB"),
    "ms_ssim": (
        "",
        "higher",
        "as ssim, on five scales (Wang et al., 2003); images of at least 176 pixels each way",
    ),
    "mse": ("squared grey levels", "lower", "as ssim; mean over pixels"),
    "active_units": ("axes", "", "variance of the posterior mean over images above 0.01"),
    "knn_purity": (
        "share",
        "higher",
        f"{NEIGHBOURS} nearest neighbours of the posterior mean, same split, same label",
    ),
    "frechet": (
        "squared feature units",
        "lower",
        "samples against held-out images, features of our own classifier: not FID",
    ),
    "kernel": (
        "",
        "lower",
        "as frechet: unbiased squared MMD, cubic kernel; standard error over blocks of 1,000",
    ),
    "precision": (
        "share",
        "higher",
        "share of samples within the radius of a held-out image, in the same features; the radius "
        f"is the distance of its neighbour number {metrics.REACH}",
    ),
    "recall": (
        "share",
        "higher",
        "share of held-out images within the radius of a sample, in the same features",
    ),
    "unlabelled_frechet": (
        "squared standard deviations",
        "lower",
        "as frechet, features of an untrained network, whitened on training images",
    ),
    "unlabelled_kernel": ("", "lower", "as kernel, in the features of unlabelled_frechet"),
    "unlabelled_precision": (
        "share",
        "higher",
        "as precision, in the features of unlabelled_frechet",
    ),
    "unlabelled_recall": ("share", "higher", "as recall, in the features of unlabelled_frechet"),
    "inception_frechet": (
        "squared feature units",
        "lower",
        "as frechet, features of Keras' InceptionV3 (ImageNet), images resized to 299x299; "
        "similar to FID, whose network has other weights",
    ),
    "sample_sharpness": (
        "of real images'",
        "",
        "variance of the Laplacian, mean over samples, in units of held-out images' mean",
    ),
    "nearer_than_real": (
        "share",
        "",
        "share of pairs (sample, held-out image) in which the sample is closer to its nearest "
        "training image: 0.5 if samples are no closer, 1 if they are copies. Blurred samples also "
        "raise it",
    ),
    "nearer_than_redrawn": (
        "share",
        "",
        "as nearer_than_real, against the model's own reconstructions of held-out images, which "
        "have the same blur. A decoder that outputs only training images is not detected",
    ),
    "accuracy": ("share", "higher", "most likely class by the model's own classifier"),
    "calibration_error": (
        "share",
        "lower",
        "confidence against accuracy in 15 bins of equal width, weighted by their images",
    ),
    "mig": (
        "share of entropy",
        "higher",
        f"mutual information gap, true factors, {factors.BINS} equally filled bins",
    ),
    "sap": (
        "",
        "higher",
        "difference of the squared correlations of the two best axes of a factor",
    ),
    "factor_vae": (
        "share",
        "higher",
        "majority vote of the axis with the least variance; half of 800 votes, each of 64 images "
        "that share a factor",
    ),
    "disentanglement": ("", "higher", "DCI, importances of random forests"),
    "completeness": ("", "higher", "DCI, importances of random forests"),
    "informativeness": ("", "higher", "DCI, R squared on a held-out third of the split"),
}

ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
OF_LABELS = ("knn_purity", "accuracy", "calibration_error")  # of images with a label alone
METRICS = "metrics.json"
SAMPLED = (*IN_FEATURES, *UNLABELLED, "inception_frechet", "sample_sharpness", *NEARER)


def report(
    model,
    images,
    run=None,
    split="test",
    samples=0,
    judge=None,
    inception=None,
    progress=False,
    others=None,
) -> dict:
    """Measures a model; each number is returned with its protocol.

    Args:
        model: A trained `model.Autoencoder` or a subclass.
        images: `data.ImageData`.
        run: Folder that gets `metrics.json`, or None.
        split: Which of its splits; `"test"` for what is published.
        samples: Importance samples for the likelihood; 0 leaves it out, because it takes long.
        judge: `judges.Judge`, in whose features generated images are compared with held-out ones;
            None leaves these distances out.
        inception: From `features.inception`, for distances in its features; or None.
        progress: Whether to show how far it is.
        others: Dictionary of names to other priors than N(0, I), from `families.priors`.

    Returns:
        Dictionary of names (see `PROTOCOL`; under another prior `name@prior`) to `value`, `unit`,
        `better`, `split`, `n`, `standard_error` (over images, where the value is a mean) and
        `protocol`. A model without a posterior has no rate and no evidence lower bound; a source
        without labels no purity, and one whose true factors are not known no scores of
        disentanglement.
    """
    if not model.has_latent:
        raise ValueError(
            f"a {type(model).__name__} has no latent, and so no bound and no samples; "
            "measure it with anomaly.py"
        )
    chosen = images.splits[split]
    per_image = likelihoods(model, chosen.images, progress)
    per_image |= _reconstructions(model, chosen.images, progress)
    with np.errstate(invalid="ignore"):  # the spread of infinite decibels
        values = {
            name: (each.mean(), each.std() / math.sqrt(len(each)))
            for name, each in per_image.items()
        }
    gap = partial(likelihood.importance_gap, model, chosen.images, samples, progress=progress)
    if samples:
        lacking, error = gap()
        values["nll"] = (values["negative_elbo"][0] - lacking, error)
    compared = Compared(model, images, chosen, judge, inception)
    values |= compared(drawn(model, len(chosen)))
    for name, prior in (others or {}).items():
        own = compared(drawn(model, len(chosen), prior))
        own |= _bound_under(model, prior, chosen.images, progress)
        if samples and "negative_elbo" in own:
            lacking, error = gap(log_prior=prior.log_prob)
            own["nll"] = (own["negative_elbo"][0] - lacking, error)
        values |= {f"{key}@{name}": each for key, each in own.items()}
    z_mean, _ = latent.encode(model, chosen)
    values["active_units"] = (int(metrics.active_units(z_mean)), None)
    if images.factors and z_mean.shape[1] > 1:
        known = {name: chosen.table[name] for name in images.factors}
        values |= {name: (each, None) for name, each in factors.scores(z_mean, known).items()}
    labelled = len(chosen)
    if images.label is not None:
        labels = chosen.labels(images.label)
        labelled = int(np.sum(labels >= 0))
        if labelled > NEIGHBOURS:
            values["knn_purity"] = (metrics.knn_purity(z_mean, labels, NEIGHBOURS), None)
        if labelled and model.uses_labels:
            values |= _classification(model, chosen.only(labels >= 0), images.label)

    density = {"bernoulli": "Bernoulli"}.get(model.reconstruction, "Gaussian density")
    pixels = "dynamically binarised pixels" if model.binarize == "dynamic" else "grey pixels"
    numbers = {}
    for key in sorted(values, key=_place):
        (name, _, prior), (value, error) = key.partition("@"), values[key]
        unit, better, protocol = PROTOCOL[name]
        if name == "nll":
            seen = min(likelihood.IMAGES, len(chosen))
            count = math.ceil(samples / likelihood.TOGETHER[1]) * likelihood.TOGETHER[1]
            protocol = f"{protocol}; {count} samples for each of {seen} images drawn at random"
        if name in ("negative_elbo", "distortion", "nll"):
            protocol = f"{protocol}; {density} on {pixels}"
        if name in SAMPLED:
            protocol = f"{protocol}; {compared.count} samples of the prior"
            protocol += f" {prior}" if prior else ""
            if name in IN_FEATURES:
                protocol = f"{protocol}; the classifier's test accuracy is {judge.accuracy:.3f}"
        elif model.corrupt != "none":
            protocol = f"{protocol}; input corrupted ({model.corrupt} {model.corrupt_level:g})"
        elif prior:
            protocol = f"{protocol}; under the prior {prior}, the KL from single draws"
        if not math.isfinite(value):
            protocol = f"{protocol}; the value is not finite here"
        numbers[key] = {
            "value": float(value) if isinstance(value, np.floating) else value,
            "standard_error": None if error is None else float(error),
            "unit": unit,
            "better": better,
            "split": split,
            "n": labelled if name in OF_LABELS else len(chosen),
            "protocol": protocol,
        }
    if run is not None:
        write(numbers, images, Path(run) / METRICS)
    return numbers


def _place(key):
    """Order of the numbers of a report: as in `PROTOCOL`, then those of other priors."""
    name, _, prior = key.partition("@")
    return list(PROTOCOL).index(name), prior


def _bound_under(model, prior, pixels, progress):
    """The bound of every image under another prior, if that has a density."""
    if not prior.exact or model.needs_class:
        return {}
    per_image = likelihoods(model, pixels, progress, prior.log_prob)
    return {
        name: (per_image[name].mean(), per_image[name].std() / math.sqrt(len(pixels)))
        for name in ("negative_elbo", "rate")
        if name in per_image
    }


def write(numbers, images, path):
    """Writes the result of `report` as JSON; numbers that are not finite become null."""
    rows = _finite(numbers) | _audited(path)
    disk.write_json(path, {"images": images.note, "metrics": rows})


def add(rows, run):
    """Adds rows to a run's `metrics.json`, which is made if there is none.

    Args:
        rows: As `report` returns them, each with `weights`, the digest of the weights: while these
            are the run's own, `write` keeps the row.
        run: Run folder.
    """
    path = Path(run) / METRICS
    known = _read(path)
    kept = {name: each for name, each in known["metrics"].items() if name not in rows}
    disk.write_json(path, known | {"metrics": kept | _finite(rows)})


def _finite(rows):
    """The rows with None for numbers that are not finite, which JSON does not have."""

    def plain(value):
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: {key: plain(value) for key, value in each.items()} for name, each in rows.items()}


def _read(path):
    try:
        known = json.loads(path.read_text())
        if isinstance(known["metrics"], dict):
            return known
    except FileNotFoundError:
        return {"metrics": {}}
    except (ValueError, LookupError, TypeError):
        pass
    raise ValueError(f"{path} is damaged; delete it and run the command again")


def _audited(path):
    """Rows of an audit in a run's `metrics.json` that are of its present weights."""
    weights = path.parent / checkpoints.WEIGHTS
    if path.name != METRICS or not (path.is_file() and weights.is_file()):
        return {}
    try:
        rows = _read(path)["metrics"]
    except ValueError:
        return {}  # what is damaged is written anew
    marked = {name: each for name, each in rows.items() if "weights" in each}
    digest = checkpoints.sha256(weights) if marked else ""
    return {name: each for name, each in marked.items() if each["weights"] == digest}


def table(reports: dict) -> pd.DataFrame:
    """Reports side by side: one row per metric, one column per run.

    Args:
        reports: Dictionary of names of runs to what `report` returns.
    """
    rows = {}
    for numbers in reports.values():
        for name, each in numbers.items():
            rows[name] = {"metric": f"{name}{ARROWS[each['better']]}", "unit": each["unit"]}
    for run, numbers in reports.items():
        for name, row in rows.items():
            row[run] = _printed(numbers[name]) if name in numbers else "-"
    return pd.DataFrame(rows.values()).set_index("metric")


def _printed(each):
    value, error = each["value"], each["standard_error"]
    if isinstance(value, int):
        return str(value)
    if not error or not math.isfinite(error):
        return f"{value:.4f}"
    digits = max(2, math.ceil(-math.log10(error)))  # down to the error's first digit
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def likelihoods(model, pixels, progress=False, log_prior=None):
    """Rate, distortion and their sum for every image, averaged over the fixed draws.

    Args:
        model: A trained model.
        pixels: Images, shape `(n, height, width, channels)`.
        progress: Whether to show how far it is.
        log_prior: Log-density of another prior, a TensorFlow function of latents; None: N(0, I).

    Returns:
        Dictionary of `negative_elbo`, `rate` and `distortion`, each `(n,)` in nats; of a model
        without a posterior `distortion` alone.
    """

    def measured(batch, rows):
        distortion = rate = tf.zeros(tf.shape(rows)[0])
        # A loop of the graph, which is then traced once.
        for draw in tf.range(DRAWS, dtype=rows.dtype):
            # The row makes the random numbers of every batch its own, and always the same.
            result = model.forward(batch, training=False, step=rows[0] * DRAWS + draw)
            paid, told = model.bound(result, log_prior)
            distortion += paid / DRAWS
            rate += (tf.fill(tf.shape(paid), math.nan) if told is None else told) / DRAWS
        return distortion, rate

    # A model that tries every class on an image needs that many times the memory.
    size = max(1, 512 // getattr(model, "classes", 1))
    rows = np.arange(len(pixels))
    told = "bound" if progress else ""
    distortion, rate = in_batches(measured, pixels, rows, batch_size=size, told=told)
    if np.isnan(rate).all():  # no posterior, no bound
        return {"distortion": distortion}
    return {"negative_elbo": rate + distortion, "rate": rate, "distortion": distortion}


def _classification(model, split, column):
    """Accuracy, with its standard error, and calibration, on images that all have a label."""
    shares, labels = in_batches(model.classify, split.images), split.labels(column)
    accuracy = np.mean(shares.argmax(axis=-1) == labels)
    error = math.sqrt(accuracy * (1 - accuracy) / len(labels))
    calibration, _ = metrics.calibration_error(shares, labels)
    return {"accuracy": (accuracy, error), "calibration_error": (calibration, None)}


def _reconstructions(model, pixels, progress=False):
    """Similarity of every image to its reconstruction."""

    def measured(batch, rows):
        images = as_float(batch)
        if model.corrupt == "none":
            made = model.reconstruct(images)
        else:  # a denoiser is shown the corrupted image, and compared with the clean one
            made = model.decode(model.forward(batch, training=False, step=rows[0]).z_mean)
        scales = (metrics.ms_ssim(images, made),) if large else ()
        return (*reconstruction.measured(images, made), *scales)

    large = metrics.has_scales(pixels.shape)
    names = [*reconstruction.LIKENESS, *(["ms_ssim"] if large else [])]
    rows, told = np.arange(len(pixels)), "reconstructions" if progress else ""
    parts = in_batches(measured, pixels, rows, batch_size=128, told=told)
    return dict(zip(names, parts, strict=True))


# --- command line --------------------------------------------------------------------------------


def _priors(run, names):
    """Priors of a run by name; `own` is the one that it draws from."""
    names = [runs.own_prior(run) if name == "own" else name for name in names]
    found = {name: priors.of_run(run, name) for name in names}
    return {name: prior for name, prior in found.items() if prior is not None}


def main(words=None):
    arguments = parsed(words)
    reports, unwritten = {}, []
    try:
        inception = arguments.inception and features.inception(arguments.inception)
        for run in arguments.runs:
            others = arguments.images
            images = data.images_of(run) if others is None else data.others_of(run, others)
            difference = "" if arguments.images else runs.changed(run, images)
            if difference and not arguments.to:
                raise ValueError(
                    f"{run}: the images are not those of the training: {difference}. Numbers of "
                    "other images do not replace the run's; write them elsewhere with --to FILE"
                )
            if difference:
                print(f"{run}: the images are not those of the training: {difference}")
            judge = None
            if arguments.judge:
                print(
                    f"{run}: training the classifier of {images.name}, or reading it from the cache"
                )
                judge = judges.judge(images)
            reports[str(run)] = report(
                train.load(run),
                images,
                split=arguments.split,
                samples=arguments.nll,
                judge=judge,
                inception=inception,
                progress=True,
                others=_priors(run, arguments.prior),
            )
            try:
                write(reports[str(run)], images, arguments.to or run / METRICS)
            except OSError as error:  # they took long: first they are shown
                unwritten.append(str(error))
    except KeyboardInterrupt:
        print("\nevaluate.py: stopped; no number of this run is written", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: {error}")
    with pd.option_context("display.width", None, "display.max_columns", None):
        print(table(reports).to_string())
    if unwritten:
        sys.exit(f"evaluate.py: these numbers could not be written: {'; '.join(unwritten)}")
    where = arguments.to or f"{METRICS} in the run's folder"
    print(f"Protocol of each number: {where}")


if __name__ == "__main__":
    main()
