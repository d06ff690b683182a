"""One worker of a training shared by several processes; tests start it as a program.

python tests/workers.py FOLDER EPOCHS RESUME STRATEGY MODEL [MODEL ...]

Under the strategy `mirrored` the CPU is divided into two devices.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import tensorflow as tf

import config
import data
import train
from families import registry
from nn import distribution
from sources import splits
from spots import SHAPE, blobs


def settings_of(kind, epochs):
    return config.Settings(
        model=kind if kind in config.MODELS else kind.split("-")[0],
        image_shape=SHAPE,
        widths=(8,),
        latent_dim=3,
        classes=2 if kind.startswith(("SemiSupervised", "M2")) else 10,
        binarize="none" if "Intro" in kind else "dynamic",
        batch_norm=kind.endswith("-norm"),
        group_norm=kind.endswith("-groups"),
        critic_start=2 if kind == "VAE-GAN" else 0,
        corrupt="gaussian" if kind == "Autoencoder" else "none",
        optimizer="muon" if kind.endswith("-muon") else "adam",
        clip_norm=20.0 if kind.endswith("-clip") else 0.0,
        batch_size=16,
        epochs=epochs,
        seed=1,
        conditions=("half",) if kind.startswith("Conditional") else (),
    )


train._fit_own_prior = lambda *_: None  # it has nothing to do with what is shared


def main(folder, epochs, resume, strategy, *kinds):
    if strategy == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    strategy = distribution.strategy(strategy)
    images, labels = blobs(96)
    every = data.from_arrays(images, labels, name="spots", label="half")
    for kind in kinds:
        spots = splits.few_labels(every, 10) if kind.endswith("-few") else every
        settings = settings_of(kind, int(epochs))
        with strategy.scope():
            model = registry.from_settings(settings, registry.conditions_of(settings, spots))
        run = Path(folder) / kind
        try:
            train.fit(model, spots, settings, run, verbose=0, resume=resume == "yes")
        except OSError as error:
            sys.exit(str(error))
        if distribution.is_chief(strategy):
            np.save(run / "all.npy", np.concatenate([w.ravel() for w in model.get_weights()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
