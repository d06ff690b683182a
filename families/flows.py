"""Priors on latents that are trained by gradient descent: networks from noise to latents.

Each is a `keras.Model` with its own `train_step`; latents are standardised inside. They are trained
with `fit`. If a folder is given, an interrupted training can be resumed (`storage.keep`).
"""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from families.densities import Prior, by_subject, checked, rows_of_first
from nn import losses, optimizers, randomness
from nn.averages import Averages, reduced
from nn.batches import in_batches
from sources.conditions import Conditions
from sources.splits import Split
from storage import checkpoints
from storage.keep import Keep, OneLine

MOST_SEEN = 1000  # training latents whose conditions are kept
EMA = 0.999


class Plan(NamedTuple):
    """Training settings of a prior: those of `config.Settings` that `Keep` reads."""

    epochs: int
    batch_size: int
    patience: int = 0


class Trained(keras.Model, Prior):
    """Base of the trained priors: standardisation, one step, a running mean of the weights.

    Args:
        latent_dim: Axes of the latent.
        width, blocks: Units of a layer, and number of blocks of layers.
        conditions: `Conditions`, or None.
        seed: Seed of the weights and of every draw in training.
        **options: Further plain values that `made_network` reads.
    """

    def __init__(self, latent_dim, width=256, blocks=3, conditions=None, seed=0, **options):
        super().__init__()
        self.options = options
        self.latent_dim, self.width, self.blocks = latent_dim, width, blocks
        self.conditions, self.seed = conditions, seed
        self.seen = None  # conditions of training latents, (n, width), for draws that name none
        fixed = {"trainable": False, "initializer": "zeros"}
        self.shift = self.add_weight(shape=(latent_dim,), name="shift", **fixed)
        self.scale = self.add_weight(shape=(latent_dim,), name="scale", **fixed)
        self.steps = self.add_weight(shape=(), dtype="int64", name="steps", **fixed)
        self.averages, self.test_averages = Averages(), Averages()
        self.network = self.made_network()
        self.mean_network = self.made_network()
        self.mean_network.set_weights(self.network.get_weights())
        self.mean_network.trainable = False
        self.built = True

    @property
    def noise_dim(self):
        """Numbers of N(0, I) for each draw."""
        return self.latent_dim

    @property
    def learned_by(self):
        """Name and learning rate of the optimizer."""
        return "adam", 1e-3

    def made_network(self):
        """The network that is trained; draws use a running mean of its weights."""
        raise NotImplementedError

    def objective(self, x, given, key, training):
        """Named terms of standardised latents `(batch, latent_dim)`, each `(batch,)`.

        Args:
            x: Standardised latents.
            given: Conditions `(batch, width)`, or None.
            key: Function of a stream's name, the key of its random numbers.
            training: Whether to use the network itself, or the mean one.
        """
        raise NotImplementedError

    # --- the training --------------------------------------------------------------------------

    @property
    def metrics(self):
        return [self.averages, self.test_averages]

    def get_metrics_result(self):
        return {}

    def _terms(self, batch, training):
        z, given = (
            (batch["images"], batch["conditions"]) if isinstance(batch, dict) else (batch, None)
        )
        step = self.steps if training else self.test_averages.images
        family = "training" if training else "evaluation"

        def key(stream):
            return randomness.key(self.seed, step, f"{family}/{stream}")

        x = (z - self.shift) / self.scale
        terms, loss = reduced(self.objective(x, given, key, training))
        averages = self.averages if training else self.test_averages
        averages.update_state({"loss": loss, **terms}, tf.shape(z)[0])
        return loss

    def train_step(self, batch):
        self.steps.assign_add(1)
        with tf.GradientTape() as tape:
            loss = self._terms(batch, training=True)
        weights = self.network.trainable_variables
        gradients = tape.gradient(loss, [each.value for each in weights])
        self.optimizer.apply(gradients, weights)
        steps = tf.cast(self.steps, tf.float32)
        kept = tf.minimum(EMA, (1.0 + steps) / (10.0 + steps))
        for mean, new in zip(self.mean_network.weights, self.network.weights, strict=True):
            mean.assign(kept * mean + (1.0 - kept) * new)
        return self.averages.result()

    def test_step(self, batch):
        self._terms(batch, training=False)
        return self.test_averages.result()

    @classmethod
    def fitted(
        cls,
        z,
        seed=0,
        table=None,
        conditions=None,
        subjects=None,
        steps=4000,
        batch_size=256,
        folder=None,
        told=False,
        **sizes,
    ):
        """Trained on latents.

        Args:
            z: Shape `(n, latent_dim)`; those of a tenth of the subjects, at random, are held out.
            seed: Seed of the weights, the order and every draw.
            subjects: Whose latent each is, shape `(n,)`; None: each is one's own.
            table: n rows, with conditions.
            conditions: `Conditions`, or None.
            steps: Of training.
            batch_size: Latents of a step, or as many as there are.
            folder: Folder for checkpoints, so that another call resumes the training; or None.
            told: Whether to show progress, in one line.
            **sizes: Sizes of the network.
        """
        z = checked(z).astype(np.float32)
        model = cls(z.shape[1], conditions=conditions, seed=seed, **sizes)
        model.shift.assign(z.mean(axis=0))
        model.scale.assign(z.std(axis=0))
        rows, held = _held_out(np.arange(len(z)) if subjects is None else subjects, seed)
        table = pd.DataFrame(index=range(len(z))) if table is None else table
        if conditions:
            model.seen = conditions(table.iloc[rows[:: -(-len(rows) // MOST_SEEN)]])
        parts = [Split(z, table).only(each) for each in (rows[held:], rows[:held])]
        size = min(batch_size, len(parts[0]))
        an_epoch = parts[0].steps(size)
        epochs = max(1, round(steps / an_epoch))
        patience = max(5, epochs // 10)  # few latents are soon learnt by heart
        name, rate = model.learned_by
        rate = keras.optimizers.schedules.CosineDecay(rate, epochs * an_epoch, alpha=0.01)
        model.compile(optimizer=optimizers.BY_NAME[name](rate, clipnorm=1.0))
        model.optimizer.build(model.network.trainable_variables)

        def batches(epoch=0, skipped=0):
            known = {"conditions": conditions} if conditions else {}
            training = parts[0].batches(size, True, seed, epoch, **known).skip(skipped)
            return training, parts[1].batches(1024, **known)

        line = [OneLine(f"prior {cls.kind}")] if told else []
        if folder is None:
            training, validation = batches()
            keras.Model.fit(
                model,
                training,
                epochs=epochs,
                steps_per_epoch=an_epoch,
                validation_data=validation,
                callbacks=[
                    keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True),
                    *line,
                ],
                verbose=0,
                shuffle=False,
            )
            return model
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.require_room(folder, model)
        plan = Plan(epochs, size, patience)
        keep = Keep(model, plan, folder, an_epoch, "the same command")
        keep.fit(batches, [keep, *line], 0)
        checkpoints.load(model, folder)  # the best ones
        return model

    # --- what a prior gives --------------------------------------------------------------------

    def parts(self):
        settings = {
            "kind": self.kind,
            "latent_dim": self.latent_dim,
            "width": self.width,
            "blocks": self.blocks,
            "seed": self.seed,
            "conditions": self.conditions and self.conditions.to_json(),
            **self.options,
        }
        arrays = {
            f"weight_{number:03d}": value
            for number, value in enumerate(self.mean_network.get_weights())
        }
        if self.seen is not None:
            arrays["seen"] = self.seen
        return settings, arrays | {"shift": self.shift.numpy(), "scale": self.scale.numpy()}

    @classmethod
    def of_parts(cls, settings, arrays):
        known = {name: value for name, value in settings.items() if name != "kind"}
        if known["conditions"]:
            known["conditions"] = Conditions.from_json(known["conditions"])
        made = cls(**known)
        weights = [arrays[name] for name in sorted(arrays) if name.startswith("weight_")]
        for network in (made.network, made.mean_network):
            network.set_weights(weights)
        made.seen = arrays.get("seen")
        made.shift.assign(arrays["shift"])
        made.scale.assign(arrays["scale"])
        return made

    def carried(self, noise, given, **options):
        """Standardised latents of noise: what `sample` and `sampler` share.

        Written with `keras.ops`, for tensors as for symbolic inputs.

        Args:
            noise: Of N(0, I), `(batch, noise_dim)`.
            given: Conditions `(batch, width)`, or None.
        """
        raise NotImplementedError

    def sample(self, n, seed=0, condition=None, **options):
        return self._natural(self._carried(self._noise(n, seed), condition, seed, **options))

    def _carried(self, x, condition=None, seed=0, **options):
        """`carried` for arrays of any length."""

        def carried(x, *given):
            return self.carried(x, *(given or [None]), **options)

        return np.asarray(in_batches(carried, x, *self._told(len(x), condition, seed)))

    def _told(self, n, condition, seed):
        """The conditions of n draws in a list, those of training latents if none is named."""
        given = self.given(n, condition)
        if given is None and self.seen is not None:
            given = self.seen[np.random.default_rng(seed).integers(len(self.seen), size=n)]
        return [] if given is None else [given]

    def _noise(self, n, seed):
        return randomness.normal(randomness.key(seed, 0, "draw"), (n, self.noise_dim)).numpy()

    def _standard(self, z):
        return ((z - self.shift.numpy()) / self.scale.numpy()).astype(np.float32)

    def _natural(self, x):
        return np.asarray(x * self.scale.numpy() + self.shift.numpy(), np.float32)

    def sampler(self, condition=None, **options):
        given, noise = self.given(1, condition), keras.Input((self.noise_dim,), name="noise")
        inputs = [noise]
        if given is not None:  # the same for every draw
            given = keras.ops.zeros_like(noise[:, :1]) + given
        elif self.seen is not None:
            inputs.append(keras.Input((1,), name="choice"))
            rows, width = self.seen.shape
            chosen = keras.ops.cast(inputs[1][:, 0] * rows, "int32")
            given = keras.layers.Embedding(rows, width, weights=[self.seen])(chosen)
        x = self.carried(noise, given, **options) * self.scale.numpy() + self.shift.numpy()
        return keras.Model(inputs if len(inputs) > 1 else noise, x, name="sampler")


def _held_out(subjects, seed):
    """All rows, in random order of the subjects, and how many of the first ones are held out."""
    if len(set(subjects)) < 2:  # its own rows, then
        subjects = np.arange(len(subjects))
    rows, codes = by_subject(subjects, seed)
    return rows, rows_of_first(codes[rows], 10)


def dense(width, seed, zeros=False, activation=None):
    start = "zeros" if zeros else keras.initializers.HeNormal(seed=seed)
    return keras.layers.Dense(width, kernel_initializer=start, activation=activation)


# --- coupling layers -----------------------------------------------------------------------------


class Coupling(Trained):
    """A normalizing flow of affine coupling layers, with an exact density.

    [Dinh et al., 2017](https://arxiv.org/abs/1605.08803), Eq. 7: one half of the axes determines
    scale and shift of the other half; the halves are random for each layer.

    Args:
        blocks: Coupling layers.
        See `Trained`.
    """

    kind = "coupling"

    def __init__(self, latent_dim, width=128, blocks=8, conditions=None, seed=0):
        if latent_dim < 2:
            raise ValueError("coupling layers need a latent of at least 2 axes; use kind mixture")
        super().__init__(latent_dim, width, blocks, conditions, seed)

    def orders(self):
        """The axes in the order in which each layer takes them."""
        random = np.random.default_rng(self.seed)
        return [random.permutation(self.latent_dim) for _ in range(self.blocks)]

    @property
    def half(self):
        """Number of axes in the first half."""
        return self.latent_dim // 2

    def made_network(self):
        """From standardised latents to noise, and the log-determinant of that."""
        given = [keras.Input((self.conditions.width,), name="given")] if self.conditions else []
        x = z = keras.Input((self.latent_dim,), name="z")
        volume = 0.0
        for number, order in enumerate(self.orders()):
            x = keras.ops.take(x, order, axis=1)
            decides, moved = x[:, : self.half], x[:, self.half :]
            log_scale, shift = self._layer(number)([decides, *given])
            moved = (moved - shift) * keras.ops.exp(-log_scale)
            volume = volume - keras.ops.sum(log_scale, axis=-1)
            x = keras.ops.concatenate([decides, moved], axis=1)
        return keras.Model([z, *given], [x, volume])

    def _layer(self, number):
        """Network of one layer: from the first half to log-scale and shift of the other."""
        inputs = [keras.Input((self.half,))]
        if self.conditions:
            inputs.append(keras.Input((self.conditions.width,)))
        hidden = keras.layers.Concatenate()(inputs) if self.conditions else inputs[0]
        seed = 1000 * self.seed + 10 * number
        for each in range(2):
            hidden = dense(self.width, seed + each, activation="silu")(hidden)
        moved = self.latent_dim - self.half
        log_scale = 2.0 * keras.ops.tanh(dense(moved, 0, zeros=True)(hidden))
        shift = dense(moved, 0, zeros=True)(hidden)
        return keras.Model(inputs, [log_scale, shift], name=f"coupling_{number}")

    def _log_prob(self, network, x, given):
        noise, volume = network([x, *([] if given is None else [given])])
        return tf.reduce_sum(losses.log_normal(noise, 0.0, 0.0), axis=-1) + volume

    def objective(self, x, given, key, training):
        network = self.network if training else self.mean_network
        return {"nll": -self._log_prob(network, x, given)}

    @property
    def exact(self):
        return self.conditions is None  # with conditions each has a density of its own

    def log_prob(self, z, condition=None):
        if self.conditions and condition is None:
            raise ValueError("the density of this prior needs a condition; give one")
        rows = None if condition is None else tf.constant(self.given(len(z), condition))
        inside = self._log_prob(self.mean_network, (z - self.shift) / self.scale, rows)
        return inside - tf.reduce_sum(tf.math.log(self.scale.value))

    def carried(self, noise, given):
        x = noise
        for number, order in reversed(list(enumerate(self.orders()))):
            decides, moved = x[:, : self.half], x[:, self.half :]
            inputs = [decides] if given is None else [decides, given]
            log_scale, shift = self.mean_network.get_layer(f"coupling_{number}")(inputs)
            moved = moved * keras.ops.exp(log_scale) + shift
            x = keras.ops.concatenate([decides, moved], axis=1)
            x = keras.ops.take(x, np.argsort(order), axis=1)
        return x


# --- a second VAE --------------------------------------------------------------------------------


class TwoStage(Trained):
    """A second VAE, on the latents of the first: [Dai & Wipf, 2019](https://arxiv.org/abs/1903.05789).

    Its latent has as many axes as the first; its decoder gives a mean and a variance for each.
    """

    kind = "two-stage"
    exact = False

    def __init__(self, latent_dim, width=256, blocks=3, conditions=None, seed=0):
        if conditions is not None:
            raise ValueError("kind two-stage takes no conditions; use mixture or flow")
        super().__init__(latent_dim, width, blocks, None, seed)

    def made_network(self):
        inputs = [keras.Input((self.latent_dim,), name=name) for name in ("x", "u")]
        both = [self._side(name, number) for number, name in enumerate(("encoder", "decoder"))]
        outputs = [side(each) for side, each in zip(both, inputs, strict=True)]
        return keras.Model(inputs, outputs)

    def _side(self, name, number):
        """Network from a vector to the means and log-variances of another, `(batch, 2, axes)`."""
        vector = keras.Input((self.latent_dim,))
        hidden, seed = vector, 1000 * self.seed + 100 * number
        for block in range(self.blocks):
            hidden = dense(self.width, seed + block, activation="silu")(hidden)
        made = dense(2 * self.latent_dim, 0, zeros=number == 0)(
            keras.layers.Concatenate()([hidden, vector])
        )
        made = keras.layers.Reshape((2, self.latent_dim))(made)
        return keras.Model(vector, made, name=name)

    def objective(self, x, given, key, training):
        network = self.network if training else self.mean_network
        encoder, decoder = (network.get_layer(name) for name in ("encoder", "decoder"))
        posterior = encoder(x)
        mean, log_var = posterior[:, 0], _bounded(posterior[:, 1])
        noise = randomness.normal(key("noise"), tf.shape(mean))
        made = decoder(mean + tf.exp(0.5 * log_var) * noise)
        return {
            "nll": losses.diagonal_gaussian_nll(x, made[:, 0], _bounded(made[:, 1])),
            "kl": losses.kl_to_standard_normal(mean, log_var),
        }

    def carried(self, noise, given):
        u, inside = noise[:, : self.latent_dim], noise[:, self.latent_dim :]
        made = self.mean_network.get_layer("decoder")(u)
        return made[:, 0] + keras.ops.exp(0.5 * _bounded(made[:, 1])) * inside

    @property
    def noise_dim(self):
        return 2 * self.latent_dim  # of the second latent, and inside its decoder's width


def _bounded(log_var):
    return keras.ops.clip(log_var, -8.0, 4.0)
