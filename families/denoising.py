"""A denoiser of images without a latent, whose errors show what it has not learned."""

import math

import keras
import tensorflow as tf

import model as models
from nn import layers, losses
from nn.batches import as_float

BALANCE = 0.5  # see `losses.pixel_gaussian_nll`


@keras.saving.register_keras_serializable("latent_atlas")
class Denoiser(models.Autoencoder):
    """U-Net that takes noise out of images.

    Trained on healthy images with noise as coarse as lesions (`corrupt="coarse"`), it takes lesions
    for noise too, and the image less its output shows them. It has no latent: its "encoder" gives
    the image as a vector, and its "decoder" is the U-Net. `encode` and `sample` refuse, and so does
    what needs them.

    Args:
        encoder: From `unet.whole`.
        decoder: From `unet.denoiser`; gives logits.
        reconstruction: Also `"pixel-gaussian"`: the decoder gives the standard deviation of each
            pixel too.
        corrupt: `"gaussian"`, `"mask"` or `"coarse"`.
        **kwargs: Of `model.Autoencoder`.

    References: [Kascenas et al., 2022](https://openreview.net/forum?id=Bm8-t_ggzNd)
    """

    reconstructions = (*models.Autoencoder.reconstructions, "pixel-gaussian")
    has_latent = False

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        if self.corrupt == "none":
            raise ValueError('corrupt = "none": a Denoiser would learn to copy; give it noise')
        if self.gives_spread != (self.reconstruction == "pixel-gaussian"):
            raise ValueError(
                f"reconstruction = {self.reconstruction!r} does not fit a decoder of "
                f"{self.decoder.output_shape[-1]} channels for images of {self.image_shape[-1]}"
            )

    @property
    def image_shape(self):
        return tuple(self.encoder.input_shape[1:])

    @property
    def gives_spread(self):
        """Whether it tells how sure it is of each pixel."""
        return self.decoder.output_shape[-1] == 2 * self.image_shape[-1]

    def images_of(self, logits):
        return tf.sigmoid(logits[..., : self.image_shape[-1]])

    def _log_sigma(self, logits):
        logs = logits[..., self.image_shape[-1] :] + math.log(self.sigma)
        return tf.clip_by_value(logs, *models.LOG_SIGMA_RANGE)

    def distortion(self, targets, logits):
        if not self.gives_spread:
            return super().distortion(targets, logits)
        logits = tf.cast(logits, tf.float32)
        expected = self.images_of(logits), self._log_sigma(logits)
        return losses.pixel_gaussian_nll(targets, *expected, balance=BALANCE)

    def monitor(self, result):
        return {name: each for name, each in super().monitor(result).items() if name == "ssim"}

    def encode(self, images):
        raise ValueError(self._refusal)

    def draw_prior(self, n, seed=0, prior=None):
        raise ValueError(self._refusal)

    @property
    def _refusal(self):
        return (
            f"a {type(self).__name__} has no latent: it can denoise (model.reconstruct, "
            "anomaly.py), and nothing else. Train a VAE for latents, samples and directions"
        )

    def reconstruct(self, images):
        """Images in [0, 1] with what the model takes for noise taken out."""
        images = as_float(tf.convert_to_tensor(images))
        return self.decode(self.encoder(images, training=False))

    def expected(self, images):
        """What it expects at each pixel, and how much that varies.

        Args:
            images: uint8, or floats in [0, 1], `(batch, height, width, channels)`.

        Returns:
            `(batch, height, width, 2 * channels)`: means in [0, 1], then standard deviations.

        Raises:
            ValueError: if it was not trained with `reconstruction="pixel-gaussian"`.
        """
        if not self.gives_spread:
            raise ValueError(
                "this Denoiser does not tell how sure it is: train one with "
                'reconstruction="pixel-gaussian"'
            )
        images = as_float(tf.convert_to_tensor(images))
        logits = self.logits_of(self.encoder(images, training=False), training=False)
        return tf.concat([self.images_of(logits), tf.exp(self._log_sigma(logits))], axis=-1)

    def endpoints(self):
        images = keras.Input(self.image_shape, name="images")
        logits = layers.stock(self.decoder)(layers.stock(self.encoder)(images))
        means = keras.ops.sigmoid(logits[..., : self.image_shape[-1]])
        return {"denoiser": keras.Model(images, means, name="denoiser")}
