"""Builds models from settings; one table has all names of `Settings.model`."""

import dataclasses
from itertools import pairwise
from typing import NamedTuple

import model as models
from families import adversarial, conditional, critic, denoising, semisupervised
from nn import networks, unet
from sources.conditions import Conditions


def _pair(settings, kind):
    """Encoder and decoder of most models."""
    return _encoder_and_decoder(settings, getattr(kind, "stochastic", False))


def _encoder_and_decoder(settings, stochastic, **options):
    options |= {"latent_map": settings.latent_map}
    return {
        "encoder": networks.encoder(**_shared(settings), stochastic=stochastic, **options),
        "decoder": _decoder(settings, settings.latent_dim, **options),
    }


def _told(settings, kind, conditions):
    if settings.conditions and conditions is None:
        raise ValueError(
            f"settings: a {settings.model} is told of {', '.join(settings.conditions)}; build it "
            "with conditions=registry.conditions_of(settings, images)"
        )
    options = {"told": conditions.width, "told_in": settings.told_in} if conditions else {}
    return _encoder_and_decoder(settings, kind.stochastic, **options) | {"conditions": conditions}


def _decoder(settings, latent_dim, **options):
    shared = _shared(settings) | {"latent_dim": latent_dim}
    return networks.decoder(**shared, upsampling=settings.upsampling, **options)


def _with_discriminator(settings, kind):
    discriminator = networks.latent_classifier(
        settings.latent_dim,
        1,
        settings.discriminator_widths,
        seed=settings.seed,
        precision=settings.precision,
    )
    pair = _encoder_and_decoder(settings, settings.stochastic)
    return pair | {"discriminator": discriminator}


def _with_critic(settings, kind):
    network = networks.patch_critic(
        settings.image_shape, settings.critic_widths, settings.seed, settings.precision
    )
    return _pair(settings, kind) | {"critic": network}


def _with_classifier(settings, kind):
    head = networks.latent_classifier(
        settings.latent_dim,
        settings.classes,
        settings.class_widths,
        dropout=settings.dropout,
        seed=settings.seed,
        precision=settings.precision,
    )
    return _pair(settings, kind) | {"classifier": head}


def _by_class(settings, kind):
    shared = _shared(settings)
    latent_dim, classes = shared.pop("latent_dim"), settings.classes
    encoder = networks.class_encoder(classes=classes, **shared)
    posterior = networks.class_posterior(
        encoder.output_shape[0][-1],
        classes,
        latent_dim,
        settings.class_widths,
        seed=settings.seed,
        precision=settings.precision,
    )
    decoder = _decoder(settings, latent_dim + classes)
    return {"encoder": encoder, "posterior": posterior, "decoder": decoder}


def _denoiser(settings, kind):
    names = ("image_shape", "widths", "residual", "dropout", "seed", "precision")
    spread = settings.reconstruction == "pixel-gaussian"
    network = unet.denoiser(**{name: getattr(settings, name) for name in names}, spread=spread)
    return {"encoder": unet.whole(settings.image_shape), "decoder": network}


def _shared(settings):
    names = (
        "image_shape",
        "latent_dim",
        "widths",
        "kernel_sizes",
        "dense_widths",
        "patch",
        "residual",
        "batch_norm",
        "group_norm",
        "dropout",
        "seed",
        "precision",
    )
    return {name: getattr(settings, name) for name in names} | {"strides": settings.stage_strides}


# Of every encoder and decoder; a Denoiser's U-Net has none of them.
NETWORKS = (
    *("kernel_sizes", "strides", "dense_widths", "patch", "upsampling"),
    *("batch_norm", "group_norm"),
)


class Entry(NamedTuple):
    """One model: its class, the function that builds its networks, and their settings."""

    kind: type
    networks: callable = _pair
    settings: tuple[str, ...] = ()


REGISTRY = {
    "Autoencoder": Entry(models.Autoencoder),
    "VAE": Entry(models.VAE),
    "InfoVAE": Entry(models.InfoVAE),
    "MMD-AE": Entry(models.MmdAutoencoder),
    "BetaTCVAE": Entry(models.BetaTCVAE),
    "IWAE": Entry(models.IWAE),
    "SemiSupervisedVAE": Entry(
        semisupervised.SemiSupervisedVAE, _with_classifier, ("classes", "class_widths")
    ),
    "M2": Entry(semisupervised.M2, _by_class, ("classes", "class_widths")),
    "ConditionalVAE": Entry(conditional.ConditionalVAE, _told, ("conditions", "told_in")),
    "ConditionalIWAE": Entry(conditional.ConditionalIWAE, _told, ("conditions", "told_in")),
    "AAE": Entry(
        adversarial.AdversarialAutoencoder,
        _with_discriminator,
        ("stochastic", "discriminator_widths"),
    ),
    "VAE-GAN": Entry(critic.VaeGan, _with_critic, ("critic_widths",)),
    "IntroVAE": Entry(adversarial.IntroVAE),
    "SoftIntroVAE": Entry(adversarial.SoftIntroVAE),
    "ASIntroVAE": Entry(adversarial.ASIntroVAE),
    "Denoiser": Entry(denoising.Denoiser, _denoiser),
}


