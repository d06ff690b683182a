"""Embedded substitutes for images that cannot be distributed, with known factors.

None of them is real data, and none may be called so: the chest phantom is drawn by formulas, the
brain slices are one averaged brain under random warps, the photos are crops of scikit-image's.
Unlike patients, their factors are known, and the same image can be rendered with one factor
changed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage, special
from skimage import data as skimage_data

from sources import decoding

CHEST_NOTE = (
    "a procedural chest phantom (no patient), 600 subjects with 3 images each; split by a hash of "
    "the subject, 70 / 15 / 15 % in expectation"
)
BRAIN_NOTE = (
    "a brain template (MNI152, one averaged brain) under random smooth warps, 100 subjects with 8 "
    "axial slices each; split by a hash of the subject, 70 / 15 / 15 % in expectation"
)
LESION_NOTE = (
    "a brain template (MNI152, one averaged brain) under random smooth warps, 200 subjects with 8 "
    "axial slices each, bright or dark blobs as lesions in 30 % of them; split by a hash of the "
    "subject, 50 / 30 / 20 % in expectation"
)
PHOTO_NOTE = (
    "80 crops of 8 colour photos that come with scikit-image; split by photo: 6 to train on, one "
    "to validate, one to test"
)

# Diameter of a hernia as a share of the image's width, from barely visible to large; chosen before
# any latent direction was measured.
HERNIA_SIZES = (0.03, 0.28)
HERNIA_SHARE = 0.3  # of subjects
AGE_SD, HEART_SD = 16, 0.14  # spread of patients: years; share of the mean heart
# Lesions of the brain template, chosen before any score was measured: radius as a share of the
# image's width, and how much brighter or darker they are.
LESION_SIZES = (0.05, 0.12)
LESION_GREYS = (0.15, 0.4)
LESION_SHARE = 0.3  # of subjects
TISSUE = 0.1  # grey level above which a pixel can be lesion
MASK_THRESHOLD = 4 / 255  # grey levels by which a twin must differ to count as changed


# --- chest phantom -------------------------------------------------------------------------------


# Visible properties of the patient and of the exposure; some depend on age and sex.
CHEST_FACTORS = (
    "hernia_size",
    "heart",
    "lungs",
    "wide",
    "bones",
    "breath",
    "x",
    "y",
    "tilt",
    "exposure",
)


def chest_factors(subjects=600, images=3, seed=0, confound=0.0, aging=0.0) -> pd.DataFrame:
    """Factors of the phantom's patients and pictures; one row per image.

    Anatomy and hernia belong to the subject, position, breath, exposure and noise to the image.

    Args:
        subjects: Number of patients.
        images: Images per patient.
        seed: Seed of all random factors.
        confound: Correlation, in [0, 1), of hernia with age and with heart size, as in real data; 0
            makes all factors independent.
        aging: How much, in [0, 1), age decides of heart size and of the tendency to a hernia: its
            correlation with both, if `confound` is 0. Given the age, the two are independent.

    Returns:
        Columns `subject`, `age` (years), `sex`, `view`, `Hernia` (boolean), `hernia_size` (share of
        the width, 0 without), `gas` (share of the hernia that is gas), `hernia_x`, `heart`,
        `lungs`, `wide`, `bones`, `breath`, `x`, `y`, `tilt`, `exposure`, `grain`, `noise_seed`.
    """
    random = np.random.default_rng(seed)
    luck, old, large = random.uniform(size=subjects), *random.normal(size=(2, subjects))
    if aging:  # the same share, but of those who are old
        tendency = aging * old + np.sqrt(1 - aging**2) * special.ndtri(luck)
        luck = special.ndtr(-tendency)
        large = aging * old + np.sqrt(1 - aging**2) * large
    has = luck < HERNIA_SHARE
    standard = (has - HERNIA_SHARE) / np.sqrt(HERNIA_SHARE * (1 - HERNIA_SHARE))
    old, large = (confound * standard + np.sqrt(1 - confound**2) * each for each in (old, large))

    low, high = HERNIA_SIZES
    patients = pd.DataFrame(
        {
            "subject": [f"P{number:04d}" for number in range(subjects)],
            "age": np.clip(np.round(55 + AGE_SD * old), 18, 95),
            "heart": np.clip(1 + HEART_SD * large, 0.65, 1.5),
            "sex": np.where(random.uniform(size=subjects) < 0.5, "F", "M"),
            "view": "PA",
            "Hernia": has,
            "hernia_size": np.where(has, random.uniform(low, high, subjects), 0.0),
            "gas": random.uniform(0.25, 0.5, subjects),
            "hernia_x": random.uniform(-0.04, 0.12, subjects),
            "lungs": np.clip(1 + 0.07 * random.normal(size=subjects), 0.8, 1.2),
            "wide": np.clip(1 + 0.05 * random.normal(size=subjects), 0.88, 1.12),
            "bones": random.uniform(0.7, 1.2, subjects),
        }
    )
    table = patients.loc[patients.index.repeat(images)].reset_index(drop=True)
    n = len(table)
    table["breath"] = random.normal(0, 0.03, n)
    table["x"] = random.normal(0, 0.03, n)
    table["y"] = random.normal(0, 0.03, n)
    table["tilt"] = random.normal(0, 0.02, n)
    table["exposure"] = np.clip(random.normal(1, 0.1, n), 0.75, 1.3)
    table["grain"] = random.uniform(0.008, 0.02, n)
    table["noise_seed"] = random.integers(0, 2**31, n)
    return table


def render_chests(factors, size=64) -> np.ndarray:
    """Radiographs of the given factors; the same row gives the same image and noise.

    Bright is dense, as on a film. Attenuations add up along the ray, and the film's response is
    exponential, so bones are visible through the heart and a hernia behind it is faint.

    Args:
        factors: From `chest_factors`, or with some columns changed: the same patient with another
            hernia is `factors.assign(hernia_size=0.2)`.
        size: Height and width in pixels.

    Returns:
        uint8 `(n, size, size, 1)`.
    """
    parts = np.array_split(np.arange(len(factors)), max(1, len(factors) * size**2 // 2**16))
    # A few images at a time, so that their arrays fit the CPU cache.
    return np.concatenate([_chest_part(factors.iloc[rows], size) for rows in parts])


def hernia_twins(factors, size=64):
    """Every image without its hernia, and where the two differ.

    Returns:
        `(twins, masks)`: uint8 and boolean, both `(n, size, size, 1)`.
    """
    images = render_chests(factors, size)
    twins = render_chests(factors.assign(hernia_size=0.0), size)
    return twins, np.abs(images / 255.0 - twins / 255.0) > MASK_THRESHOLD


def chests(size=64, subjects=600, images=3, seed=0, confound=0.0, aging=0.0):
    """Images and table of a chest phantom, `subjects * images` rows."""
    table = chest_factors(subjects, images, seed, confound, aging)
    pictures = render_chests(table, size)
    number = table.groupby("subject").cumcount()
    table.insert(0, "file", [f"{a}_{b:03d}" for a, b in zip(table["subject"], number, strict=True)])
    return pictures, table


def _inside(distance, edge):
    """1 inside (negative distance), 0 outside, smooth over `edge`."""
    return 0.5 - 0.5 * np.tanh(distance / edge)


def _fourth(values):
    """Fourth power by squares: NumPy's own `** 4` is ten times slower."""
    return np.square(np.square(values))


