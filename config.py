"""Data paths and settings: the one file to edit before running a notebook."""

import difflib
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path

# The tests set ATLAS_EMBEDDED=1: every path below is then ignored and embedded data are used.
EMBEDDED = os.environ.get("ATLAS_EMBEDDED") == "1"


def _chosen(name: str, here: str | None, embedded: str | None = None) -> str | None:
    """The environment variable `name` if it is set, else the value `here`."""
    return embedded if EMBEDDED else os.environ.get(name) or here


def _path(name: str, here: str | None) -> Path | None:
    chosen = _chosen(name, here)
    return Path(chosen).expanduser() if chosen else None


def _whole(name: str, otherwise: int) -> int:
    """The environment variable `name` as a whole number, 0 or more."""
    text = os.environ.get(name) or str(otherwise)
    if not text.isdecimal():
        raise ValueError(f"the environment variable {name} = {text!r}; give a whole number")
    return int(text)


# --- edit here: the quoted value of a line, or set the environment variable of the same name ---

EXPERIMENT = _chosen("EXPERIMENT", "digits", embedded="digits")  # one of EXPERIMENTS, below
MNIST_PATH = _path("MNIST_PATH", None)  # "~/data/mnist.npz"; None: Keras' cache, or a download
OASIS_DIR = _path("OASIS_DIR", None)  # "~/data/keras_png_slices_data"; None: a brain template
CHEST_DIR = _path("CHEST_DIR", None)  # with images/ and Data_Entry_2017.csv; None: a phantom
IMAGES_DIR = _path("IMAGES_DIR", None)  # any folder of images; None: crops of colour photos
LABELS_CSV = _path("LABELS_CSV", None)  # for IMAGES_DIR: a table with a column of file names
MASKS_DIR = _path("MASKS_DIR", None)  # for IMAGES_DIR: masks of lesions under the same names

# Every training writes a folder here.
RUNS_DIR = Path(os.environ.get("RUNS_DIR") or Path(__file__).parent / "runs").expanduser()
# Decoded image files are kept here, so that no file is decoded twice.
CACHE_DIR = Path(os.environ.get("CACHE_DIR") or Path(__file__).parent / "cache").expanduser()

PATHS = (
    *("MNIST_PATH", "OASIS_DIR", "CHEST_DIR", "IMAGES_DIR"),
    *("LABELS_CSV", "MASKS_DIR", "CACHE_DIR"),
)
# Paths of the images of each `Settings.dataset`; the embedded digits have none.
PATHS_OF = {
    "digits": (),
    "mnist": ("MNIST_PATH",),
    "brain": ("OASIS_DIR",),
    "brain-lesions": (),
    "chest": ("CHEST_DIR",),
    "gallery": ("IMAGES_DIR", "LABELS_CSV", "MASKS_DIR"),
}
PLACES = ("DIR", "PATH", "FOLDER", "FILE", "DIRECTORY", "DATA", "ROOT", "CSV")  # ends of names
CHANNELS = {"gallery": 3}  # of each dataset's images; others have 1

# The default seed of all experiments.
SEED = _whole("ATLAS_SEED", 0)
# Limit of the epochs of every training, to try a notebook or a command quickly; 0: no limit.
MOST_EPOCHS = _whole("ATLAS_EPOCHS", 0)


# --- what one experiment chooses -------------------------------------------------------------


def _among(default: str, *allowed):
    return field(default=default, metadata={"allowed": allowed})


def _within(default, low, high):
    return field(default=default, metadata={"low": low, "high": high})


def _word(default):
    return field(default=default, metadata={"words": True})


def _words():
    return field(default=(), metadata={"words": True})


MODELS = (
    *("Autoencoder", "VAE", "InfoVAE", "MMD-AE", "BetaTCVAE", "IWAE"),
    *("SemiSupervisedVAE", "M2", "ConditionalVAE", "ConditionalIWAE", "AAE", "VAE-GAN"),
    *("IntroVAE", "SoftIntroVAE", "ASIntroVAE", "Denoiser"),
)
MOST_ITEMS = 64  # longest tuple; no network has more stages


