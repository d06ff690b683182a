"""Error on MNIST's test images against the number of training labels.

    MNIST_PATH=... python benchmarks/few_labels.py table FOLDER  # can be resumed
    MNIST_PATH=... python benchmarks/few_labels.py all FOLDER    # every label: clusters, agreement
    python benchmarks/few_labels.py cost                         # a step of M2 and of a VAE

Each draw keeps some labels; all other training images are used without theirs. Lengths and settings
are below, the same for every draw and, within a method, for every number of labels. They were found
by trying a dozen variants with the first draw of 100 labels and four with the first of 1,000 (a few
more with a sixth draw), whose errors on the test images were seen: to that extent the first draw is
not blind, the others are.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import tensorflow as tf
from rows import resumable
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

import config
import data
import evaluate
import train
from analysis import judges, latent, plots
from families import registry
from nn import metrics, networks
from nn.batches import in_batches
from sources import splits
from storage import checkpoints

PER_CLASS = (10, 60, 100, 300)
M1 = config.EXPERIMENTS["mnist"]
# On pixels. Grey values as they are; images are shifted by up to two pixels.
M2 = replace(
    M1,
    model="M2",
    binarize="none",
    latent_dim=8,
    widths=(16, 32),
    dense_widths=(128,),
    class_widths=(128,),
    dropout=0.2,
    shift=2,
    class_weight=50.0,
    epochs=6,
    batch_size=200,
)
# On latents.
STACKED = replace(
    M1, batch_size=100, learning_rate=3e-3, clip_norm=100.0, epochs=24, labelled_share=0.1
)
STACKED_OPTIONS = {"latent_dim": 16, "widths": (500,), "class_weight": 300.0}
LABELS_ONLY_STEPS = 2000  # of 100 images
ALL = replace(M1, model="SemiSupervisedVAE", epochs=8)
# At beta = 1 and so few epochs z still encodes the class, and decoding another class fails.
ALL_M2 = replace(M2, shift=0, dropout=0.0, beta=4.0, epochs=8)
PLAN = (  # method, labels per class, draws
    ("labels only", PER_CLASS, 5),
    ("labels only, on latents", PER_CLASS, 5),
    ("label spreading on latents", PER_CLASS, 5),
    ("M2", (10,), 3),
    ("M1+M2", PER_CLASS, 5),
    ("M2", (100,), 3),
)


def error(predicted, truth):
    return 100.0 * float(np.mean(predicted != truth))


def with_labels(split, labels):
    """The rows of a split that have a label."""
    return split.only(split.labels(labels) >= 0)


def supervised(network, split, test, settings, draw):
    """Error of a network `x -> (anything, logits)` trained on the labelled rows alone."""
    known = with_labels(split, "digit")
    classifier = keras.Model(network.input, network.output[1])
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, LABELS_ONLY_STEPS)
    classifier.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    size = min(100, len(known))
    batches = known.batches(size, True, draw, labels="digit", shift=settings.shift)
    if known.images.dtype == np.uint8:
        batches = batches.map(lambda images, labels: (tf.cast(images, tf.float32) / 255.0, labels))
    classifier.fit(batches, steps_per_epoch=LABELS_ONLY_STEPS, verbose=0, shuffle=False)
    scale = np.float32(255) if test.images.dtype == np.uint8 else np.float32(1)
    logits = classifier.predict(test.images / scale, batch_size=500, verbose=0)
    return error(logits.argmax(axis=1), test.labels("digit"))


def on_latents(m1, images):
    """The same splits with M1's posterior means instead of the images."""
    made = {}
    for name, split in images.splits.items():
        z_mean, _ = latent.encode(m1, split)
        made[name] = replace(split, images=z_mean, digests=None)
    return replace(images, name="latents", **made)


def spreading(few, test):
    """Label spreading along the graph of nearest neighbours, by scikit-learn."""
    known = few.labels("digit")
    spread = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.95, max_iter=100)
    spread.fit(few.images, known)
    neighbours = KNeighborsClassifier(10).fit(few.images, spread.transduction_)
    return error(neighbours.predict(test.images), test.labels("digit"))


def stacked(m1, few, test, draw):
    """M1+M2, on the means: the posteriors get a log-variance of -20."""
    posteriors = np.stack([few.images, np.full_like(few.images, -20.0)], axis=1)
    split = replace(few, images=posteriors)
    model = registry.on_latents(m1, classes=10, seed=draw, **STACKED_OPTIONS)
    batches, steps = split.mixed_batches(
        STACKED.batch_size, "digit", STACKED.labelled_share, seed=draw
    )
    train.compile_model(model, STACKED, steps)
    model.fit(batches, steps_per_epoch=steps, epochs=STACKED.epochs, verbose=0, shuffle=False)
    _, logits = model.encoder(test.images, training=False)
    return error(logits.numpy().argmax(axis=1), test.labels("digit"))


def on_pixels(images, per_class, draw, folder):
    settings = replace(M2, labels_per_class=per_class, label_seed=draw, seed=draw)
    model = registry.from_settings(settings)
    train.fit(model, images, settings, folder, verbose=0)
    shares = in_batches(model.classify, images.test.images)
    return error(shares.argmax(axis=1), images.test.labels("digit"))