def _ellipse(x, y, across, down, wide, high, edge):
    """A soft-edged ellipse around (across, down) with half axes wide and high."""
    radius = np.sqrt(((x - across) / wide) ** 2 + ((y - down) / high) ** 2)
    return _inside((radius - 1) * np.minimum(wide, high), edge)


def _chest_part(factors, size):
    each = {
        name: factors[name].to_numpy(np.float32)[:, None, None]
        for name in factors.columns
        if factors[name].dtype.kind in "fiub"
    }
    female = (factors["sex"] == "F").to_numpy(np.float32)[:, None, None]
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    across, down = axis[None, None, :], axis[None, :, None]
    # The patient's own coordinates: 0 is the spine, y grows downwards, 1 is half the width.
    x = across - each["x"] - each["tilt"] * down
    y = down - each["y"]
    side = np.abs(x)
    edge = np.float32(1.2 / size + 0.008)

    lung_x, lung_wide = 0.44 * each["wide"], 0.34 * each["wide"]
    middle, bottom = 0.1, 0.42 * each["lungs"] + each["breath"]
    right_dome = bottom - 0.1 * (1 - ((x + lung_x) / lung_wide) ** 2)
    left_dome = bottom + 0.05 - 0.08 * (1 - ((x - lung_x) / lung_wide) ** 2)
    dome = np.where(x < 0, right_dome, left_dome)
    above = np.minimum(y - middle, 0) / (0.86 * each["lungs"])
    narrowing = 1 + 0.25 * np.minimum(y - middle, 0)  # the apex is closer to the spine
    away = np.sqrt(((side - lung_x * narrowing) / lung_wide) ** 2 + above**2)
    lungs = _inside((away - 1) * lung_wide, 2 * edge) * _inside(y - dome, 2 * edge)

    shoulder = 0.2 + 0.78 * _inside(-(y + 0.8), 0.14) - 0.05 * _inside(-(y - 0.1), 0.3)
    trunk = shoulder * each["wide"]
    body = np.sqrt(np.maximum(1 - _fourth(side / trunk), 0))
    total = 1.15 * body * _inside(side - trunk, edge)
    total = total + 0.35 * _inside(-(y - dome), 0.05) * body  # abdomen
    total = total - 0.86 * lungs

    # Bones: spine with its discs, ribs behind (falling outwards) and in front, collar bones.
    bones = each["bones"] * (1.15 - 0.004 * each["age"])
    spine = _inside(side - 0.085, 2 * edge) * (1 + 0.22 * np.cos(2 * np.pi * 6.5 * y))
    total = total + 0.3 * bones * spine
    cage = _inside(side - (lung_x + 1.02 * lung_wide), 3 * edge) * _inside(-(side - 0.07), edge)
    out = side / (0.8 * each["wide"])
    falling = 0.26 * out**2.2 - 0.08 * np.sin(np.pi * np.minimum(out, 1))
    rising = 0.42 * np.maximum(1 - out, 0) ** 1.5
    behind, before = np.float32(0), np.float32(0)
    thick = 0.024 + 0.25 / size
    for number in range(9):
        start = -0.62 + 0.145 * number * each["lungs"]
        behind = behind + np.exp(-_fourth((y - start - falling) / thick))
        if number < 6:
            before = before + np.exp(-_fourth((y - start - 0.05 - rising) / thick))
    total = total + bones * cage * (0.13 * behind + 0.05 * before * (side > 0.3))
    collar = y + 0.6 + 0.18 * (side - 0.1) - 0.05 * np.sin(5 * side)
    reach = _inside(side - 0.72, 0.03) * _inside(-(side - 0.09), 0.02)
    total = total + 0.24 * bones * reach * np.exp(-_fourth(collar / 0.035))

    # Soft parts in the middle: mediastinum, aortic knob (grows with age), heart, roots, vessels.
    band = 0.11 + 0.05 * _inside(y + 0.5, 0.15)
    total = total + 0.34 * _inside(side - band, 2 * edge) * _inside(y - dome - 0.1, 0.1)
    knob = 0.055 + 0.0006 * each["age"]
    total = total + 0.3 * _ellipse(x, y, 0.1, -0.28, knob, knob, 2 * edge)
    heart = each["heart"]
    leaning = x - 0.25 * (y - 0.2)
    total = total + 0.5 * _ellipse(leaning, y, 0.11, 0.2, 0.3 * heart, 0.24 * heart, 2 * edge)
    for sign in (-1, 1):
        total = total + 0.12 * _ellipse(x, y, 0.19 * sign, -0.02, 0.09, 0.14, 0.08)
    total = total + lungs * _vessels(factors, x, y)

    # Breasts: a soft shadow with a sharper lower border.
    breast = _ellipse(side, y, 0.47, 0.2, 0.33, 0.26, 0.06) * _inside(y - 0.44, 0.03)
    total = total + 0.22 * female * breast
    # Gas in the stomach, under the left dome.
    total = total - 0.22 * _ellipse(x, y, 0.36, left_dome + 0.14, 0.13, 0.07, 0.03)

    total = np.maximum(total + _hernia(each, x, y, bottom, edge), 0)
    film = (1 - np.exp(-1.15 * each["exposure"] * total)) / (1 - np.exp(-2.8))
    return _grained(film, factors)


