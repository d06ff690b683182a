"""Time of a training step by operation, from TensorFlow's profiler.

    python benchmarks/step_profile.py [--work small middle large colour] [--precision bfloat16]
        [--steps 10] [--rows 12] [--torch]

With `--torch` also of PyTorch's fastest form of the same step, by its own profiler.

The networks of `rivals.py`, in a bare loop, one run. An operation's milliseconds are those of the
thread that calls it. Two may run at the same time, and one may use all cores, so their sum can be
more or less than the wall-clock time. Shares are of their sum.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import tensorflow as tf
from prepared import prepared, random_pixels
from rivals import KEPT_PAGES, WORK, environment, torch_command
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def operations(folder):
    """Milliseconds of every operation of a trace, by `(kind, name)`."""
    (path,) = Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found = Counter()
    for plane in space.planes:
        for line in plane.lines:
            if not line.name.startswith("tf_Compute"):
                continue
            for event in line.events:
                told = plane.event_metadata[event.metadata_id].name
                if named := re.fullmatch(r"([^:]+):([^:]+)", told):
                    found[named[2], named[1]] += event.duration_ps / 1e9
    return found


def profiled(model, batches, steps):
    """Wall-clock milliseconds per step without the profiler, and of every operation with it."""
    step = tf.function(lambda iterator: model.train_step(next(iterator)))
    iterator = iter(batches)
    for _ in range(4):
        step(iterator)
    start = time.perf_counter()
    for _ in range(steps):
        step(iterator)
    clock = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                step(iterator)
        found = operations(folder)
    return 1000 * clock / steps, {name: each / steps for name, each in found.items()}


def of_torch(settings, steps):
    """Milliseconds per step of every kind of operation of PyTorch."""
    side = "channels-last, kept pages"
    side += ", bfloat16" if settings.precision == "bfloat16" else ""
    python, _ = environment()
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels.npy"
        np.save(pixels, random_pixels(settings, 4 * settings.batch_size))
        command = [*torch_command(side, settings, pixels, python), steps]
        done = subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | KEPT_PAGES,
        )
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def table(title, counted, rows):
    whole = sum(counted.values())
    print(f"| {title} | ms a step | share |\n|---|---|---|")
    for name, each in counted.most_common(rows):
        print(f"| {name} | {each:.1f} | {each / whole:.0%} |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="+", choices=WORK, default=["small", "middle", "large"])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    for work in arguments.work:
        title, settings = WORK[work]
        settings = dataclasses.replace(settings, precision=arguments.precision)
        side = prepared(settings, random_pixels(settings, 4 * settings.batch_size))
        clock, found = profiled(*side, arguments.steps)
        print(f"### {title}, {settings.precision}: {clock:.1f} ms a step\n")
        kinds, names = Counter(), Counter()
        for (kind, name), each in found.items():
            kinds[kind] += each
            names[name] += each
        table("kind", kinds, arguments.rows)
        table("operation", names, arguments.rows)
        if arguments.torch:
            table("kind, PyTorch", of_torch(settings, arguments.steps), arguments.rows)


if __name__ == "__main__":
    main()
