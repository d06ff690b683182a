"""Autoencoders trained by one optimizer on one loss; a variant is a subclass that overrides a hook.

A training step is `forward` (images to a `Pass`), `objective` (a `Pass` to named terms whose sum is
minimised) and, inside the objective of the variational models, `regularizer`. All terms are in nats
per image, summed over pixels and latent axes; only `averages.reduced` takes the mean over the
batch.
"""

import math
from typing import NamedTuple

import keras
import tensorflow as tf

from nn import layers, losses, metrics, networks, randomness, replicas
from nn.averages import Averages, reduced
from nn.batches import as_float, in_parts, parts, rows_at_a_time, rows_of_parts
from nn.configured import Configured, one_of

LOG_SIGMA_RANGE = (-6.0, 3.0)
SSIM_IMAGES = 8  # of each training batch: SSIM of all of them would be too slow


class Pass(NamedTuple):
    """The results of one forward pass, which the hooks read.

    `images` are the clean images, in [0, 1]; `targets` those of the likelihood (binarised if the
    model binarises); `labels` None if the batch has none. Images, targets and logits have the shape
    `(batch, height, width, channels)`, latents `(batch, latent_dim)`; `z_log_var` is None for a
    deterministic encoder. `training` and `step` determine the random numbers of the pass.
    `by_class` holds the results per class of a model that decodes an image in several classes
    (`semisupervised.M2`); `conditions`, `(batch, width)`, the values of the table for each image
    (`sources.conditions`), or None; `told` what the networks were told of them.
    """

    images: tf.Tensor
    targets: tf.Tensor
    labels: tf.Tensor | None
    z_mean: tf.Tensor
    z_log_var: tf.Tensor | None
    z: tf.Tensor
    logits: tf.Tensor
    training: bool
    step: tf.Tensor | int
    by_class: tuple | None = None
    conditions: tf.Tensor | None = None
    told: tf.Tensor | None = None


