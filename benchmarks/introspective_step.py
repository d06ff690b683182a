"""Speed of a Soft-IntroVAE iteration as a share of the machine's convolution peak.

    python benchmarks/introspective_step.py [--rounds 7]

Images of 32x32x3 in batches of 16, residual stages of 64, 128 and 256 filters. TensorFlow's
profiler counts the multiplications and additions of the traced step; the peak is the fastest of
some plain float32 convolutions. Both alternate in one run.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import costs
import numpy as np
import tensorflow as tf
from peak import convolutions, peak, per_second

import config
import train
from families import registry

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

    plain = convolutions()
    step(images)
    shares, speeds = [], []
    for _ in range(rounds):
        limit, _ = peak(plain)
        speed, _ = per_second(lambda: step(images), work, 3.0)
        shares.append(speed / limit)
        speeds.append((speed, limit))
    reached, limit = (median(column) / 1e9 for column in zip(*speeds, strict=True))
    print(f"{work / 1e9:.1f} GFLOP a step, {model.count_params():,} weights")
    print(f"step: {reached:.0f} GFLOP/s, convolution peak: {limit:.0f} GFLOP/s")
    print(
        f"share of the peak: {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}), "
        f"{rounds} rounds"
    )


if __name__ == "__main__":
    main()
