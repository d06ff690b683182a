"""What Keras' `fit` costs beside a bare `tf.function` loop over the same `train_step`.

    python benchmarks/fit_overhead.py [--steps 100] [--rounds 7]

CPU time per step of both, alternating in one run on the same model and batches. Random pixels
serve: the work of a step does not depend on what is in them.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import tensorflow as tf
from prepared import prepared, random_pixels

import config

MNIST = config.EXPERIMENTS["mnist"]
WORK = {
    "mnist experiment, 28x28, batch 128": MNIST,
    "small, 28x28, batch 128, latent 2": replace(MNIST, latent_dim=2, dense_widths=(16,)),
}


def per_step(run, steps):
    """Seconds of CPU time and of the clock per step."""
    cpu, clock = time.process_time(), time.perf_counter()
    run()
    return (time.process_time() - cpu) / steps, (time.perf_counter() - clock) / steps


def measure(settings, steps, rounds):
    model, batches = prepared(settings, random_pixels(settings, 4096), steps)

    @tf.function
    def step(iterator):
        model.train_step(next(iterator))

    def bare():
        iterator = iter(batches)
        for _ in range(steps):
            step(iterator)

    def fit():
        model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)

    bare(), fit()  # compile and warm up
    pairs = [(per_step(fit, steps), per_step(bare, steps)) for _ in range(rounds)]
    ratios = {
        "cpu": [one[0] / other[0] for one, other in pairs],
        "clock": [one[1] / other[1] for one, other in pairs],
    }
    milliseconds = 1000 * median(other[1] for _, other in pairs)
    return milliseconds, ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print("| model | bare step, ms | fit / bare, CPU time | fit / bare, clock |")
    print("|---|---|---|---|")
    for name, settings in WORK.items():
        milliseconds, ratios = measure(settings, arguments.steps, arguments.rounds)
        shown = [
            f"{median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in ratios.values()
        ]
        print(f"| {name} | {milliseconds:.1f} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
