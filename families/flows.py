"""Priors on latents that are trained by gradient descent: networks from noise to latents.

Each is a `keras.Model` with its own `train_step`; latents are standardised inside. They are trained
with `fit`. If a folder is given, an interrupted training can be resumed (`storage.keep`).
"""

import math
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from families.densities import Prior, checked
from nn import layers, losses, randomness, unet
from nn.averages import Averages, reduced
from nn.batches import in_batches
from sources.conditions import Conditions
from sources.splits import Split
from storage import checkpoints
from storage.keep import Keep

EVALUATIONS = 32  # of the flow's network per draw
ROUNDS = 4  # of each step when a part of a latent is known
MOST_SEEN = 1000  # training latents whose conditions are kept
DROPPED = 0.1  # share of latents whose conditions are hidden in training, for guidance
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
        cls, z, seed=0, table=None, conditions=None, steps=4000, folder=None, told=0, **sizes
    ):
        """Trained on latents.

        Args:
            z: Shape `(n, latent_dim)`; a tenth of them, at random, is held out.
            seed: Seed of the weights, the order and every draw.
            table: n rows, with conditions.
            conditions: `Conditions`, or None.
            steps: Of training, of 256 latents each (or as many as there are).
            folder: Folder for checkpoints, so that another call resumes the training; or None.
            told: As `verbose` in Keras.
            **sizes: Sizes of the network.
        """
        z = checked(z).astype(np.float32)
        model = cls(z.shape[1], conditions=conditions, seed=seed, **sizes)
        model.shift.assign(z.mean(axis=0))
        model.scale.assign(z.std(axis=0))
        rows = np.random.default_rng(seed).permutation(len(z))
        held = max(1, len(z) // 10)
        table = pd.DataFrame(index=range(len(z))) if table is None else table
        if conditions:
            model.seen = conditions(table.iloc[rows[:MOST_SEEN]])
        parts = [Split(z, table).only(each) for each in (rows[held:], rows[:held])]
        size = min(256, len(parts[0]))
        an_epoch = parts[0].steps(size)
        epochs = max(1, round(steps / an_epoch))
        patience = max(5, epochs // 10)  # few latents are soon learnt by heart
        rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * an_epoch, alpha=0.01)
        model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=1.0))
        model.optimizer.build(model.network.trainable_variables)

        def batches(epoch=0, skipped=0):
            known = {"conditions": conditions} if conditions else {}
            training = parts[0].batches(size, True, seed, epoch, **known).skip(skipped)
            return training, parts[1].batches(1024, **known)

        if folder is None:
            training, validation = batches()
            keras.Model.fit(
                model,
                training,
                epochs=epochs,
                steps_per_epoch=an_epoch,
                validation_data=validation,
                callbacks=[
                    keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
                ],
                verbose=told,
                shuffle=False,
            )
            return model
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.require_room(folder, model)
        plan = Plan(epochs, size, patience)
        keep = Keep(model, plan, folder, an_epoch, "the same command")
        keep.fit(batches, [keep], told)
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


def _dense(width, seed, zeros=False, activation=None):
    start = "zeros" if zeros else keras.initializers.HeNormal(seed=seed)
    return keras.layers.Dense(width, kernel_initializer=start, activation=activation)


# --- flow matching -------------------------------------------------------------------------------