@keras.saving.register_keras_serializable("latent_atlas")
class Autoencoder(Configured):
    """Deterministic autoencoder; denoising if `corrupt` is set.

    Minimises only the reconstruction term. Its latents follow no prior, so images decoded from
    `sample`'s draws of N(0, I) are usually not meaningful.

    Args:
        encoder: From `networks.encoder`.
        decoder: From `networks.decoder`; gives logits.
        reconstruction: `"bernoulli"` (from logits), `"gaussian"` with sd `sigma`, or
            `"learned-gaussian"`, whose sd is a weight of the model that starts at `sigma`.
        sigma: Standard deviation of the Gaussians, in units of the images.
        dssim_weight: Nats per unit of `(1 - SSIM) / 2`, added to the reconstruction.
        perceptual_weight: Nats per unit of `losses.perceptual`, added to the reconstruction if the
            attribute `perceptual` is set: a function from images to a list of feature maps
            (`judges.feature_maps`). It is used in training only and not saved with the model.
        binarize: `"dynamic"` samples binary images at each step, pixel = 1 with the grey value as
            probability; encoder and likelihood use those, SSIM compares with the grey image.
        corrupt: `"gaussian"` adds noise to the encoder's input and clips it to [0, 1], `"coarse"`
            smooth noise (`randomness.coarse`), `"mask"` sets pixels to 0; the target stays clean.
        corrupt_level: Standard deviation of that noise, or share of pixels.
        corrupt_knots: Of coarse noise, along the shorter side: the more, the finer.
        seed: Seed of all random numbers of the model.

    Call arguments:
        images: uint8, or floats in [0, 1], shape `(batch, height, width, channels)`.

    Returns:
        Reconstructions, floats in [0, 1], same shape.

    References: [Vincent et al., 2008](https://doi.org/10.1145/1390156.1390294) for denoising.
    """

    reconstructions = ("bernoulli", "gaussian", "learned-gaussian")
    has_latent = True  # whether its latent says anything: a denoiser's is the image itself
    uses_labels = False  # whether `train.fit` gives it the labels of its images
    conditions = None  # `sources.conditions.Conditions` of a model that is told of its images
    needs_class = False  # whether decoding needs a class in addition to a latent

    def __init__(
        self,
        encoder,
        decoder,
        reconstruction="bernoulli",
        sigma=0.1,
        dssim_weight=0.0,
        perceptual_weight=0.0,
        binarize="none",
        corrupt="none",
        corrupt_level=0.3,
        corrupt_knots=8,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        one_of("reconstruction", reconstruction, self.reconstructions)
        one_of("corrupt", corrupt, randomness.CORRUPTIONS)
        one_of("binarize", binarize, ("none", "dynamic"))
        self.encoder = encoder
        self.decoder = decoder
        self.reconstruction = reconstruction
        self.dssim_weight = dssim_weight
        self.perceptual_weight = perceptual_weight
        self.perceptual = None
        self.binarize = binarize
        self.corrupt = corrupt
        self.corrupt_level = corrupt_level
        self.corrupt_knots = corrupt_knots
        self.seed = seed
        self.sigma = sigma
        self.log_sigma = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(math.log(sigma)),
            trainable=reconstruction == "learned-gaussian",
            name="log_sigma",
        )
        # Random numbers depend on this, not on `optimizer.iterations`, which does not advance while
        # gradients are accumulated.
        self.steps = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation=replicas.ALIKE,
            name="steps",
        )
        self.averages = Averages()
        self.test_averages = Averages()
        self.built = True  # both networks are built; the step calls them, not this model

    @property
    def latent_dim(self):
        return self.decoder.input_shape[-1]

    @property
    def latent_map(self):
        """`(height, width, channels)` of a latent that is a map; `()` if it is a vector.

        All functions take latents as vectors, those of a map in its order of rows, columns and
        channels.
        """
        maps = [each for each in self.decoder.layers if each.name == networks.MAP]
        return tuple(maps[0].output.shape[1:]) if maps else ()

    @property
    def precision(self):
        """`"float32"` or `"bfloat16"`, in which the networks compute."""
        return next(each.compute_dtype for each in self.decoder.layers if each.weights)

    @property
    def image_shape(self):
        return tuple(self.decoder.output_shape[1:])

    @property
    def metrics(self):
        return [self.averages, self.test_averages]  # Keras would add a second "loss"

    def get_metrics_result(self):
        return {}  # Keras would mix the two; instead it uses the values that a step returns

    # --- the hooks -----------------------------------------------------------------------------

    def forward(self, batch, training, step):
        """Forward pass from images to everything that the objective needs.

        Args:
            batch: Images, `(images, labels)`, or another form that `parts` accepts.
            training: Whether dropout and batch norm are in training mode; it also selects one of
                two families of random streams.
            step: Whole number that, with the seed, determines the random numbers.
        """
        images, labels = parts(batch)
        images, rows = as_float(images), rows_of_parts(batch)
        targets, shown = self.shown(images, training, step, rows)
        given = batch.get("conditions") if isinstance(batch, dict) else None
        told = self.told(given, training, step)
        z_mean, z_log_var = self._posterior(shown, training, told)
        z = self.draw(z_mean, z_log_var, self.key("noise", training, step, rows))
        logits = self.logits_of(z, training, told)
        both = (images, targets, labels, z_mean, z_log_var, z, logits, training, step)
        return Pass(*both, conditions=given, told=told)

    def shown(self, images, training, step, rows=None):
        """What the likelihood and the encoder get of images `(batch, height, width, channels)`.

        Args:
            images: Floats in [0, 1].
            training, step: See `forward`.
            rows: From `rows_of_parts`.

        Returns:
            `(targets, shown)`: the images, binarised if the model binarises; and the same, but
            corrupted if it learns to denoise.
        """
        targets = self._binarized(images, self.key("binarize", training, step, rows))
        key = self.key("corrupt", training, step, rows)
        how = (self.corrupt, self.corrupt_level, key, self.corrupt_knots)
        return targets, randomness.corrupted(targets, *how)

    def told(self, conditions, training, step):
        """What the networks are told of a batch's conditions: here nothing."""
        return None

    def draw(self, z_mean, z_log_var, key):
        """The latent that is decoded: here the encoder's output itself."""
        return z_mean

    def logits_of(self, z, training, told=None):
        """Logits of the pixels, `(batch, height, width, channels)`."""
        return self.decoder(z, training=training)

    def images_of(self, logits):
        """Images in [0, 1] of what `logits_of` gives."""
        return tf.sigmoid(logits)

    def objective(self, result):
        """Named terms, each `(batch,)` or a scalar; the sum of their means is minimised."""
        terms = {"reconstruction": self.distortion(result.targets, result.logits)}
        if self.dssim_weight:
            dssim = losses.dssim(result.images, self.images_of(result.logits))
            terms["dssim"] = self.dssim_weight * dssim
        if self.perceptual_weight and self.perceptual is not None:
            pair = self.perceptual(result.images), self.perceptual(self.images_of(result.logits))
            terms["perceptual"] = self.perceptual_weight * losses.perceptual(*pair)
        return terms

    def monitor(self, result):
        """Named scalars that are shown with the terms and not minimised."""
        shown = slice(SSIM_IMAGES) if result.training else slice(None)
        ssim = metrics.ssim(result.images[shown], self.images_of(result.logits[shown]))
        active = metrics.active_units(result.z_mean)
        return {"ssim": tf.reduce_mean(ssim), "active_units": tf.cast(active, tf.float32)}

    # --- the step ------------------------------------------------------------------------------

    def plan(self, steps, images=0):
        """Called before training with the number of steps and of training images."""

    def _step(self, batch, training):
        # Evaluation counts the images since the last reset, so a validation draws the same noise
        # after every epoch.
        averages = self.averages if training else self.test_averages
        step = self.steps if training else averages.images
        result = self.forward(batch, training, step)
        terms, loss = reduced(self.objective(result))
        shown = {"loss": loss, **terms, **self.monitor(result)}
        averages.update_state(shown, tf.shape(result.images)[0])
        return loss

    def train_step(self, batch):
        self.steps.assign_add(1)
        with tf.GradientTape() as tape:
            loss = replicas.share(self._step(batch, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in self.trainable_variables])
        replicas.apply(self.optimizer, gradients, self.trainable_variables)
        return self.averages.result()

    def test_step(self, batch):
        self._step(batch, training=False)
        return self.test_averages.result()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: the model is built. Keras' own averages batches over workers; uint8 fails
        there."""

    def make_train_function(self, force=False):
        return replicas.step_function(self, "train", super().make_train_function, force)

    def make_test_function(self, force=False):
        return replicas.step_function(self, "test", super().make_test_function, force)

    def key(self, stream, training, step, rows=None):
        """Key of one draw of a pass; training and evaluation never share a stream."""
        family = "training" if training else "evaluation"
        return randomness.key(self.seed, step, f"{family}/{stream}", rows)

    def _binarized(self, images, key):
        return images if self.binarize == "none" else randomness.binary(images, key)

    def _posterior(self, images, training, told=None):
        outputs = self.encoder(images, training=training)
        return outputs if isinstance(outputs, tuple | list) else (outputs, None)

    def distortion(self, targets, logits):
        """Negative log-likelihood of the targets, in nats; `(batch,)`."""
        logits = tf.cast(logits, tf.float32)
        if self.reconstruction == "bernoulli":
            return losses.bernoulli_nll(targets, logits)
        log_sigma = tf.clip_by_value(self.log_sigma, *LOG_SIGMA_RANGE)
        return losses.gaussian_nll(targets, tf.sigmoid(logits), log_sigma)

    def bound(self, result, log_prior=None):
        """The two terms of the negative evidence lower bound at `beta = 1`, in nats.

        Args:
            result: `Pass`.
            log_prior: See `rate`.

        Returns:
            `(distortion, rate)`, each `(batch,)`; without a posterior there is no bound, and the
            rate is None.
        """
        return self.distortion(result.targets, result.logits), self.rate(result, log_prior)

    # --- the prior -----------------------------------------------------------------------------

    def draw_prior(self, n, seed=0, prior=None):
        """Latents `(n, latent_dim)` of a prior: of N(0, I), or by its `sample(n, seed)`."""
        if prior is None:
            return randomness.normal(randomness.key(seed, 0, "sample"), (n, self.latent_dim))
        return tf.convert_to_tensor(prior.sample(n, seed), tf.float32)

    def log_prior(self, z):
        """Log-density of N(0, I) at latents `(batch, latent_dim)`, in nats; `(batch,)`."""
        return tf.reduce_sum(losses.log_normal(z, 0.0, 0.0), axis=-1)

    def rate(self, result, log_prior=None):
        """KL of each posterior from the prior, in nats, `(batch,)`; None without a posterior.

        Args:
            result: `Pass`.
            log_prior: Log-density of another prior, a function of latents; the KL is then estimated
                from the one draw of the pass. None: the exact KL from N(0, I).
        """
        return None

    # --- what users call -----------------------------------------------------------------------

    def encode(self, images):
        """Posterior of each image: `(z_mean, z_log_var)`, each `(batch, latent_dim)`.

        A deterministic encoder has no variance: its `z_log_var` is minus infinity.
        """
        return self._encoded(images)

    def _encoded(self, images, told=None):
        images = as_float(tf.convert_to_tensor(images))
        z_mean, z_log_var = self._posterior(images, training=False, told=told)
        if z_log_var is None:
            z_log_var = tf.fill(tf.shape(z_mean), -math.inf)
        return z_mean, z_log_var

    def decode(self, z):
        """Images in [0, 1] of latents `(batch, latent_dim)`."""
        return self.images_of(self.logits_of(z, training=False))

    def describe(self, images):
        """Posterior and reconstruction of each image in one pass: `(z_mean, z_log_var, made)`."""
        z_mean, z_log_var = self.encode(images)
        return z_mean, z_log_var, self.decode(z_mean)

    def reconstruct(self, images):
        """Images in [0, 1] decoded from the posterior means of `images`."""
        return self.describe(images)[-1]

    def sample(self, n, seed=0, prior=None):
        """`n` images in [0, 1] decoded from draws of a prior; the same for the same seed.

        Args:
            n: Number of images.
            seed: Seed of the draws.
            prior: Anything with `sample(n, seed)`, latents `(n, latent_dim)`; None: N(0, I).
        """
        return self.decode_many(self.draw_prior(n, seed, prior))

    def decode_many(self, z, *told):
        """`decode` of any number of latents, as many at a time as the images' size allows."""
        return in_parts(self.decode, z, *told, rows=rows_at_a_time((None, *self.image_shape)))

    def call(self, images):
        return self.reconstruct(images)

    @property
    def final_decoder(self):
        """The decoder that is used outside training."""
        return self.decoder

    def endpoints(self):
        """Networks for other programs: functional models of Keras' own layers.

        Returns:
            Dictionary of names to networks. `"encoder"`: images, floats in [0, 1], to `z_mean` and,
            if the encoder has a variance, `z_log_var`. `"decoder"`: latents to images.
        """
        images = keras.Input(self.image_shape, name="images")
        z = keras.Input((self.latent_dim,), name="z")
        logits = layers.stock(self.final_decoder)(z)
        return {
            "encoder": keras.Model(images, layers.stock(self.encoder)(images), name="encoder"),
            "decoder": keras.Model(z, keras.ops.sigmoid(logits), name="decoder"),
        }