# --- which settings a model takes ----------------------------------------------------------------


def taken(name) -> set[str]:
    """Names of the settings that a model uses and other models may not."""
    entry = REGISTRY[name]
    shared = () if entry.networks is _denoiser else NETWORKS
    return {*entry.kind.arguments(), *entry.settings, *shared}


def unfit(settings, name) -> dict:
    """Changed settings that a model does not use, with their defaults."""
    of_models = set().union(*map(taken, REGISTRY)) - taken(name)
    defaults = {each.name: each.default for each in dataclasses.fields(settings)}
    return {
        each: default
        for each, default in defaults.items()
        if each in of_models and getattr(settings, each) != default
    }


def require_fit(settings):
    """Refuses to train with a setting that the model would ignore.

    Raises:
        ValueError: for such a setting; the models that use it are named.
    """
    for name, default in unfit(settings, settings.model).items():
        others = [each for each in REGISTRY if name in taken(each)]
        raise ValueError(
            f"settings: {name} = {getattr(settings, name)!r} is not used by {settings.model}; "
            f"models that use it: {', '.join(others)}. Leave it at {default!r}"
        )


def with_model(settings, model, **changes):
    """The same settings for another model; those that it does not use are reset to their defaults.

    Args:
        settings: `config.Settings`.
        model: Its name.
        **changes: Other changes of settings.

    Returns:
        `config.Settings`. Reset settings are reported in one printed line.

    Raises:
        ValueError: if the changes are not valid, or give both `latent_dim` and `latent_map`.
    """
    if "latent_dim" in changes and changes.get("latent_map", settings.latent_map):
        raise ValueError(
            f"settings: latent_dim = {changes['latent_dim']} is not valid with a latent_map, whose "
            "size it is; set one of them (latent_map=() for a vector)"
        )
    dropped = {
        each: default for each, default in unfit(settings, model).items() if each not in changes
    }
    if dropped:
        print(f"{model} does not use these settings, now at their defaults: {', '.join(dropped)}")
    if settings.reconstruction == "pixel-gaussian" and model != "Denoiser":
        changes = {"reconstruction": "gaussian"} | changes
    return dataclasses.replace(settings, **dropped, model=model, **changes)


MOST_WEIGHTS = 500_000_000  # 2 GB; three times as much with the optimizer's state


def count_weights(settings, told=0) -> int:
    """Approximate number of weights of the settings' model, computed before it is built.

    Args:
        settings: `config.Settings`.
        told: Numbers of the conditions that its networks are told.

    Returns:
        Not less than the true number, and at most a quarter more (for models of more than
        thousands).
    """
    if settings.model == "Denoiser":
        return _count_denoiser(settings)
    stages = networks.stages(settings.widths, settings.kernel_sizes, settings.stage_strides)
    height, width, channels = settings.image_shape
    patch = settings.patch
    pads = networks.padding(settings.image_shape, settings.stage_strides, len(stages), patch)
    height, width = (height + sum(pads[0])) // patch, (width + sum(pads[1])) // patch
    encoder = decoder = 0
    filters = channels * patch**2
    for index, (own, size, stride) in enumerate(stages):
        before = settings.widths[max(index - 1, 0)]  # output of the decoder's stage
        encoder += size**2 * filters * own + 5 * own
        decoder += size**2 * own * before + 5 * before
        if settings.residual:
            encoder += 2 * (size**2 * own**2 + 5 * own)
            inside = own if settings.latent_map else before
            decoder += 2 * (size**2 * inside**2 + 5 * inside)
        filters, height, width = own, height // stride, width // stride
    decoder += (stages[0][1] ** 2 * settings.widths[0] + 1) * channels * patch**2
    flat, latent_dim, labels = height * width * filters, settings.latent_dim, settings.classes
    features = settings.dense_widths[-1] if settings.dense_widths else flat
    if settings.latent_map:
        encoder += 2 * _dense(filters, settings.latent_map[2])
        decoder += stages[-1][1] ** 2 * settings.latent_map[2] * filters + 5 * filters
    else:
        encoder += _dense(flat, *settings.dense_widths)
        if settings.model != "M2":
            encoder += 2 * _dense(features, latent_dim)
        drawn = latent_dim + told + (labels if settings.model == "M2" else 0)
        decoder += _dense(drawn, *reversed(settings.dense_widths), flat)
    total = encoder + decoder
    if told:
        by_stage = 4 * sum(settings.widths) + settings.widths[0]
        inputs = settings.widths[0] + settings.widths[-1]
        total += (told + 1) * (by_stage if settings.told_in == "stages" else inputs)
    if settings.model.endswith("IntroVAE"):
        total += decoder  # its running mean
    if settings.model == "AAE":
        total += _dense(latent_dim, *settings.discriminator_widths, 1)
    if settings.model == "VAE-GAN":
        each = zip((channels, *settings.critic_widths), (*settings.critic_widths, 1), strict=True)
        total += sum(16 * before * own + 3 * own for before, own in each)
    if settings.model == "SemiSupervisedVAE":
        total += _dense(latent_dim, *settings.class_widths, labels)
    if settings.model == "M2":
        units = settings.class_widths[-1] if settings.class_widths else features + labels
        total += _dense(features, labels) + _dense(features + labels, *settings.class_widths)
        total += 2 * _dense(units, latent_dim)
    return total + 100


