"""What every side of benchmarks/rivals.py does: train when it is told to, and say how long it took.

Nothing but Python's own library, for the sides live in different environments.
"""

import json
import resource
import sys
import time


def now():
    """The clock and the processor's time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def since(begun):
    return tuple(after - before for before, after in zip(begun, now(), strict=True))


def take(train):
    """Reads numbers of steps, line by line, trains so many and answers with seconds and memory.

    Args:
        train: Takes the number of steps; may return what `since` gives, where not all of the time
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
