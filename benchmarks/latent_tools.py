"""Cost of the latent tools: encoding and decoding compared with bare calls, an archive, a GIF.

    python benchmarks/latent_tools.py

1. `latent.encode` of 60,000 images of 28x28 (the `mnist` experiment's network, fresh weights), and
   `in_batches` of equally many latents through its decoder, compared with only calling the compiled
   network on the same batches, alternating. Tracing is included.
2. `archive.encode` of 10,000 PNG files of 64x64 (the shipped chest run) to a Parquet table,
   compared with a bare loop: `tf.data` reads the files, the compiled model computes latent and
   error, nothing is checked or written. Both load the model first.
3. 200 frames of 64x64 between two images: interpolation, decoding and GIF; the model is loaded.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

import archive
import config
import train
from analysis import latent, plots
from families import registry
from nn import metrics
from nn.batches import as_float, in_batches, rows_at_a_time
from sources import phantoms, splits

RUN = Path(__file__).parent.parent / "readme_assets" / "phantom_run"


def through():
    """Many images through the encoder and many latents through the decoder."""
    model = registry.from_settings(config.EXPERIMENTS["mnist"])
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60_000, 28, 28, 1)).astype(np.uint8)
    split = splits.Split(images, pd.DataFrame({"file": range(len(images))}))
    z = random.normal(size=(len(images), model.latent_dim)).astype(np.float32)
    size = rows_at_a_time(images.shape)
    beside("encode", model.encode, images, size, lambda: latent.encode(model, split))
    decoded = partial(in_batches, model.decode, z)
    beside("decode", model.decode, z, 512, decoded)


def beside(name, function, rows, size, public):
    """Prints the throughput of a public method in units of the bare function's."""
    bare = tf.function(function)
    starts = range(0, len(rows) - size + 1, size)
    batches = [tf.constant(rows[start : start + size]) for start in starts]
    bare(batches[0])
    ratios, speeds = [], []
    for _ in range(5):
        start = time.perf_counter()
        for batch in batches:
            bare(batch)
        alone = len(batches) * size / (time.perf_counter() - start)
        start = time.perf_counter()
        public()
        speeds.append(alone)
        ratios.append(len(rows) / (time.perf_counter() - start) / alone)
    print(
        f"{name}: {median(ratios):.3f} of the bare function's throughput "
        f"({min(ratios):.3f} to {max(ratios):.3f}; {median(speeds):,.0f} a second bare)"
    )


def bare_loop(folder):
    """Reads and encodes all files, discards the results, returns the number of files."""
    model = train.load(RUN)

    def read(path):
        return tf.ensure_shape(tf.io.decode_png(tf.io.read_file(path), channels=1), (64, 64, 1))

    @tf.function
    def measured(images):
        z_mean, z_log_var, made = model.describe(images)
        return z_mean, z_log_var, metrics.mse(as_float(images), made)

    paths = sorted(str(path) for path in folder.glob("*.png"))
    images = tf.data.Dataset.from_tensor_slices(paths).map(read, tf.data.AUTOTUNE)
    return sum(len(measured(batch)[0]) for batch in images.batch(256).prefetch(2))


def archives():
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pictures, _ = phantoms.chests(64, subjects=500)
        for number in range(10_000):
            image = Image.fromarray(pictures[number % len(pictures), ..., 0])
            image.save(folder / f"{number:05d}.png")
        bare_loop(folder)  # from here on the files are in the system's cache for both
        for turn in range(5):
            start = time.perf_counter()
            bare_loop(folder)
            middle = time.perf_counter()
            to = folder / f"{turn}.parquet"
            archive.encode(archive.Task(str(RUN), str(folder)), to, told=False)
            ratios.append((middle - start) / (time.perf_counter() - middle))
    print(
        f"an archive of 10,000 files: {median(ratios):.3f} of the bare loop's throughput "
        f"({min(ratios):.3f} to {max(ratios):.3f}; {10_000 / (middle - start):,.0f} images/s bare)"
    )


def gif():
    model = train.load(RUN)
    ends = model.draw_prior(2).numpy()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        frames = in_batches(model.decode, latent.slerp(*ends, 200))
        path = plots.save_gif(frames, Path(folder, "path.gif"), scale=2)
        seconds = time.perf_counter() - start
        kilobytes = path.stat().st_size / 1024
    print(f"200 frames of 64x64: {seconds:.2f} s, {kilobytes:.0f} kB")


if __name__ == "__main__":
    through()
    archives()
    gif()
