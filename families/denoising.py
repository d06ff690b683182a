"""A denoiser of images without a latent, whose errors show what it has not learned."""

import keras
import tensorflow as tf

import model as models
from nn import layers
from nn.batches import as_float


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
        corrupt: `"gaussian"`, `"mask"` or `"coarse"`.
        **kwargs: Of `model.Autoencoder`.

    References: [Kascenas et al., 2022](https://openreview.net/forum?id=Bm8-t_ggzNd)
    """

    has_latent = False

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        if self.corrupt == "none":
            raise ValueError('corrupt = "none": a Denoiser would learn to copy; give it noise')

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

    def endpoints(self):
        images = keras.Input(self.image_shape, name="images")
        logits = layers.stock(self.decoder)(layers.stock(self.encoder)(images))
        return {"denoiser": keras.Model(images, keras.ops.sigmoid(logits), name="denoiser")}
