"""Latents of subjects with a label whose direction is known."""

import numpy as np
import pandas as pd

from analysis import directions

AXIS = np.array([0.6, 0.0, -0.8])


def cohort(n_subjects=120, images=2, effect=3.0, seed=0):
    """Latents in which a label, the same for all images of a subject, moves points along AXIS."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), images)
    labels = np.repeat(random.uniform(size=n_subjects) < 0.4, images)
    z = random.normal(size=(len(subjects), 3)) + effect * labels[:, None] * AXIS
    return z, labels, subjects


def confounded(seed, effect=0.0, curved=False, n_subjects=60):
    """A label correlated with age, and latents that depend on age and, by an effect, on the
    label."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), random.integers(1, 3, n_subjects))
    age = random.normal(size=n_subjects)
    felt = (age**2 - 1) / np.sqrt(2) if curved else age
    labels = (random.logistic(size=n_subjects) < 2 * felt)[subjects]
    z = random.normal(size=(len(subjects), 6)) + np.outer(felt[subjects], [3, 1, 0, 0, 0, 0])
    z[:, 2] += effect * labels
    covariates = directions.design(pd.DataFrame({"age": age[subjects]}), ["age"])
    return z, labels, subjects, covariates
