"""Predicted cost of a step: operations, bytes, and communication between workers."""

import logging
import math
from dataclasses import dataclass

import tensorflow as tf

FREE = (  # kernels that move no bytes: names, views and numbers
    *("Const", "Fill", "Placeholder", "Identity", "IdentityN", "StopGradient", "ReadVariableOp"),
    *("Reshape", "Squeeze", "ExpandDims", "Bitcast", "Shape", "ShapeN", "StridedSlice", "NoOp"),
    "BroadcastGradientArgs",
)
DENSE = ("Conv", "MatMul")  # in the type of what a perfect fusion must still compute


def operations(function) -> int:
    """Floating-point operations of one call, as TensorFlow's profiler counts them.

    Args:
        function: A traced function, from `get_concrete_function`. A multiplication and an addition
            are two operations; shuffling and reading are not counted.
    """
    return _profile(function).total_float_ops


@dataclass
class Kernel:
    """An operation of the traced step: its type, operations and bytes."""

    kind: str
    operations: int
    bytes: int

    @property
    def dense(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return any(each in self.kind for each in DENSE)

    def seconds(self, speed, bandwidth) -> float:
        """Lower bound of its time, from operations and from bytes per second."""
        return max(self.operations / speed, self.bytes / bandwidth)


def kernels(function):
    """The kernels of a traced function of static shapes, by name."""
    counted = _by_name(function)
    return {
        each.name: Kernel(each.type, counted.get(each.name, 0), _moved(each))
        for each in function.graph.get_operations()
        if each.type not in FREE
    }


def _moved(operation):
    return sum(
        each.dtype.size * math.prod(each.shape)
        for each in (*operation.inputs, *operation.outputs)
        if each.dtype.size and each.shape.is_fully_defined()
    )


def _by_name(function):
    """Floating-point operations of every kernel of a traced function, by name."""
    found, waiting = {}, [_profile(function)]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        found[node.name] = node.float_ops
    return found


def _profile(function):
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    logger, level = tf.get_logger(), tf.get_logger().level
    logger.setLevel(logging.ERROR)  # the profiler warns that it uses deprecated names itself
    try:
        return tf.compat.v1.profiler.profile(function.graph, options=options)
    finally:
        logger.setLevel(level)


def step_operations(model, batch_size) -> int:
    """Floating-point operations of one training step of a compiled model on unlabelled images."""
    return operations(traced_step(model, batch_size))


def traced_step(model, batch_size):
    """One training step of a compiled model on unlabelled images, traced."""
    images = tf.TensorSpec((batch_size, *model.image_shape), tf.uint8)
    return tf.function(model.train_step).get_concrete_function(images)


def all_reduce_seconds(size, replicas, speed) -> float:
    """Lower bound of the time in which replicas can add up their gradients.

    In a ring every replica sends `2 (n - 1) / n` of its gradients, and no scheme sends fewer
    ([Patarasu & Yuan, 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)). Latencies come on top.

    Args:
        size: Bytes of the gradients.
        replicas: n, at least 1.
        speed: Bytes per second that each replica can send and receive at the same time.
    """
    return 2 * (replicas - 1) / replicas * size / speed
