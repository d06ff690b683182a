"""Common loop of the sides of benchmarks/rivals.py: train on request and report the time.

It needs only Python's standard library, because the sides have different environments.
"""

import json
import resource
import sys
import time


def now():
    """Wall-clock and CPU time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def since(begun):
    return tuple(after - before for before, after in zip(begun, now(), strict=True))


def take(train):
    """Reads numbers of steps, line by line, trains and answers with seconds and memory.

    Args:
        train: Takes the number of steps; may return the result of `since` if only part of the time
            is training.
    """
    train(1)
    _answer({"ready": True})
    for line in sys.stdin:
        begun = now()
        clock, cpu = train(int(line)) or since(begun)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _answer({"clock": clock, "cpu": cpu, "peak_mb": peak})


def _answer(found):
    print(json.dumps(found), flush=True)
