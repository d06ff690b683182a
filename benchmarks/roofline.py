"""How fast a training step can be on this machine, and which kernels are slower than that.

    python benchmarks/roofline.py [--work middle large] [--steps 10] [--rows 10]
    OASIS_DIR=... python benchmarks/roofline.py --work brain-map

Work is a row of rivals.py, or an experiment of config.py.

The roofline of Williams et al. (2009, https://doi.org/10.1145/1498765.1498785): a kernel takes at
least its operations divided by the speed of the fastest plain convolutions, and at least the bytes
of its inputs and outputs divided by the speed at which memory is read and written. Both speeds are
measured here. The kernels are those of the traced step before TensorFlow fuses any:

- "each by itself": the sum of the bounds of all kernels;
- "perfectly fused": everything between convolutions and matrix products costs nothing;
- "in the cache": no bytes count, only operations.

A map that stays in the cache costs less than its bytes say. The table names the kernels that lose
most against their own bound, in milliseconds of the calling thread: two that run at the same time
take about twice as long. Kernels that TensorFlow has fused, which have no bound here, are left out.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import costs
import tensorflow as tf
from peak import convolutions, peak
from prepared import prepared, random_pixels
from rivals import WORK
from step_profile import profiled

import config


def bandwidth(megabytes=256, rounds=8):
    """Bytes per second of the sum of two arrays larger than any cache, read and written."""
    one, other = (tf.random.normal((megabytes * 2**18,)) for _ in range(2))
    add = tf.function(lambda a, b: a + b).get_concrete_function(one, other)
    add(one, other)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        add(one, other)
        times.append(time.perf_counter() - start)
    return 3 * megabytes * 2**20 / min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*WORK, *config.EXPERIMENTS]
    parser.add_argument("--work", nargs="+", choices=known, default=["middle", "large"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=10)
    arguments = parser.parse_args()
    speed, memory = peak(convolutions())[0], bandwidth()
    print(f"convolutions: {speed / 1e9:.0f} GFLOP/s; memory: {memory / 1e9:.1f} GB/s\n")
    for work in arguments.work:
        title, settings = WORK.get(work) or (work, config.settings(work))
        model, batches = prepared(settings, random_pixels(settings, 4 * settings.batch_size))
        found = costs.kernels(costs.traced_step(model, settings.batch_size))
        clock, spent = profiled(model, batches, arguments.steps)
        dense = {name: each for name, each in found.items() if each.dense}
        operations = sum(each.operations for each in found.values())
        limits = {
            "each by itself": sum(each.seconds(speed, memory) for each in found.values()),
            "perfectly fused": sum(each.seconds(speed, memory) for each in dense.values()),
            "in the cache": operations / speed,
        }
        moved, kept = (sum(each.bytes for each in some.values()) / 1e6 for some in (found, dense))
        print(f"### {title}: {clock:.0f} ms a step\n")
        print(
            f"{operations / 1e9:.1f} GFLOP; {moved:,.0f} MB moved, {kept:,.0f} MB of them by "
            f"convolutions and matrix products: {operations / moved / 1e6:.0f} and "
            f"{operations / kept / 1e6:.0f} operations a byte, and this machine does "
            f"{speed / memory:.0f} in the time of one\n"
        )
        print("| bound | ms a step | share of the convolution peak |\n|---|---|---|")
        print(f"| *measured* | {clock:.0f} | {operations / speed / clock * 1000:.2f} |")
        for name, each in limits.items():
            print(f"| {name} | {1000 * each:.0f} | {operations / speed / each:.2f} |")
        lost = {}
        for (kind, name), each in spent.items():
            if name in found and "Fused" not in kind:
                least = 1000 * found[name].seconds(speed, memory)
                lost[name] = (each - least, each, least, kind)
        print("\n| kernel | kind | ms | at least, ms |\n|---|---|---|---|")
        for name in sorted(lost, key=lost.get, reverse=True)[: arguments.rows]:
            _, each, least, kind = lost[name]
            print(f"| {name} | {kind} | {each:.1f} | {least:.1f} |")
        print(flush=True)


if __name__ == "__main__":
    main()
