"""A small VAE after the public Keras example, measured by our protocol.

    python benchmarks/keras_example.py --seconds 780 --out runs/keras-example

Its networks (two convolutions of 32 and 64 filters, a dense layer of 16, a latent of 2, ReLU), its
optimizer (Adam at 0.001) and its batch of 128 are those of keras.io's "Variational AutoEncoder";
the data (55,000 training images, dynamically binarised), the step and the evaluation are ours. It
trains to the end of the epoch in which the time runs out.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
from keras import layers

import config
import data
import evaluate
import model as models

BATCH = 128


def networks(latent_dim=2):
    images = keras.Input((28, 28, 1))
    x = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(images)
    x = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    outputs = [layers.Dense(latent_dim, name=name)(x) for name in ("z_mean", "z_log_var")]
    encoder = keras.Model(images, outputs, name="encoder")

    z = keras.Input((latent_dim,))
    x = layers.Dense(7 * 7 * 64, activation="relu")(z)
    x = layers.Reshape((7, 7, 64))(x)
    x = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(x)
    logits = layers.Conv2DTranspose(1, 3, padding="same")(x)
    return encoder, keras.Model(z, logits, name="decoder")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    images = data.load(config.settings("mnist"))
    keras.utils.set_random_seed(0)
    model = models.VAE(*networks(), binarize="dynamic")
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    start = time.monotonic()

    def stop(epoch, logs):
        model.stop_training = time.monotonic() - start > arguments.seconds

    history = model.fit(
        images.train.batches(BATCH, shuffle=True),
        steps_per_epoch=images.train.steps(BATCH),
        epochs=10_000,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)],
        verbose=2,
        shuffle=False,
    )
    print(f"{len(history.epoch)} epochs, {time.monotonic() - start:.0f} s")
    numbers = evaluate.report(model, images, arguments.out)
    print(evaluate.table({str(arguments.out): numbers}).to_string())


if __name__ == "__main__":
    main()
