"""What a training step needs from replicas on other devices or machines.

Under a `tf.distribute` strategy every replica has a slice of the batch and the same weights. These
functions give it what belongs to the whole batch; alone, a replica *is* the whole, and they change
nothing.
"""

import tensorflow as tf

# `aggregation` of a weight that a step assigns itself, to the same value in every replica.
ALIKE = "only_first_replica"


def count() -> int:
    """How many replicas share the batch; 1 outside of a step."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def number():
    """Which one this is, from 0."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def share(loss):
    """What a replica's loss counts in the gradient, which is summed over all of them."""
    return loss if count() == 1 else loss / count()


def apply(optimizer, gradients, variables):
    """Takes an optimizer's step with gradients of what `share` gave, summed over all replicas.

    Keras sums after it has clipped; what is to be clipped must be the whole batch's, though, so it
    is made alike first, and the norm that `train.compile_model` sets is divided likewise.
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
    """The rows of all replicas, first axis, in their order; the gradient finds its way back."""
    if count() == 1:
        return rows
    whole = tf.distribute.get_replica_context().all_gather(rows, axis=0)
    return tf.ensure_shape(whole, (None, *rows.shape[1:]))


def own(rows):
    """This replica's part of rows that belong to the whole batch."""
    if count() == 1:
        return rows
    length = tf.shape(rows)[0] // count()
    return rows[number() * length :][:length]


def update(variables, function, *values):
    """Sets each variable to a function of itself and of the values that stand at its place.

    Args:
        variables: `keras.Variable`s that every replica holds alike.
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


def train_function(model):
    """Steps of a model's `train_step` on every replica.

    Keras' own reduces what a step shows over workers in a way that fails on scalars; here every
    replica knows the sums over all.
    """
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True)
    def train(iterator):
        for _ in range(model.steps_per_execution):
            shown = strategy.run(model.train_step, args=(next(iterator),))
        return {name: strategy.experimental_local_results(each)[0] for name, each in shown.items()}

    return train


def test_function(model):
    """A model's `test_step`: every worker sees all held-out images, as one alone would."""
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True)
    def test(iterator):
        batch = tf.nest.map_structure(
            lambda each: strategy.experimental_local_results(each)[0], next(iterator)
        )
        return model.test_step(batch)

    return test
