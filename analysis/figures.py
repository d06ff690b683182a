"""Figures of an explored run: those that the page of `explore.py` saves, as lines of Python.

Every function takes an `atlas.Atlas` and plain values and returns a figure; the page writes the
call of the same function beside what it shows.
"""

import numpy as np
import pandas as pd

from analysis import plots
from analysis.atlas import is_text


def as_map(atlas, plane="pca", colour=None, seed=0):
    """The map, coloured by a column.

    Args:
        atlas: `atlas.Atlas`.
        plane: One of `latent.PLANES`.
        colour: Name of a column, or None.
        seed: Of t-SNE and UMAP.
    """
    made = atlas.map.plane(plane, seed)
    title = f"{len(atlas):,} of {atlas.total:,} images of {atlas.name}: {made.title}"
    if colour is None:
        return plots.latent_map(made.points, title=title, names=made.names)
    values = atlas.table[colour]
    if is_text(values) or colour == atlas.label or values.nunique() <= plots.MOST_NAMED:
        if colour == atlas.label and atlas.classes:
            return plots.latent_map(
                made.points,
                values.astype("Int32").fillna(-1).to_numpy(int),
                atlas.classes,
                title,
                made.names,
            )
        codes, names = pd.factorize(values, sort=True)
        return plots.latent_map(
            made.points, codes, [str(each) for each in names], title, made.names
        )
    figure = plots.value_map(made.points, values.to_numpy(float), colour, made.names)
    figure.axes[0].set_title(title)
    return figure


def of_image(atlas, row):
    """An image, its reconstruction and their difference."""
    heads = ("image", "reconstruction", "reconstruction less image")
    return plots.before_after(atlas.image(row), atlas.reconstruction(row), heads)


def nearest(atlas, row, count=8):
    """An image and those whose latents are nearest to its own."""
    rows, away = atlas.nearest(atlas.z[row], count, without=row)
    images = np.stack([atlas.image(each) for each in (row, *rows)])
    heads = ["image", *(f"{each:.2f}" for each in away)]
    title = "nearest images, by the distance of their latents"
    return plots.image_rows({"": images}, heads=heads, title=title)


def at_place(atlas, plane, point, seed=0):
    """What the decoder makes at a place of the map."""
    z, said = atlas.map.at(plane, point, seed)
    return plots.image_grid(atlas.decode(z[None]), columns=1, width=5.0, title=said)


def sliders(atlas, values, start=None, prior=None, seed=0):
    """The image at some values of the sliders, beside the one that they started from.

    Args:
        values: Dictionary of names of `atlas.axes` to numbers.
        start: Row of the image whose latent they started from; None: the mean latent.
        prior, seed: Of a random latent instead.
    """
    z = atlas.start(start) if prior is None else atlas.drawn(prior, seed)[0]
    made = atlas.decode(np.stack([z, atlas.moved(z, values)]))
    return plots.before_after(*made, heads=("start", "at the sliders' values", "difference"))


def samples(atlas, prior, count=25, seed=0):
    """Images decoded from draws of a prior of the run."""
    made = atlas.samples(prior, count, seed)
    columns = int(np.ceil(np.sqrt(count)))
    title = f"{count} samples from {prior}, seed {seed}"
    return plots.image_grid(made, columns, title, gap=2, width=7.0)


def direction(atlas, label, row, strength=2.0, method="fisher", adjust=()):
    """An image moved along a direction: at a strength, on the scale that serves all strengths.

    Args:
        label, method, adjust: See `Atlas.direction`.
        row: Of the image; None: the mean latent.
        strength: In standard deviations.
    """
    found = atlas.direction(label, method, tuple(adjust))
    before, after, limit = atlas.effect(found, atlas.start(row), strength)
    heads = ("before", f"{strength:+g} along {found.name}", "difference")
    return plots.before_after(before, after, heads, limit=limit)


def path(atlas, rows, kind="spherical", count=9):
    """Images of a path over some images."""
    made = atlas.decode(atlas.path(list(rows), kind, count))
    return plots.image_grid(made, count, f"a path over {len(rows)} images, {kind}", gap=2)


def outliers(atlas, by="ssim", count=40):
    """The images that are least like their reconstructions, or score highest.

    Args:
        by: A column: `"ssim"` (lowest first), `"error"` or a score (highest first).
    """
    rows = atlas.worst(by, count)
    images = np.stack([atlas.image(row) for row in rows])
    first = "lowest" if by == "ssim" else "highest"
    return plots.image_grid(images, 10, f"{by}, {first} first", gap=2)


# --- the line of Python --------------------------------------------------------------------------


def line_of(opening, call) -> str:
    """The line of Python that draws what a page shows.

    Args:
        opening: Python that opens the run.
        call: `(name, arguments)` of a function of this module.
    """
    name, arguments = call
    words = ", ".join(f"{key}={plain(value)!r}" for key, value in arguments.items())
    return f"figures.{name}({opening}, {words})" if words else f"figures.{name}({opening})"


def plain(value):
    """A value without NumPy's types, as its `repr` reads best."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return round(value, 6) if isinstance(value, float) else value
