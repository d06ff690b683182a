"""Priors on the latents of a trained model, fitted afterwards: what its samples are drawn from.

A VAE's decoder is trained on draws of the posteriors. Draws of N(0, I), which it is then asked to
decode, lie elsewhere unless the two agree. A prior fitted on the posteriors repairs that, and
leaves the networks as they are ([Ghosh et al., 2020](https://arxiv.org/abs/1903.12436), Section 4;
[Dai & Wipf, 2019](https://arxiv.org/abs/1903.05789)).

A prior is an argument of the functions that draw (`model.sample(n, prior=...)`), never a part of
the model. Several may lie beside a run; one of them is the run's own, which `apply.py --generate`
draws from. A number without a suffix is under N(0, I), one under another prior is `name@prior`.
"""

import numpy as np

from families import densities, flows
from nn.batches import in_batches, rows_at_a_time
from sources.conditions import Conditions
from storage import runs

KINDS = {
    each.kind: each
    for each in (
        densities.Normal,
        densities.Gaussian,
        densities.Mixture,
        flows.TwoStage,
        flows.Coupling,
        flows.Flow,
    )
}
NORMAL = densities.Normal.kind
CONDITIONAL = ("mixture", "coupling", "flow")
MOST_DRAWS = 50_000  # that a prior is fitted on
# What a run gets at the end of its training; the search is short beside that.
OWN_COMPONENTS, OWN_DRAWS = (1, 2, 5, 10, 20), 10_000


def draws(model, split, seed=0, most=MOST_DRAWS):
    """What a prior is fitted on: a draw of the posterior of each image, or of images at random.

    Args:
        model: A trained model.
        split: Of `data.ImageData`, the training split.
        seed: Of the rows and the draws.
        most: Images at most. They are taken at random: the rows of a folder lie in class order.

    Returns:
        `(z, rows)`: float32 `(n, latent_dim)`, means where the posteriors have no width; and which
        images they are of.
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(split))[:most])
    chosen = split.only(rows)
    size = rows_at_a_time(chosen.images.shape)
    z_mean, z_log_var = in_batches(
        lambda batch: model.encode(batch), chosen.images, batch_size=size
    )
    noise = random.normal(size=z_mean.shape)
    return (z_mean + np.exp(0.5 * z_log_var) * noise).astype(np.float32), rows


def fit(kind, model, split, seed=0, columns=(), **options):
    """A prior fitted on a model's training latents.

    Args:
        kind: One of `KINDS`.
        model, split: See `draws`.
        seed: Of the draws and of the fit.
        columns: Of the split's table, which it is conditioned on; for the kinds of `CONDITIONAL`.
        **options: Of the kind: `components` of a mixture; `steps`, `folder` and `told` of what is
            trained.

    Raises:
        ValueError: naming what cannot be fitted, and a kind that can.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of prior {kind!r}; allowed: {', '.join(KINDS)}")
    z, rows = draws(model, split, seed)
    if columns:
        if kind not in CONDITIONAL:
            allowed = ", ".join(CONDITIONAL)
            raise ValueError(f"a {kind} prior takes no conditions; kinds that do: {allowed}")
        table = split.table.iloc[rows].reset_index(drop=True)
        options |= {"table": table, "conditions": Conditions.learn(table, columns)}
    return KINDS[kind].fitted(z, seed, **options)


def own(model, split, seed=0):
    """The prior that a run gets when its training ends.

    A mixture of Gaussians, of as many as held-out latents ask for; one Gaussian, shrunken, where
    there are too few latents to tell full covariances. It costs a few seconds and repairs most of
    what samples of N(0, I) lack (docs/results.md).
    """
    z, _ = draws(model, split, seed, OWN_DRAWS)
    if 2 * (z.shape[1] + 1) * 2 > len(z):
        return densities.Gaussian.fitted(z, seed)
    return densities.Mixture.fitted(z, seed, tried=OWN_COMPONENTS)


def restored(settings, arrays):
    """The prior whose `parts` these are."""
    return KINDS[settings["kind"]].of_parts(settings, arrays)


def of_run(run, name=None):
    """A prior that lies beside a run.

    Args:
        run: Run folder.
        name: Of the prior; `"normal"` is there always, None stands for the run's own.

    Returns:
        The prior, or None for N(0, I).

    Raises:
        ValueError: where there is none of this name, or it was fitted on other weights.
    """
    name = name or runs.own_prior(run) or NORMAL
    if name == NORMAL:
        return None
    return restored(*runs.load_prior(run, name))