def table(folder):
    images = data.load(M1)
    first = folder / "m1"
    if not (first / checkpoints.DIGEST).exists():
        train.fit(registry.from_settings(M1), images, M1, first, verbose=2)
    m1 = train.load(first)
    latents = on_latents(m1, images)

    def measure(key):
        method, per_class, draw = key["method"], key["labels"] // 10, key["draw"]
        start = time.perf_counter()
        few = splits.few_labels(images, per_class, draw)
        few_latents = replace(latents.train, table=few.train.table)
        if method == "labels only":
            shared = {name: getattr(M2, name) for name in ("image_shape", "widths", "dense_widths")}
            network = networks.class_encoder(classes=10, dropout=M2.dropout, seed=draw, **shared)
            found = supervised(network, few.train, images.test, M2, draw)
        elif method == "labels only, on latents":
            network = networks.vector_class_encoder(m1.latent_dim, 10, (500,), seed=draw)
            found = supervised(network, few_latents, latents.test, STACKED, draw)
        elif method == "label spreading on latents":
            found = spreading(few_latents, latents.test)
        elif method == "M1+M2":
            found = stacked(m1, few_latents, latents.test, draw)
        else:
            found = on_pixels(few, per_class, draw, folder / f"m2-{10 * per_class}-{draw}")
        return {"error": round(found, 2), "seconds": round(time.perf_counter() - start)}

    todo = [
        {"method": method, "labels": 10 * per_class, "draw": draw}
        for method, budgets, draws in PLAN
        for draw in range(draws)
        for per_class in budgets
    ]
    print(summary(resumable(folder / "results.csv", todo, measure)))


def summary(results):
    """Error in %, methods by labels: mean and standard deviation over draws, and their number."""

    def cell(errors):
        spread = f" ± {errors.std(ddof=1):.2f}" if len(errors) > 1 else ""
        return f"{errors.mean():.2f}{spread} ({len(errors)})"

    wide = (
        results.groupby(["method", "labels"], sort=False)["error"].agg(cell).unstack().fillna("-")
    )
    return wide.to_string()


def everything(folder):
    """All labels: clusters with and without the classifier, and accuracy of generated images."""
    images = data.load(ALL)
    judge = judges.judge(images, cache=folder)
    print(f"judge: accuracy {judge.accuracy:.4f} on {judge.n:,} test images")
    truth = images.test.labels("digit")
    for name, settings in (("VAE", M1), ("SemiSupervisedVAE", ALL), ("M2", ALL_M2)):
        run = folder / ("m1" if name == "VAE" else f"all-{name}")
        if not (run / checkpoints.DIGEST).exists():
            train.fit(registry.from_settings(settings), images, settings, run, verbose=2)
        model = train.load(run)
        z, _ = latent.encode(model, images.test)
        purity = metrics.knn_purity(z, truth, evaluate.NEIGHBOURS)
        width = silhouette_score(z, truth, sample_size=3000, random_state=0)
        print(f"{name}: purity {purity:.4f}, silhouette {width:.3f}", flush=True)
        if not model.uses_labels:
            continue
        shares = in_batches(model.classify, images.test.images)
        gap, _ = metrics.calibration_error(shares, truth)
        wrong = error(shares.argmax(axis=1), truth)
        print(f"  error {wrong:.2f} %, calibration error {gap:.4f}")
        for confidence in (0.0, 0.99) if name == "SemiSupervisedVAE" else (None,):
            options = {} if confidence is None else {"confidence": confidence}
            made, labels = model.generate(10_000, **options)
            agreed = np.mean(judge.labels(made.numpy()) == labels)
            how = options or "every class in turn"
            print(f"  {how}: a separate classifier agrees on {agreed:.4f}")
        rows = {
            str(digit): model.generate(12, seed=1, label=digit)[0].numpy() for digit in range(10)
        }
        plots.save(plots.image_rows(rows, width=6), folder / f"{name}-classes.png")


def cost(rounds=7, steps=20):
    """CPU time of training steps, alternating: M2 on 200 images of which half have no label."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28, 1)).astype(np.uint8)
    labels = (np.arange(100) % 10).astype(np.int32)
    batches = {
        "VAE": images,
        "M2, all labelled": (images, np.tile(labels, 2), images[:0]),
        "M2, half labelled": (images[:100], labels, images[100:]),
        "M2, a tenth labelled": (images[:20], labels[:20], images[20:]),
    }
    models = {}
    for name in batches:
        settings = replace(M2, model=name.split(",")[0], shift=0)
        model = registry.from_settings(settings)
        train.compile_model(model, settings, 100)
        step = tf.function(model.train_step)
        batch = tf.nest.map_structure(tf.constant, batches[name])
        step(batch)
        models[name] = (step, batch)
    seconds = {name: [] for name in models}
    for _ in range(rounds):
        for name, (step, batch) in models.items():
            start = time.process_time()
            for _ in range(steps):
                step(batch)
            seconds[name].append((time.process_time() - start) / steps)
    for name, each in seconds.items():
        ratios = np.array(each) / np.array(seconds["VAE"])
        print(
            f"{name}: {1000 * median(each):.0f} ms of CPU a step, "
            f"{median(ratios):.2f} of the VAE's ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("act", choices=("table", "all", "cost"))
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.act == "cost":
        cost()
    elif arguments.folder is None:
        parser.error("give a FOLDER for the results")
    else:
        {"table": table, "all": everything}[arguments.act](arguments.folder)


if __name__ == "__main__":
    main()