@keras.saving.register_keras_serializable("latent_atlas")
class VAE(Autoencoder):
    """Variational autoencoder with a diagonal Gaussian posterior.

    Minimises `reconstruction + regularizer`, at `beta = 1` the negative evidence lower bound in
    nats per image. A variant overrides only `regularizer`. Three remedies against posterior
    collapse are arguments: the weight may warm up, each axis may keep some free nats, or the KL may
    be held at a capacity. A weight that warms up has its final value in evaluation, so that
    `val_loss` can be compared between epochs.

    Args:
        encoder, decoder, **kwargs: See `Autoencoder`.
        beta: Weight of the KL term; above 1 it gives the beta-VAE. With a capacity it is gamma.
        kl_warmup_steps: Training steps in which the weight rises linearly from 0.
        free_bits: Nats per latent axis without a penalty (`losses.free_bits`).
        kl_capacity: Target of the KL in nats (`losses.capacity`); 0 for the plain KL.
        capacity_steps: Training steps in which the capacity rises linearly from 0.

    References: [Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114),
        [Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)
    """

    stochastic = True  # whether `registry` gives the encoder a variance

    def __init__(
        self,
        encoder,
        decoder,
        beta=1.0,
        kl_warmup_steps=0,
        free_bits=0.0,
        kl_capacity=0.0,
        capacity_steps=0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, **kwargs)
        if free_bits and kl_capacity:
            raise ValueError("free_bits and kl_capacity both replace the KL; set one of them to 0")
        self.beta = beta
        self.kl_warmup_steps = kl_warmup_steps
        self.free_bits = free_bits
        self.kl_capacity = kl_capacity
        self.capacity_steps = capacity_steps

    def draw(self, z_mean, z_log_var, key):
        """A sample of the posterior, by the reparameterization trick; its mean if it has no
        variance."""
        if z_log_var is None:
            return z_mean
        noise = randomness.normal(key, tf.shape(z_mean))
        return z_mean + tf.exp(0.5 * z_log_var) * noise

    def objective(self, result):
        return super().objective(result) | {"regularizer": self.regularizer(result)}

    def regularizer(self, result):
        """Weighted KL of the posterior from the prior: `(batch,)`, or a scalar."""
        kl_axes = losses.kl_per_axis(result.z_mean, result.z_log_var)
        weight = self.beta * self._ramp(self.kl_warmup_steps, result.training)
        if self.free_bits:
            return weight * losses.free_bits(kl_axes, self.free_bits)
        kl = tf.reduce_sum(kl_axes, axis=-1)
        if self.kl_capacity:
            target = self.kl_capacity * self._ramp(self.capacity_steps, result.training)
            return weight * losses.capacity(kl, target)
        return weight * kl

    def rate(self, result, log_prior=None):
        if result.z_log_var is None:
            return None
        if log_prior is None:
            return losses.kl_to_standard_normal(result.z_mean, result.z_log_var)
        return self._log_posterior(result, result.z) - log_prior(result.z)

    def _log_posterior(self, posterior, z):
        """Log-density of draws under `posterior`'s `z_mean` and `z_log_var`; `(batch,)`."""
        known = losses.log_normal(z, posterior.z_mean, posterior.z_log_var)
        return tf.reduce_sum(known, axis=-1)

    def log_weight(self, targets, posterior, z, logits, log_prior=None):
        """Importance weight `log p(x | z) + log p(z) - log q(z | x)` of draws, in nats; `(batch,)`.

        Args:
            targets: Images of the likelihood.
            posterior: Anything with the `z_mean` and `z_log_var` of the draws `z`.
            z, logits: Draws and the decoder's outputs for them.
            log_prior: Log-density of another prior, a function of latents; None: of N(0, I).
        """
        ratio = (log_prior or self.log_prior)(z) - self._log_posterior(posterior, z)
        return ratio - self.distortion(targets, logits)

    def log_weights(self, result, draws, key, log_prior=None):
        """Importance weights of new draws of a pass's posteriors; `(draws, batch)`."""
        z_mean, z_log_var, targets, told = (
            None if each is None else tf.concat([each] * draws, axis=0)
            for each in (result.z_mean, result.z_log_var, result.targets, result.told)
        )
        z = self.draw(z_mean, z_log_var, key)
        posterior = result._replace(z_mean=z_mean, z_log_var=z_log_var)
        logits = self.logits_of(z, result.training, told)
        weights = self.log_weight(targets, posterior, z, logits, log_prior)
        return tf.reshape(weights, (draws, -1))

    def monitor(self, result):
        kl = self.rate(result)
        shown = {} if kl is None else {"kl": tf.reduce_mean(kl)}
        return shown | super().monitor(result)

    def _ramp(self, steps, training, since=0):
        """Rises from 0 to 1 over `steps` training steps after `since`; 1 in evaluation."""
        if not steps or not training:
            return 1.0
        return tf.clip_by_value(tf.cast(self.steps - since, tf.float32) / steps, 0.0, 1.0)


