"""Alarms whose false rate holds for new subjects, and a test that refuses images of another kind.

The threshold is split-conformal: of n healthy subjects whose scores chose nothing else, the score
that a new healthy subject exceeds with at most the nominal probability, however scores are
distributed ([Vovk et al., 2005](https://doi.org/10.1007/b106715)). This holds for new subjects who
are *exchangeable* with those: `unlike` looks for signs that they are not.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage, stats

RATE = 0.05
DOUBT = 0.01  # probability that images of the same kind are refused
FEWEST = 8  # subjects to compare with


class Alarm(NamedTuple):
    """A threshold and what is known of it.

    Attributes:
        threshold: A subject is alarmed if its score is higher.
        rate: Nominal rate of false alarms.
        subjects: Number of healthy subjects that it was set on.
    """

    threshold: float
    rate: float
    subjects: int

    @classmethod
    def of(cls, scores, rate=RATE):
        """The threshold of a nominal rate.

        Args:
            scores: Of healthy subjects, one each, that chose nothing else; `(n,)`.
            rate: Nominal rate, in (0, 1).

        Raises:
            ValueError: if there are too few subjects for the rate.
        """
        scores, n = np.sort(np.asarray(scores, np.float64)), len(scores)
        if not 0.0 < rate < 1.0:
            raise ValueError(f"an alarm rate of {rate:g} is not between 0 and 1")
        if n < fewest(rate):
            raise ValueError(
                f"{n} healthy calibration subjects are too few for false alarms at {rate:.2%}: "
                f"{fewest(rate)} are needed. Give more validation subjects, or a rate of at least "
                f"{math.ceil(1000 / (n + 1)) / 1000:.1%}"
            )
        place = math.ceil((n + 1) * (1 - rate) - 1e-9)
        return cls(float(scores[place - 1]), rate, n)

    def __call__(self, scores):
        """Which scores are alarmed; booleans."""
        return np.asarray(scores) > self.threshold

    def interval(self, tested, level=0.95):
        """Numbers of false alarms among `tested` healthy subjects that agree with the rate.

        The rate of one calibration is itself random, beta-distributed over calibrations; the number
        of alarms among new subjects is beta-binomial
        ([Vovk, 2012](https://proceedings.mlr.press/v25/vovk12.html), Section 2).

        Returns:
            `(low, high)`, both included.
        """
        place = math.ceil((self.subjects + 1) * (1 - self.rate) - 1e-9)
        known = stats.betabinom(tested, self.subjects + 1 - place, place)
        low, high = known.ppf([(1 - level) / 2, (1 + level) / 2])
        return int(low), int(high)


def fewest(rate) -> int:
    """Calibration subjects that a rate needs: 19 for 5 %."""
    return math.ceil(1.0 / rate - 1.0 - 1e-9)


def by_group(table, alarmed, columns=("sex", "age", "view")) -> pd.DataFrame:
    """Rates of alarms of groups of subjects; ages in halves.

    Args:
        table: A row per subject.
        alarmed: Whether each was alarmed, `(n,)`.
        columns: Those that the table lacks are left out.

    Returns:
        Rows of `group`, `subjects`, `alarms`, `low` and `high`, the exact 95 % interval of the rate
        (Clopper and Pearson).
    """
    alarmed, rows = np.asarray(alarmed, bool), []
    groups = {"all": pd.Series(True, index=table.index)}
    for column in columns:
        if column not in table:
            continue
        values = table[column]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2:
            middle = values.median()
            groups[f"{column} up to {middle:g}"] = values <= middle
            groups[f"{column} above {middle:g}"] = values > middle
        else:
            groups |= {
                f"{column} {each}": values == each for each in sorted(values.dropna().unique())
            }
    for name, chosen in groups.items():
        chosen = chosen.to_numpy(bool, na_value=False)
        n, k = int(chosen.sum()), int(alarmed[chosen].sum())
        if n:
            known = stats.binomtest(k, n).proportion_ci(method="exact")
            rows.append((name, n, k, known.low, known.high))
    return pd.DataFrame(rows, columns=["group", "subjects", "alarms", "low", "high"])


# --- images of another kind ----------------------------------------------------------------------


class Kind:
    """What images are like apart from lesions, in a few numbers per subject.

    Args:
        mean: Mean of the training images, floats `(height, width, channels)`.
    """

    NAMES = {
        "grey level": "the mean grey level",
        "contrast": "the contrast",
        "tail": "the balance of dark and bright",
        "area": "the size of what is not black",
        "sharpness": "the sharpness",
        "likeness": "the likeness to the mean training image",
        "residual": "the model's median error",
    }

    def __init__(self, mean):
        self.mean = np.asarray(mean, np.float64).mean(axis=-1)

    def __call__(self, images, maps, subjects) -> pd.DataFrame:
        """Numbers of each subject, means over its images.

        Args:
            images: Floats in [0, 1], `(n, height, width, channels)`.
            maps: Scores of their pixels, `(n, height, width)`.
            subjects: Subject of each, `(n,)`.

        Returns:
            A row per subject, in the order in which they come, columns as in `NAMES`.
        """
        grey = np.asarray(images, np.float64).mean(axis=-1)
        rows = []
        for image, scores in zip(grey, maps, strict=True):
            there = image > 0.02
            pixels = image[there] if there.sum() > 9 else image.ravel()
            spread = pixels.std() + 1e-6
            middle = np.median(pixels)
            edges = ndimage.laplace(image)
            rows.append(
                (
                    pixels.mean(),
                    spread,
                    (pixels.mean() - middle) / spread,
                    there.mean(),
                    math.log((edges**2).mean() / (image.var() + 1e-6) + 1e-6),
                    float(np.corrcoef(image.ravel(), self.mean.ravel())[0, 1])
                    if image.std() > 1e-6
                    else 0.0,
                    math.log(np.median(np.abs(scores[there])) + 1e-6 if there.any() else 1e-6),
                )
            )
        table = pd.DataFrame(rows, columns=list(self.NAMES))
        return table.groupby(np.asarray(subjects), sort=False).mean()


def unlike(known, new, doubt=DOUBT) -> str:
    """Whether new subjects are of another kind than known ones: the reason, or "".

    For each number of `Kind` a two-sample test: Student's t of the means, so that a single new
    subject far outside is found too, as it is and after the power transformation that makes the
    known subjects' most normal ([Yeo & Johnson, 2000](https://doi.org/10.1093/biomet/87.4.954)),
    whichever gives the higher probability, because a transformation that is fitted to few subjects
    finds too much; where both groups are large, Mann and Whitney's test besides. A number that is
    the same in all known subjects: Fisher's exact test of how many new ones have another.
    Corrected for the number of tests (Bonferroni).

    Args:
        known: Numbers of subjects of the training images' kind, which were not trained on, from
            `Kind`.
        new: Those of new subjects.
        doubt: Probability of refusing subjects of the same kind.

    Raises:
        ValueError: if there are fewer than `FEWEST` known subjects.
    """
    if len(known) < FEWEST:
        raise ValueError(
            f"{len(known)} subjects do not show what images are usually like; {FEWEST} are needed"
        )
    tests = {}
    for name in known:
        ours, theirs = known[name].to_numpy(), new[name].to_numpy()
        if np.ptp(ours) < 1e-9:
            others = int((np.abs(theirs - ours[0]) > 1e-6).sum())
            counts = [[others, len(theirs) - others], [0, len(ours)]]
            tests[name] = stats.fisher_exact(counts, "greater").pvalue
            continue
        tests[name] = _two_sample(ours, theirs)
    worst = min(tests, key=tests.get)
    if tests[worst] * len(tests) >= doubt:
        return ""
    ours, theirs = known[worst], new[worst]
    return (
        f"{Kind.NAMES[worst]} is {theirs.mean():.3g} on average and {ours.mean():.3g} (standard "
        f"deviation {ours.std():.2g}) in images of the training images' kind, p = "
        f"{tests[worst]:.1g}"
    )


def _two_sample(ours, theirs):
    """The lower p of the tests that apply, doubled if there are two."""
    z, others = ((each - ours.mean()) / ours.std() for each in (ours, theirs))
    bent, power = stats.yeojohnson(z)
    student = max(_student(z, others), _student(bent, stats.yeojohnson(others, power)))
    if min(len(ours), len(theirs)) < FEWEST:
        return student
    return min(1.0, 2 * min(student, stats.mannwhitneyu(ours, theirs).pvalue))


def _student(known, new):
    """Probability that the means differ as much by chance; the spread is that of the known."""
    n, m = len(known), np.size(new)
    away = (np.mean(new) - known.mean()) / (known.std(ddof=1) * math.sqrt(1 / n + 1 / m))
    return 2 * stats.t.sf(abs(away), n - 1) if math.isfinite(away) else 0.0
