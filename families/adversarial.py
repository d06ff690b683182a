"""Autoencoders trained by two optimizers in alternation, with opposing objectives.

A step of `Alternating` has two turns on one batch, each with its own weights, optimizer and loss.
Each turn updates only its own weights. The introspective models need no discriminator: the encoder
learns to give generated images another posterior than real ones, and the decoder learns to prevent
it. A variant of these is two equations, `encoder_objective` and `decoder_objective`.
"""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

import model as models
from nn import losses, randomness, replicas
from nn.averages import reduced
from nn.configured import one_of

CONTROLS = ("adaptive", "constant", "schedule")
MEMORY = 0.99  # of the running means for the control of beta_neg
CONTROL_RATE = 0.01  # largest change of log(beta_neg) in a step


class Alternating(models.VAE):
    """The training step that these models share; an abstract base class.

    A subclass defines the weights that each turn updates (`players`) and what it minimises
    (`first_turn`, `second_turn`). `compile` takes one optimizer; the second turn uses a copy of it,
    `second_optimizer`, with its own state. Both are saved with the model.
    """

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self.total_steps = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="total_steps"
        )

    # --- what a subclass gives -----------------------------------------------------------------

    def players(self):
        """Weights that the first and the second turn update: two lists of variables."""
        raise NotImplementedError

    def first_turn(self, result, bound):
        """Returns named terms, and additional inputs of the second turn.

        Args:
            result: `Pass` on the batch.
            bound: Means of `objective` on it, by name.
        """
        raise NotImplementedError

    def second_turn(self, result, kept):
        """Returns named terms, and named scalars that are shown with them."""
        raise NotImplementedError

    def drawing_weights(self):
        """Weights that are updated with the decoder: its own, and sigma if it is learned."""
        own = self.decoder.trainable_variables
        return [*own, self.log_sigma] if self.log_sigma.trainable else own

    # --- the step ------------------------------------------------------------------------------

    def compile(self, optimizer="adam", **kwargs):
        super().compile(optimizer=optimizer, **kwargs)
        self.second_optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        first, second = self.players()
        self.optimizer.build(first)
        self.second_optimizer.build(second)

    def compile_from_config(self, config):
        # Keras would build the first optimizer for the weights of both turns.
        self.compile(**keras.saving.deserialize_keras_object(config))

    def plan(self, steps, images=0):
        self.total_steps.assign(steps)

    def progress(self):
        """Completed share of the training, from 0 to 1; 1 if its length is not known."""
        done, total = tf.cast(self.steps, tf.float32), tf.cast(self.total_steps, tf.float32)
        return tf.where(total > 0.0, tf.minimum(done / tf.maximum(total, 1.0), 1.0), 1.0)

    def train_step(self, batch):
        self.steps.assign_add(1)
        first, second = self.players()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([each.value for each in first])
            result = self.forward(batch, training=True, step=self.steps)
            # Evaluation shows an autoencoder's loss on real images under the same names.
            bound, total = reduced(self.objective(result))
            terms, kept = self.first_turn(result, bound)
            means, loss = reduced(terms)
            loss = replicas.share(loss)
        gradients = tape.gradient(loss, [each.value for each in first])
        replicas.apply(self.optimizer, gradients, first)

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([each.value for each in second])
            terms, seen = self.second_turn(result, kept)
            second_means, second_loss = reduced(terms)
            second_loss = replicas.share(second_loss)
        gradients = tape.gradient(second_loss, [each.value for each in second])
        replicas.apply(self.second_optimizer, gradients, second)

        shown = {"loss": total, **bound, **means, **second_means, **seen, **self.monitor(result)}
        self.averages.update_state(shown, tf.shape(result.images)[0])
        return self.averages.result()


# --- a discriminator on the latent ---------------------------------------------------------------


