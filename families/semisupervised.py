"""Variational autoencoders that learn from labels: of every image, or of a few.

A label is a whole number, -1 if an image has none. Both models are trained on the batches of
`splits.Split.mixed_batches`, and have the methods `classify` images and `generate` images with a
label.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import model as models
from nn import layers, losses
from nn.batches import as_float, parts
from nn.configured import one_of

ATTEMPTS = 100  # most batches of prior draws in which `generate` searches


def mean_known(terms, labels):
    """Mean of terms over the images that have a label; 0 if none has."""
    known = tf.cast(labels >= 0, terms.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(known * terms), tf.reduce_sum(known))


def _rows(x):
    """Rows of a batch: a Python number if it is known, so that shapes stay static."""
    return tf.shape(x)[0] if x.shape[0] is None else x.shape[0]


def _known_class(label, classes):
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"label = {label}: the model's classes are 0 to {classes - 1}")


class Labelled(models.VAE):
    """Base of both models: the classification term, its monitor, and `classify`.

    Args:
        class_weight: Nats per nat of cross-entropy; the cross-entropy is averaged over the labelled
            images of a batch, for any number of them, everything else over all images.
    """

    uses_labels = True

    def __init__(self, encoder, decoder, class_weight=100.0, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self.class_weight = class_weight

    def class_logits(self, result):
        """Logits of q(y|x) of a pass, `(batch, classes)`."""
        raise NotImplementedError

    def classification(self, result):
        """Weighted cross-entropy of the known labels; a scalar."""
        nll = losses.label_nll(result.labels, self.class_logits(result))
        return self.class_weight * mean_known(nll, result.labels)

    def monitor(self, result):
        return super().monitor(result) | self.accuracy(result)

    def accuracy(self, result):
        """Share of the labelled images that q(y|x) classifies correctly."""
        if result.labels is None:
            return {}
        guessed = tf.argmax(self.class_logits(result), axis=-1, output_type=result.labels.dtype)
        right = tf.cast(guessed == result.labels, tf.float32)
        return {"accuracy": mean_known(right, result.labels)}


@keras.saving.register_keras_serializable("latent_atlas")
class SemiSupervisedVAE(Labelled):
    """VAE with a classifier on its latent, which separates the classes.

    Minimises the negative evidence lower bound of all images plus the cross-entropy of the
    classifier on those with a label.

    Args:
        encoder, decoder, class_weight, **kwargs: See `VAE` and `Labelled`.
        classifier: From `networks.latent_classifier`.
        classify_from: Input of the classifier in training: `"mean"`, the posterior's, or
            `"sample"`, the latent that is decoded. Outside training it is the mean.
    """

    def __init__(self, encoder, decoder, classifier, classify_from="mean", **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        one_of("classify_from", classify_from, ("mean", "sample"))
        self.classifier = classifier
        self.classify_from = classify_from

    def class_logits(self, result):
        sampled = self.classify_from == "sample" and result.training
        return self.classifier(result.z if sampled else result.z_mean, training=result.training)

    def objective(self, result):
        terms = super().objective(result)
        if result.labels is None:
            return terms
        return terms | {"classification": self.classification(result)}

    def classify_latents(self, z):
        """Probability of each class at latents `(batch, latent_dim)`; `(batch, classes)`."""
        return tf.nn.softmax(self.classifier(z, training=False))

    def classify(self, images):
        """Probability of each class, `(batch, classes)`."""
        return self.classify_latents(self.encode(images)[0])

    def endpoints(self):
        """As for every model, and `"classifier"`: latents to the probability of each class."""
        z = keras.Input((self.latent_dim,), name="z")
        likely = keras.ops.softmax(layers.stock(self.classifier)(z))
        return super().endpoints() | {"classifier": keras.Model(z, likely, name="classifier")}

    def generate(self, n, seed=0, label=None, confidence=0.0, prior=None):
        """Images decoded from draws of a prior, each with the predicted class of its latent.

        Args:
            n: Number of images.
            seed: Seed of the draws.
            label: Keep only draws of this class; None: of all classes, as drawn.
            confidence: Keep only draws with at least this probability of their class; images
                between two clusters belong to neither.
            prior: See `sample`.

        Returns:
            `(images, labels)`: floats in [0, 1], `(n, height, width, channels)`, and `(n,)`.

        Raises:
            ValueError: if no such latents are found in `ATTEMPTS` batches of draws.
        """
        _known_class(label, self.classifier.output_shape[-1])
        kept, found = [], 0
        for attempt in range(ATTEMPTS):
            z = self.draw_prior(max(n, 256), ATTEMPTS * seed + attempt, prior)
            shares = self.classify_latents(z).numpy()
            labels = shares.argmax(axis=-1)
            fits = shares.max(axis=-1) >= confidence
            if label is not None:
                fits &= labels == label
            kept.append((z.numpy()[fits], labels[fits]))
            found += fits.sum()
            if found >= n:
                break
        else:
            raise ValueError(
                f"only {found} of {ATTEMPTS * max(n, 256)} draws of the prior were of "
                f"{'any class' if label is None else f'class {label}'} with a confidence of "
                f"{confidence}; ask for fewer images or a lower confidence"
            )
        z, labels = (np.concatenate(each)[:n] for each in zip(*kept, strict=True))
        return self.decode_many(z), labels


class ByClass(NamedTuple):
    """All pairs of an image and a class in a pass of `M2`.

    `rows` are the images' numbers in the batch, `classes` the classes, `share` the weights of the
    pairs: the probability q(y|x), or 1 for a known label. All have the shape `(pairs,)`; the
    latents `(pairs, latent_dim)`, the decoder's outputs `(pairs, ...)`. `class_logits` are those of
    q(y|x), and `class_kl` is the KL of every image's shares from the uniform prior, `(batch,)`.
    """

    rows: tf.Tensor
    classes: tf.Tensor
    share: tf.Tensor
    z_mean: tf.Tensor
    z_log_var: tf.Tensor
    outputs: tf.Tensor
    class_logits: tf.Tensor
    class_kl: tf.Tensor


@keras.saving.register_keras_serializable("latent_atlas")
class M2(Labelled):
    """Semi-supervised VAE with a class-conditional decoder: p(x|z, y), q(y|x), q(z|x, y).

    The class is a second latent. If it is known, the bound is Eq. 6 of
    [Kingma et al., 2014](https://arxiv.org/abs/1406.5298),
    `L(x, y) = distortion + KL(q(z|x, y) | N(0, I)) - log p(y)`; otherwise Eq. 7,
    `U(x) = sum_y q(y|x) L(x, y) - H(q(y|x))`, summed exactly over all classes. A weighted
    cross-entropy of q(y|x) on the labelled images is added (Eq. 9). The prior p(y) is uniform.

    The convolutions of the encoder run once per image, the decoder once per class: the known one of
    labelled images, all for the rest. Class and style are separate, so `decode` takes both.

    Args:
        encoder: From `networks.class_encoder`.
        posterior: From `networks.class_posterior`.
        decoder: From `networks.decoder`, of latents with one additional axis per class.
        class_weight, **kwargs: See `Labelled` and `VAE`; of `VAE`'s remedies against collapse it
            has only the warm-up.
    """

    needs_class = True
    refused = (
        *("free_bits", "kl_capacity", "capacity_steps"),
        *("dssim_weight", "perceptual_weight"),
        *("corrupt", "corrupt_level", "corrupt_knots"),
    )

    def __init__(self, encoder, posterior, decoder, **kwargs):
        super().__init__(encoder, decoder, **kwargs)
        self._refuse()
        self.posterior = posterior

    @property
    def classes(self):
        return self.encoder.output_shape[1][-1]

    @property
    def latent_dim(self):
        return self.decoder.input_shape[-1] - self.classes

    def observed(self, images, training, step, rows):
        """The input of the encoder and target of the likelihood: the images, binarised or not."""
        return self._binarized(images, self.key("binarize", training, step, rows))

    def forward(self, batch, training, step):
        images, labels = parts(batch)
        images = as_float(images)
        # In the first part of a mixed batch only the known class is decoded, elsewhere all.
        count, first = _rows(images), 0
        if isinstance(batch, tuple | list) and len(batch) == 3:
            first = _rows(batch[0])
        targets = self.observed(images, training, step, (first, count - first))
        features, class_logits = self.encoder(targets, training=training)

        rows = tf.concat([tf.range(first), tf.repeat(tf.range(first, count), self.classes)], axis=0)
        tried = tf.tile(tf.range(self.classes), [count - first])
        if labels is not None:
            tried = tf.concat([tf.cast(labels[:first], tf.int32), tried], axis=0)

        shares = tf.nn.softmax(class_logits)
        class_kl = losses.kl_to_uniform(class_logits)
        if training and labels is not None:
            known = labels >= 0
            one_hot = tf.one_hot(labels, self.classes)
            shares = tf.where(known[:, None], one_hot, shares)
            class_kl = tf.where(known, tf.math.log(float(self.classes)), class_kl)
        share = tf.gather_nd(shares, tf.stack([rows, tried], axis=1))

        z_mean, z_log_var = self.posterior(
            [tf.gather(features, rows), tf.one_hot(tried, self.classes)], training=training
        )
        key = self.key("noise", training, step, (first, (count - first) * self.classes))
        z = self.draw(z_mean, z_log_var, key)
        outputs = self.decoder(self._with_class(z, tried), training=training)

        # The monitors of every model, for the most likely class of each image.
        likeliest = tf.argmax(shares[first:], axis=-1, output_type=tf.int32)
        best = first + tf.range(count - first) * self.classes + likeliest
        best = tf.concat([tf.range(first), best], axis=0)
        shown = (tf.gather(each, best) for each in (z_mean, z_log_var, z, outputs))
        pairs = ByClass(rows, tried, share, z_mean, z_log_var, outputs, class_logits, class_kl)
        return models.Pass(images, targets, labels, *shown, training, step, pairs)

    def _with_class(self, z, labels):
        return tf.concat([z, tf.one_hot(labels, self.classes, dtype=z.dtype)], axis=-1)

    def bound(self, result, log_prior=None):
        """Distortion and rate, expected over the classes: their sum is Eq. 6 or Eq. 7."""
        if log_prior is not None:
            raise ValueError("the bound of an M2 is available for its own prior only")
        pairs, count = result.by_class, tf.shape(result.z)[0]

        def expected(terms):
            return tf.math.unsorted_segment_sum(pairs.share * terms, pairs.rows, count)

        distortion = self.distortion(tf.gather(result.targets, pairs.rows), pairs.outputs)
        kl = losses.kl_to_standard_normal(pairs.z_mean, pairs.z_log_var)
        return expected(distortion), expected(kl) + pairs.class_kl

    def class_logits(self, result):
        return result.by_class.class_logits

    def objective(self, result):
        distortion, rate = self.bound(result)
        weight = self.beta * self._ramp(self.kl_warmup_steps, result.training)
        terms = {"reconstruction": distortion, "regularizer": weight * rate}
        if result.labels is None:
            return terms
        return terms | {"classification": self.classification(result)}

    # --- what users call -----------------------------------------------------------------------

    def _class_features(self, images):
        images = as_float(tf.convert_to_tensor(images))
        return self.encoder(images, training=False)

    def classify(self, images):
        """Probability of each class, `(batch, classes)`."""
        return tf.nn.softmax(self._class_features(images)[1])

    def encode(self, images, labels=None):
        """Posterior of each image's style, given its class: `(z_mean, z_log_var)`.

        Args:
            images: uint8, or floats in [0, 1].
            labels: Classes, shape `(batch,)`; None: the most likely ones.
        """
        features, logits = self._class_features(images)
        return self._style(features, tf.argmax(logits, axis=-1) if labels is None else labels)

    def _style(self, features, labels):
        one_hot = tf.one_hot(labels, self.classes)
        return tuple(self.posterior([features, one_hot], training=False))

    def decode(self, z, labels=None):
        """Images in [0, 1] of latents `(batch, latent_dim)` and classes `(batch,)`."""
        if labels is None:
            raise ValueError(
                "an M2 decodes a latent and a class: pass one class per latent to decode, for "
                "example those of classify(images)"
            )
        return tf.sigmoid(self.decoder(self._with_class(z, labels), training=False))

    def describe(self, images):
        """As for every model, each image in its most likely class."""
        features, logits = self._class_features(images)
        labels = tf.argmax(logits, axis=-1)
        z_mean, z_log_var = self._style(features, labels)
        return z_mean, z_log_var, self.decode(z_mean, labels)

    def endpoints(self):
        """As for every model, with classes.

        The encoder also gives the probability of each class, and the posterior in the most likely
        one; the decoder takes the class as a whole number in addition to the latent.
        """
        images = keras.Input(self.image_shape, name="images")
        features, class_logits = layers.stock(self.encoder)(images)
        # Keras' argmax uses bit operations that ONNX does not have.
        likeliest = keras.ops.top_k(class_logits, 1)[1][:, 0]
        known = [features, keras.ops.one_hot(likeliest, self.classes)]
        outputs = [*layers.stock(self.posterior)(known), keras.ops.softmax(class_logits)]
        z = keras.Input((self.latent_dim,), name="z")
        label = keras.Input((), dtype="int32", name="label")
        both = keras.ops.concatenate([z, keras.ops.one_hot(label, self.classes)], axis=-1)
        made = keras.ops.sigmoid(layers.stock(self.decoder)(both))
        return {
            "encoder": keras.Model(images, outputs, name="encoder"),
            "decoder": keras.Model([z, label], made, name="decoder"),
        }

    def in_every_class(self, images):
        """Each image's style in every class, `(batch, classes, height, width, channels)`."""
        z, count = self.encode(images)[0], len(images)
        made = self.decode(
            tf.repeat(z, self.classes, axis=0), tf.tile(tf.range(self.classes), [count])
        )
        return tf.reshape(made, (count, self.classes, *made.shape[1:]))

    def generate(self, n, seed=0, label=None, prior=None):
        """Images decoded from draws of a prior, each with its class.

        Args:
            n: Number of images.
            seed: Seed of the draws.
            label: The class of all images; None: every class in turn.
            prior: Of the style, see `sample`.

        Returns:
            `(images, labels)`: floats in [0, 1], `(n, height, width, channels)`, and `(n,)`.
        """
        _known_class(label, self.classes)
        labels = np.arange(n) % self.classes if label is None else np.full(n, label)
        return self.decode_many(self.draw_prior(n, seed, prior), labels), labels

    def sample(self, n, seed=0, prior=None):
        """As for every model, with every class in turn."""
        return self.generate(n, seed, prior=prior)[0]


@keras.saving.register_keras_serializable("latent_atlas")
class M1M2(M2):
    """`M2` on the latents of a trained VAE, Section 2.3 of Kingma et al., 2014.

    The observed data are draws of the first model's posterior, new ones at every step; the first
    model is not trained further. `fit` takes images, or, many times faster, the posteriors
    themselves: floats `(batch, 2, m1.latent_dim)`, means before log-variances.

    Args:
        m1: A trained `VAE`.
        encoder: From `networks.vector_class_encoder`, of `m1.latent_dim` units.
        posterior: From `networks.class_posterior`.
        decoder: From `networks.vector_decoder`.
        **kwargs: See `M2`.
    """

    def __init__(self, m1, encoder, posterior, decoder, **kwargs):
        super().__init__(encoder, posterior, decoder, **kwargs)
        self.m1 = m1
        m1.trainable = False

    @property
    def image_shape(self):
        return self.m1.image_shape

    def observed(self, images, training, step, rows):
        posteriors = images
        if images.shape[1:] != (2, self.m1.latent_dim):
            posteriors = tf.stack(self.m1.encode(images), axis=1)
        return self.draw(posteriors[:, 0], posteriors[:, 1], self.key("m1", training, step, rows))

    def distortion(self, targets, outputs):
        return losses.diagonal_gaussian_nll(targets, outputs[:, 0], outputs[:, 1])

    def monitor(self, result):
        kl = losses.kl_to_standard_normal(result.z_mean, result.z_log_var)
        return {"kl": tf.reduce_mean(kl)} | self.accuracy(result)

    def _class_features(self, images):
        return self.encoder(self.m1.encode(images)[0], training=False)

    def decode(self, z, labels=None):
        if labels is None:
            raise ValueError("M1M2 needs the class of each latent: call decode(z, labels)")
        return self.m1.decode(self.decoder(self._with_class(z, labels), training=False)[:, 0])
