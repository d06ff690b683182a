"""Training speed against batch and image size, as a share of the machine's limit.

    python benchmarks/scaling.py [--rounds 3] [--seconds 3]

The VAE of `rivals.py`'s middle row (four stages of 64, dropout) under `fit`: 64x64 in batches of 16
to 512, then 32 to 256 pixels in batches of 32. All sizes alternate. TensorFlow's profiler counts
the operations of a step; the limit is the fastest of some plain float32 convolutions, measured in
the same rounds. Shares of it are given by wall-clock and by CPU time: the first falls where cores
wait, the second does not. Memory is the peak of a separate process.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import costs
import numpy as np
from peak import convolutions, peak, per_second
from prepared import prepared, random_pixels
from rivals import WORK

MIDDLE = WORK["middle"][1]
BATCHES = {f"64x64, batch {size}": replace(MIDDLE, batch_size=size) for size in (16, 64, 256, 512)}
SIDES = {
    f"{side}x{side}, batch 32": replace(MIDDLE, image_shape=(side, side, 1), batch_size=32)
    for side in (32, 64, 128, 256)
}


def begun(settings):
    """A compiled model and its batches of random pixels."""
    return prepared(settings, random_pixels(settings, 4 * settings.batch_size))


def trained(model, batches, settings, seconds):
    """Images per wall-clock second and per CPU second, under `fit`."""

    def fit():
        model.fit(batches, steps_per_epoch=8, verbose=0, shuffle=False)

    return per_second(fit, 8 * settings.batch_size, seconds)


def memory(name):
    """Peak resident memory, MB, of a process that trains eight steps."""
    told = subprocess.run(
        [sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True
    )
    return json.loads(told.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="per size and round")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = BATCHES | SIDES
    if arguments.memory:
        settings = work[arguments.memory]
        trained(*begun(settings), settings, 0.1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    memories = {name: memory(name) for name in work}  # first: a child begins with its parent's peak
    sides = {name: (*begun(settings), settings) for name, settings in work.items()}
    plain = convolutions()
    for side in sides.values():
        trained(*side, 0.1)  # traced and warm
    speeds, limits = {name: [] for name in sides}, []
    for _ in range(arguments.rounds):
        limits.append(peak(plain))
        for name, side in sides.items():
            speeds[name].append(trained(*side, arguments.seconds))
    limits = np.array(limits)  # (rounds, 2): by wall-clock time, by CPU time
    print(f"convolution peak: {middle(limits[:, 0] / 1e9)} GFLOP/s\n")
    print("| | images/s | GFLOP/s | share of the peak | by CPU time | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, (model, _, settings) in sides.items():
        each = costs.step_operations(model, settings.batch_size) / settings.batch_size
        found = np.array(speeds[name])
        shares = np.median(found * each / limits, axis=0)
        print(
            f"| {name} | {middle(found[:, 0])} | {np.median(found[:, 0]) * each / 1e9:.0f} | "
            f"{shares[0]:.2f} | {shares[1]:.2f} | {memories[name]:,.0f} |",
            flush=True,
        )


def middle(values):
    """Median, lowest and highest value as text."""
    return f"{np.median(values):,.0f} ({values.min():,.0f} to {values.max():,.0f})"


if __name__ == "__main__":
    main()