@keras.saving.register_keras_serializable("latent_atlas")
class InfoVAE(VAE):
    """InfoVAE: matches the aggregated posterior to the prior by maximum mean discrepancy.

    The regularizer is `(1 - alpha) KL + (alpha + lambda - 1) MMD`, Eq. 6 of
    [Zhao et al., 2019](https://arxiv.org/abs/1706.02262), who use `alpha = 0`, `lambda = 1000`.
    `alpha = 1` leaves only the MMD; with a deterministic encoder, this is the MMD autoencoder
    (`MmdAutoencoder`) of most public "InfoVAE" code.

    Args:
        encoder, decoder, **kwargs: See `VAE`; an encoder without a variance needs `alpha = 1`.
        alpha: At most 1; the share of the KL that is removed. The warm-up of the KL
            (`kl_warmup_steps`) also applies to the MMD.
        lambda_mmd: Weight lambda, in nats per unit of MMD.
        mmd_kernel: `"imq"` or `"rbf"` (`losses.mmd`).
    """

    def __init__(self, encoder, decoder, alpha=0.0, lambda_mmd=1000.0, mmd_kernel="imq", **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        one_of("mmd_kernel", mmd_kernel, losses.KERNELS)
        if len(encoder.outputs) == 1 and alpha != 1.0:
            raise ValueError(
                f"alpha = {alpha}: an encoder without a variance has no KL; set it to 1"
            )
        self.alpha = alpha
        self.lambda_mmd = lambda_mmd
        self.mmd_kernel = mmd_kernel

    def regularizer(self, result):
        key = self.key("prior", result.training, result.step)
        prior = randomness.normal(key, tf.shape(result.z))
        # The MMD compares sets of the whole batch.
        mmd = losses.mmd(replicas.gathered(result.z), replicas.gathered(prior), self.mmd_kernel)
        ramp = self._ramp(self.kl_warmup_steps, result.training)
        weighted = ramp * (self.alpha + self.lambda_mmd - 1.0) * mmd
        if self.alpha == 1.0:
            return weighted
        return weighted + (1.0 - self.alpha) * super().regularizer(result)


@keras.saving.register_keras_serializable("latent_atlas")
class MmdAutoencoder(InfoVAE):
    """InfoVAE with a deterministic encoder and no KL, known as MMD-VAE or WAE-MMD.

    References: [Tolstikhin et al., 2018](https://arxiv.org/abs/1711.01558)
    """

    stochastic = False
    refused = ("alpha", "beta", "free_bits", "kl_capacity", "capacity_steps")

    def __init__(self, encoder, decoder, alpha=1.0, **kwargs):
        super().__init__(encoder, decoder, alpha=alpha, **kwargs)
        self._refuse()


@keras.saving.register_keras_serializable("latent_atlas")
class BetaTCVAE(VAE):
    """beta-TC-VAE: weighs the total correlation of the latent axes.

    Eq. 4 of [Chen et al., 2018](https://arxiv.org/abs/1802.04942), with `alpha = gamma = 1`: the KL
    is mutual information of image and latent, plus total correlation, plus the KL of each axis from
    its prior; `beta` weighs the second. The aggregated posterior is estimated from the batch by
    minibatch stratified sampling (`losses.log_aggregates`), so at `beta = 1` this is the VAE with a
    noisier estimate.

    Args:
        encoder, decoder, **kwargs: See `VAE`; free bits and capacity are not available.
    """

    refused = ("free_bits", "kl_capacity", "capacity_steps")

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self._refuse()
        self.images = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="images"
        )

    def plan(self, steps, images=0):
        super().plan(steps, images)
        self.images.assign(images)

    def regularizer(self, result):
        posterior = (result.z_mean, result.z_log_var)
        whole = (replicas.gathered(each) for each in (result.z, *posterior))
        log_q, log_product = (
            replicas.own(each) for each in losses.log_aggregates(*whole, self.images)
        )
        log_posterior, log_prior = (
            tf.reduce_sum(losses.log_normal(result.z, *each), axis=-1)
            for each in (posterior, (0.0, 0.0))
        )
        information, correlation = log_posterior - log_q, log_q - log_product
        parts = information + self.beta * correlation + (log_product - log_prior)
        return self._ramp(self.kl_warmup_steps, result.training) * parts