def _hernia(each, x, y, bottom, edge):
    """A rounded mass behind the heart with a level of gas above fluid; nothing at size 0.

    Its size is its diameter over the image's width, so the half axis is half of it.
    """
    half = np.maximum(each["hernia_size"], 1e-3)
    there = each["hernia_size"] > 0
    base = bottom + 0.02  # it rises through the diaphragm
    centre = base - 0.8 * half
    mass = _ellipse(x, y, each["hernia_x"], centre, half, 0.85 * half, edge)
    level = centre + 0.85 * half * (2 * each["gas"] - 1)
    gas = _ellipse(x, y, each["hernia_x"], centre, 0.85 * half, 0.72 * half, edge)
    gas = gas * _inside(y - level, edge)
    return there * (0.5 * mass - 0.75 * gas)


def _vessels(factors, x, y):
    """Branches from the roots of the lungs, thinner and fainter outwards; one set per patient."""
    seeds = factors["subject"].map(lambda name: int(str(name).lstrip("P") or 0)).to_numpy()
    angles = np.stack([np.random.default_rng([5, seed]).uniform(-1.3, 1.3, 16) for seed in seeds])
    total = np.float32(0)
    for number in range(16):
        sign = -1 if number % 2 else 1
        angle = angles[:, number, None, None].astype(np.float32)
        along_x, along_y = x * sign - 0.15, y + 0.02
        out = along_x * np.cos(angle) + along_y * np.sin(angle)
        off = -along_x * np.sin(angle) + along_y * np.cos(angle) + 0.35 * out**2 * np.sin(9 * angle)
        width = 0.008 + 0.014 * np.exp(-3 * np.maximum(out, 0))
        total = total + (out > 0) * np.exp(-((off / width) ** 2) - 2.2 * np.maximum(out, 0))
    return 0.16 * total


