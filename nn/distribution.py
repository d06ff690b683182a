"""Devices and machines that share a training: TensorFlow's strategies, selected by name."""

import os
import time

import tensorflow as tf

NAMES = ("auto", "none", "mirrored", "multiworker")


def strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy under whose `scope()` a model is made; call it before anything else.

    Args:
        name: `"mirrored"`, all GPUs of this machine (or, without any, all logical CPU devices);
            `"multiworker"`, all machines in `TF_CONFIG`, or all tasks of a SLURM job; `"none"`; or
            `"auto"`: several workers if the environment names them, else several GPUs if there are
            some.

    Raises:
        ValueError: if the environment does not list the workers.
    """
    if name not in NAMES:
        raise ValueError(f"strategy = {name!r} is not valid; allowed: {', '.join(NAMES)}")
    # The tasks of a step: a batch script without srun is one process, for any allocation.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    told = "TF_CONFIG" in os.environ or tasks > 1
    if name == "multiworker" and not told:
        raise ValueError(
            "strategy = 'multiworker' needs the list of workers: set TF_CONFIG on each, as in "
            '\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": '
            '"worker", "index": 0}}\', or start with srun'
        )
    if name == "multiworker" or (name == "auto" and told):
        resolver = None  # TensorFlow reads TF_CONFIG
        if "TF_CONFIG" not in os.environ:
            # SLURM assigns every task its GPUs. The resolver's own count fails without GPUs, and if
            # a task sees only its own.
            resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
                gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
            )
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    if name == "mirrored" or (name == "auto" and len(_devices("GPU")) > 1):
        return tf.distribute.MirroredStrategy(_devices("GPU") or _devices("CPU"))
    return tf.distribute.get_strategy()


def _devices(kind):
    return [each.name for each in tf.config.list_logical_devices(kind)]


def bfloat16_slowdown() -> float:
    """Time of a convolution with its gradients in bfloat16 here, in units of that in float32.

    About 1 or less where bfloat16 is supported. On a processor without AVX-512 TensorFlow has only
    a general product of matrices for it, several times as slow or worse. Takes half a second.
    """
    return _seconds(tf.bfloat16) / _seconds(tf.float32)


def _seconds(dtype):
    """Least of three times of a convolution with its gradients."""
    images, kernel = tf.ones((8, 32, 32, 32), dtype), tf.ones((3, 3, 32, 32), dtype)
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            made = tf.nn.conv2d(images, kernel, 1, "SAME")
        for gradient in tape.gradient(made, [images, kernel]):
            gradient.numpy()
        spent.append(time.perf_counter() - begun)
    return min(spent)


def is_chief(strategy) -> bool:
    """Whether this process writes the run folder: the chief, the first worker, or the only one."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if "chief" in resolver.cluster_spec().as_dict():  # then worker 0 is not the chief
        return resolver.task_type == "chief"
    return not resolver.task_id


def worker_lost(error) -> str:
    """A message for an error that means that another worker is lost; "" for other errors."""
    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    words = ("heartbeat", "Collective", "coordination", "unhealthy", "Socket closed")
    if isinstance(error, gone) or any(word in str(error) for word in words):
        return (
            "lost contact with another worker; training cannot continue without it "
            f"({str(error).splitlines()[0][:200]}); start all workers again with --resume"
        )
    return ""
