"""One protocol for every model, its numbers beside what they mean.

python evaluate.py RUN [RUN ...] [--nll [SAMPLES]]
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.decomposition import PCA

import data
import factors
import files
import latent
import metrics
import model as models
import train

IMPORTANCE_SAMPLES = 5000  # Burda et al., 2016
IMPORTANCE_IMAGES = 2000
TOGETHER = (16, 64)  # images, and draws of each, that are decoded at a time
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
        "negative_elbo less what the bound lacks, estimated by importance sampling; the standard "
        "error is that of this estimate",
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
    "mse": ("squared grey levels", "lower", "as ssim; mean over pixels"),
    "active_units": ("axes", "", "variance of the posterior mean over images above 0.01"),
    "knn_purity": (
        "share",
        "higher",
        f"{NEIGHBOURS} nearest neighbours of the posterior mean, same split, same label",
    ),
    "accuracy": ("share", "higher", "likeliest class by the model's own classifier"),
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
    "sap": ("", "higher", "gap of squared correlations between the two best axes of a factor"),
    "factor_vae": (
        "share",
        "higher",
        "majority vote of the stillest axis, half of 800 votes of 64 images that share a factor",
    ),
    "disentanglement": ("", "higher", "DCI, importances of random forests"),
    "completeness": ("", "higher", "DCI, importances of random forests"),
    "informativeness": ("", "higher", "DCI, R squared on a held-out third of the split"),
}


def report(model, images, run=None, split="test", samples=0) -> dict:
    """Everything that is measured of a model, with the protocol beside each number.

    Args:
        model: A trained `model.Autoencoder` or a subclass.
        images: `data.ImageData`.
        run: Folder that gets `metrics.json`, or None.
        split: Which of its splits; `"test"` for what is published.
        samples: Importance samples for the likelihood; 0 leaves it out, for it takes long.

    Returns:
        Dictionary of names (see `PROTOCOL`) to `value`, `unit`, `better`, `split`, `n`,
        `standard_error` (over images, where the value is a mean) and `protocol`. A model without
        a posterior has no rate and no evidence lower bound; a source without labels no purity, and
        one whose true factors are not known no scores of disentanglement.
    """
    chosen = images.splits[split]
    per_image = _likelihoods(model, chosen.images) | _reconstructions(model, chosen.images)
    values = {
        name: (each.mean(), each.std() / math.sqrt(len(each))) for name, each in per_image.items()
    }
    if samples:
        gap, error = importance_gap(model, chosen.images, samples)
        values["nll"] = (values["negative_elbo"][0] - gap, error)
    z_mean, _ = latent.encode(model, chosen)
    values["active_units"] = (int(metrics.active_units(z_mean)), None)
    if images.factors and z_mean.shape[1] > 1:
        known = {name: chosen.table[name] for name in images.factors}
        values |= {name: (each, None) for name, each in factors.scores(z_mean, known).items()}
    if images.label is not None:
        purity = metrics.knn_purity(z_mean, chosen.labels(images.label), NEIGHBOURS)
        values["knn_purity"] = (purity, None)
        if model.uses_labels:
            values |= _classification(model, chosen.images, chosen.labels(images.label))

    likelihood = {"bernoulli": "Bernoulli"}.get(model.reconstruction, "Gaussian density")
    pixels = "dynamically binarised pixels" if model.binarize == "dynamic" else "grey pixels"
    numbers = {}
    for name, (unit, better, protocol) in PROTOCOL.items():
        if name not in values:
            continue
        value, error = values[name]
        if name == "nll":
            seen = min(IMPORTANCE_IMAGES, len(chosen))
            drawn = math.ceil(samples / TOGETHER[1]) * TOGETHER[1]
            protocol = f"{protocol}; {drawn} samples for each of {seen} images drawn at random"
        if name in ("negative_elbo", "distortion", "nll"):
            protocol = f"{protocol}; {likelihood} on {pixels}"
        if model.corrupt != "none":
            protocol = f"{protocol}; input corrupted ({model.corrupt} {model.corrupt_level:g})"
        numbers[name] = {
            "value": float(value) if isinstance(value, np.floating) else value,
            "standard_error": None if error is None else float(error),
            "unit": unit,
            "better": better,
            "split": split,
            "n": len(chosen),
            "protocol": protocol,
        }
    if run is not None:
        written = {"images": images.note, "metrics": numbers}
        files.write_json(Path(run) / "metrics.json", written)
    return numbers


def table(reports: dict) -> pd.DataFrame:
    """Reports side by side: one row per metric, one column per run.

    Args:
        reports: Dictionary of names of runs to what `report` returns.
    """
    arrow = {"lower": "↓", "higher": "↑", "": ""}
    rows = {}
    for numbers in reports.values():
        for name, each in numbers.items():
            rows[name] = {"metric": f"{name} {arrow[each['better']]}".strip(), "unit": each["unit"]}
    for run, numbers in reports.items():
        for name, row in rows.items():
            row[run] = _printed(numbers[name]) if name in numbers else "-"
    return pd.DataFrame(rows.values()).set_index("metric")


def _printed(each):
    value, error = each["value"], each["standard_error"]
    if isinstance(value, int):
        return str(value)
    if not error:
        return f"{value:.4f}"
    digits = max(2, math.ceil(-math.log10(error)))  # down to the error's first digit
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _likelihoods(model, pixels):
    """Rate, distortion and their sum for every image, averaged over the fixed draws."""

    def measured(batch, rows):
        distortion, rate = 0.0, 0.0
        for draw in range(DRAWS):
            # The row makes the random numbers of every batch its own, and always the same.
            result = model.forward(batch, training=False, step=rows[0] * DRAWS + draw)
            paid, told = model.bound(result)
            distortion += paid / DRAWS
            rate += (tf.fill(tf.shape(paid), math.nan) if told is None else told) / DRAWS
        return distortion, rate

    # A model that tries every class on an image needs that many times the memory.
    size = max(1, 512 // getattr(model, "classes", 1))
    rows = np.arange(len(pixels))
    distortion, rate = latent.in_batches(measured, pixels, rows, batch_size=size)
    if np.isnan(rate).all():  # no posterior, no bound
        return {"distortion": distortion}
    return {"negative_elbo": rate + distortion, "rate": rate, "distortion": distortion}


def importance_gap(model, images, samples, count=IMPORTANCE_IMAGES, seed=0):
    """How much a model's bound lacks of the log-likelihood, and the standard error of that.

    Likelihoods of single images differ by tens of nats, what the bound lacks by about one; so the
    mean gap of some images, taken off the bound of all, is a far better estimate than the mean
    likelihood of those images.

    Args:
        model: A VAE.
        images: Shape `(n, height, width, channels)`.
        samples: See `log_likelihood`.
        count: Images to estimate it on, drawn at random: the first of a set may be its easier ones.
        seed: Of that draw.
    """
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    likelihood, negative_elbo = log_likelihood(model, images[np.sort(rows)], samples)
    gap = negative_elbo + likelihood
    return gap.mean(), gap.std() / math.sqrt(len(gap))


def log_likelihood(model, images, samples=IMPORTANCE_SAMPLES):
    """Log-likelihood of each image by importance sampling from its posterior.

    `log mean_k p(x | z_k) p(z_k) / q(z_k | x)`, Eq. 8 of
    [Burda et al., 2016](https://arxiv.org/abs/1509.00519): too low on average, by less the more
    samples there are.

    Args:
        model: A VAE with one latent, whose posterior has a variance.
        images: Shape `(n, height, width, channels)`; where the model binarises, a fixed draw is
            taken of each.
        samples: Draws of each posterior, in rounds of 64.

    Returns:
        `(log_likelihood, negative_elbo)`, float32 `(n,)`, both from the same draws.

    Raises:
        ValueError: for a model whose bound is of another kind.
    """
    if (
        getattr(type(model), "bound", None) is not models.VAE.bound
        or len(model.encoder.outputs) < 2
    ):
        raise ValueError(
            f"the likelihood of a {type(model).__name__} cannot be estimated: that takes one "
            "latent with a posterior that has a variance"
        )
    together, draws = TOGETHER
    rounds = math.ceil(samples / draws)

    def measured(batch, rows):
        result = model.forward(batch, training=False, step=rows[0])
        count = tf.shape(result.z)[0]

        def one_round(number, log_sum, total):
            step = tf.cast(rows[0], tf.int64) * rounds + tf.cast(number, tf.int64)
            weights = model.log_weights(result, draws, model.key("importance", False, step))
            log_sum = tf.reduce_logsumexp(tf.concat([log_sum[None], weights], axis=0), axis=0)
            return number + 1, log_sum, total + tf.reduce_sum(weights, axis=0)

        start = (0, tf.fill((count,), -math.inf), tf.zeros((count,)))
        _, log_sum, total = tf.while_loop(lambda number, *_: number < rounds, one_round, start)
        return log_sum - math.log(rounds * draws), -total / (rounds * draws)

    rows = np.arange(len(images))
    return latent.in_batches(measured, images, rows, batch_size=together)


LIKENESS = {
    "ssim": metrics.ssim,
    "ssim_foreground": metrics.ssim_foreground,
    "psnr": metrics.psnr,
    "mse": metrics.mse,
}


def likeness(images, made) -> dict:
    """How like its reconstruction every image is, by each measure of `LIKENESS`.

    Args:
        images, made: Floats in [0, 1], both `(n, height, width, channels)`.

    Returns:
        Arrays `(n,)` by name.
    """
    parts = latent.in_batches(_likeness, images, made, batch_size=128)
    return dict(zip(LIKENESS, parts, strict=True))


def _likeness(images, made):
    return tuple(each(images, made) for each in LIKENESS.values())


def _classification(model, pixels, labels):
    """Accuracy, with its standard error, and calibration."""
    shares = latent.in_batches(model.classify, pixels)
    accuracy = np.mean(shares.argmax(axis=-1) == labels)
    error = math.sqrt(accuracy * (1 - accuracy) / len(labels))
    calibration, _ = metrics.calibration_error(shares, labels)
    return {"accuracy": (accuracy, error), "calibration_error": (calibration, None)}


def _reconstructions(model, pixels):
    """How like its reconstruction every image is."""

    def measured(batch, rows):
        images = models.as_float(batch)
        if model.corrupt == "none":
            made = model.reconstruct(images)
        else:  # a denoiser is shown the corrupted image, and compared with the clean one
            made = model.decode(model.forward(batch, training=False, step=rows[0]).z_mean)
        return _likeness(images, made)

    parts = latent.in_batches(measured, pixels, np.arange(len(pixels)), batch_size=128)
    return dict(zip(LIKENESS, parts, strict=True))


def baselines(images, components, split="test", most=3000) -> pd.DataFrame:
    """What needs no network: the mean training image, and PCA with as many numbers as a latent has.

    Args:
        images: `data.ImageData`.
        components: Numbers that PCA may keep of an image.
        split: Which split is drawn again.
        most: Training images that PCA is fitted on, at most.

    Returns:
        One row per baseline, one column per measure of `LIKENESS`; means over images.
    """
    chosen = np.random.default_rng(0).permutation(len(images.train))[:most]
    train_pixels = images.train.images[np.sort(chosen)].reshape(len(chosen), -1) / np.float32(255)
    pixels = images.splits[split].images[:] / np.float32(255)
    flat = pixels.reshape(len(pixels), -1)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(train_pixels)
    drawn = {
        "mean image": np.broadcast_to(pca.mean_, flat.shape),
        f"PCA, {components} components": pca.inverse_transform(pca.transform(flat)),
    }
    rows = {}
    for name, made in drawn.items():
        made = np.clip(made, 0.0, 1.0).astype(np.float32).reshape(pixels.shape)
        rows[name] = {key: float(each.mean()) for key, each in likeness(pixels, made).items()}
    return pd.DataFrame(rows).T


# --- command line --------------------------------------------------------------------------------


def main(words=None):
    parser = argparse.ArgumentParser(description="Measure trained runs on their test images.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--nll",
        type=int,
        nargs="?",
        const=IMPORTANCE_SAMPLES,
        default=0,
        metavar="SAMPLES",
        help="the likelihood too, by importance sampling: minutes",
    )
    arguments = parser.parse_args(words)
    if arguments.nll < 0:
        parser.error("--nll: samples are counted from 1")
    reports = {}
    try:
        for run in arguments.runs:
            images = data.load(train.load_settings(run))
            difference = train.changed(run, images)
            if difference:
                print(f"{run}: the images are not those of the training: {difference}")
            reports[str(run)] = report(train.load(run), images, run, samples=arguments.nll)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: {error}")
    with pd.option_context("display.width", None, "display.max_columns", None):
        print(table(reports).to_string())
    print("Protocol of each number: metrics.json in the run's folder.")


if __name__ == "__main__":
    main()
