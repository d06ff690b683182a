"""The likelihood of images under a VAE, by importance sampling."""

import math

import numpy as np
import tensorflow as tf

import model as models
from nn.batches import in_batches

IMAGES = 2000
TOGETHER = (2, 64)  # images, and draws of each, that are decoded at a time: they fit the CPU cache


def importance_gap(model, images, samples, count=IMAGES, seed=0, progress=False, log_prior=None):
    """The gap between a model's bound and the log-likelihood, and its standard error.

    Likelihoods of single images differ by tens of nats, gaps by about one. The mean gap of some
    images with the bound of all is therefore a better estimate than the mean likelihood of those
    images.

    Args:
        model: A VAE.
        images: Shape `(n, height, width, channels)`.
        samples: See `log_likelihood`.
        count: Images for the estimate, chosen at random, because the first of a set may be easier.
        seed: Seed of that choice.
        progress: Whether to show how far it is.
        log_prior: See `log_likelihood`.
    """
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    likelihood, negative_elbo = log_likelihood(
        model, images[np.sort(rows)], samples, progress, log_prior
    )
    gap = negative_elbo + likelihood
    return gap.mean(), gap.std() / math.sqrt(len(gap))


def log_likelihood(
    model, images, samples, progress=False, log_prior=None, conditions=None, together=TOGETHER
):
    """Log-likelihood of each image by importance sampling from its posterior.

    `log mean_k p(x | z_k) p(z_k) / q(z_k | x)`, Eq. 8 of
    [Burda et al., 2016](https://arxiv.org/abs/1509.00519): too low on average; the error decreases
    with the number of samples.

    Args:
        model: A VAE with one latent, whose posterior has a variance.
        images: Shape `(n, height, width, channels)`; if the model binarises, one fixed draw of each
            is used.
        samples: Draws of each posterior, in rounds of 64 (of `together`).
        progress: Whether to show how far it is.
        log_prior: Log-density of a prior, a TensorFlow function of latents; None: of the model's.
        conditions: Of a model that is told them, `(n, width)`; None: nothing is known.
        together: Images, and draws of each, at a time.

    Returns:
        `(log_likelihood, negative_elbo)`, float32 `(n,)`, both from the same draws.

    Raises:
        ValueError: for a model with another kind of bound.
    """
    if (
        getattr(type(model), "rate", None) is not models.VAE.rate
        or model.needs_class
        or len(model.encoder.outputs) < 2
    ):
        raise ValueError(
            f"the likelihood of a {type(model).__name__} cannot be estimated: it needs one latent "
            "with a posterior that has a variance"
        )
    batch_size, draws = together
    rounds = math.ceil(samples / draws)

    def measured(batch, rows, *told):
        given = {"images": batch, "conditions": told[0]} if told else batch
        result = model.forward(given, training=False, step=rows[0])
        count = tf.shape(result.z)[0]

        def one_round(number, log_sum, total):
            step = tf.cast(rows[0], tf.int64) * rounds + tf.cast(number, tf.int64)
            key = model.key("importance", False, step)
            weights = model.log_weights(result, draws, key, log_prior)
            log_sum = tf.reduce_logsumexp(tf.concat([log_sum[None], weights], axis=0), axis=0)
            return number + 1, log_sum, total + tf.reduce_sum(weights, axis=0)

        start = (0, tf.fill((count,), -math.inf), tf.zeros((count,)))
        _, log_sum, total = tf.while_loop(lambda number, *_: number < rounds, one_round, start)
        return log_sum - math.log(rounds * draws), -total / (rounds * draws)

    arrays = (images, np.arange(len(images)), *([] if conditions is None else [conditions]))
    told = "likelihood" if progress else ""
    return in_batches(measured, *arrays, batch_size=batch_size, told=told)
