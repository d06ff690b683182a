"""Functions for a training step with replicas on other devices or machines.

Under a `tf.distribute` strategy every replica has a slice of the batch and the same weights. These
functions give it values of the whole batch; on a single device they change nothing.
"""

import tensorflow as tf

# `aggregation` of a weight to which the step assigns the same value in every replica.
ALIKE = "only_first_replica"


def count() -> int:
    """Number of replicas that share the batch; 1 outside of a step."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def number():
    """Number of this replica, from 0."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def share(loss):
    """A replica's share of the loss; its gradient is summed over all replicas."""
    return loss if count() == 1 else loss / count()


def apply(optimizer, gradients, variables):
    """Takes an optimizer's step with the gradients of shared losses, summed over all replicas.

    Keras clips before it sums, but the gradient of the whole batch must be clipped. Each replica
    therefore gets an equal share of it, and `train.compile_model` divides the norm by the number of
    replicas.
    """
    if optimizer.global_clipnorm and count() > 1:
        gradients = [mean(each) for each in gradients]
    optimizer.apply(gradients, variables)


def mean(value):
    """The mean over all replicas."""
    if count() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def gathered(rows):
    """The rows of all replicas along the first axis, in their order; differentiable."""
    if count() == 1:
        return rows
    whole = tf.distribute.get_replica_context().all_gather(rows, axis=0)
    return tf.ensure_shape(whole, (None, *rows.shape[1:]))


def own(rows):
    """This replica's rows of those of the whole batch."""
    if count() == 1:
        return rows
    length = tf.shape(rows)[0] // count()
    return rows[number() * length :][:length]


def update(variables, function, *values):
    """Sets each variable to a function of itself and of the values at its position.

    Args:
        variables: `keras.Variable`s that are equal on all replicas.
        function: Takes a variable's value and one of each of `values`.
        values: Lists as long as `variables`, of tensors or variables.
    """
    rows = list(zip(variables, *values, strict=True))
    if count() == 1:
        for variable, *others in rows:
            variable.assign(function(variable, *others))
        return

    def everywhere(strategy, rows):
        for variable, *others in rows:
            strategy.extended.update(
                variable,
                lambda held, *given: held.assign(function(held, *given)),
                args=tuple(others),
                group=False,
            )

    plain = [tuple(getattr(each, "value", each) for each in row) for row in rows]
    tf.distribute.get_replica_context().merge_call(everywhere, args=(plain,))


# --- what Keras calls ----------------------------------------------------------------------------


def step_function(model, kind, own, force):
    """The function that `fit` (`kind` is `"train"`) or `evaluate` (`"test"`) calls.

    Args:
        model: A model that is asked for it by Keras.
        kind: `"train"` or `"test"`.
        own: Keras' own method, which serves a model that has its batches to itself.
        force: Whether to make it anew.
    """
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return own(force)
    name = f"{kind}_function"
    if getattr(model, name) is None or force:
        make = {"train": _train_function, "test": _test_function}[kind]
        setattr(model, name, make(model))
    return getattr(model, name)


def _train_function(model):
    """Steps of a model's `train_step` on every replica.

    Keras' own reduction over workers fails on scalars; here every replica has the sums over all.
    """
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True)
    def train(iterator):
        for _ in range(model.steps_per_execution):
            shown = strategy.run(model.train_step, args=(next(iterator),))
        return {name: strategy.experimental_local_results(each)[0] for name, each in shown.items()}

    return train


def _test_function(model):
    """A model's `test_step`; every worker evaluates all held-out images, as a single one does."""
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True)
    def test(iterator):
        batch = tf.nest.map_structure(
            lambda each: strategy.experimental_local_results(each)[0], next(iterator)
        )
        return model.test_step(batch)

    return test