def _count_denoiser(settings):
    """Weights of `unet.denoiser`."""

    def level(before, own):
        convolutions = 9 * (before + own) * own + (18 * own**2 if settings.residual else 0)
        return convolutions + (8 if settings.residual else 4) * own

    widths, channels = settings.widths, settings.image_shape[2]
    total = sum(level(*pair) for pair in pairwise((channels, *widths)))
    total += sum(4 * below * own + level(2 * own, own) for own, below in pairwise(widths))
    heads = 2 if settings.reconstruction == "pixel-gaussian" else 1
    return total + heads * (9 * widths[0] * channels + channels) + 100


def _dense(*units):
    """Number of weights of successive dense layers."""
    return sum((before + 1) * after for before, after in pairwise(units))


def conditions_of(settings, images):
    """What a conditional model is told of images, learned on their training split.

    Args:
        settings: `config.Settings`.
        images: `data.ImageData`.

    Returns:
        `sources.conditions.Conditions`; None for a model that is told nothing.

    Raises:
        ValueError: if the settings name no column, or one that cannot be a condition.
    """
    if not issubclass(REGISTRY[settings.model].kind, conditional.Conditional):
        return None
    if not settings.conditions:
        known = [each for each in images.train.table if each not in ("file", "subject")]
        raise ValueError(
            f"settings: a {settings.model} needs conditions, columns of the images' table; there "
            f"are: {', '.join(known) or 'none'}"
        )
    return Conditions.learn(images.train.table, settings.conditions, (images.label,))


def from_settings(settings, conditions=None):
    """The model of a `config.Settings`, with initial weights, not compiled.

    Args:
        settings: `config.Settings`.
        conditions: From `conditions_of`, of a conditional model.

    Raises:
        ValueError: if it would have more than `MOST_WEIGHTS` weights, or its conditions are not
            given.
    """
    weights = count_weights(settings, conditions.width if conditions else 0)
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"these settings describe a model of about {weights:,} weights, more than "
            f"{MOST_WEIGHTS:,}; use fewer or smaller widths and dense_widths, or larger strides"
        )
    entry = REGISTRY[settings.model]
    arguments = {name: getattr(settings, name) for name in entry.kind.arguments()}
    told = {"conditions": conditions} if entry.networks is _told else {}
    return entry.kind(**entry.networks(settings, entry.kind, **told), **arguments)


def on_latents(m1, classes, latent_dim=32, widths=(500,), dropout=0.0, **kwargs):
    """A `semisupervised.M1M2` on a trained VAE, with initial weights, not compiled.

    Args:
        m1: The trained `VAE`.
        classes: Number of classes of the label.
        latent_dim: Axes of the second latent, the style.
        widths: Units of the dense layers of each of its three networks.
        dropout: Dropout of the network q(y|z).
        **kwargs: Of `M2`; its `seed` also determines the initial weights.
    """
    seed = kwargs.get("seed", 0)
    return semisupervised.M1M2(
        m1,
        networks.vector_class_encoder(m1.latent_dim, classes, widths, dropout, seed),
        networks.class_posterior(m1.latent_dim, classes, latent_dim, widths, seed),
        networks.vector_decoder(m1.latent_dim, latent_dim + classes, widths, seed),
        **kwargs,
    )
