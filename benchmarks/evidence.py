"""Level and power of `evidence.of`: rates of false and true positives.

    python benchmarks/evidence.py                         # all cases and directions, two hours
    python benchmarks/evidence.py --methods mean fisher   # without the logistic one, 20 minutes
    python benchmarks/evidence.py --cases confounded      # the cases with that word

Every cohort is simulated: subjects with an age, a label whose log-odds may rise with age or with
its square, and latents that may depend on the same and, if there is a true effect, on the label.
The table shows the share of cohorts with p < 0.05, the share established, and the share whose
interval contains 0.5. Without an effect these should be at most 5 %, near 0 % and at least 95 %.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

from analysis import directions, evidence

AXES = 8
EFFECT = 1.0  # of the label on one axis, in standard deviations of the noise
PRIOR = -0.4  # log-odds of the label at the mean age: 40 % have it


class Case(NamedTuple):
    """A kind of cohort and its adjustment.

    Args:
        tie: Log-odds of the label per standard deviation of age.
        pull: Shift of the latent per standard deviation of age.
        effect: Direct effect of the label on the latent.
        curved: Whether label and latent follow the square of age instead of age.
        images: Most images per subject.
        varying: Whether age and label belong to the image instead of the subject.
        adjust: `"design"` (with a spline), `"line"` for a linear term of age, or None.
    """

    tie: float = 0.0
    pull: float = 0.0
    effect: float = 0.0
    curved: bool = False
    images: int = 1
    varying: bool = False
    adjust: str | None = "design"


MODERATE, STRONG = {"tie": 1.0, "pull": 0.7}, {"tie": 2.0, "pull": 1.5}
CASES = {
    "null, no age": Case(),
    "null, no age, not adjusted": Case(adjust=None),
    "null, confounded, moderate": Case(**MODERATE),
    "null, confounded, strong": Case(**STRONG),
    "null, confounded, strong, 1 to 3 images": Case(**STRONG, images=3),
    "null, confounded, strong, 1 to 3 images, each its label": Case(
        **STRONG, images=3, varying=True
    ),
    "null, confounded, strong, not adjusted": Case(**STRONG, adjust=None),
    "null, curved, moderate": Case(**MODERATE, curved=True),
    "null, curved, strong": Case(**STRONG, curved=True),
    "null, curved, strong, adjusted by a line": Case(**STRONG, curved=True, adjust="line"),
    "effect, no age": Case(effect=EFFECT),
    "effect, no age, not adjusted": Case(effect=EFFECT, adjust=None),
    "effect, 1 to 3 images": Case(effect=EFFECT, images=3),
    "effect, 1 to 3 images, not adjusted": Case(effect=EFFECT, images=3, adjust=None),
    "effect, confounded, moderate": Case(**MODERATE, effect=EFFECT),
    "effect, confounded, strong": Case(**STRONG, effect=EFFECT),
}


def cohort(case, subjects, seed):
    """Latents, labels, subjects and covariates of one cohort."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.arange(subjects), random.integers(1, case.images + 1, subjects))
    unit = np.arange(len(rows)) if case.varying else rows  # what has an age and a label
    age = random.normal(size=unit.max() + 1)
    if case.varying:  # the images of a subject still resemble each other
        age = (age + random.normal(size=subjects)[rows]) / np.sqrt(2)
    felt = (age**2 - 1) / np.sqrt(2) if case.curved else age
    odds = np.exp(PRIOR + case.tie * felt)
    labels = (random.uniform(size=len(age)) < odds / (1 + odds))[unit]
    shared = random.normal(size=(subjects, AXES))[rows]
    z = (random.normal(size=(len(rows), AXES)) + shared) / np.sqrt(2)
    z[:, :2] += case.pull * felt[unit, None] * np.array([1.0, 0.5])
    z[:, 2] += case.effect * labels
    age = age[unit]
    covariates = {
        None: None,
        "line": age[:, None],
        "design": directions.design(pd.DataFrame({"age": age}), ["age"]),
    }[case.adjust]
    return z, labels, rows, covariates


def shares(case, method, cohorts, subjects, permutations, bootstraps):
    """Shares of cohorts: p < 0.05, established, interval contains 0.5."""
    found = []
    for seed in range(cohorts):
        z, labels, rows, covariates = cohort(case, subjects, seed)
        found.append(
            evidence.of(
                z,
                labels,
                rows,
                method,
                covariates,
                permutations=permutations,
                bootstraps=bootstraps,
                halves=1,
            )
        )
    return (
        np.mean([each.p_value < 0.05 for each in found]),
        np.mean([each.established for each in found]),
        np.mean([each.low <= 0.5 <= each.high for each in found]),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="only cases whose name contains this")
    parser.add_argument(
        "--methods", nargs="+", default=directions.METHODS, choices=directions.METHODS
    )
    parser.add_argument("--cohorts", type=int, default=100, help="per case and direction")
    parser.add_argument("--subjects", type=int, default=60, help="per cohort")
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--bootstraps", type=int, default=60)
    arguments = parser.parse_args()
    error = np.sqrt(0.05 * 0.95 / arguments.cohorts)
    print(f"{arguments.cohorts} cohorts of {arguments.subjects} subjects; ", end="")
    print(f"a true 5 % has a standard error of {100 * error:.1f} percentage points\n")
    print("| cohorts | direction | p < 0.05 | established | interval contains 0.5 |")
    print("|---|---|---|---|---|")
    for name, case in CASES.items():
        for method in arguments.methods if arguments.cases in name else ():
            found = shares(
                case,
                method,
                arguments.cohorts,
                arguments.subjects,
                arguments.permutations,
                arguments.bootstraps,
            )
            cells = " | ".join(f"{100 * each:.1f} %" for each in found)
            print(f"| {name} | {method} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
