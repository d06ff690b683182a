"""What share of the machine's convolution peak an iteration of Soft-IntroVAE reaches.

    python benchmarks/introspective_step.py [--rounds 7]

Images of 32x32x3 in batches of 16, residual stages of 64, 128 and 256 filters. TensorFlow's own
profiler counts the multiplications and additions of the traced step; the peak is that of the
fastest of some plain float32 convolutions. Both alternate in one run.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import tensorflow as tf

import config
import costs
import registry
import train

SETTINGS = config.Settings(
    model="SoftIntroVAE",
    image_shape=(32, 32, 3),
    widths=(64, 128, 256),
    residual=True,
    upsampling="nearest",
    latent_dim=128,
    reconstruction="gaussian",
    batch_size=16,
)
PLAIN = ((32, 64), (16, 128), (16, 256), (8, 256), (32, 128))  # sides and channels


def per_second(call, operations_of_one, seconds=1.0):
    """Operations per second of the clock, over at least that long."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls * operations_of_one / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds

    model = registry.from_settings(SETTINGS)
    train.compile_model(model, SETTINGS, 1000)
    shape = (SETTINGS.batch_size, *SETTINGS.image_shape)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    step = tf.function(model.train_step).get_concrete_function(images)
    work = costs.operations(step)

    plain = []
    for side, channels in PLAIN:
        pixels = tf.random.normal((16, side, side, channels))
        kernel = tf.random.normal((3, 3, channels, channels))

        convolution = tf.function(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"))
        traced = convolution.get_concrete_function(pixels, kernel)
        plain.append((partial(traced, pixels, kernel), costs.operations(traced)))

    step(images)
    shares, speeds = [], []
    for _ in range(rounds):
        peak = max(per_second(call, each) for call, each in plain)
        speed = per_second(lambda: step(images), work, 3.0)
        shares.append(speed / peak)
        speeds.append((speed, peak))
    reached, peak = (median(column) / 1e9 for column in zip(*speeds, strict=True))
    print(f"{work / 1e9:.1f} GFLOP a step, {model.count_params():,} weights")
    print(f"step: {reached:.0f} GFLOP/s, convolution peak: {peak:.0f} GFLOP/s")
    print(
        f"share of the peak: {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}), "
        f"{rounds} rounds"
    )


if __name__ == "__main__":
    main()