@dataclass(frozen=True)
class Settings:
    """Settings of one experiment; every value is checked on creation.

    Change one with `dataclasses.replace(settings, latent_dim=2)`.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    # Images
    dataset: str = _among("digits", "digits", "mnist", "brain", "brain-lesions", "chest", "gallery")
    # Height, width, channels; a single number is a square with the channels of the dataset.
    image_shape: tuple[int, ...] = _within((32, 32, 1), 1, 4096)
    binarize: str = _among("none", "none", "dynamic")  # dynamic: sampled again at every step
    # What a denoiser must undo; a Denoiser's is coarse noise unless another is set.
    corrupt: str = _among("none", "none", "gaussian", "mask", "coarse")
    corrupt_level: float = _within(0.3, 0.0, 1.0)  # sd of the noise, or share of masked pixels
    corrupt_knots: int = _within(8, 2, 1024)  # of coarse noise along the shorter side: its grain
    split_seed: int = _within(0, 0, 2**31 - 1)  # not `seed`: runs of several seeds share a split
    shift: int = _within(0, 0, 64)  # augmentation: most pixels in each direction
    flip: str = _among(
        "none", "none", "sideways", "upright"
    )  # augmentation: mirror half of the images

    # Image files
    fit: str = _among("crop", "crop", "stretch", "pad")  # for images of another aspect ratio
    on_bad_file: str = _among("stop", "stop", "skip")
    findings: tuple[str, ...] = _words()  # chest: keep images with any of these
    views: tuple[str, ...] = _words()  # chest: keep these views, as in ("PA",)
    stratify: str = _word("")  # column whose label is balanced over the splits
    labels: str = _among("none", "none", "folders", "csv")  # gallery: where labels come from
    file_column: str = _word("file")  # of LABELS_CSV: the image's path below IMAGES_DIR
    label_column: str = _word("label")
    subject_column: str = _word("")  # a subject stays in one split; "": as `subjects` says
    # gallery: each file, the first folder of its name, or the PatientID in its DICOM header
    subjects: str = _among("files", "files", "folders", "patients")
    split_column: str = _word("")  # of LABELS_CSV: train, validation or test; "": by a hash
    # Grey levels inside the heads of each subject's images, or of each image.
    normalize: str = _among("none", "none", "subject", "image")
    lesion_free: bool = False  # train only on images without a lesion, where there are masks

    # Few labels
    labels_per_class: int = _within(0, 0, 10**6)  # training images that keep theirs; 0: all
    label_seed: int = _within(0, 0, 2**31 - 1)  # which ones do
    labelled_share: float = _within(0.5, 0.0, 1.0)  # of each training batch

    # Model
    model: str = _among("VAE", *MODELS)
    latent_dim: int = _within(16, 1, 65536)  # derived if there is a latent_map
    # Height, width, channels of a latent that is a map; (): a vector.
    latent_map: tuple[int, ...] = _within((), 1, 4096)
    widths: tuple[int, ...] = _within((32, 64), 1, 4096)  # filters of each convolution stage
    kernel_sizes: tuple[int, ...] = _within((3,), 1, 31)  # one for each stage, or one for all
    strides: tuple[int, ...] = _within((2,), 1, 8)  # one for each stage, or one for all
    dense_widths: tuple[int, ...] = _within((), 1, 16384)  # dense layers before the latent
    patch: int = _within(1, 1, 32)  # side of the squares of pixels that are one place's channels
    residual: bool = False  # a residual block in every stage
    upsampling: str = _among("transpose", "transpose", "nearest")  # of the decoder
    batch_norm: bool = False
    group_norm: bool = False  # instead of batch_norm
    dropout: float = _within(0.0, 0.0, 0.95)

    # Loss: nats per image, summed over pixels and over latent axes
    reconstruction: str = _among(
        "bernoulli", "bernoulli", "gaussian", "learned-gaussian", "pixel-gaussian"
    )
    sigma: float = _within(0.1, 1e-4, 100.0)  # sd of the Gaussian; its start if it is learned
    dssim_weight: float = _within(0.0, 0.0, 1e7)  # nats per unit of (1 - SSIM) / 2
    perceptual: str = _among("none", "none", "classifier", "vgg16")  # whose feature maps
    perceptual_weight: float = _within(0.0, 0.0, 1e7)  # nats per unit of `losses.perceptual`
    perceptual_label: str = _word("")  # what the classifier learns; "": the images' own label
    perceptual_file: str = _word("")  # weights of VGG16; "": Keras' cache or a download
    beta: float = _within(1.0, 0.0, 1e5)  # weight of the KL (BetaTCVAE: of a part); 1 is the ELBO
    kl_warmup_steps: int = _within(0, 0, 10**9)  # the weight rises linearly from 0
    free_bits: float = _within(0.0, 0.0, 100.0)  # nats per latent axis without a penalty
    kl_capacity: float = _within(0.0, 0.0, 1e5)  # nats that the KL is held at; 0: plain KL
    capacity_steps: int = _within(0, 0, 10**9)  # the capacity rises linearly from 0
    alpha: float = _within(0.0, -1e5, 1.0)  # InfoVAE: (1 - alpha) KL + (alpha + lambda - 1) MMD
    lambda_mmd: float = _within(1000.0, 0.0, 1e7)
    mmd_kernel: str = _among("imq", "imq", "rbf")
    k: int = _within(5, 1, 10**4)  # IWAE: draws of every posterior
    class_weight: float = _within(100.0, 0.0, 1e7)  # of the cross-entropy, models with labels

    # Models with labels
    classes: int = _within(10, 2, 10**4)  # number of classes of the label
    class_widths: tuple[int, ...] = _within((64,), 1, 16384)  # dense layers before the class
    classify_from: str = _among("mean", "mean", "sample")

    # What a conditional model is told
    conditions: tuple[str, ...] = _words()  # Conditional...: columns that its networks are told
    told_in: str = _among("input", "input", "stages")  # where the networks are told them
    hidden_share: float = _within(0.1, 0.0, 1.0)  # of each condition in training
    leak_weight: float = _within(0.0, 0.0, 1e7)  # nats per unit of `losses.hsic`
    change_weight: float = _within(0.0, 0.0, 1e4)  # nats per grey level of change

    # Adversarial models
    stochastic: bool = True  # AAE: whether its encoder has a variance
    discriminator_widths: tuple[int, ...] = _within((256, 256), 1, 16384)
    adversarial_weight: float = _within(30.0, 0.0, 1e6)  # AAE: of the adversarial term
    r1: float = _within(3.0, 0.0, 1e4)  # AAE: gradient penalty of the discriminator
    instance_noise: float = _within(0.0, 0.0, 10.0)  # AAE: sd, falls to 0 over the training
    critic_widths: tuple[int, ...] = _within((32, 64), 1, 4096)  # VAE-GAN: filters of its stages
    critic_weight: float = _within(0.5, 0.0, 1e3)  # VAE-GAN: its gradient, relative to the others'
    critic_start: int = _within(0, 0, 10**9)  # VAE-GAN: training steps before it learns
    critic_warmup_steps: int = _within(0, 0, 10**9)  # VAE-GAN: its gradient rises from 0
    margin: float = _within(100.0, 0.0, 1e6)  # IntroVAE: nats
    margin_weight: float = _within(0.25, 0.0, 1e6)  # IntroVAE: its alpha
    gamma: float = _within(1.0, 0.0, 100.0)  # Soft- and AS-IntroVAE: of the KL in the decoder
    beta_neg: float = _within(256.0, 1e-2, 1e6)  # its start, or its constant value
    beta_neg_control: str = _among("adaptive", "adaptive", "constant", "schedule")
    beta_neg_last: float = _within(256.0, 1e-2, 1e6)  # end of the schedule
    beta_neg_low: float = _within(1.0, 1e-2, 1e6)  # limits of the adaptive control,
    beta_neg_high: float = _within(4096.0, 1e-2, 1e6)
    gap_target: float = _within(0.5, 0.0, 100.0)  # and its target, relative to the real images' KL
    most_push: float = _within(0.1, 1e-6, 1.0)  # limit of the encoder's push on likely images
    ema: float = _within(0.999, 0.0, 0.999999)  # running mean of the decoder's weights

    # Training
    epochs: int = _within(30, 1, 10**6)
    batch_size: int = _within(128, 2, 65536)
    optimizer: str = _among("adam", "adam", "muon")
    learning_rate: float = _within(1e-3, 1e-8, 1.0)
    schedule: str = _among("constant", "constant", "cosine", "exponential")  # down to 1 %
    clip_norm: float = _within(0.0, 0.0, 1e9)  # global norm of the gradient; 0: no clipping
    patience: int = _within(0, 0, 10**6)  # epochs without a better validation loss; 0: never stop
    seed: int = _within(SEED, 0, 2**31 - 1)
    precision: str = _among("float32", "float32", "bfloat16")
    jit_compile: str = _among("auto", "auto", "on", "off")  # XLA; auto: on a GPU only
    steps_per_execution: int = _within(1, 1, 10**4)  # steps per call of the compiled function

    def __post_init__(self):
        shape = self.image_shape
        if isinstance(shape, int) and not isinstance(shape, bool):
            shape = (shape, shape, CHANNELS.get(self.dataset, 1))  # a single number: square
            object.__setattr__(self, "image_shape", shape)
        for each in fields(self):
            object.__setattr__(self, each.name, _checked(each, getattr(self, each.name)))
        if MOST_EPOCHS:
            object.__setattr__(self, "epochs", min(self.epochs, MOST_EPOCHS))
        if len(self.image_shape) != 3 or self.image_shape[2] not in (1, 3):
            allowed = "a size, (height, width, 1) or (height, width, 3)"
            _refuse("image_shape", self.image_shape, allowed)
        if not self.widths:
            _refuse("widths", self.widths, "at least one stage, as in (32, 64)")
        for name in ("kernel_sizes", "strides"):
            if len(getattr(self, name)) not in (1, len(self.widths)):
                allowed = (
                    f"one number for all stages, or {len(self.widths)}, one for each of widths"
                )
                _refuse(name, getattr(self, name), allowed)
        if self.latent_map:
            self._check_map()
            object.__setattr__(self, "latent_dim", checked("latent_dim", prod(self.latent_map)))
        if self.group_norm and self.batch_norm:
            _refuse("group_norm", True, "False with batch_norm")
        if self.binarize == "dynamic" and self.reconstruction != "bernoulli":
            _refuse("reconstruction", self.reconstruction, 'bernoulli with binarize="dynamic"')
        if self.corrupt != "none" and self.model not in ("Autoencoder", "VAE", "Denoiser"):
            allowed = '"none" for every model but Autoencoder, VAE and Denoiser'
            _refuse("corrupt", self.corrupt, allowed)
        if self.reconstruction == "pixel-gaussian" and self.model != "Denoiser":
            allowed = f"another for {self.model}: only a Denoiser predicts a sd for each pixel"
            _refuse("reconstruction", self.reconstruction, allowed)
        if self.model == "Denoiser":
            if self.corrupt == "none":  # it would learn to copy
                object.__setattr__(self, "corrupt", "coarse")
            if self.latent_map:
                _refuse("latent_map", self.latent_map, "() for a Denoiser: it has no latent")
        if self.model.endswith("IntroVAE"):
            if self.batch_norm:
                _refuse(
                    "batch_norm", True, f"False for {self.model}: real and generated images mix"
                )
            if self.binarize != "none":
                _refuse("binarize", self.binarize, f'"none" for {self.model}')
        if self.beta_neg_low > self.beta_neg_high:
            _refuse("beta_neg_low", self.beta_neg_low, f"at most {self.beta_neg_high}")

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Stride of each stage: with a latent map, 1 as soon as the map has its size."""
        strides = self.strides * len(self.widths) if len(self.strides) == 1 else self.strides
        if not self.latent_map:
            return strides
        wanted, found = self.image_shape[0] // (self.latent_map[0] * self.patch), []
        for stride in strides:
            found.append(stride if prod(found) * stride <= wanted else 1)
        return tuple(found)

    def _check_map(self):
        """Refuses a latent map that the stages cannot make of an image."""
        sides, shape = self.image_shape[:2], self.latent_map
        if len(shape) != 3:
            _refuse("latent_map", shape, "(height, width, channels), as in (8, 8, 4), or ()")
        pairs, named = list(zip(sides, shape[:2], strict=True)), f"{sides[0]} x {sides[1]}"
        if any(small > side for side, small in pairs):
            _refuse("latent_map", shape, f"a map no larger than the image, {named}")
        factor, other = (side / small for side, small in pairs)
        if factor != other or factor % 1:
            allowed = f"a map whose sides divide those of the image, {named}, alike"
            _refuse("latent_map", shape, allowed)
        if self.patch * prod(self.stage_strides) != factor:
            stages = f"stages whose first strides, times the patch, multiply to {factor:g}"
            _refuse("latent_map", shape, f"another map, or {stages}")
        if self.dense_widths:
            _refuse("dense_widths", self.dense_widths, "() with a latent_map")
        if self.model == "M2":
            _refuse("latent_map", shape, "() for M2: its posterior given a class is of vectors")

    @classmethod
    def from_dict(cls, values: dict, shortened: bool = True) -> "Settings":
        """Settings from plain values (a command line, a JSON file); names are checked too.

        With `shortened=False` the epochs are those of `values`, regardless of ATLAS_EPOCHS: an
        existing run keeps its own.
        """
        for name in values:
            _field(name)
        settings = cls(**values)
        if not shortened and "epochs" in values:
            object.__setattr__(settings, "epochs", values["epochs"])
        return settings

    def to_dict(self) -> dict:
        """Plain values for JSON, which `from_dict` reads."""
        return asdict(self)


