"""Priors fitted on the latents of a trained model, to draw its samples from.

A VAE's decoder is trained on draws of the posteriors. Draws of N(0, I) differ from them unless the
aggregated posterior matches it. A prior fitted on the posteriors corrects this without changing the
networks ([Ghosh et al., 2020](https://arxiv.org/abs/1903.12436), Section 4;
[Dai & Wipf, 2019](https://arxiv.org/abs/1903.05789)).

A prior is an argument of the functions that draw (`model.sample(n, prior=...)`), not a part of the
model. A run can have several; one of them is the run's own, from which `apply.py --generate` draws.
A metric without a suffix is under N(0, I), one under another prior is `name@prior`.
"""

import numpy as np

from families import densities, flow_matching, flows
from nn.batches import as_float, in_batches, rows_at_a_time
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
        flow_matching.Flow,
    )
}
UNMOVED = {"shift": 0, "flip": "none"}
NORMAL = densities.Normal.kind
CONDITIONAL = ("mixture", "coupling", "flow")
MOST_DRAWS = 50_000  # most draws for the fit of a prior
PASSES = 8  # most times that an augmented image is drawn
# The prior that a run gets at the end of its training; its search is short compared with that.
OWN_COMPONENTS, OWN_DRAWS = (1, 2, 5, 10, 20), 10_000
OWN_AXES = 4096  # most of a latent; the covariance of more takes minutes and hundreds of megabytes


def draws(model, split, seed=0, most=MOST_DRAWS, moves=None, columns=()):
    """Data for the fit of a prior: a draw of the posterior of each image, or of random images.

    The posteriors are those of training: of a model that binarises, of binary draws of the images;
    of a run that shifts or mirrors its images, of such, up to `PASSES` of each image. Its decoder
    has seen no others, and the bound is measured on them.

    Args:
        model: A trained model.
        split: Of `data.ImageData`, the training split.
        seed: Seed of the rows and the draws.
        most: Most images. They are chosen at random, because the rows of a folder are in class
            order.
        moves: Dictionary of `shift` and `flip` of the training (`config.Settings`); None: neither.
        columns: What a conditional model is told of its images, as far as it knows these columns.

    Returns:
        `(z, rows)`: float32 `(n, latent_dim)`, means if the posteriors have no variance; and the
            numbers of their images.
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(split))[:most])
    chosen = split.only(rows)
    size = rows_at_a_time(chosen.images.shape)

    told = chosen.table.filter(items=columns)
    known = [model.conditions.partly(told)] if model.conditions else []

    def encoded(batch, rows, *known):
        return model.encode(model.shown(as_float(batch), training=False, step=rows[0])[1], *known)

    moved, drawn = moves is not None and moves != UNMOVED, []
    passes = max(1, min(PASSES, most // len(chosen))) if moved else 1
    for number in range(passes):
        pixels = chosen.augmented(number, seed, **moves) if moved else chosen.images
        numbers = np.arange(len(chosen)) + len(chosen) * (seed * passes + number)
        z_mean, z_log_var = in_batches(encoded, pixels, numbers, *known, batch_size=size)
        noise = random.normal(size=z_mean.shape)
        drawn.append((z_mean + np.exp(0.5 * z_log_var) * noise).astype(np.float32))
    return np.concatenate(drawn), np.tile(rows, passes)


def fit(kind, model, split, seed=0, columns=(), categories=(), moves=None, **options):
    """A prior fitted on a model's training latents.

    Args:
        kind: One of `KINDS`.
        model, split, moves: See `draws`.
        seed: Seed of the draws and of the fit.
        columns: Columns of the split's table to condition on; for the kinds of `CONDITIONAL`. A
            conditional model that knows them is told them too.
        categories: See `Conditions.learn`.
        **options: Options of the kind: `components` of a mixture; `steps`, `width`, `batch_size`,
            `folder` and `told` of trained kinds.

    Raises:
        ValueError: if the kind cannot be fitted, with a kind that can.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of prior {kind!r}; allowed: {', '.join(KINDS)}")
    z, rows = draws(model, split, seed, moves=moves, columns=columns)
    if issubclass(KINDS[kind], flows.Trained) or kind == densities.Mixture.kind:
        options["subjects"] = split.table["subject"].to_numpy()[rows]
    if columns:
        if kind not in CONDITIONAL:
            allowed = ", ".join(CONDITIONAL)
            raise ValueError(f"a {kind} prior takes no conditions; kinds that do: {allowed}")
        table = split.table.iloc[rows].reset_index(drop=True)
        options |= {"table": table, "conditions": Conditions.learn(table, columns, categories)}
    if kind == flow_matching.Flow.kind and model.latent_map:
        options |= {"latent_map": model.latent_map, "precision": model.precision}
        options.setdefault("batch_size", flow_matching.MAPS_OF_A_STEP)
    return KINDS[kind].fitted(z, seed, **options)


