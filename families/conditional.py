"""VAEs that are told of each image: columns of its table, such as age, sex, or a finding."""

import keras
import tensorflow as tf

import model as models
from nn import layers, losses, randomness, replicas
from sources.conditions import repeated


@keras.saving.register_keras_serializable("latent_atlas")
class Conditional(models.VAE):
    """Base of the models whose encoder and decoder are told the conditions of each image.

    What the decoder is told, the latent need not hold, so that an image can be decoded under other
    conditions (`analysis.counterfactual`). In training each condition of each image is hidden with
    a probability of `hidden_share` and then counts as missing. So the model also knows images of
    which nothing is known: without `conditions`, all functions treat every one as missing.

    The KL alone does not keep a latent from holding what the decoder is told as well.
    `leak_weight` adds the dependence between latents and conditions to the loss
    ([Lopez et al., 2018](https://arxiv.org/abs/1805.08672), Eq. 9).

    Nor has the decoder ever seen the latent of one image with the conditions of another, so that
    such an image changes everywhere. With `change_weight`, each latent of a batch is also decoded
    under the conditions of the image before it, and the sum of absolute differences is added to the
    loss: as little changes as the images allow (the L1 norm of
    [Baumgartner et al., 2018](https://arxiv.org/abs/1711.08998)).

    Args:
        encoder, decoder: From `networks.encoder` and `networks.decoder`, `told` of the conditions.
        conditions: `sources.conditions.Conditions`; None: the networks are told nothing.
        hidden_share: Share of each condition that is hidden in training.
        leak_weight: Nats per unit of `losses.hsic` of latents and conditions.
        change_weight: Nats per grey level (0 to 1) of a pixel that changes with the conditions.
        **kwargs: Of the model that it is a variant of.

    References: [Sohn et al., 2015](https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models)
    """

    def __init__(
        self,
        encoder,
        decoder,
        conditions,
        hidden_share=0.1,
        leak_weight=0.0,
        change_weight=0.0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, **kwargs)
        self.conditions = conditions
        self.hidden_share = hidden_share
        self.leak_weight = leak_weight
        self.change_weight = change_weight

    @property
    def latent_dim(self):
        shape = self.decoder.input_shape
        return (shape[0] if isinstance(shape, list) else shape)[-1]

    def told(self, conditions, training, step):
        """The conditions of a batch, in training with some of them hidden; None: all missing."""
        if self.conditions is None or conditions is None or not training:
            return conditions
        key = self.key("hidden", training, step)
        size = (tf.shape(conditions)[0], len(self.conditions.columns))
        hidden = randomness.uniform(key, size) < self.hidden_share  # by image and column
        hidden = tf.gather(hidden, self.conditions.owners, axis=1)
        return tf.where(hidden, self.conditions.missing, conditions)

    def _with(self, batch, told):
        """Inputs of a network: a batch and what is told of it."""
        if self.conditions is None:
            return batch
        if told is None:
            told = tf.repeat(self.conditions.missing[None], tf.shape(batch)[0], axis=0)
        return [tf.convert_to_tensor(batch), tf.cast(told, tf.float32)]

    def _posterior(self, images, training, told=None):
        return super()._posterior(self._with(images, told), training)

    def logits_of(self, z, training, told=None):
        return super().logits_of(self._with(z, told), training)

    def objective(self, result):
        terms = super().objective(result)
        if result.conditions is None:
            return terms
        if self.leak_weight:  # independence is a property of the whole batch
            leak = losses.hsic(replicas.gathered(result.z), replicas.gathered(result.conditions))
            terms["leak"] = self.leak_weight * leak
        if self.change_weight:
            others = replicas.own(tf.roll(replicas.gathered(result.told), 1, axis=0))
            changed = tf.sigmoid(self.logits_of(result.z, result.training, others))
            change = losses.absolute(changed, tf.sigmoid(result.logits))
            terms["change"] = self.change_weight * change
        return terms

    # --- what users call -----------------------------------------------------------------------

    def encode(self, images, conditions=None):
        """Posterior of each image: `(z_mean, z_log_var)`, each `(batch, latent_dim)`.

        Args:
            images: uint8, or floats in [0, 1].
            conditions: `model.conditions(table)`, or None: all missing.
        """
        return self._encoded(images, conditions)

    def decode(self, z, conditions=None):
        """Images in [0, 1] of latents `(batch, latent_dim)` under conditions `(batch, width)`."""
        return tf.sigmoid(self.logits_of(z, training=False, told=conditions))

    def sample(self, n, seed=0, prior=None):
        """As for every model; of a prior that is asked for a condition, decoded under it."""
        z, condition = self.draw_prior(n, seed, prior), getattr(prior, "condition", None)
        if not condition or self.conditions is None:
            return self.decode_many(z)
        return self.decode_many(z, self.conditions.partly(repeated(condition, n)))

    def endpoints(self):
        """As for every model; both networks also take the conditions, `(batch, width)`."""
        if self.conditions is None:
            return super().endpoints()
        images = keras.Input(self.image_shape, name="images")
        z = keras.Input((self.latent_dim,), name="z")
        given = keras.Input((self.conditions.width,), name="conditions")
        outputs = layers.stock(self.encoder)([images, given])
        logits = layers.stock(self.final_decoder)([z, given])
        return {
            "encoder": keras.Model([images, given], outputs, name="encoder"),
            "decoder": keras.Model([z, given], keras.ops.sigmoid(logits), name="decoder"),
        }


@keras.saving.register_keras_serializable("latent_atlas")
class ConditionalVAE(Conditional):
    """`VAE` whose encoder and decoder are told conditions of each image; see `Conditional`."""


@keras.saving.register_keras_serializable("latent_atlas")
class ConditionalIWAE(Conditional, models.IWAE):
    """`IWAE` whose encoder and decoder are told conditions of each image; see `Conditional`."""
