"""Ray, if it is installed: our processes on this machine or on a cluster."""

from contextlib import contextmanager
from pathlib import Path

import config

HERE = Path(__file__).resolve().parent.parent  # the project


def environment(threads) -> dict:
    """Environment variables with which a process on any machine finds this project and the
    images."""
    paths = {name: getattr(config, name) for name in config.PATHS}
    told = {name: str(path.resolve()) for name, path in paths.items() if path is not None}
    told |= {"ATLAS_SEED": str(config.SEED), "ATLAS_EMBEDDED": str(int(config.EMBEDDED))}
    told |= {"ATLAS_EPOCHS": str(config.MOST_EPOCHS)}
    told |= {"PYTHONPATH": str(HERE), "TF_NUM_INTRAOP_THREADS": str(threads)}
    return told | {"TF_CPP_MIN_LOG_LEVEL": "2"}


@contextmanager
def joined(address, threads, **own):
    """Starts or joins Ray for a `with` block; yields the numbers `(gpus, cores)`.

    Args:
        address: Of a cluster, or `"local"`; None starts Ray on this machine.
        threads: Threads of TensorFlow in every process.
        **own: For `ray.init`, if there is no address.
    """
    import ray

    options = {} if address else own
    ray.init(
        address=address,
        runtime_env={"env_vars": environment(threads)},
        log_to_driver=False,
        **options,
    )
    try:
        room = ray.cluster_resources()
        yield int(room.get("GPU", 0)), int(room["CPU"])
    finally:
        ray.shutdown()
