"""The TensorFlow sides of benchmarks/rivals.py; started by it, one process for each."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import tensorflow as tf
import turns
from prepared import prepared

import config
from families import registry
from nn import layers


def layer(each):
    """Description of one of our layers, to build it in PyTorch."""
    found = {"kind": type(each).__name__, "shape": list(each.output.shape[1:])}
    settings = each.get_config()
    names = ("filters", "kernel_size", "strides", "units", "negative_slope", "rate", "use_bias")
    return found | {name: settings[name] for name in names if name in settings}


def described(model):
    return {
        "image_shape": model.image_shape,
        "latent_dim": model.latent_dim,
        "weights": sum(int(np.prod(each.shape)) for each in model.trainable_variables),
        "encoder": [layer(each) for each in model.encoder.layers[1:]],
        "decoder": [layer(each) for each in model.decoder.layers[1:]],
    }


def ours(settings, pixels, bare):
    """Our step under Keras' `fit`, or in a bare loop."""
    model, batches = prepared(settings, pixels)
    step = tf.function(lambda iterator: model.train_step(next(iterator)))

    def run(steps):
        if not bare:
            model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
            return
        iterator = iter(batches)
        for _ in range(steps):
            step(iterator)

    return run


class Recipe(keras.Model):
    """The step of keras.io's "Variational AutoEncoder" with our networks."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.noise = keras.random.SeedGenerator(1337)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self):
        return self.trackers

    def train_step(self, images):
        with tf.GradientTape() as tape:
            z_mean, z_log_var = self.encoder(images, training=True)
            epsilon = keras.random.normal(tf.shape(z_mean), seed=self.noise)
            z = z_mean + tf.exp(0.5 * z_log_var) * epsilon
            drawn = tf.sigmoid(self.decoder(z, training=True))
            paid = keras.losses.binary_crossentropy(images, drawn)
            reconstruction = tf.reduce_mean(tf.reduce_sum(paid, axis=(1, 2)))
            kl = -0.5 * (1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var))
            kl = tf.reduce_mean(tf.reduce_sum(kl, axis=1))
            loss = reconstruction + kl
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for tracker, value in zip(self.trackers, (loss, reconstruction, kl), strict=True):
            tracker.update_state(value)
        return {each.name: each.result() for each in self.trackers}


def recipe(settings, pixels):
    """As on keras.io: a float32 array in memory, `fit(array, batch_size)`, Keras' own layers."""

    def own(each):
        if isinstance(each, layers.Dropout):
            return keras.layers.Dropout(each.rate)
        return layers.of_keras(each)

    made = registry.from_settings(settings)
    networks = (made.encoder, made.decoder)
    model = Recipe(*(keras.models.clone_model(each, clone_function=own) for each in networks))
    model.compile(optimizer=keras.optimizers.Adam())
    images = pixels.astype("float32") / 255

    def run(steps):
        count = steps * settings.batch_size
        repeated = images[np.arange(count) % len(images)]
        model.fit(repeated, batch_size=settings.batch_size, verbose=0)

    return run


def main():
    side, settings = sys.argv[1], config.Settings.from_dict(json.loads(sys.argv[2]))
    if side == "describe":
        print(json.dumps(described(registry.from_settings(settings))))
        return
    pixels = np.load(sys.argv[3])
    made = recipe(settings, pixels) if side == "recipe" else ours(settings, pixels, side == "bare")
    turns.take(made)


if __name__ == "__main__":
    main()
