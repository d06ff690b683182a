"""A VAE with a critic of small patches, for sharp reconstructions."""

import keras
import tensorflow as tf

from families.adversarial import Alternating
from nn import losses, replicas


@keras.saving.register_keras_serializable("latent_atlas")
class VaeGan(Alternating):
    """VAE whose reconstructions must also look real, patch by patch, to a critic.

    A squared error is least for the mean of all likely images, which is blurred. First turn,
    encoder and decoder: the VAE's objective, and the critic's opinion of the reconstructions.
    Second turn, the critic: it distinguishes images from reconstructions by the hinge loss. This is
    the first stage of latent diffusion.

    The two gradients on the images are balanced: the critic's has `critic_weight` times the norm of
    the other terms'. [Esser et al., 2021](https://arxiv.org/abs/2012.09841), Eq. 7, take the norms
    at the decoder's last weights, which needs another pass; here they are those at the logits,
    where the backward pass has both. The loss that is shown has no part of the critic's.

    Args:
        encoder: From `networks.encoder`.
        decoder: From `networks.decoder`.
        critic: From `networks.patch_critic`.
        critic_weight: Norm of the critic's gradient, relative to that of the other terms.
        critic_start: Training steps before the critic begins to learn: first the images should be
            about right.
        critic_warmup_steps: Its gradient rises linearly from 0 over so many steps, since a critic
            that knows nothing yet only disturbs.
        **kwargs: Of `model.VAE`.

    References: [Larsen et al., 2016](https://arxiv.org/abs/1512.09300);
        [Rombach et al., 2022](https://arxiv.org/abs/2112.10752), Section 3.1
    """

    def __init__(
        self,
        encoder,
        decoder,
        critic,
        critic_weight=0.5,
        critic_start=0,
        critic_warmup_steps=0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, **kwargs)
        self.critic = critic
        self.critic_weight = critic_weight
        self.critic_start = critic_start
        self.critic_warmup_steps = critic_warmup_steps

    def players(self):
        first = self.encoder.trainable_variables + self.drawing_weights()
        return first, self.critic.trainable_variables

    def forward(self, batch, training, step):
        result = super().forward(batch, training, step)
        return result._replace(logits=self._pulled(result.logits)) if training else result

    def first_turn(self, result, bound):
        return bound, None

    def second_turn(self, result, kept):
        made = tf.sigmoid(tf.stop_gradient(result.logits))
        seen = self.critic(tf.concat([result.images, made], axis=0), training=True)
        real, fake = tf.split(seen, 2, axis=0)
        hinge = tf.cast(self._begun, tf.float32) * losses.critic_hinge(real, fake)
        return {"critic": hinge}, {"critic_fooled": tf.reduce_mean(tf.cast(fake > 0.0, tf.float32))}

    @property
    def _begun(self):
        return self.steps > self.critic_start

    def _pulled(self, logits):
        """The same logits; their gradient is increased by the critic's, scaled."""

        def slope_of_critic():
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(logits)
                opinion = self.critic(tf.sigmoid(logits), training=True)
                loss = -tf.reduce_sum(tf.reduce_mean(opinion, axis=(1, 2, 3)))
            return tape.gradient(loss, logits)

        @tf.custom_gradient
        def same(logits):
            def gradient(upstream):
                slope = tf.cond(self._begun, slope_of_critic, lambda: tf.zeros_like(logits))
                # Over the whole batch, and not in the branch: replicas meet here.
                sizes = (
                    replicas.mean(tf.reduce_sum(tf.square(each))) for each in (upstream, slope)
                )
                others, own = (tf.sqrt(each) for each in sizes)
                ramp = self._ramp(self.critic_warmup_steps, True, since=self.critic_start)
                return upstream + self.critic_weight * ramp * others / (own + 1e-12) * slope

            return tf.identity(logits), gradient

        return same(logits)