class Flow(Trained):
    """Flow matching: a velocity field that carries N(0, I) to the latents along straight lines.

    It is trained to predict `x - e` at `(1 - t) e + t x`, `t` uniform, `e` of N(0, I), Eq. 23 of
    [Lipman et al., 2023](https://arxiv.org/abs/2210.02747) with `sigma_min = 0`; samples are drawn
    by Heun's method in `EVALUATIONS` evaluations. Conditions are hidden in a tenth of the training,
    so that the field is learned with and without them
    ([Ho & Salimans, 2022](https://arxiv.org/abs/2207.12598)).

    Of latents that are maps the field is a U-Net, and times are drawn more often from the middle
    (logit-normal: [Esser et al., 2024](https://arxiv.org/abs/2403.03206), Section 3.1), where it is
    hard to tell.

    Args:
        latent_map: Shape of a latent that is a map; (): a vector.
        precision: Of the U-Net, `"float32"` or `"bfloat16"`.
        See `Trained`; `width` is also that of the U-Net, `blocks` is not used there.
    """

    kind = "flow"
    exact = False

    def __init__(
        self,
        latent_dim,
        width=None,
        blocks=3,
        conditions=None,
        seed=0,
        latent_map=(),
        precision="float32",
    ):
        width = width or (96 if latent_map else 256)
        options = {"latent_map": latent_map, "precision": precision} if latent_map else {}
        super().__init__(latent_dim, width, blocks, conditions, seed, **options)

    def made_network(self):
        if self.options:
            return self._on_maps(**self.options)
        seeds = iter(range(1000 * self.seed, 1000 * self.seed + 1000))
        x = keras.Input((self.latent_dim,), name="x")
        time = keras.Input((1,), name="time")
        inputs, features = [x, time], [x, _waves(time)]
        if self.conditions:
            given = keras.Input((self.conditions.width + 1,), name="given")
            inputs, features = [*inputs, given], [*features, given]
        hidden = _dense(self.width, next(seeds))(keras.layers.Concatenate()(features))
        told = keras.layers.Concatenate()(features[1:])
        for _ in range(self.blocks):
            inner = keras.layers.LayerNormalization()(hidden)
            inner = keras.layers.Add()([inner, _dense(self.width, next(seeds))(told)])
            inner = _dense(self.width, next(seeds), activation="silu")(inner)
            inner = _dense(self.width, next(seeds), zeros=True)(inner)
            hidden = keras.layers.Add()([hidden, inner])
        hidden = keras.layers.Activation("silu")(keras.layers.LayerNormalization()(hidden))
        return keras.Model(inputs, _dense(self.latent_dim, next(seeds), zeros=True)(hidden))

    def _on_maps(self, latent_map, precision):
        """The same inputs and output, with a U-Net inside."""
        x = keras.Input((self.latent_dim,), name="x")
        time = keras.Input((1,), name="time")
        inputs, told = [x, time], _waves(time)
        if self.conditions:
            inputs.append(keras.Input((self.conditions.width + 1,), name="given"))
            told = keras.layers.Concatenate()([told, inputs[-1]])
        maps = keras.layers.Reshape(tuple(latent_map))(x)
        made = unet.unet(maps, told, self.width, self.seed, precision)
        return keras.Model(inputs, keras.layers.Flatten()(made))

    def objective(self, x, given, key, training):
        noise = randomness.normal(key("noise"), tf.shape(x))
        size = (tf.shape(x)[0], 1)
        if self.options:  # a map
            t = tf.sigmoid(randomness.normal(key("time"), size))
        else:
            t = randomness.uniform(key("time"), size)
        network = self.network if training else self.mean_network
        if given is not None:
            hidden = randomness.uniform(key("hidden"), (tf.shape(x)[0], 1)) < DROPPED
            given = _marked(given, tf.cast(hidden, tf.float32))
        inputs = [(1.0 - t) * noise + t * x, t, *([] if given is None else [given])]
        away = network(inputs, training=training) - (x - noise)
        return {"velocity": tf.reduce_sum(tf.square(away), axis=-1)}

    def carried(
        self,
        noise,
        given,
        guidance=1.0,
        evaluations=EVALUATIONS,
        since=0.0,
        until=1.0,
        network=None,
    ):
        """As for every trained prior, by Heun's method.

        Args:
            noise, given: See `Trained`.
            guidance: With conditions: 1 draws from the distribution of the training data, more
                draws more typical latents.
            evaluations: Evaluations of the network per latent, at least 2.
            since, until: Times of start and end: at 0 there is noise, at 1 there are latents. With
                `since` above `until` latents are carried back to their noise.
            network: Another form of the network, with the same weights.
        """
        network = network or self.mean_network
        if evaluations < 2:
            raise ValueError(f"evaluations = {evaluations}: Heun's method needs at least 2")
        # So many evaluations are those of the whole way.
        steps = math.ceil(abs(until - since) * (evaluations // 2) - 1e-6)
        size = (until - since) / max(1, steps)
        times = (since + size * np.arange(steps)).astype(np.float32)
        # A loop of the graph is traced once; a symbolic input has no such loop.
        times, x = tf.constant(times) if tf.is_tensor(noise) else times, noise
        for begun in times:
            x = _stepped(network, x, begun, size, given, guidance)
        return x

    def varied(self, z, strength, seed=0, condition=None, **options):
        """Variations of latents: noise is added part of the way, and the flow carries them back.

        Args:
            z: Shape `(n, latent_dim)`.
            strength: How far: 0 leaves them, 1 draws anew.
            seed: Of the noise.
            condition: Dictionary of columns to values, or None.
            **options: Of `carried`.

        Returns:
            float32 `(n, latent_dim)`.
        """
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength = {strength!r} is not valid; allowed: from 0 to 1")
        if strength == 0.0:
            return np.asarray(z, np.float32)
        noise = self._noise(len(z), seed)
        noised = strength * noise + (1.0 - strength) * self._standard(z)
        options = {"since": 1.0 - strength, **options}
        return self._natural(self._carried(noised, condition, seed, **options))

    def completed(
        self, z, known, seed=0, condition=None, guidance=1.0, evaluations=EVALUATIONS, rounds=ROUNDS
    ):
        """Latents of which some numbers are known; the others are drawn to go with them.

        Before each step the known numbers are put where the line from noise to them has them. Each
        step is taken several times, with noise added between, so that the others take notice
        ([Lugmayr et al., 2022](https://arxiv.org/abs/2201.09865), Algorithm 1).

        Args:
            z: Shape `(n, latent_dim)`; the unknown numbers are not looked at.
            known: Booleans, `(n, latent_dim)`.
            seed, condition: See `varied`.
            guidance: See `carried`.
            evaluations: Of the network for one passage; all rounds take `rounds` times as many.
            rounds: How often each step is taken.

        Returns:
            float32 `(n, latent_dim)`, the known numbers unchanged.
        """
        known = np.asarray(known, bool)
        standard = np.where(known, self._standard(z), 0.0).astype(np.float32)
        steps = max(1, evaluations // 2)
        size = 1.0 / steps

        def again(x, t, key):
            """`x` of time `t` one step earlier, with noise."""
            shrunk = (t - size) / t
            spread = tf.sqrt((1.0 - t + size) ** 2 - (shrunk * (1.0 - t)) ** 2)
            return shrunk * x + spread * randomness.normal(key, tf.shape(x))

        def carried(x, standard, known, *given):
            def passage(number, x):
                step, turn = number // rounds, number % rounds
                begun = tf.cast(step, tf.float32) * size
                key = randomness.key(seed, number, "known")
                line = (1.0 - begun) * randomness.normal(key, tf.shape(x)) + begun * standard
                x = known * line + (1.0 - known) * x
                x = _stepped(self.mean_network, x, begun, size, *(given or [None]), guidance)
                key = randomness.key(seed, number, "again")
                x = tf.where(turn < rounds - 1, again(x, begun + size, key), x)
                return number + 1, x

            return tf.while_loop(lambda number, x: number < steps * rounds, passage, (0, x))[1]

        arrays = (self._noise(len(z), seed), standard, known.astype(np.float32))
        drawn = in_batches(carried, *arrays, *self._told(len(z), condition, seed))
        return np.where(known, z, self._natural(drawn)).astype(np.float32)

    def noise_of(self, z, condition=None, **options):
        """The noise that the flow carries to latents `(n, latent_dim)`, found by going back."""
        options = {"since": 1.0, "until": 0.0, **options}
        return self._carried(self._standard(z), condition, **options)

    def of_noise(self, noise, condition=None, **options):
        """The latents of noise of N(0, I), `(n, latent_dim)`."""
        return self._natural(self._carried(np.asarray(noise, np.float32), condition, **options))

    def sampler(self, condition=None, **options):
        return super().sampler(condition, network=layers.stock(self.mean_network), **options)


def _stepped(network, x, begun, size, given, guidance):
    """One step of Heun's method, of two evaluations."""
    t = keras.ops.ones_like(x[:, :1]) * begun
    first = _velocity(network, x, t, given, guidance)
    second = _velocity(network, x + size * first, t + size, given, guidance)
    return x + 0.5 * size * (first + second)


def _velocity(network, x, t, given, guidance):
    if given is None:
        return network([x, t])
    known = network([x, t, _marked(given, keras.ops.zeros_like(t))])
    if guidance == 1.0:
        return known
    hidden = _marked(keras.ops.zeros_like(given), keras.ops.ones_like(t))
    plain = network([x, t, hidden])
    return plain + guidance * (known - plain)


def _marked(given, hidden):
    """Conditions with a last number that marks hidden ones, which are zeros."""
    return keras.ops.concatenate([given * (1.0 - hidden), hidden], axis=-1)


def _waves(time):
    """A time in [0, 1] as sines and cosines, `(batch, 32)`."""
    angles = time * (2.0 * math.pi * 2.0 ** np.linspace(-2.0, 5.0, 16, dtype=np.float32)[None])
    return keras.ops.concatenate([keras.ops.sin(angles), keras.ops.cos(angles)], axis=-1)


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
            hidden = _dense(self.width, seed + each, activation="silu")(hidden)
        moved = self.latent_dim - self.half
        log_scale = 2.0 * keras.ops.tanh(_dense(moved, 0, zeros=True)(hidden))
        shift = _dense(moved, 0, zeros=True)(hidden)
        return keras.Model(inputs, [log_scale, shift], name=f"coupling_{number}")

    def _log_prob(self, network, x, given):
        noise, volume = network([x, *([] if given is None else [given])])
        return tf.reduce_sum(losses.log_normal(noise, 0.0, 0.0), axis=-1) + volume

    def objective(self, x, given, key, training):
        network = self.network if training else self.mean_network
        return {"nll": -self._log_prob(network, x, given)}

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
            hidden = _dense(self.width, seed + block, activation="silu")(hidden)
        made = _dense(2 * self.latent_dim, 0, zeros=number == 0)(
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
