"""Layers of `layers.py` compared with Keras' own, forward and backward, alternating.

    python benchmarks/own_layers.py [--rounds 7] [--seconds 1]

Feature maps are those at the end of the decoders of `rivals.py`; of layers with many weights, those
in the middle of its deepest networks, where a stride halves the maps and doubles the channels.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import tensorflow as tf

from nn import layers

MAPS = ((128, 28, 28, 32), (64, 64, 64, 64), (16, 256, 256, 16))
SMALL = ((64, 8, 8, 128), (64, 4, 4, 256))
HALF = "mixed_bfloat16"
DEEP = {
    "convolution, many weights": lambda of, width, **options: of.Conv2D(
        2 * width, 3, strides=2, padding="same", **options
    ),
    "transposed convolution, many weights": lambda of, width, **options: of.Conv2DTranspose(
        width // 2, 3, strides=2, padding="same", **options
    ),
}
PAIRS = {
    "convolution to 1 channel": lambda of: of.Conv2D(1, 3, padding="same"),
    "convolution to 3 channels": lambda of: of.Conv2D(3, 3, padding="same"),
    "dropout": lambda of: of.Dropout(0.25),
    "batch normalization": lambda of: of.BatchNormalization(),
    "group normalization": lambda of: of.GroupNormalization(8),
}


def step_of(layer, x):
    """A function that computes a layer's output in training and its gradients."""

    # A layer reads the training flag from the model around it.
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        return y, tape.gradient(y, [x, *(each.value for each in model.trainable_variables)])

    step(x)
    return lambda: step(x)


def milliseconds(step, seconds):
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        calls += 1
    return 1000 * (time.perf_counter() - start) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="per turn")
    arguments = parser.parse_args()
    print("| layer | map | Keras', ms | ours is faster, times |\n|---|---|---|---|")
    cases = [(name, make, shape) for name, make in PAIRS.items() for shape in MAPS]
    for name, make in DEEP.items():
        for shape in SMALL:
            cases.append((name, partial(make, width=shape[-1]), shape))
            halved = partial(make, width=shape[-1], dtype=HALF)
            cases.append((f"{name}, bfloat16", halved, shape))
    for name, make, shape in cases:
        x = tf.random.stateless_normal(shape, (0, 0))
        theirs, ours = (step_of(make(of), x) for of in (keras.layers, layers))
        pairs = [
            tuple(milliseconds(each, arguments.seconds) for each in (theirs, ours))
            for _ in range(arguments.rounds)
        ]
        ratios = [one / other for one, other in pairs]
        print(
            f"| {name} | {' x '.join(map(str, shape))} | {median(one for one, _ in pairs):.1f} "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
