"""Flow matching: a prior that carries noise to latents, and what it can do with latents."""

import math

import keras
import numpy as np
import tensorflow as tf

from families.flows import Trained, dense
from nn import layers, randomness, unet
from nn.batches import in_batches

EVALUATIONS = 32  # of the network per draw
MAPS_OF_A_STEP = 64  # in training
ROUNDS = 4  # of each step when a part of a latent is known
DROPPED = 0.1  # share of latents whose conditions are hidden in training, for guidance


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
        x, time = (
            keras.Input((size,), name=name) for name, size in (("x", self.latent_dim), ("time", 1))
        )
        inputs, told = [x, time], _waves(time)
        if self.conditions:
            inputs.append(keras.Input((self.conditions.width + 1,), name="given"))
            told = keras.layers.Concatenate()([told, inputs[-1]])
        made = self._on_maps(x, told, **self.options) if self.options else self._on_vectors(x, told)
        return keras.Model(inputs, made)

    def _on_vectors(self, x, told):
        seeds = iter(range(1000 * self.seed, 1000 * self.seed + 1000))
        hidden = dense(self.width, next(seeds))(keras.layers.Concatenate()([x, told]))
        for _ in range(self.blocks):
            inner = keras.layers.LayerNormalization()(hidden)
            inner = keras.layers.Add()([inner, dense(self.width, next(seeds))(told)])
            inner = dense(self.width, next(seeds), activation="silu")(inner)
            inner = dense(self.width, next(seeds), zeros=True)(inner)
            hidden = keras.layers.Add()([hidden, inner])
        hidden = keras.layers.Activation("silu")(keras.layers.LayerNormalization()(hidden))
        return dense(self.latent_dim, next(seeds), zeros=True)(hidden)

    def _on_maps(self, x, told, latent_map, precision):
        maps = keras.layers.Reshape(tuple(latent_map))(x)
        made = unet.unet(maps, told, self.width, self.seed, precision)
        return keras.layers.Flatten()(made)

    @property
    def learned_by(self):
        return ("muon", 5e-3) if self.options else super().learned_by  # a map

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
        # So many evaluations are those of the whole way.
        steps = math.ceil(abs(until - since) * _steps(evaluations) - 1e-6)
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
        steps = _steps(evaluations)
        size = 1.0 / steps

        def again(x, t, key):
            """`x` of time `t` one step earlier, with noise."""
            shrunk = (t - size) / t
            spread = tf.sqrt((1.0 - t + size) ** 2 - (shrunk * (1.0 - t)) ** 2)
            return shrunk * x + spread * randomness.normal(key, tf.shape(x))

        def carried(x, standard, known, rows, *given):
            begin = rows[0] * steps * rounds  # each batch has noise of its own

            def passage(number, x):
                step, turn = number // rounds, number % rounds
                begun = tf.cast(step, tf.float32) * size
                key = randomness.key(seed, begin + number, "known")
                line = (1.0 - begun) * randomness.normal(key, tf.shape(x)) + begun * standard
                x = known * line + (1.0 - known) * x
                x = _stepped(self.mean_network, x, begun, size, *(given or [None]), guidance)
                key = randomness.key(seed, begin + number, "again")
                x = tf.where(turn < rounds - 1, again(x, begun + size, key), x)
                return number + 1, x

            return tf.while_loop(lambda number, x: number < steps * rounds, passage, (0, x))[1]

        arrays = (self._noise(len(z), seed), standard, known.astype(np.float32))
        arrays += (np.arange(len(z), dtype=np.int32),)
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


def _steps(evaluations):
    """Steps of Heun's method with so many evaluations."""
    if evaluations < 2:
        raise ValueError(f"evaluations = {evaluations}: Heun's method needs at least 2")
    return evaluations // 2


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