def _grained(film, factors):
    """The film with its grain, equal for equal rows, as uint8 with a channel axis."""
    noise = np.stack(
        [
            np.random.default_rng(int(seed)).normal(size=film.shape[1:]).astype(np.float32)
            for seed in factors["noise_seed"]
        ]
    )
    grain = factors["grain"].to_numpy(np.float32)[:, None, None]
    film = film + grain * (0.5 + film) * noise
    return np.round(255 * np.clip(film, 0, 1)).astype(np.uint8)[..., None]


# --- brain template ------------------------------------------------------------------------------


def brains(size=64, subjects=100, slices=8, seed=0):
    """Axial slices of the MNI152 T1 average under random smooth warps and contrasts.

    All slices of a subject have the same warp, contrast and brightness field.

    Args:
        size: Height and width in pixels.
        subjects, slices: Number of subjects, and of slices per subject.
        seed: Of everything that is drawn.

    Returns:
        `(images, table)`: uint8 `(n, size, size, 1)`; columns `file`, `subject`, `slice`, `level`
        (height of the slice in the template, mm), `scale`, `gamma`.
    """
    return _brains(size, subjects, slices, seed)[:2]


def brains_with_lesions(size=64, subjects=100, slices=8, seed=0, share=LESION_SHARE):
    """The same slices, with a lesion in some of the subjects.

    A lesion is an irregular blob, brighter or darker than the tissue, over some of the subject's
    slices; it pushes the tissue around it outwards, so that the brain beside it is deformed too.

    Args:
        size, subjects, slices, seed: See `brains`; without their lesions the images are the same.
        share: Of subjects with a lesion.

    Returns:
        `(images, masks, table)`: uint8 `(n, size, size, 1)` each, masks 1 inside of lesions; and
        the table of `brains` with `lesion_size` (radius, as a share of the image's width, 0
        without) and `lesion_grey` (how much brighter it is, in grey levels of [0, 1]).
    """
    images, table, masks, lesions = _brains(size, subjects, slices, seed, share)
    return images, masks, table.join(lesions.reindex(table["subject"]).reset_index(drop=True))


