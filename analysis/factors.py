"""Disentanglement: four scores where the true factors are known.

All take a table of latents and a table of true factors, row by row. They measure different
properties and often disagree ([Locatello et al., 2019](https://arxiv.org/abs/1811.12359)). Each is
1 if the latent axes are the factors, and near 0 for noise (the FactorVAE score: near 1 / number of
factors). A rotation of a perfect latent keeps all information but has low scores.
"""

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import train_test_split

BINS = 20  # of equal counts, for continuous values


def scores(z, factors, seed=0) -> dict:
    """All four scores and the other two values of DCI.

    Args:
        z: Posterior means, shape `(n, latent_dim)`, at least two axes.
        factors: Dictionary of names to n numbers, continuous or with few values.
        seed: Seed of all random choices.

    Returns:
        Dictionary of `mig`, `sap`, `factor_vae`, `disentanglement`, `completeness`,
        `informativeness`.
    """
    z = np.asarray(z, np.float64)
    values = np.stack([np.asarray(each, np.float64) for each in factors.values()], axis=1)
    if z.ndim != 2 or z.shape[1] < 2 or len(z) != len(values):
        raise ValueError(
            f"latents {z.shape} and factors {values.shape} must have equally many rows, and the "
            "latent two axes at least"
        )
    for name, column in zip(factors, values.T, strict=True):
        if not np.isfinite(column).all() or np.ptp(column) == 0:
            raise ValueError(f"factor {name!r} must be finite and take more than one value")
    return {
        "mig": mutual_information_gap(z, values),
        "sap": separated_predictability(z, values),
        "factor_vae": factor_vae_score(z, values, seed),
        **dci(z, values, seed),
    }


def binned(values, bins=BINS):
    """Numbers of equally filled bins; a factor with few values keeps them."""
    different = np.unique(values)
    if len(different) <= bins:
        return np.searchsorted(different, values)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def mutual_information_gap(z, values):
    """MIG: gap in mutual information between a factor's two best axes, as a share of its entropy.

    Eq. 6 of [Chen et al., 2018](https://arxiv.org/abs/1802.04942); latents and continuous factors
    in 20 equally filled bins. Mean over factors.
    """
    axes = [binned(axis) for axis in z.T]
    gaps = []
    for column in values.T:
        factor = binned(column)
        told = np.sort([mutual_info_score(axis, factor) for axis in axes])
        gaps.append((told[-1] - told[-2]) / mutual_info_score(factor, factor))
    return float(np.mean(gaps))


def separated_predictability(z, values):
    """SAP: gap in squared correlation with a factor between its two best axes.

    Section 3 of [Kumar et al., 2018](https://arxiv.org/abs/1711.00848), for ordered factors. Mean
    over factors.
    """
    moving = z[:, z.std(axis=0) > 1e-9]
    if moving.shape[1] < 2:
        moving = np.concatenate([moving, np.random.default_rng(0).normal(size=(len(z), 2))], axis=1)
    both = np.corrcoef(moving.T, values.T)[: moving.shape[1], moving.shape[1] :]
    told = np.sort(both**2, axis=0)
    return float(np.mean(told[-1] - told[-2]))


def factor_vae_score(z, values, seed=0, votes=800, together=64):
    """FactorVAE's score: does the axis with the least variance identify the factor that was fixed?

    Section 4 of [Kim & Mnih, 2018](https://arxiv.org/abs/1802.05983): rows that share a factor's
    value (here: its bin) are drawn, and the axis with the least relative variance votes for that
    factor. A majority classifier is fitted on half of the votes and tested on the other half. Axes
    with almost no variance are left out.
    """
    random = np.random.default_rng(seed)
    spread = z.std(axis=0)
    moving = z[:, spread > 0.05 * spread.max()] / spread[spread > 0.05 * spread.max()]
    bins = [binned(column) for column in values.T]
    counted = np.zeros((2, moving.shape[1], len(bins)))
    for vote in range(votes):
        held = vote % len(bins)
        value = bins[held][random.integers(len(z))]
        rows = random.choice(np.flatnonzero(bins[held] == value), together)
        counted[vote // len(bins) % 2, moving[rows].var(axis=0).argmin(), held] += 1
    named = counted[0].argmax(axis=1)
    right = counted[1][np.arange(len(named)), named].sum()
    return float(right / counted[1].sum())


def dci(z, values, seed=0):
    """Disentanglement, completeness, informativeness.

    [Eastwood & Williams, 2018](https://openreview.net/forum?id=By-7dz-AZ), Section 2, with the
    importances of random forests: whether an axis is used for one factor, whether a factor is
    encoded in one axis, and how well it is predicted (R squared on a held-out third).
    """
    known, new, targets, wanted = train_test_split(z, values, test_size=1 / 3, random_state=seed)
    importance, told = [], []
    for column in range(values.shape[1]):
        forest = RandomForestRegressor(60, min_samples_leaf=3, random_state=seed, n_jobs=-1)
        forest.fit(known, targets[:, column])
        importance.append(forest.feature_importances_)
        told.append(max(forest.score(new, wanted[:, column]), 0.0))
    importance = np.stack(importance, axis=1)  # axis, factor
    return {
        "disentanglement": _concentration(importance),
        "completeness": _concentration(importance.T),
        "informativeness": float(np.mean(told)),
    }


def _concentration(importance):
    """1 minus the normalised entropy of each row's shares, averaged with the rows' sums as
    weights."""
    sums = importance.sum(axis=1)
    shares = importance / np.maximum(sums[:, None], 1e-12)
    logs = np.log(np.where(shares > 0, shares, 1.0)) / np.log(importance.shape[1])
    return float(np.sum(sums * (1.0 + np.sum(shares * logs, axis=1))) / sums.sum())