@keras.saving.register_keras_serializable("latent_atlas")
class IWAE(VAE):
    """Importance-weighted autoencoder: a tighter bound from `k` draws of every posterior.

    Minimises Eq. 8 of [Burda et al., 2016](https://arxiv.org/abs/1509.00519) (negative); `k = 1` is
    the VAE with a sampled KL. The decoder runs `k` times for an image, the encoder once.

    Args:
        encoder, decoder, **kwargs: See `VAE`. `beta` must be 1; warm-up, free bits and capacity are
            not available.
        k: Draws of every posterior.
    """

    refused = ("beta", "kl_warmup_steps", "free_bits", "kl_capacity", "capacity_steps")

    def __init__(self, encoder, decoder, k=5, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self._refuse()
        self.k = k

    def objective(self, result):
        terms = super().objective(result)
        weights = self.log_weight(result.targets, result, result.z, result.logits)[None]
        if self.k > 1:
            # Each draw is a part: replicas take their rows of every draw.
            draws = [tf.shape(result.z_mean)[0]] * (self.k - 1)
            key = self.key("importance", result.training, result.step, rows=draws)
            weights = tf.concat([weights, self.log_weights(result, self.k - 1, key)], axis=0)
        both = {"reconstruction", "regularizer"}
        rest = {name: term for name, term in terms.items() if name not in both}
        return {"importance_bound": losses.importance_bound(weights)} | rest

    def monitor(self, result):
        distortion = self.distortion(result.targets, result.logits)
        return {"reconstruction": tf.reduce_mean(distortion)} | super().monitor(result)