class _Lesion(NamedTuple):
    """A lesion of one subject: places and radius in half widths of the image, slices as numbers."""

    radius: float
    grey: float
    x: float
    y: float
    slice: float
    spans: float  # slices, from its middle to its end
    waves: np.ndarray

    @classmethod
    def drawn(cls, random, slices):
        angle, away = random.uniform(0, 2 * np.pi), 0.42 * np.sqrt(random.uniform())
        return cls(
            radius=random.uniform(*LESION_SIZES) * 2,
            grey=random.choice([-1.0, 1.0]) * random.uniform(*LESION_GREYS),
            x=away * np.cos(angle),
            y=away * np.sin(angle) * 0.8,
            slice=random.uniform(*sorted((1, slices - 2))),
            spans=random.uniform(1.2, 2.5),
            waves=random.uniform(-1, 1, 4),
        )

    def within(self, number):
        """Radius in a slice, 0 beyond its end."""
        return self.radius * np.sqrt(max(0.0, 1.0 - ((number - self.slice) / self.spans) ** 2))

    def of_slice(self, number, across, down):
        """How much of each pixel is lesion, in [0, 1], and where its tissue comes from."""
        radius = self.within(number)
        if radius == 0.0:
            return np.zeros_like(across), across, down
        x, y = across - self.x, down - self.y
        away, angle = np.hypot(x, y), np.arctan2(y, x)
        a, b, c, d = self.waves
        bumps = 0.16 * (a * np.cos(2 * angle) + b * np.sin(2 * angle) + c * np.cos(3 * angle))
        share = _inside(away - radius * (1 + bumps + 0.08 * d * np.sin(4 * angle)), 0.03)
        # Tissue is pushed outwards: what is seen at a distance was nearer before.
        nearer = 1 - 0.45 * np.exp(-((away / (1.3 * radius)) ** 2))
        return share, self.x + x * nearer, self.y + y * nearer


