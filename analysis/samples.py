"""Generated images: their quality, and whether they are copies of training images."""

import math

import numpy as np
from scipy import stats

from analysis import latent
from analysis.features import Untrained
from nn import metrics
from nn.batches import in_batches
from nn.metrics import small

MOST_SAMPLES = 10_000  # most samples of a model; otherwise as many as held-out images
MOST_PIXELS = 2**27  # most pixels of them together
MOST_COMPARED = 2000  # most samples whose nearest training image is searched
IN_FEATURES = ("frechet", "kernel", "precision", "recall")
UNLABELLED = tuple(f"unlabelled_{name}" for name in IN_FEATURES)
NEARER = ("nearer_than_real", "nearer_than_redrawn")


def _most(model, count):
    """The number of `count` images that fit memory, at least 1."""
    return max(1, min(count, MOST_SAMPLES, MOST_PIXELS // math.prod(model.image_shape)))


def drawn(model, count, prior=None):
    """`count` images decoded from a prior, or as many as fit memory; always the same."""
    count = _most(model, count)
    if prior is None:
        starts = range(0, count, 500)
        return np.concatenate([model.sample(min(500, count - at), seed=at) for at in starts])
    return model.sample(count, prior=prior).numpy()


class Compared:
    """Quality of generated images, and their distance to the training images.

    Values of held-out images are computed once for all priors.

    Args:
        model: A trained model.
        images: `data.ImageData`.
        chosen: Its split that generated images are compared with.
        judge: `judges.Judge`, or None.
        inception: From `features.inception`, or None.

    Call arguments:
        made: Generated images, floats in [0, 1], `(count, height, width, channels)`.

    Returns:
        Dictionary of names of `evaluate.PROTOCOL` to `(value, standard error or None)`.
    """

    def __init__(self, model, images, chosen, judge, inception):
        count = _most(model, len(chosen))
        rows = np.random.default_rng(0).permutation(len(chosen))[:count]
        self.real = chosen.images[np.sort(rows)] / np.float32(255)
        self.judge, self.inception, self.count = judge, inception, count
        self.edges = metrics.sharpness(self.real).mean()  # 0 if all images are flat
        # Not the first ones: in MNIST they are easier.
        some = self.real[np.random.default_rng(1).permutation(len(self.real))[:MOST_COMPARED]]
        self.known = small(images.train.images)
        sets = (some, in_batches(model.reconstruct, some))
        self.others = [_away(each, self.known) for each in sets]
        self.features = Untrained(images.train.images)
        self.unlabelled = self.features(self.real)
        if judge is not None:
            self.theirs = judge.features(self.real)

    def __call__(self, made):
        sharp = np.full(len(made), math.nan)
        if self.edges:
            sharp = metrics.sharpness(made) / self.edges
        values = {"sample_sharpness": (sharp.mean(), sharp.std() / math.sqrt(len(sharp)))}
        ours = _away(made[:MOST_COMPARED], self.known)
        values |= {
            name: (_share_nearer(ours, each), None)
            for name, each in zip(NEARER, self.others, strict=True)
        }
        if self.inception is not None:
            distance = metrics.frechet_distance(self.inception(self.real), self.inception(made))
            values["inception_frechet"] = (distance, None)
        if self.judge is not None:
            values |= in_features(self.theirs, self.judge.features(made))
        unlabelled = in_features(self.unlabelled, self.features(made))
        return values | {f"unlabelled_{name}": each for name, each in unlabelled.items()}


def in_features(theirs, ours):
    """Distances of generated images' features from those of held-out ones.

    Args:
        theirs: Features of held-out images, `(n, units)`.
        ours: Features of generated images, `(m, units)`.

    Returns:
        Dictionary of `IN_FEATURES`, as far as so many images define them, to `(value, standard
        error or None)`.
    """
    values = {}
    if len(ours) > theirs.shape[1]:  # otherwise the covariance is not defined
        values["frechet"] = (metrics.frechet_distance(theirs, ours), None)
    kernel, error = metrics.kernel_distance(theirs, ours)
    values["kernel"] = (kernel, None if math.isnan(error) else error)
    if min(len(theirs), len(ours)) > metrics.REACH:
        precision, recall = metrics.precision_recall(theirs, ours)
        values |= {"precision": (precision, None), "recall": (recall, None)}
    return values


def nearer_to_training(made, others, training):
    """Share of pairs in which a generated image is closer to the training images than another.

    The statistic of Mann and Whitney on the distances to the nearest training image, as in
    [Meehan et al., 2020](https://arxiv.org/abs/2004.05675), Section 3, whose test detects values
    far from a half. Images are compared by pixels, large ones averaged to at most 32 pixels a side.
    Training images are not mirrored: a mirrored copy is not found.

    Args:
        made: Generated images, floats in [0, 1], shape `(n, height, width, channels)`.
        others: Images for comparison, same form: images that the model was not trained on, or its
            reconstructions of them, which have the same blur.
        training: uint8.

    Returns:
        Share of all pairs, ties counted half.
    """
    known = small(training)
    return _share_nearer(_away(made, known), _away(others, known))


def _away(images, known):
    """Distance of each image to the nearest of some known ones, which are `small`; `(n,)`."""
    return latent.nearest(small(images), known)[1]


def _share_nearer(ours, theirs):
    farther = stats.mannwhitneyu(ours, theirs).statistic
    return float(1.0 - farther / (len(ours) * len(theirs)))
