"""Cost of Keras' `fit` compared with a bare `tf.function` loop over the same `train_step`.

    python benchmarks/fit_overhead.py [--seconds 4] [--rounds 7]

The networks of `rivals.py`. CPU and wall-clock time per step of both, alternating in one run on the
same model and batches. Pixels are random: the cost of a step does not depend on their values.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import tensorflow as tf
from prepared import prepared, random_pixels
from rivals import WORK
from turns import now, since


def per_step(run, steps):
    """CPU and wall-clock seconds per step."""
    begun = now()
    run(steps)
    clock, cpu = since(begun)
    return cpu / steps, clock / steps


def measure(settings, seconds, rounds):
    """Milliseconds of a bare step, and the ratios of a step under `fit` to a bare one."""
    model, batches = prepared(settings, random_pixels(settings, 8 * settings.batch_size))

    @tf.function
    def step(iterator):
        model.train_step(next(iterator))

    def bare(steps):
        iterator = iter(batches)
        for _ in range(steps):
            step(iterator)

    def fit(steps):
        model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)

    for run in (bare, fit):  # compiled and warm
        run(4)
    steps = max(8, round(seconds / per_step(bare, 8)[1]))
    pairs = []
    for number in range(rounds):  # the order alternates
        sides = (fit, bare) if number % 2 else (bare, fit)
        told = {side: per_step(side, steps) for side in sides}
        pairs.append((told[fit], told[bare]))
    ratios = {
        "cpu": [one[0] / other[0] for one, other in pairs],
        "clock": [one[1] / other[1] for one, other in pairs],
    }
    return 1000 * median(other[1] for _, other in pairs), ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="per turn")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print("| | bare step, ms | fit / bare, CPU time | fit / bare, wall clock |")
    print("|---|---|---|---|")
    for name, settings in WORK.values():
        milliseconds, ratios = measure(settings, arguments.seconds, arguments.rounds)
        shown = [
            f"{median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in ratios.values()
        ]
        print(f"| {name} | {milliseconds:.1f} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
