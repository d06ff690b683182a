"""Training speed against batch and image size, and how near the machine's limit it comes.

    python benchmarks/scaling.py [--rounds 3] [--seconds 3]

The VAE of `rivals.py`'s middle row (four stages of 64, dropout) under `fit`: 64x64 in batches of
16 to 512, then 32 to 256 pixels in batches of 32. All sizes alternate. TensorFlow's profiler counts
the operations of a step; the limit is the fastest of some plain float32 convolutions, measured in
the same rounds. Memory is that of a process of its own, at its highest.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from peak import convolutions, peak
from prepared import prepared, random_pixels
from rivals import WORK

import costs

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
    """Images per second of `fit`."""
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.fit(batches, steps_per_epoch=8, verbose=0, shuffle=False)
        images += 8 * settings.batch_size
    return images / (time.perf_counter() - start)


def memory(name):
    """Peak resident memory, MB, of a process that trains eight steps."""
    told = subprocess.run(
        [sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True
    )
    return json.loads(told.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each size in a round")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = BATCHES | SIDES
    if arguments.memory:
        settings = work[arguments.memory]
        trained(*begun(settings), settings, 0.1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    sides = {name: (*begun(settings), settings) for name, settings in work.items()}
    plain = convolutions()
    for side in sides.values():
        trained(*side, 0.1)  # traced and warm
    speeds, limits = {name: [] for name in sides}, []
    for _ in range(arguments.rounds):
        limits.append(peak(plain))
        for name, side in sides.items():
            speeds[name].append(trained(*side, arguments.seconds))
    limit = median(limits)
    print(f"convolution peak: {limit / 1e9:.0f} GFLOP/s ({min(limits) / 1e9:.0f} to "
          f"{max(limits) / 1e9:.0f})\n")  # fmt: skip
    print("| | images/s | GFLOP/s | share of the peak | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name, (model, _, settings) in sides.items():
        each = costs.step_operations(model, settings.batch_size) / settings.batch_size
        speed = median(speeds[name])
        low, high = (edge(speeds[name]) for edge in (min, max))
        print(
            f"| {name} | {speed:,.0f} ({low:,.0f} to {high:,.0f}) | {speed * each / 1e9:.0f} | "
            f"{speed * each / limit:.2f} | {memory(name):,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