def own(model, split, seed=0, moves=None):
    """The prior that a run gets at the end of its training.

    A mixture of Gaussians, their number chosen on held-out subjects; or one Gaussian with a
    shrunken covariance if there are too few images. It takes a few seconds and corrects most
    defects of samples from N(0, I) (docs/results.md).

    Raises:
        ValueError: if the latent has more than `OWN_AXES` numbers, with what to fit instead.
    """
    if model.latent_dim > OWN_AXES:
        raise ValueError(
            f"a covariance of {model.latent_dim:,} numbers is too large; fit a flow: "
            "python prior.py RUN --kind flow"
        )
    z, rows = draws(model, split, seed, OWN_DRAWS, moves)
    images = z[: len(np.unique(rows))]  # moved copies of an image say nothing new of the others
    if not densities.is_enough(images, components=2):
        return densities.Gaussian.fitted(z, seed)
    subjects = split.table["subject"].to_numpy()[rows]
    return densities.Mixture.fitted(z, seed, tried=OWN_COMPONENTS, subjects=subjects)


def moves(settings) -> dict:
    """How a run's training moves its images: `moves` of `draws`, from its `config.Settings`."""
    return {name: getattr(settings, name) for name in UNMOVED}


def restored(settings, arrays):
    """The prior whose `parts` these are."""
    return KINDS[settings["kind"]].of_parts(settings, arrays)


class Asked:
    """A prior with fixed options of its draws.

    Args:
        prior: A fitted prior.
        condition: Dictionary of columns to values: what a prior that was fitted with conditions
            draws, and what a conditional model's decoder is told.
        **options: `guidance` and `evaluations` of a flow.
    """

    def __init__(self, prior, condition=None, **options):
        self.prior, self.kind, self.condition = prior, prior.kind, condition
        taken = set(condition or ()) & set(_columns(prior))
        self.options = options | ({"condition": condition} if taken else {})

    def sample(self, n, seed=0):
        return self.prior.sample(n, seed, **self.options)

    def sampler(self):
        return self.prior.sampler(**self.options)


def of_run(run, name=None, condition=None, model=None, **options):
    """A prior of a run.

    Args:
        run: Run folder.
        name: Name of the prior; `"normal"` always exists, None is the run's own.
        condition: Dictionary of columns to values that it draws for; empty or None: none.
        model: The run's model, if it is to decode the draws: a conditional one is told the
            condition too, or alone.
        **options: `guidance` of a flow with a condition, and `evaluations` of any flow: see
            `flow_matching.Flow.carried`.

    Returns:
        The prior, or None for N(0, I).

    Raises:
        ValueError: if there is none of this name, it was fitted on other weights, or has no
            guidance; if neither prior nor model knows a column of the condition.
    """
    name = name or runs.own_prior(run) or NORMAL
    prior = None if name == NORMAL else restored(*runs.load_prior(run, name))
    for each, value in options.items():
        if not isinstance(prior, flow_matching.Flow):
            raise ValueError(f"{each} = {value:g} needs a flow prior; the prior {name} is none")
    own, asked = _columns(prior), condition or {}
    if "guidance" in options and not set(own) & set(asked):
        raise ValueError(
            f"guidance = {options['guidance']:g} needs a condition that the prior was fitted with"
        )
    known = [*own, *_columns(model)]
    if asked and not known:
        raise ValueError(
            f"the prior {name} was fitted without conditions; fit one with prior.py --condition "
            "and name it with --prior"
        )
    for column in asked:
        if column not in known:
            raise ValueError(f"condition: {column} is none of {', '.join(dict.fromkeys(known))}")
    if asked and prior is None:
        prior = densities.Normal(model.latent_dim)
    return Asked(prior, condition, **options) if asked or options else prior


def _columns(told):
    """Names of the columns that a prior or a model has as conditions."""
    conditions = getattr(told, "conditions", None)  # None: N(0, I), or no model
    return conditions.names if conditions else []