def _brains(size, subjects, slices, seed, share=0.0):
    """Images and table of `brains`; masks, and a table of the lesions by subject."""
    from nilearn.datasets import load_mni152_template

    volume = load_mni152_template(resolution=2)
    values = np.asarray(volume.dataobj, dtype=np.float32)
    values = values / np.percentile(values[values > 0], 99.5)
    levels = np.linspace(-4, 40, slices)  # mm: from the basal ganglia to above the ventricles
    heights = (levels - volume.affine[2, 3]) / volume.affine[2, 2]
    random, ills = np.random.default_rng(seed), np.random.default_rng([11, seed])
    pixel = (np.arange(size) + 0.5) / size * 2 - 1
    down, across = np.meshgrid(pixel, pixel, indexing="ij")
    images = np.empty((subjects, slices, size, size, 1), np.uint8)
    masks = np.zeros_like(images)
    rows, lesions = [], {}
    for subject in range(subjects):
        name = f"T{subject:03d}"
        ill = ills.uniform() < share
        lesion = _Lesion.drawn(ills, slices)  # drawn for all, so that a share moves no other
        lesions[name] = (lesion.radius / 2, lesion.grey) if ill else (0.0, 0.0)
        scale, gamma = 1 + 0.05 * random.normal(), np.exp(0.15 * random.normal())
        turn, stretch = 0.04 * random.normal(), 1 + 0.04 * random.normal()
        field = 0.025 * _smooth(random, (2, size, size), knots=5)
        bias = 1 + 0.06 * _smooth(random, (1, size, size), knots=3)[0]
        for number, height in enumerate(heights):
            shift = height + 0.4 * random.normal()
            part, right, below = np.zeros_like(across), across, down
            if ill:
                part, right, below = lesion.of_slice(number, across, down)
            # As OASIS shows it, the forehead points to the left.
            front = -(right * np.cos(turn) - below * np.sin(turn)) / scale + field[0]
            left = (right * np.sin(turn) + below * np.cos(turn)) / (scale * stretch) + field[1]
            voxels_x = values.shape[0] / 2 + left * 118 / 2
            voxels_y = values.shape[1] / 2 + front * 118 / 2
            where = [voxels_x, voxels_y, np.full_like(voxels_x, shift)]
            picture = ndimage.map_coordinates(values, where, order=1, mode="constant")
            picture = np.clip(picture * bias, 0, None) ** gamma
            part = part * (picture > TISSUE)
            picture = np.clip(picture + part * lesion.grey, 0.05 * (part > 0.5), None)
            masks[subject, number, ..., 0] = part > 0.5
            picture = 0.85 * picture + 0.012 * np.abs(random.normal(size=picture.shape))
            images[subject, number, ..., 0] = np.round(255 * np.clip(picture, 0, 1))
            rows.append((f"{name}_slice_{number}", name, number, levels[number], scale, gamma))
    columns = ["file", "subject", "slice", "level", "scale", "gamma"]
    known = pd.DataFrame.from_dict(lesions, "index", columns=["lesion_size", "lesion_grey"])
    shape = (-1, size, size, 1)
    table = pd.DataFrame(rows, columns=columns)
    return images.reshape(shape), table, masks.reshape(shape), known


def _smooth(random, shape, knots):
    """Smooth random fields with unit variance at the knots."""
    coarse = random.normal(size=(shape[0], knots, knots))
    factors = (1, shape[1] / knots, shape[2] / knots)
    return ndimage.zoom(coarse, factors, order=3, mode="nearest", grid_mode=True)


# --- photos --------------------------------------------------------------------------------------

PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
    "stereo_motorcycle",
)


def photos(height=64, width=64, channels=3, crops=10, seed=0):
    """Seeded crops of the colour photos that come with scikit-image.

    Returns:
        `(images, table)`: uint8 `(n, height, width, channels)`; columns `file`, `subject` (the
        photo), `split`: crops of one photo overlap, so they are in the same split.
    """
    random = np.random.default_rng(seed)
    reading = decoding.Reading((height, width, channels))
    order = random.permutation(len(PHOTOS))
    images, rows = [], []
    for place, which in enumerate(order):
        name = PHOTOS[which]
        photo = getattr(skimage_data, name)()
        photo = photo[0] if name == "stereo_motorcycle" else photo
        split = {0: "test", 1: "validation"}.get(place, "train")
        for number in range(crops):
            side = int(min(photo.shape[:2]) * random.uniform(0.35, 0.9))
            top = random.integers(0, photo.shape[0] - side + 1)
            left = random.integers(0, photo.shape[1] - side + 1)
            images.append(decoding.fitted(photo[top : top + side, left : left + side], reading))
            rows.append((f"{name}_{number:02d}", name, split))
    return np.stack(images), pd.DataFrame(rows, columns=["file", "subject", "split"])
