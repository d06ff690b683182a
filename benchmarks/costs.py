"""Predicted cost of a step: operations, and communication between workers."""

import logging

import tensorflow as tf


def operations(function) -> int:
    """Floating-point operations of one call, as TensorFlow's profiler counts them.

    Args:
        function: A traced function, from `get_concrete_function`. A multiplication and an addition
            are two operations; shuffling and reading are not counted.
    """
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    logger, level = tf.get_logger(), tf.get_logger().level
    logger.setLevel(logging.ERROR)  # the profiler warns that it uses deprecated names itself
    try:
        return tf.compat.v1.profiler.profile(function.graph, options=options).total_float_ops
    finally:
        logger.setLevel(level)


def step_operations(model, batch_size) -> int:
    """Floating-point operations of one training step of a compiled model on unlabelled images."""
    images = tf.TensorSpec((batch_size, *model.image_shape), tf.uint8)
    return operations(tf.function(model.train_step).get_concrete_function(images))


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
