"""What the latent instruments cost: encoding beside the bare encoder, and an interpolation GIF.

    python benchmarks/latent_tools.py

1. `latent.encode` of 10,000 images of 28x28 (the `mnist` experiment's network, fresh weights)
   against calling the compiled encoder on the same batches and nothing else, alternating.
2. 200 frames of 64x64 between two images: path, decoding and GIF, the model loaded.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
import tensorflow as tf

import config
import latent
import model as models
import plots
import registry
import splits
import train


def encoding():
    model = registry.from_settings(config.EXPERIMENTS["mnist"])
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28, 1)).astype(np.uint8)
    split = splits.Split(images, pd.DataFrame({"file": range(len(images))}))
    bare = tf.function(model.encode)
    size = latent.rows_at_a_time(images.shape)
    starts = range(0, len(images) - size + 1, size)
    batches = [tf.constant(images[start : start + size]) for start in starts]
    bare(batches[0])
    ratios = []
    for _ in range(5):
        start = time.perf_counter()
        for batch in batches:
            bare(batch)
        alone = len(batches) * size / (time.perf_counter() - start)
        start = time.perf_counter()
        latent.encode(model, split)
        ratios.append(len(images) / (time.perf_counter() - start) / alone)
    print(
        f"encode, tracing included: {median(ratios):.3f} of the bare encoder's throughput "
        f"({min(ratios):.3f} to {max(ratios):.3f}; {alone:,.0f} images/s bare)"
    )


def gif():
    model = train.load(Path(__file__).parent.parent / "readme_assets" / "phantom_run")
    ends = models.prior_draws(2, model.latent_dim).numpy()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        frames = latent.in_batches(model.decode, latent.slerp(*ends, 200))
        path = plots.save_gif(frames, Path(folder, "path.gif"), scale=2)
        seconds = time.perf_counter() - start
        kilobytes = path.stat().st_size / 1024
    print(f"200 frames of 64x64: {seconds:.2f} s, {kilobytes:.0f} kB")


if __name__ == "__main__":
    encoding()
    gif()