def checked(name: str, value):
    """Checks the value of one setting and returns it in the setting's type.

    Raises:
        ValueError: if there is no such setting, or the value is not valid.
    """
    if name == "image_shape" and isinstance(value, int):
        return value  # a size; the dataset determines the channels
    return _checked(_field(name), value)


def _field(name):
    known = {each.name: each for each in fields(Settings)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known
        raise ValueError(f"there is no setting {name!r}; allowed: {', '.join(close)}")
    return known[name]


def import_quietly():
    """Imports TensorFlow without the log lines of its libraries, for commands.

    They do not write through Python, and in TensorFlow 2.21 they ignore TF_CPP_MIN_LOG_LEVEL. If
    that variable is set, nothing is hidden.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def nearest(word: str, words) -> str:
    """The closest match of a word among some words, ignoring case; or ""."""
    plain = {each.casefold(): each for each in words}
    close = difflib.get_close_matches(word.casefold(), plain, n=1)
    return plain[close[0]] if close else ""


def _refuse(name, value, allowed):
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # numbers with thousands of digits, deeply nested lists
        shown = f"a {type(value).__name__}"
    shown = shown if len(shown) < 200 else f"{shown[:150]}... ({len(shown):,} characters)"
    raise ValueError(f"settings: {name} = {shown} is not valid; allowed: {allowed}")


def _checked(each, value):
    """`value` of the dataclass field `each` in its own type, or an error."""
    rule, name = each.metadata, each.name
    if "allowed" in rule:
        if value not in rule["allowed"]:
            meant = nearest(str(value), rule["allowed"])
            asked = f"; did you mean {meant!r}?" if meant else ""
            _refuse(name, value, ", ".join(map(repr, rule["allowed"])) + asked)
        return value
    if "words" in rule:
        if isinstance(each.default, str):
            if not isinstance(value, str):
                _refuse(name, value, "a word in quotes")
            return value
        if isinstance(value, str):  # as --set gives them
            value = tuple(word.strip() for word in value.split(",") if word.strip())
        if not isinstance(value, tuple | list) or not all(isinstance(one, str) for one in value):
            _refuse(name, value, 'words in quotes, as in ("PA", "AP")')
        return tuple(value)
    if each.type is bool:
        if not isinstance(value, bool):
            _refuse(name, value, "True or False")
        return value
    if isinstance(each.default, tuple):
        if isinstance(value, int) and not isinstance(value, bool):
            value = (value,)
        if not isinstance(value, tuple | list) or len(value) > MOST_ITEMS:
            allowed = f"a tuple of at most {MOST_ITEMS} whole numbers, as in (32, 64)"
            _refuse(name, value, allowed)
        return tuple(_number(name, item, int, rule, whole=value) for item in value)
    return _number(name, value, each.type, rule, whole=value)


def _number(name, value, kind, rule, whole):
    """`value` as `kind`; an error shows `whole`, the tuple that may contain it."""
    of_kind = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not (of_kind and rule["low"] <= value <= rule["high"]):  # NaN is not between them
        sort = "whole numbers" if kind is int else "numbers"
        _refuse(name, whole, f"{sort} from {rule['low']} to {rule['high']}")
    return kind(value)


def paths(dataset: str) -> dict[str, Path]:
    """Paths of a dataset's images, from this file or the environment, by name."""
    found = {name: globals()[name] for name in PATHS_OF[dataset]}
    return {name: path for name, path in found.items() if path is not None}


def misspelt(dataset: str) -> dict[str, str]:
    """Environment variables that look like one of a dataset's paths, or like EXPERIMENT.

    Returns:
        Dictionary of such names to the probably intended ones; only those that are not set
        themselves.
    """
    ours = {*PATHS, "EXPERIMENT", "RUNS_DIR", "ATLAS_EMBEDDED", "ATLAS_SEED", "ATLAS_EPOCHS"}
    meant = [name for name in (*PATHS_OF[dataset], "EXPERIMENT") if not os.environ.get(name)]
    found = {}
    for name in set(os.environ) - ours:
        for wanted in meant:
            likeness = difflib.SequenceMatcher(None, name.upper(), wanted).ratio()
            stem, _, kind = name.upper().rpartition("_")
            same = stem.rstrip("S") == wanted.split("_")[0].rstrip("S")
            if likeness > 0.9 or (same and kind in PLACES and wanted != "EXPERIMENT"):
                found[name] = wanted
    return found


EXPERIMENTS = {
    # scikit-learn's 1,797 handwritten digits, embedded: runs anywhere, in seconds.
    "digits": Settings(
        dataset="digits",
        image_shape=(32, 32, 1),
        binarize="dynamic",
        widths=(16, 32, 64),
        dense_widths=(64,),
        latent_dim=2,
        epochs=40,
        batch_size=64,
        learning_rate=4e-3,
        schedule="cosine",
    ),
    # MNIST: 13 minutes on two cores.
    "mnist": Settings(
        dataset="mnist",
        image_shape=(28, 28, 1),
        binarize="dynamic",
        widths=(32, 64),
        dense_widths=(256,),
        latent_dim=32,
        epochs=48,
        batch_size=128,
        learning_rate=2e-3,
        schedule="cosine",
    ),
    # OASIS at full size, under an hour on two cores; or, smaller, slices of a brain template. The
    # loss weights grow with the number of pixels, like the squared error. Without batch norm and a
    # dense layer before the latent, its axes stay correlated and samples are not recognisable.
    "brain": Settings(
        dataset="brain",
        image_shape=(256, 256, 1) if OASIS_DIR else (64, 64, 1),
        flip="upright",  # the head is rotated: left and right are above and below
        model="InfoVAE",
        widths=(16, 32, 64, 128, 128) if OASIS_DIR else (8, 32, 64),
        dense_widths=(256,),
        batch_norm=True,
        latent_dim=128 if OASIS_DIR else 32,
        reconstruction="gaussian",
        sigma=0.1,
        dssim_weight=2e5 if OASIS_DIR else 12e3,
        beta=40.0 if OASIS_DIR else 5.0,
        lambda_mmd=20000.0 if OASIS_DIR else 5000.0,
        epochs=40 if OASIS_DIR else 8,
        batch_size=16,
        learning_rate=2e-3 if OASIS_DIR else 5e-3,
        schedule="cosine",
    ),
    # The same slices, with a latent that is a map: sharp reconstructions, 25 minutes on two cores.
    # Samples need a prior: N(0, I) is nothing like these latents.
    "brain-map": Settings(
        dataset="brain",
        image_shape=(128, 128, 1) if OASIS_DIR else (64, 64, 1),
        flip="upright",
        patch=2 if OASIS_DIR else 1,
        widths=(64, 96, 96) if OASIS_DIR else (32, 64),
        latent_map=(16, 16, 8) if OASIS_DIR else (16, 16, 4),
        residual=True,
        group_norm=True,
        reconstruction="gaussian",
        sigma=0.05,
        dssim_weight=2e4 if OASIS_DIR else 5e3,
        beta=0.005 if OASIS_DIR else 0.02,
        epochs=24 if OASIS_DIR else 50,
        batch_size=8 if OASIS_DIR else 16,
        optimizer="muon",
        learning_rate=5e-3,
        schedule="cosine",
    ),
    # Slices of the template, some with a lesion of a known mask; a denoiser learns on the others.
    "brain-lesions": Settings(
        dataset="brain-lesions",
        image_shape=(64, 64, 1),
        lesion_free=True,
        model="Denoiser",
        corrupt="coarse",
        corrupt_level=0.25,
        corrupt_knots=12,
        widths=(16, 32, 48, 64),
        reconstruction="pixel-gaussian",
        sigma=0.05,
        flip="upright",  # left and right are above and below
        epochs=16,
        batch_size=8,
        learning_rate=2e-3,
        schedule="cosine",
    ),
    # NIH ChestX-ray14, or a phantom whose every factor is known.
    "chest": Settings(
        dataset="chest",
        image_shape=(64, 64, 1),
        stratify="Hernia",
        widths=(32, 64, 64, 64),
        latent_dim=64,
        reconstruction="gaussian",
        sigma=0.1,
        epochs=60 if CHEST_DIR else 15,
        batch_size=32,
        learning_rate=1e-3,
        schedule="cosine",
    ),
    # Any folder of images, or crops of colour photos.
    "gallery": Settings(
        dataset="gallery",
        image_shape=(64, 64, 3),
        flip="sideways",
        shift=2,
        widths=(32, 64, 128, 128),
        latent_dim=64,
        reconstruction="learned-gaussian",
        epochs=200,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
    ),
    # The same folder with a latent that is a map: 131 paintings take 15 minutes on a core.
    "gallery-map": Settings(
        dataset="gallery",
        image_shape=128,
        flip="sideways",
        patch=2,
        widths=(64, 96),
        latent_map=(32, 32, 8),
        residual=True,
        group_norm=True,
        reconstruction="gaussian",
        sigma=0.05,
        beta=0.005,
        epochs=70,
        batch_size=8,
        optimizer="muon",
        learning_rate=5e-3,
        schedule="cosine",
    ),
    # The same folder with an encoder that is also the critic: sharper, at three to four times the
    # time.
    "introspective": Settings(
        dataset="gallery",
        image_shape=(64, 64, 3),
        flip="sideways",
        model="ASIntroVAE",
        widths=(16, 32, 64, 64) if IMAGES_DIR else (16, 32, 32, 48),
        residual=True,
        upsampling="nearest",
        latent_dim=64 if IMAGES_DIR else 32,
        reconstruction="gaussian",
        sigma=0.15,
        gamma=0.5,
        most_push=0.3,
        epochs=300 if IMAGES_DIR else 450,
        batch_size=8,
        learning_rate=2e-3,
        schedule="cosine",
    ),
}


def settings(experiment: str = EXPERIMENT) -> Settings:
    """The settings of one of EXPERIMENTS, or an error that lists them."""
    if experiment not in EXPERIMENTS:
        names, meant = ", ".join(EXPERIMENTS), nearest(experiment, EXPERIMENTS)
        raise ValueError(
            f"config.py: EXPERIMENT = {experiment!r} is unknown; allowed: {names}"
            + (f"; did you mean {meant}?" if meant else "")
        )
    return EXPERIMENTS[experiment]