@keras.saving.register_keras_serializable("latent_atlas")
class AdversarialAutoencoder(Alternating):
    """Adversarial autoencoder: a discriminator on the latents replaces the VAE's KL.

    First turn, encoder and decoder: the reconstruction, and `w * -log D(z)`, the cost of a latent
    that is distinguished from a draw of the prior. Second turn, the discriminator: it distinguishes
    them. The paper takes separate steps for reconstruction and adversarial loss; one step on their
    sum needs one weight and half of the passes.

    Args:
        encoder: From `networks.encoder`, with a variance or without.
        decoder: From `networks.decoder`.
        discriminator: From `networks.latent_classifier` with one logit.
        adversarial_weight: `w`, in nats of reconstruction per nat of the adversarial loss.
        r1: Weight of the squared gradient of the discriminator at draws of the prior, which limits
            its slope ([Mescheder et al., 2018](https://arxiv.org/abs/1801.04406)). With 0.1 instead
            of 3 the latents diverged in most trials.
        instance_noise: Standard deviation of noise on the discriminator's inputs, falling to 0 over
            the training: [Sønderby et al., 2017](https://arxiv.org/abs/1610.04490).
        **kwargs: Of `model.Autoencoder`, and `kl_warmup_steps`, which applies to `w`.

    References: [Makhzani et al., 2015](https://arxiv.org/abs/1511.05644), Section 2.
    """

    refused = ("beta", "free_bits", "kl_capacity", "capacity_steps")

    def __init__(
        self,
        encoder,
        decoder,
        discriminator,
        adversarial_weight=30.0,
        r1=3.0,
        instance_noise=0.0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, **kwargs)
        self.discriminator = discriminator
        self.adversarial_weight = adversarial_weight
        self.r1 = r1
        self.instance_noise = instance_noise
        self._refuse()

    def players(self):
        first = self.encoder.trainable_variables + self.drawing_weights()
        return first, self.discriminator.trainable_variables

    def first_turn(self, result, bound):
        return bound, None

    def regularizer(self, result):
        """Weighted cost of latents that are distinguished from the prior: `(batch,)`."""
        weight = self.adversarial_weight * self._ramp(self.kl_warmup_steps, result.training)
        return weight * losses.critic_nll(self._told(result, result.z, "deceit"), real=True)

    def second_turn(self, result, kept):
        z = tf.stop_gradient(result.z)
        prior = randomness.normal(self.key("prior", True, result.step), tf.shape(z))
        with tf.GradientTape() as tape:
            tape.watch(prior)
            on_prior = self._told(result, prior, "prior noise")
        slopes = tape.gradient(on_prior, prior)
        on_z = self._told(result, z, "latent noise")
        terms = {
            "discriminator": 0.5
            * (losses.critic_nll(on_prior, real=True) + losses.critic_nll(on_z, real=False))
        }
        if self.r1:
            terms["r1"] = 0.5 * self.r1 * tf.reduce_sum(tf.square(slopes), axis=-1)
        right = tf.concat([on_prior > 0.0, on_z <= 0.0], axis=0)
        return terms, {"discriminator_accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    def _told(self, result, z, stream):
        """The discriminator's log-odds of a latent being a draw of the prior; `(batch, 1)`."""
        if self.instance_noise and result.training:
            noise = randomness.normal(self.key(stream, True, result.step), tf.shape(z))
            z = z + self.instance_noise * (1.0 - self.progress()) * noise
        return self.discriminator(z, training=result.training)


# --- the encoder as discriminator ----------------------------------------------------------------


class Seen(NamedTuple):
    """The model's outputs for its own images: reconstructions, or generated ones.

    `z_mean`, `z_log_var`: `(batch, latent_dim)`. `kl` of that posterior and `error` of the images
    decoded from it (nats above the minimum; None if they were not decoded): `(batch,)`.
    """

    z_mean: tf.Tensor
    z_log_var: tf.Tensor
    kl: tf.Tensor
    error: tf.Tensor | None = None


class Introspective(Alternating):
    """Base of the introspective family: the encoder is the discriminator.

    In the encoder's turn it sees real images, the decoder's reconstructions of them and images
    generated from the prior, and minimises `encoder_objective`. In the decoder's turn the decoder
    makes both kinds again and minimises `decoder_objective`. Outside training, images are decoded
    with a running mean of the decoder's weights (`ema_decoder`). Batch norm is refused: it would
    mix the statistics of real and generated images, and evaluation would use the mixture.

    Args:
        encoder, decoder, **kwargs: See `model.VAE`; `beta` is the papers' `beta_kl`, and their
            `beta_rec` of a squared error is `1 / (2 sigma^2)` of a Gaussian.
        ema: Weight of the old value in the running mean of the decoder's weights.
    """

    refused = (
        *("binarize", "corrupt", "corrupt_level", "corrupt_knots"),
        *("free_bits", "kl_capacity", "capacity_steps"),
    )

    def __init__(self, encoder, decoder, ema=0.999, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self._refuse()
        layers = [*encoder.layers, *decoder.layers]
        if any(isinstance(each, keras.layers.BatchNormalization) for each in layers):
            raise ValueError(
                "batch_norm = True is not valid for introspective models: real and generated "
                "images have different statistics; set it to False"
            )
        self.ema = ema
        self.ema_decoder = keras.models.clone_model(decoder)
        self.ema_decoder.set_weights(decoder.get_weights())
        self.ema_decoder.trainable = False

    # --- the two equations of a variant --------------------------------------------------------

    def encoder_objective(self, reconstruction, kl, reconstructed, generated):
        """Named terms that the encoder minimises.

        Args:
            reconstruction: Loss of the real images without the KL, in nats, a scalar.
            kl: Their weighted KL, a scalar.
            reconstructed, generated: `Seen`, with errors.
        """
        raise NotImplementedError

    def decoder_objective(self, reconstruction, reconstructed, generated):
        """Named terms that the decoder minimises; the reconstruction is that of this turn."""
        raise NotImplementedError

    def control(self, gap, kl_real):
        """Updates the control from the mean KL of real images and its gap to that of generated
        ones.

        Returns:
            Named scalars to show.
        """
        return {}

    # --- the turns -----------------------------------------------------------------------------

    def players(self):
        return self.encoder.trainable_variables, self.drawing_weights()

    def first_turn(self, result, bound):
        prior = randomness.normal(self.key("prior", True, result.step), tf.shape(result.z))
        drawn = tf.concat([result.logits, self.logits_of(prior, True)], axis=0)
        made = self._seen(tf.stop_gradient(tf.sigmoid(drawn)), result.step, decode=True)
        terms = self.encoder_objective(*_sides(bound), *made)
        return terms, (tf.stop_gradient(result.z), prior)

    def second_turn(self, result, kept):
        logits = self.logits_of(tf.concat(kept, axis=0), True)
        reconstructed, generated = self._seen(tf.sigmoid(logits), result.step, decode=False)
        again, _ = reduced(self.objective(result._replace(logits=_halves(logits)[0])))
        terms = self.decoder_objective(_sides(again)[0], reconstructed, generated)
        kl_real = losses.kl_to_standard_normal(result.z_mean, result.z_log_var)
        kl_real, kl_generated = (
            replicas.mean(tf.reduce_mean(each)) for each in (kl_real, generated.kl)
        )
        shown = {
            "kl_reconstructed": tf.reduce_mean(reconstructed.kl),
            "kl_generated": kl_generated,
            "kl_gap": kl_generated - kl_real,
        }
        return terms, shown | self.control(kl_generated - kl_real, kl_real)

    def _seen(self, images, step, decode):
        """`Seen` of the two halves of some images: reconstructed and generated."""
        z_mean, z_log_var = self._posterior(images, training=True)
        kl = losses.kl_to_standard_normal(z_mean, z_log_var)
        error = None
        if decode:
            half = tf.shape(z_mean)[0] // 2
            key = self.key("second noise", True, step, rows=(half, half))
            z = self.draw(z_mean, z_log_var, key)
            error = self.error(images, self.logits_of(z, True))
        parts = [_halves(each) for each in (z_mean, z_log_var, kl, error) if each is not None]
        return tuple(Seen(*half) for half in zip(*parts, strict=True))

    def error(self, images, logits):
        """Distortion above that of a perfect copy, in nats, `(batch,)`: 0 or more."""
        likely = tf.clip_by_value(images, 1e-6, 1.0 - 1e-6)
        perfect = tf.math.log(likely) - tf.math.log1p(-likely)
        return self.distortion(images, logits) - self.distortion(images, perfect)

    @property
    def pixels(self):
        return math.prod(self.image_shape)

    # --- the running mean ----------------------------------------------------------------------

    def train_step(self, batch):
        shown = super().train_step(batch)
        # At first the mean is over fewer steps, so that the initial weights do not remain in it.
        steps = tf.cast(self.steps, tf.float32)
        kept = tf.minimum(self.ema, (1.0 + steps) / (10.0 + steps))

        def next_mean(mean, new):
            if tf.as_dtype(mean.dtype) != tf.float32:  # a counter
                return new
            return kept * mean + (1.0 - kept) * new

        replicas.update(self.ema_decoder.variables, next_mean, self.decoder.variables)
        return shown

    @property
    def final_decoder(self):
        return self.ema_decoder

    def logits_of(self, z, training, told=None):
        decoder = self.decoder if training else self.final_decoder
        return decoder(z, training=training)


def _halves(tensor):
    return tf.split(tensor, 2, axis=0)


def _sides(bound):
    """The terms of an objective's means as `(sum without the KL, weighted KL)`."""
    rest = [mean for name, mean in bound.items() if name != "regularizer"]
    return tf.add_n(rest), bound["regularizer"]


@keras.saving.register_keras_serializable("latent_atlas")
class IntroVAE(Introspective):
    """IntroVAE: the encoder pushes the KL of generated images beyond a margin.

    Eq. 11 and 12 of [Huang et al., 2018](https://arxiv.org/abs/1807.06358), in nats per image:

        encoder: KL(x) + alpha * sum_s [m - KL(x_s)]^+ + reconstruction
        decoder:         alpha * sum_s KL(x_s)         + reconstruction

    where s are the reconstruction and the generated image. Hard to balance: the margin must lie
    somewhat above the KL that a plain VAE ends with on the same images.

    Args:
        encoder, decoder, **kwargs: See `Introspective`.
        margin: `m`, nats.
        margin_weight: `alpha`.
    """

    def __init__(self, encoder, decoder, margin=100.0, margin_weight=0.25, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self.margin = margin
        self.margin_weight = margin_weight

    def encoder_objective(self, reconstruction, kl, reconstructed, generated):
        short = sum(losses.hinge(each.kl, self.margin) for each in (reconstructed, generated))
        return {
            "encoder_bound": reconstruction + kl,
            "encoder_adversarial": self.margin_weight * short,
        }

    def decoder_objective(self, reconstruction, reconstructed, generated):
        return {
            "decoder_reconstruction": reconstruction,
            "decoder_adversarial": self.margin_weight * (reconstructed.kl + generated.kl),
        }


@keras.saving.register_keras_serializable("latent_atlas")
class SoftIntroVAE(Introspective):
    """Soft-IntroVAE: a smooth threshold instead of IntroVAE's margin.

    Eq. 5 and 6 of [Daniel & Tamar, 2021](https://arxiv.org/abs/2012.13253), everything divided by
    the number D of pixel values, s the reconstruction and the generated image:

        encoder: (rec(x) + beta KL(x)) / D + mean_s of exp(-2 (rec(x_s) + beta_neg KL(x_s)) / D) / 2
        decoder: (rec(x) + gamma beta mean_s KL(x_s)) / D

    The paper uses only the generated image; the authors' code uses both, as here. Its decoder also
    has `gamma_r rec(x_s)`, with `gamma_r = 1e-8`; it is left out, because it costs two more passes
    and has no measurable effect.

    `beta_neg` sets how unlikely a generated image must be before the threshold saturates. A small
    value makes the encoder act strongly, a large one weakly; if it is too large, the exponential is
    0 and the adversarial term vanishes. The papers set it by hand for each data set. The control
    uses the gap `KL(generated) - KL(real)`: it raises `beta_neg` while the gap is above
    `gap_target` times `KL(real)`, that is, the encoder is stronger, and lowers it while it is
    below, but not under `least_beta_neg` at the KL of real images; a step changes it by 1 % at
    most. (Without that floor, a gap that the decoder keeps closing would strengthen the encoder
    without limit. That also raises the KL of real images: it doubled, and reconstructions failed.)

    Args:
        encoder, decoder, **kwargs: See `Introspective`.
        gamma: Weight of generated images for the decoder, that of Section 4 of the paper, which
            sets it to 1. They pull towards what the encoder finds likely, so a large weight leads
            to mode collapse.
        beta_neg: Its start, or its value if `"constant"`.
        beta_neg_control: `"adaptive"`, `"constant"`, or `"schedule"`, which goes to `beta_neg_last`
            over the training, evenly in the logarithm.
        beta_neg_last: End of the schedule.
        beta_neg_low, beta_neg_high: Limits of the control.
        gap_target: Target of the control, in units of the KL of real images.
        most_push: Limit of the encoder's push on an image that looks real, in units of its pull on
            real ones; below 1.
    """

    def __init__(
        self,
        encoder,
        decoder,
        gamma=1.0,
        beta_neg=256.0,
        beta_neg_control="adaptive",
        beta_neg_last=256.0,
        beta_neg_low=1.0,
        beta_neg_high=4096.0,
        gap_target=0.5,
        most_push=0.1,
        **kwargs,
    ):
        super().__init__(encoder, decoder, **kwargs)
        one_of("beta_neg_control", beta_neg_control, CONTROLS)
        self.gamma = gamma
        self.beta_neg = beta_neg
        self.beta_neg_control = beta_neg_control
        self.beta_neg_last = beta_neg_last
        self.beta_neg_low = beta_neg_low
        self.beta_neg_high = beta_neg_high
        self.gap_target = gap_target
        self.most_push = most_push
        # The control's state, saved in every checkpoint like the optimizers'.
        self.log_beta_neg = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(math.log(beta_neg)),
            trainable=False,
            aggregation=replicas.ALIKE,
            name="log_beta_neg",
        )
        self.mean_gap, self.mean_kl = (
            self.add_weight(
                shape=(),
                initializer="zeros",
                trainable=False,
                aggregation=replicas.ALIKE,
                name=name,
            )
            for name in ("mean_gap", "mean_kl")
        )

    def encoder_objective(self, reconstruction, kl, reconstructed, generated):
        weight = tf.exp(self.log_beta_neg)
        strange = self.strangeness(reconstructed, generated)
        both = [
            losses.expelbo(each.error, apart, weight, self.pixels)
            for each, apart in zip((reconstructed, generated), strange, strict=True)
        ]
        return {
            "encoder_bound": (reconstruction + kl) / self.pixels,
            "encoder_adversarial": 0.5 * (both[0] + both[1]),
        }

    def decoder_objective(self, reconstruction, reconstructed, generated):
        strange = self.strangeness(reconstructed, generated)
        return {
            "decoder_reconstruction": reconstruction / self.pixels,
            "decoder_adversarial": 0.5 * self.gamma * self.beta * sum(strange) / self.pixels,
        }

    def strangeness(self, reconstructed, generated):
        """The divergences by which the encoder rejects both kinds of images, here the KL: two
        `(batch,)`."""
        return reconstructed.kl, generated.kl

    def control(self, gap, kl_real):
        if self.beta_neg_control == "adaptive":
            relative = gap / tf.maximum(kl_real, 1.0)
            self.mean_gap.assign(MEMORY * self.mean_gap + (1.0 - MEMORY) * relative)
            self.mean_kl.assign(MEMORY * self.mean_kl + (1.0 - MEMORY) * kl_real)
            push = self.most_push * self.beta
            floor = tf.math.log(least_beta_neg(self.mean_kl, self.pixels, push))
            log = next_log_beta_neg(self.log_beta_neg, self.mean_gap, self.gap_target, floor)
            low, high = math.log(self.beta_neg_low), math.log(self.beta_neg_high)
            self.log_beta_neg.assign(tf.clip_by_value(log, low, high))
        elif self.beta_neg_control == "schedule":
            first, last = math.log(self.beta_neg), math.log(self.beta_neg_last)
            self.log_beta_neg.assign(first + (last - first) * self.progress())
        return {"beta_neg": tf.exp(self.log_beta_neg)}


def next_log_beta_neg(log_beta_neg, gap, target, floor):
    """One step of the control: up if the gap exceeds its target, down if it is smaller.

    Args:
        log_beta_neg: Scalar, its present logarithm.
        gap: `(KL(generated) - KL(real)) / KL(real)`, a running mean.
        target: Target of the gap.
        floor: Below this value the step is always up.

    Returns:
        Scalar, at most `CONTROL_RATE` away.
    """
    step = tf.where(log_beta_neg < floor, 1.0, tf.clip_by_value(gap - target, -1.0, 1.0))
    return log_beta_neg + CONTROL_RATE * step


def least_beta_neg(kl, pixels, push):
    """The `beta_neg` at which the encoder pushes a well reconstructed image of this KL by `push`.

    A nat of KL adds `beta / D` to the loss of a real image and removes
    `beta_neg exp(-2 beta_neg KL / D) / D`, which is `push / D` here, from that of a generated one.
    If the encoder cannot distinguish them, a nat of both adds `(beta - push) / D`; from
    `push = beta` on it would raise the KL of all images.

    Args:
        kl: Nats, a scalar.
        pixels: D, height x width x channels.
        push: Above 0.

    Returns:
        Scalar, at least e; above it a larger `beta_neg` is always a weaker push.
    """
    scale = pixels / (2.0 * tf.maximum(kl, 1.0))
    log = tf.maximum(2.0 * tf.math.log(scale), 2.0)
    for _ in range(30):  # beta_neg = scale (ln(beta_neg) - ln(push)), a contraction
        log = tf.maximum(tf.math.log(scale) + tf.math.log(log - math.log(push)), 1.0)
    return tf.exp(log)


@keras.saving.register_keras_serializable("latent_atlas")
class ASIntroVAE(SoftIntroVAE):
    """AS-IntroVAE: Soft-IntroVAE that starts with a distance between sets of images.

    [Lu et al., 2022](https://arxiv.org/abs/2206.13903): in both equations of `SoftIntroVAE`, the KL
    of `x_s` becomes `c KL(x_s) + (1 - c) d`, with `d` the adversarial similarity distance of the
    posteriors of reconstructed and of generated images (`losses.similarity_distance`). Over the
    training `c = tanh(5 t)` goes from the distance to the KL, as in the authors' code.
    """

    def strangeness(self, reconstructed, generated):
        sets = (each for seen in (reconstructed, generated) for each in (seen[0], seen[1]))
        distance = losses.similarity_distance(*(replicas.gathered(each) for each in sets))
        c = tf.tanh(5.0 * self.progress())
        return [c * each.kl + (1.0 - c) * distance for each in (reconstructed, generated)]
