"""Whether generated images are copies of training images.

Nothing is compared with a fixed distance: held-out subjects, which the model has never seen, show
what distances are without copying. Blur or poor samples change the distances to training images and
to held-out ones alike. All tests are over subjects, because images of one subject are alike.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from analysis.features import Untrained, of_pixels
from nn import metrics
from nn.batches import as_float, in_batches

NEIGHBOURS = 10
LEAST_SUBJECTS = 2  # of either kind
LEAST_SAMPLES = 200
MOST_PIXELS = 2**31  # of all real images together; of more, some subjects are drawn at random
COMPONENTS = 64  # of pixels, as in Meehan et al. (2020)
RATE = 0.01  # of false discoveries among the subjects that are told to be copied
CELL = 20  # fewest held-out images, and fewest samples, of a cell of `three_sample`
MOST_CELLS = 20


class Known(NamedTuple):
    """The real images of a run, no image twice.

    Attributes:
        images: uint8, `(n, height, width, channels)`.
        subjects: Subject of each, `(n,)`.
        trained: Whether each was trained on, `(n,)`.
        notes: What was left out, sentences.
    """

    images: np.ndarray
    subjects: np.ndarray
    trained: np.ndarray
    notes: tuple = ()

    @classmethod
    def of(cls, splits, trained, notes=()):
        """Images of several splits.

        Identical images count once. A held-out image that was trained on under another name is a
        training image.

        Args:
            splits: List of `data.Split`.
            trained: For each split whether each of its images was trained on, `(n,)`.
            notes: See `Known`.

        Raises:
            ValueError: if there are fewer than `LEAST_SUBJECTS` subjects of either kind.
        """
        table = pd.DataFrame(
            {
                "digest": np.concatenate([split.hashes() for split in splits]),
                "subject": np.concatenate([split.table["subject"].astype(str) for split in splits]),
                "trained": np.concatenate(trained),
            }
        )
        first = table.sort_values("trained", ascending=False, kind="stable")
        kept = np.sort(first.drop_duplicates("digest").index)
        twice = len(table) - len(kept)
        if twice:
            both = table.groupby("digest")["trained"].nunique().gt(1).sum()
            notes = (
                *notes,
                f"{twice} images are identical to others and count once"
                + (f"; {both} of them are training and held-out images at once" if both else ""),
            )
        kept, left = _fitting(table.loc[kept, "subject"], math.prod(splits[0].images.shape[1:]))
        if left:
            notes = (*notes, f"{left} subjects are left out, drawn at random: too many images")
        starts = np.cumsum([0, *map(len, splits)])
        images = np.concatenate(
            [
                split.images[kept[(kept >= start) & (kept < start + len(split))] - start]
                for split, start in zip(splits, starts, strict=False)
            ]
        )
        table = table.loc[kept]
        known = cls(images, table["subject"].to_numpy(), table["trained"].to_numpy(), tuple(notes))
        for name, count in known.counts.items():
            if count < LEAST_SUBJECTS:
                raise ValueError(
                    f"there {'is' if count == 1 else 'are'} {count} {name} "
                    f"subject{'' if count == 1 else 's'}; an audit compares training subjects with "
                    f"held-out ones and needs at least {LEAST_SUBJECTS} of each"
                )
        return known

    @classmethod
    def of_images(cls, images):
        """All images of a `data.ImageData`, of which the training split was trained on."""
        trained = [np.full(len(split), name == "train") for name, split in images.splits.items()]
        return cls.of(list(images.splits.values()), trained)

    @property
    def counts(self) -> dict:
        """Number of subjects: `"training"` and `"held-out"`."""
        kinds = {"training": self.trained, "held-out": ~self.trained}
        return {name: len(set(self.subjects[rows])) for name, rows in kinds.items()}


def _fitting(subjects, pixels):
    """Rows of as many subjects as fit memory, and the number of those that do not."""
    counts = subjects.value_counts(sort=False)
    counts = counts.iloc[np.random.default_rng(0).permutation(len(counts))]
    fit = counts.index[counts.cumsum() * pixels <= MOST_PIXELS]
    return subjects.index[subjects.isin(fit)].to_numpy(), len(counts) - len(fit)


class Exchange(NamedTuple):
    """A comparison of training subjects with held-out ones.

    Attributes:
        auc: Share of pairs in which the training subject has the lower value; 0.5 if there is no
            difference.
        low, high: 95 % interval.
        p: Probability of an `auc` as high if training and held-out subjects were exchanged at
            random.
        least: The lowest `p` that so many subjects can have.
    """

    auc: float
    low: float
    high: float
    p: float
    least: float


def exchange(training, held_out) -> Exchange:
    """Whether training subjects have lower values than held-out ones.

    The test of Mann and Whitney, whose null distribution is the exchange of whole subjects; the
    interval is that of [DeLong et al., 1988](https://doi.org/10.2307/2531595).

    Args:
        training, held_out: One value for each subject, at least two of each.
    """
    training, held_out = (np.asarray(each, np.float64) for each in (training, held_out))
    n, m = len(training), len(held_out)
    test = stats.mannwhitneyu(training, held_out, alternative="less")
    auc = 1.0 - test.statistic / (n * m)
    # Share of the other group that each subject is below (training) or above (held out).
    below = 1.0 - (stats.rankdata(np.r_[training, held_out])[:n] - stats.rankdata(training)) / m
    above = (stats.rankdata(np.r_[held_out, training])[:m] - stats.rankdata(held_out)) / n
    spread = 1.96 * math.sqrt(below.var(ddof=1) / n + above.var(ddof=1) / m)
    return Exchange(
        auc,
        max(0.0, auc - spread),
        min(1.0, auc + spread),
        float(test.pvalue),
        math.exp(math.lgamma(n + 1) + math.lgamma(m + 1) - math.lgamma(n + m + 1)),
    )


def crowding(real, subjects, made, neighbours=NEIGHBOURS):
    """How much closer generated images crowd around each real image than real ones do.

    The logarithm of the distance to generated image number `neighbours` over that to the real image
    number `neighbours` of other subjects: low where the model puts too much of its probability
    near one image, which is copying as
    [Bhattacharjee et al., 2023](https://arxiv.org/abs/2302.13181) define it. It has no meaning but
    in comparison with images that the model was not trained on.

    Args:
        real: Features of training and held-out images, `(n, units)`; none twice.
        subjects: Subject of each, `(n,)`.
        made: Features of generated images, `(m, units)`.
        neighbours: Less than a quarter of the images are taken, where there are few.

    Returns:
        `(n,)`.
    """
    real, made = (np.asarray(each, np.float32) for each in (real, made))
    codes, counts = np.unique(subjects, return_inverse=True, return_counts=True)[1:]
    neighbours = max(1, min(neighbours, len(real) // 4, len(made)))
    to_made = _search(made, neighbours).kneighbors(real)[0][:, -1]
    around = np.empty(len(real))
    for count in np.unique(counts):  # a subject of many images needs more neighbours to look at
        rows = np.flatnonzero(counts[codes] == count)
        wanted = min(len(real), neighbours + count)
        distances, found = _search(real, wanted).kneighbors(real[rows])
        others = codes[found] != codes[rows, None]
        place = np.argmax(np.cumsum(others, axis=1) == min(neighbours, len(real) - count), axis=1)
        around[rows] = distances[np.arange(len(rows)), place]
    tiny = 1e-9 + 1e-6 * np.median(around)
    return np.log(np.maximum(to_made, tiny)) - np.log(np.maximum(around, tiny))


def _search(among, neighbours):
    return NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(among)


def by_subject(scores, subjects) -> pd.Series:
    """The most extreme of each subject's images, comparable between subjects of few and of many.

    An image's place among all is a probability if nothing distinguishes it; the least of several is
    corrected for their number (Sidak).

    Args:
        scores, subjects: One per image, `(n,)`.

    Returns:
        Values in (0, 1), low where the subject's lowest score is low, by subject.
    """
    places = pd.Series((stats.rankdata(scores) - 0.5) / len(scores)).groupby(np.asarray(subjects))
    return 1.0 - (1.0 - places.min()) ** places.size()


def extremes(scores, subjects, trained) -> pd.DataFrame:
    """Training subjects around which generated images crowd as around no held-out one.

    A training image can be more extreme than all held-out ones, so a distribution is assumed for
    their scores: normal, or normal after the power transformation that fits them best
    ([Yeo & Johnson, 2000](https://doi.org/10.1093/biomet/87.4.954); fog makes them skewed),
    whichever gives the higher probability: Student's t with one degree of freedom less than there
    are held-out subjects. It is multiplied by the images of the subject, and corrected for the
    number of subjects
    ([Benjamini & Hochberg, 1995](https://doi.org/10.1111/j.2517-6161.1995.tb02031.x)). With few
    held-out subjects the assumption cannot be tested: then a copied subject is a reason to look.

    Args:
        scores: From `crowding`, `(n,)`.
        subjects: Of each image, `(n,)`.
        trained: Whether each was trained on, `(n,)`.

    Returns:
        A row for each training subject, the most extreme first: `subject`, `image` (the number of
        its most extreme image), `z` (standard deviations of held-out images below their mean,
        negative), `p`, and `q`, the rate of false discoveries among the rows down to this one.
    """
    scores, subjects, trained = map(np.asarray, (scores, subjects, trained))
    others = len(set(subjects[~trained]))
    z = (scores - scores[~trained].mean()) / (scores[~trained].std(ddof=1) + 1e-9)
    _, power = stats.yeojohnson(z[~trained])
    bent = stats.yeojohnson(z, power)
    p = np.maximum(*(_tail(each, each[~trained], others) for each in (z, bent)))
    table = pd.DataFrame({"subject": subjects, "image": np.arange(len(z)), "z": z, "p": p})[trained]
    sizes = table.groupby("subject")["z"].transform("size")
    table["p"] = np.minimum(1.0, sizes * table["p"])
    table = table.sort_values("z").drop_duplicates("subject").sort_values("p", kind="stable")
    table["q"] = stats.false_discovery_control(table["p"])
    return table.reset_index(drop=True)


def _tail(values, known, subjects):
    """Probability of a value as low as each, if the known ones are normal."""
    spread = (known.std(ddof=1) + 1e-9) * math.sqrt(1.0 + 1.0 / subjects)
    return stats.t.cdf((values - known.mean()) / spread, max(1, subjects - 1))


def three_sample(made, reconstructed, training, subjects):
    """The test of data-copying of [Meehan et al., 2020](https://arxiv.org/abs/2004.05675).

    Whether generated images are nearer to the training images than reconstructions of held-out
    images, which have the same blur. The space is divided into cells around the training images,
    where the distances are compared by their ranks; C_T is the mean of the cells' z values,
    weighted by the held-out images of each. Unlike theirs, z counts subjects, not images, and there
    is one cell if subjects have several images.

    It compares *different* images: samples that are poor, and farther from everything, hide copies,
    and samples that are too typical look like copies. `crowding` does not have this problem.

    Args:
        made: Features of generated images, `(m, units)`.
        reconstructed: Features of reconstructions of held-out images, `(n, units)`.
        training: Features of training images.
        subjects: Subject of each held-out image, `(n,)`.

    Returns:
        `(c_t, p)`: negative if generated images are nearer; and the probability of a value as low
        if generated images and reconstructions had the same distribution.
    """
    subjects = np.asarray(subjects)
    single = len(set(subjects)) == len(subjects)
    cells = (
        min(MOST_CELLS, len(reconstructed) // (2 * CELL), len(made) // (2 * CELL)) if single else 1
    )
    with threadpool_limits(1):
        space = KMeans(max(1, min(cells, len(training))), n_init=1, random_state=0).fit(training)
        places = [space.predict(np.asarray(each, training.dtype)) for each in (made, reconstructed)]
    search = _search(training, 1)
    ours, theirs = (search.kneighbors(each)[0][:, 0] for each in (made, reconstructed))
    values, weights = [], []
    for cell in range(space.n_clusters):
        one, two = places[0] == cell, places[1] == cell
        if space.n_clusters > 1 and min(one.sum(), two.sum()) < CELL:
            continue
        values.append(_clustered_z(ours[one], theirs[two], subjects[two]))
        weights.append(two.sum())
    if not values:
        return math.nan, math.nan
    weights = np.array(weights) / sum(weights)
    c_t = float(weights @ values)
    return c_t, float(stats.norm.cdf(c_t / math.sqrt(weights @ weights)))


def _clustered_z(ours, theirs, subjects):
    """Difference of mean ranks over its standard error if there were none, by subject."""
    ranks = stats.rankdata(np.r_[ours, theirs])
    away = ranks - ranks.mean()
    one, two = away[: len(ours)], away[len(ours) :]
    sums = pd.Series(two).groupby(np.asarray(subjects)).sum()
    both = np.mean(away**2)
    # Of one image per subject this is the variance of Mann and Whitney's test.
    within = (sums**2).sum() / len(two) ** 2 if len(sums) < len(two) else both / len(two)
    variance = both / len(one) + within
    total = len(ranks)
    return (one.mean() - two.mean()) / math.sqrt(variance * total / (total - 1) + 1e-12)


# --- all together --------------------------------------------------------------------------------


class Found(NamedTuple):
    """What one audit found in one space.

    Attributes:
        samples: `Exchange` of subjects by how closely samples crowd around them.
        copied: From `extremes`.
        c_t, p: From `three_sample`.
        scores: From `crowding`, of every known image.
        made: Features of the samples.
    """

    samples: Exchange
    copied: pd.DataFrame
    c_t: float
    p: float
    scores: np.ndarray
    made: np.ndarray

    @property
    def count(self) -> int:
        """Number of copied training subjects, at most `RATE` of them falsely."""
        return int((self.copied["q"] < RATE).sum())


class Audit:
    """Compares samples of a model with its training images and with held-out ones.

    In two spaces that treat all real images alike: the first principal components of their
    pixels, averaged to at most 32 pixels a side, and the features of an untrained network.

    Args:
        model: A trained model.
        known: `Known`.

    Attributes:
        spaces: Functions from images to features, by the name of the space.
        real: Features of the known images in each space.
        ssim: Of every known image and its reconstruction, `(n,)`.
        reconstructions: `Exchange`: whether training subjects are reconstructed with a lower
            squared error.
    """

    def __init__(self, model, known):
        self.known = known
        self.spaces = {
            "pixels": of_pixels(known.images, COMPONENTS),
            "features": Untrained(known.images),
        }
        self.real = {name: space(known.images) for name, space in self.spaces.items()}
        held_out = in_batches(model.reconstruct, known.images[~known.trained])
        self._reconstructed = {name: space(held_out) for name, space in self.spaces.items()}
        errors, self.ssim = in_batches(
            lambda images: _alike(images, model.reconstruct(images)), known.images
        )
        errors = pd.Series(errors).groupby(known.subjects).mean()
        self.reconstructions = exchange(*self._parted(errors))

    def samples(self, made) -> dict:
        """`Found` in every space.

        Args:
            made: Samples, floats in [0, 1], `(m, height, width, channels)`.

        Raises:
            ValueError: if there are fewer than `LEAST_SAMPLES`.
        """
        if len(made) < LEAST_SAMPLES:
            raise ValueError(f"{len(made)} samples; an audit needs at least {LEAST_SAMPLES}")
        known, found = self.known, {}
        held_out = known.subjects[~known.trained]
        for name, space in self.spaces.items():
            real, ours = self.real[name], space(made)
            scores = crowding(real, known.subjects, ours)
            found[name] = Found(
                exchange(*self._parted(by_subject(scores, known.subjects))),
                extremes(scores, known.subjects, known.trained),
                *three_sample(ours, self._reconstructed[name], real[known.trained], held_out),
                scores,
                ours,
            )
        return found

    def _parted(self, values):
        """Values of training subjects, and of held-out ones."""
        trained = pd.Series(self.known.trained).groupby(self.known.subjects).any()
        trained = trained.reindex(values.index)
        return values[trained].to_numpy(), values[~trained].to_numpy()


def _alike(real, made):
    real = as_float(real)
    return metrics.mse(real, made), metrics.ssim(real, made)
