"""Figures from arrays. Every function returns its figure and leaves no other trace."""

import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from storage import disk

INK = "#222222"
GREY = "#777777"
COLOURS = plt.get_cmap("tab10").colors
MOST_NAMED = 20  # classes whose names a map has room for
DPI = 100  # of all figures: sheets of images are laid out in whole pixels of it
LOOKS = {  # colour and marker of a model, the same in all figures
    "vae": ("#1f77b4", "o"),
    "vae, beta": ("#7fb8e6", "D"),
    "vae, 4 x epochs": ("#0b3c6f", "P"),
    "autoencoder": ("#7f7f7f", "s"),
    "infovae": ("#2ca02c", "^"),
    "mmd autoencoder": ("#a6d854", "v"),
    "mmd-ae": ("#a6d854", "v"),
    "aae": ("#d62728", "X"),
    "aae, one point": ("#f4a09c", "X"),
    "iwae": ("#9467bd", "p"),
    "betatcvae": ("#8c564b", "h"),
    "semisupervisedvae": ("#ff7f0e", ">"),
    "classifier on the latent": ("#ff7f0e", ">"),
    "m2": ("#e377c2", "<"),
    "m1+m2": ("#e377c2", "<"),
    "softintrovae": ("#17becf", "*"),
    "asintrovae": ("#bcbd22", "*"),
    "pca": ("#222222", "d"),
}
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


styled = plt.rc_context(STYLE)  # decorates every function that draws


def new_figure(width, height, rows=1, columns=1, **options):
    """A figure of so many inches and its axes, `(rows, columns)`."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options
    )
    plt.close(figure)  # a notebook then shows it once, as the value of its cell
    return figure, axes


@styled
def save(figure, path):
    """Writes a figure as PNG, making its folder; returns it, so that a cell can show it too."""
    with disk.replacing(path) as temporary:
        figure.savefig(temporary, facecolor="white", bbox_inches="tight")  # as notebooks show it
    return figure


def tile(images, columns, gap=1, ground=1.0):
    """Images side by side in one array.

    Args:
        images: Floats in [0, 1] or uint8, shape `(n, height, width, channels)`.
        columns: Images in a row; the last row may be shorter.
        gap: Pixels between them.
        ground: Grey level of gaps and of empty places, in [0, 1].

    Returns:
        Float array `(height, width, channels)`.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        images = images / 255.0
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels), ground, np.float32
    )
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def save_sheet(images, path, columns):
    """Writes `tile(images, columns)` as a PNG of its own pixels."""
    save_image(tile(images, columns), path)


def save_image(image, path):
    """Writes one image, floats in [0, 1] of shape `(height, width, channels)`, as a picture."""
    with disk.replacing(path) as temporary:
        Image.fromarray(_pixels(image)).save(temporary)


def _pixels(images):
    """Floats in [0, 1] as uint8 for Pillow; a single channel has no axis there."""
    pixels = np.round(255.0 * np.clip(images, 0.0, 1.0)).astype(np.uint8)
    return pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels


def fitted(images, room):
    """Images as large as some room allows, without a pixel lost or doubled unevenly.

    Args:
        images: Floats in [0, 1] or uint8, shape `(n, height, width, channels)`.
        room: Pixels that an image may be wide.

    Returns:
        Floats in [0, 1], shape `(n, new height, new width, channels)`: every pixel a square of
        equal size where the images fit, else the images shrunk with antialiasing.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    images = images.astype(np.float32)
    _, height, width, channels = images.shape
    times = int(room) // width
    if times >= 1:
        return images.repeat(times, axis=1).repeat(times, axis=2)
    size = (max(1, int(room)), max(1, round(height * room / width)))
    shrunk = [
        [Image.fromarray(image[..., each]).resize(size, Image.LANCZOS) for each in range(channels)]
        for image in images
    ]
    return np.clip(np.moveaxis(np.array(shrunk), 1, -1), 0.0, 1.0)


def _show(axis, sheet):
    sheet = sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet
    axis.imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    axis.set_axis_off()


def _canvas(width, height):
    """A figure of some pixels, and what places axes in it, by pixels from the top left."""
    figure = plt.figure(figsize=(width / DPI, height / DPI))
    plt.close(figure)

    def place(left, top, wide, high):
        return figure.add_axes(
            (left / width, 1 - (top + high) / height, wide / width, high / height)
        )

    return figure, place


def _margin(names):
    """Pixels that names beside rows need."""
    longest = max((len(line) for name in names for line in str(name).split("\n")), default=0)
    return 14 + 8 * longest if longest else 2


@styled
def image_grid(images, columns=10, title=None, gap=1, width=9.0):
    """A sheet of images, each enlarged by a whole factor, or shrunk with antialiasing.

    Args:
        images: Floats in [0, 1] or uint8, shape `(n, height, width, channels)`.
        columns: Images in a row.
        title: Above it.
        gap: Pixels between them.
        width: Inches that the sheet has at most.
    """
    room = int(width * DPI) - (columns - 1) * gap
    sheet = tile(fitted(images, room / columns), columns, gap)
    top = 24 if title else 2
    figure, place = _canvas(sheet.shape[1] + 4, sheet.shape[0] + top + 2)
    axis = place(2, top, sheet.shape[1], sheet.shape[0])
    _show(axis, sheet)
    if title:
        axis.set_title(title)
    return figure


@styled
def image_rows(rows, width=9.6, heads=None, title=None):
    """Rows of images that belong together column by column, each with its name on the left.

    Args:
        rows: Dictionary of names to images, all of one shape `(n, height, width, channels)`; where
            a row has fewer of them, it ends in blanks.
        width: Inches that the figure has at most, names included.
        heads: Names of the columns, or None.
        title: Above all, or None.
    """
    columns, gap, between = max(map(len, rows.values())), 2, 6
    left, top = _margin(rows), (22 if heads is not None else 2) + (26 if title else 0)
    room = (int(width * DPI) - left - columns * gap) / columns
    sheets = {name: tile(fitted(images, room), columns, gap) for name, images in rows.items()}
    first = next(iter(sheets.values()))
    high, wide = first.shape[:2]
    one = (wide + gap) // columns  # a column with its gap
    figure, place = _canvas(left + wide + 4, top + len(rows) * (high + between))
    if title:
        figure.text(left / (left + wide + 4), 1, title, fontsize=11, va="top", color=INK)
    for number, (name, sheet) in enumerate(sheets.items()):
        axis = place(left, top + number * (high + between), sheet.shape[1], high)
        _show(axis, sheet)
        axis.text(
            -8 / wide, 0.5, name, transform=axis.transAxes, ha="right", va="center", color=INK
        )
        if heads is not None and not number:
            for column, head in enumerate(heads):
                middle = (column * one + (one - gap) / 2) / sheet.shape[1]
                options = {
                    "transform": axis.transAxes,
                    "ha": "center",
                    "va": "bottom",
                    "color": INK,
                }
                axis.text(middle, 1 + 4 / high, head, **options)
    return figure


@styled
def before_after(before, after, heads=("before", "after", "difference"), width=7.0, limit=None):
    """An image, the same image changed, and the difference in colour.

    Args:
        before, after: Floats in [0, 1], shape `(height, width, channels)`.
        heads: Above the three.
        width: Inches.
        limit: Grey levels at the ends of the colour scale; None: the largest difference.

    Returns:
        Figure; in the difference red is brighter, blue darker, channels averaged.
    """
    before, after = (np.asarray(each, np.float32) for each in (before, after))
    change = (after - before).mean(axis=-1)
    limit = limit or max(float(np.abs(change).max()), 1e-3)
    room = (int(width * DPI) - 110) / 3
    pair = fitted(np.stack([before, after]), room)
    high, wide = pair.shape[1:3]
    figure, place = _canvas(3 * (wide + 8) + 100, high + 30)
    for number, (head, image) in enumerate(zip(heads, (*pair, None), strict=True)):
        axis = place(number * (wide + 8), 24, wide, high)
        if image is None:
            scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            shown = axis.imshow(change, **scale, interpolation="nearest", aspect="auto")
            axis.set_axis_off()
        else:
            _show(axis, image)
        axis.set_title(head, fontsize=10, loc="center")
    figure.colorbar(shown, cax=place(3 * (wide + 8) + 4, 24, 12, high), label="change (white is 1)")
    return figure


@styled
def loss_curves(history, terms=("loss", "reconstruction", "kl", "ssim"), unit="nats per image"):
    """What training did, epoch by epoch: one panel per term, training and validation.

    The first epochs would flatten all that follows; where a panel leaves them out, it says so.

    Args:
        history: Table with `epoch` (from 0), the terms, and `val_` columns beside them; a term that
            it lacks gets no panel.
        unit: Of every term but SSIM, which has none.
    """
    present = [term for term in terms if term in history]
    figure, axes = new_figure(2.3 * len(present) + 0.4, 2.5, columns=len(present))
    look = {"marker": "o"} if len(history) == 1 else {}  # one epoch is no line
    epochs = np.asarray(history["epoch"]) + 1
    for axis, term in zip(axes[0], present, strict=True):
        axis.plot(epochs, history[term], color=COLOURS[0], label="training", **look)
        if f"val_{term}" in history:
            values = history[f"val_{term}"]
            axis.plot(epochs, values, color=COLOURS[1], label="validation", **look)
        axis.set(title=term, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if term != "ssim":
            curves = [np.asarray(line.get_ydata()) for line in axis.lines]
            late = [each[len(history) // 8 :] for each in curves]
            low, high = min(map(np.min, late)), max(map(np.max, late))
            margin = 0.15 * (high - low) + 1e-9
            axis.set_ylim(low - margin, high + margin)
            out = np.any(
                [np.abs(each - (low + high) / 2) > (high - low) / 2 + margin for each in curves],
                axis=0,
            )
            if out.any():
                left = np.flatnonzero(out)[-1] + 1
                said = "epoch 1" if left == 1 else f"epochs 1 to {left}"
                value = f"{curves[0][0]:,.0f}" if abs(curves[0][0]) > 99 else f"{curves[0][0]:.1f}"
                high_up = late[0][-1] > (low + high) / 2  # the text goes where the curve is not
                axis.text(
                    0.98,
                    0.04 if high_up else 0.98,
                    f"{said}\noff the scale\n(first: {value})",
                    transform=axis.transAxes,
                    ha="right",
                    va="bottom" if high_up else "top",
                    fontsize=8,
                    color=GREY,
                )
    axes[0, 0].set_ylabel(unit)
    axes[0, -1].legend(loc="lower right")
    return figure


@styled
def curve(x, lines, xlabel, ylabel, log=False, errors=None, width=5.0, title=None):
    """Lines with a mark at every value; those of models have the models' looks.

    Args:
        x: Values of the horizontal axis, shape `(n,)`.
        lines: Dictionary of names to n values.
        log: Whether the horizontal axis is logarithmic (base 2).
        errors: Dictionary of names to n half widths of a band, for some of the lines.
        width: Inches.
        title: Above it, or None.
    """
    figure, axes = new_figure(width, 0.62 * width)
    axis = axes[0, 0]
    known = looks(lines)
    for name, values in lines.items():
        colour, marker = known[name]
        (line,) = axis.plot(x, values, color=colour, marker=marker, markersize=5, label=name)
        if errors and name in errors:
            middle, half = np.asarray(values), np.asarray(errors[name])
            axis.fill_between(x, middle - half, middle + half, color=line.get_color(), alpha=0.2)
    if log:
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(x), [f"{value:g}" for value in x])
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    axis.legend()
    return figure


@styled
def trade(panels, by="model", width=9.0, across=None):
    """Trade-offs: runs as points, a panel for each pair, a colour for each model.

    Args:
        panels: Dictionary of titles to `(table, (x, xlabel), (y, ylabel))`: a row of the table is a
            run, `x` and `y` are columns; runs that lack one of the two are left out of the panel.
        by: Column of what has a colour of its own: the same in all panels, and in all figures of
            one table.
        across: Panels in a row; None puts all into one.
    """
    across = across or len(panels)
    down = math.ceil(len(panels) / across)
    figure, axes = new_figure(width, 0.8 * width / across * down + 0.4, rows=down, columns=across)
    names = dict.fromkeys(name for table, *_ in panels.values() for name in table[by])
    known = looks(names)
    drawn = set()
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, (table, (x, xlabel), (y, ylabel))) in zip(
        axes.flat[: len(panels)], panels.items(), strict=True
    ):
        for name, runs in table.dropna(subset=[x, y]).groupby(by, sort=False):
            colour, marker = known[name]
            axis.scatter(
                runs[x], runs[y], color=colour, marker=marker, s=60, alpha=0.8, edgecolor="white"
            )
            drawn.add(name)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    entries = [
        Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="", label=name)
        for name, (colour, marker) in known.items()
        if name in drawn
    ]
    columns = min(len(entries), max(2, int(width // 1.8)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
    return figure


def looks(names):
    """Colour and marker of each of some things; a model has the same in all figures.

    Args:
        names: What is drawn; of `LOOKS` are those that begin like it, up to a comma.

    Returns:
        Dictionary of names to `(colour, marker)`, no two alike.
    """
    found, others = {}, [(colour, mark) for mark in "os^D" for colour in COLOURS]
    for name in names:
        word = str(name).lower()
        keys = [word, word.rstrip(" .0123456789"), *re.split("[,:]", word)[:1]]
        own = [LOOKS[key] for key in keys if key in LOOKS][:1]
        taken = set(found.values())
        own += [(own[0][0], mark) for mark in "oDs^vP"] if own else []
        found[name] = next(each for each in (*own, *others) if each not in taken)
    return found


def plane_names(points, share):
    """What the two axes of a plane of latents are called.

    Args:
        points, share: From `latent.plane`: shape `(n, 2)`, and the share of the variance shown.

    Returns:
        `("PC 1 (37 %)", "PC 2 (21 %)")`; of a latent that has only two axes, or of t-SNE, whose
        share is NaN, their own names.
    """
    if np.isnan(share):
        return "t-SNE 1", "t-SNE 2"
    if share > 1 - 1e-6:
        return "$z_1$", "$z_2$"
    variance = np.asarray(points, np.float64).var(axis=0)
    parts = share * variance / max(variance.sum(), 1e-12)
    return tuple(f"PC {number} ({100 * part:.0f} %)" for number, part in enumerate(parts, 1))


@styled
def latent_map(points, labels=None, classes=(), title=None, names=("$z_1$", "$z_2$"), width=6.5):
    """Scatter of latents in a plane, coloured by class.

    Args:
        points: Shape `(n, 2)`, from `latent.plane`.
        labels: Whole numbers, shape `(n,)`, or None; -1 (no label) is drawn grey.
        classes: Their names; those of the largest `MOST_NAMED` classes are written.
        names: Of the two axes.
    """
    points = np.asarray(points)
    figure, axes = new_figure(width, 0.85 * width)
    axis = axes[0, 0]
    size = float(np.clip(6000 / len(points), 3, 18))
    labels = np.full(len(points), -1) if labels is None else np.asarray(labels)
    found, counts = np.unique(labels, return_counts=True)
    named = set(found[found >= 0][np.argsort(-counts[found >= 0], kind="stable")][:MOST_NAMED])
    for label in found:
        colour = "#bbbbbb" if label < 0 else COLOURS[label % len(COLOURS)]
        chosen = labels == label
        name = classes[label] if label in named and label < len(classes) else None
        axis.scatter(*points[chosen].T, s=size, color=colour, alpha=0.7, linewidths=0, label=name)
        if name is not None:
            centre = np.median(points[chosen], axis=0)
            shape = "circle" if len(name) < 3 else "round"
            box = {"boxstyle": f"{shape},pad=0.25", "fc": "white", "ec": colour, "alpha": 0.9}
            axis.text(*centre, name, ha="center", va="center", color=INK, bbox=box)
    axis.set(title=title or "", xlabel=names[0], ylabel=names[1], aspect="equal")
    return figure


@styled
def clouds(panels, ground, across=4, width=9.6):
    """Scatters of points in one plane, each before the same grey ground.

    Args:
        panels: Dictionary of titles to points, shape `(n, 2)`.
        ground: Points of the ground, shape `(n, 2)`.
        across: Panels in a row.
    """
    across = min(across, len(panels))
    rows, side = -(-len(panels) // across), width / across
    figure, axes = new_figure(width, (side + 0.3) * rows, rows, across, sharex=True, sharey=True)
    ground = np.asarray(ground)
    low, high = np.quantile(ground, (0.005, 0.995), axis=0)
    room = 0.25 * (high - low).max()
    for axis, (title, points) in zip(axes.flat, panels.items(), strict=False):
        for some, colour in ((ground, "#b0b0b0"), (np.asarray(points), COLOURS[0])):
            size = float(np.clip(2500 / len(some), 2, 10))
            axis.scatter(*some.T, s=size, color=colour, alpha=0.7, linewidths=0)
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
        axis.set(xlim=(low[0] - room, high[0] + room), ylim=(low[1] - room, high[1] + room))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return figure


@styled
def value_map(points, values, label, names=("$z_1$", "$z_2$"), width=6.0):
    """Scatter of latents in a plane, coloured by a number: an age, a size, an error.

    Args:
        points: Shape `(n, 2)`, from `latent.plane`.
        values: Shape `(n,)`.
        label: What the numbers are.
        names: Of the two axes.
    """
    points = np.asarray(points)
    figure, axes = new_figure(width, 0.75 * width)
    size = float(np.clip(6000 / len(points), 3, 18))
    dots = axes[0, 0].scatter(*points.T, s=size, c=values, cmap="viridis", alpha=0.8, linewidths=0)
    figure.colorbar(dots, label=label)
    axes[0, 0].set(xlabel=names[0], ylabel=names[1], aspect="equal")
    return figure


@styled
def thumbnails(
    points, images, side=0.05, width=8.0, title=None, reach=1.5, labels=None, names=None
):
    """A map of images, each at its latent's place, or in the free place nearest to it.

    One that finds no free place within reach is drawn as a dot, and below the map stands how many.

    Args:
        points: Shape `(n, 2)`, from `latent.plane`.
        images: Floats in [0, 1] or uint8, shape `(n, height, width, channels)`.
        side: Of a thumbnail, as a share of the map's.
        width: Of the map, inches.
        title: Above it.
        reach: How far a thumbnail may move, in its own sides; 0: not at all.
        labels: Whole numbers, shape `(n,)`: frames of a colour each; -1 has none. Or None.
        names: Of the two axes, or None.
    """
    points, images = np.asarray(points, np.float64), np.asarray(images)
    pixels = int(width * DPI)
    size = max(3, int(side * pixels))
    low, high = points.min(axis=0), points.max(axis=0)
    places = (points - low) / np.maximum(high - low, 1e-9) * (1 - size / pixels)
    rows, moved = settled(places, size / pixels, reach)
    labels = np.full(len(points), -1) if labels is None else np.asarray(labels)
    sheet = np.ones((pixels, pixels, 3), np.float32)
    corners = np.floor(
        np.clip(np.stack([moved[:, 0], 1 - size / pixels - moved[:, 1]], 1), 0, 1) * pixels
    ).astype(int)
    inner = max(1, size - 2)  # a frame of one pixel, white without a label
    small = fitted(images[rows], inner * min(1.0, images.shape[2] / images.shape[1]))
    for row, (left, top), image in zip(rows, corners, small, strict=True):
        frame = sheet[top : top + size, left : left + size]
        if labels[row] >= 0:
            frame[:] = COLOURS[labels[row] % len(COLOURS)]
        down, across = ((size - each) // 2 for each in image.shape[:2])
        part = frame[down : down + image.shape[0], across : across + image.shape[1]]
        part[:] = image[: part.shape[0], : part.shape[1]]
    top = 24 if title else 4
    figure, place = _canvas(pixels + 30, pixels + top + 34)
    axis = place(26, top, pixels, pixels)
    axis.imshow(sheet, interpolation="nearest", aspect="auto", extent=(0, 1, 0, 1))
    left = np.setdiff1d(np.arange(len(points)), rows)
    axis.scatter(*(places[left] + size / pixels / 2).T, s=3, color=GREY, linewidths=0, zorder=0)
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], title=title or "")
    axis.spines[:].set_visible(False)
    if names:
        axis.set(xlabel=names[0], ylabel=names[1])
    if len(left):
        axis.text(
            1,
            -0.012,
            f"{len(left)} of {len(points)} have no place and are left out",
            ha="right",
            va="top",
            color=GREY,
            fontsize=9,
        )
    return figure


def apart(places, side):
    """Rows of points whose squares do not overlap, taken greedily in their order.

    Args:
        places: Shape `(n, 2)`.
        side: Of the squares.
    """
    return settled(places, side, reach=0.0)[0]


def settled(places, side, reach=1.5):
    """Squares side by side: each at its own place, or in the free place nearest to it.

    Args:
        places: Corners that the squares would like to have, shape `(n, 2)`; taken in their order.
        side: Of the squares.
        reach: How far one may move, in sides, along each axis; then all lie on a lattice. 0: they
            do not move, and one that would overlap finds no place.

    Returns:
        `(rows, corners)`: which found a place, shape `(m,)`, and where, shape `(m, 2)`; no two
        squares overlap.
    """
    places = np.asarray(places, np.float64)
    if not reach:
        rows = []
        for row, place in enumerate(places):
            if not rows or np.abs(places[rows] - place).max(axis=1).min() >= side:
                rows.append(row)
        return np.array(rows), places[rows]
    wanted = (places - places.min(axis=0)) / side
    most = np.floor(wanted.max(axis=0) + 1e-9)  # the last cell that still ends where they do
    steps = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    steps = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    taken, rows = {}, []
    for row, place in enumerate(wanted):
        cells = np.clip(np.round(place), 0, most) + steps
        away = np.abs(cells - place)
        cells = cells[np.argsort(np.square(away).sum(axis=1), kind="stable")]
        for cell in map(tuple, cells):
            inside = 0 <= cell[0] <= most[0] and 0 <= cell[1] <= most[1]
            if inside and cell not in taken and np.abs(cell - place).max() <= reach + 0.5:
                taken[cell] = row
                rows.append(row)
                break
    corners = np.array(list(taken), np.float64).reshape(-1, 2) * side + places.min(axis=0)
    return np.array(rows), corners


@styled
def histograms(z, axes=None, columns=6, width=9.0, name=None):
    """The aggregated posterior on some latent axes, against the prior N(0, 1).

    Args:
        z: Draws of the posteriors, shape `(n, latent_dim)`.
        axes: Which axes, in this order; None: the first twelve.
        name: Of the model, which gives the figure its title and the bars their colour.
    """
    chosen = list(range(min(12, z.shape[1])) if axes is None else axes)
    rows = -(-len(chosen) // columns)
    height = 1.3 * rows + (0.3 if name else 0.0)
    figure, panels = new_figure(width, height, rows, columns, sharex=True, sharey=True)
    colour = looks([name or "VAE"])[name or "VAE"][0]
    far = max(4.0, float(np.quantile(np.abs(z[:, chosen]), 0.995)))  # of a few, tails are left out
    grid = np.linspace(-far, far, 81)
    for axis, number in zip(panels.flat, chosen, strict=False):
        axis.hist(z[:, number], bins=grid[::2], density=True, color=colour, alpha=0.6)
        axis.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1)
        axis.set_title(f"$z_{{{number}}}$", fontsize=9)
    for axis in panels.flat[len(chosen) :]:
        axis.set_axis_off()
    for axis in panels.flat:
        axis.set_yticks([])
    if name:
        figure.suptitle(name, fontsize=11, x=0.01, ha="left")
    return figure


@styled
def difference_maps(images, names, absolute=False, width=9.0):
    """What a strength sweep changes: images, then their differences in one colour scale.

    Args:
        images: One picture at every strength, shape `(strengths, height, width, channels)`.
        names: Of the strengths.
        absolute: Whether the sign is left out.

    Returns:
        Figure of three rows: the images; each less the one before it; each less the first.
        Red is brighter, blue darker (absolute: bright is changed); colours are averaged away.
    """
    grey = np.asarray(images, np.float64).mean(axis=-1)
    steps = np.concatenate([np.zeros_like(grey[:1]), np.diff(grey, axis=0)])
    changes = grey - grey[:1]
    limit = max(float(np.abs(changes).max()), float(np.abs(steps).max()), 1e-3)
    scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    if absolute:
        steps, changes = np.abs(steps), np.abs(changes)
        scale = {"cmap": "magma", "vmin": 0.0, "vmax": limit}
    columns = len(grey)
    names_of_rows = ("image", "since the last", "since the first")
    left, gap = _margin(names_of_rows), 6
    room = (int(width * DPI) - left - 90) / columns - gap
    wide = int(room) // grey.shape[2] * grey.shape[2] or max(1, int(room))  # whole multiples
    high = round(wide * grey.shape[1] / grey.shape[2])
    shown_grey = fitted(grey[..., None], room).squeeze(-1)
    figure, place = _canvas(left + columns * (wide + gap) + 90, 24 + 3 * (high + gap))
    for row, (kind, rule) in enumerate(
        ((shown_grey, {"cmap": "gray", "vmin": 0, "vmax": 1}), (steps, scale), (changes, scale))
    ):
        for column in range(columns):
            axis = place(left + column * (wide + gap), 24 + row * (high + gap), wide, high)
            shown = axis.imshow(kind[column], **rule, interpolation="nearest", aspect="auto")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if not row:
                axis.set_title(names[column], fontsize=10, loc="center")
            if not column:
                axis.set_ylabel(names_of_rows[row], rotation=0, ha="right", va="center")
    bar = place(left + columns * (wide + gap) + 6, 24 + high + gap, 12, 2 * high + gap)
    figure.colorbar(shown, cax=bar, label="change (white is 1)")
    return figure


def coloured(changes, limit=None):
    """Differences of images as colours: red is brighter, blue darker, white no change.

    Args:
        changes: Shape `(..., height, width, channels)`; channels are averaged.
        limit: Difference of the darkest colours; default: the largest there is.

    Returns:
        Floats in [0, 1], `(..., height, width, 3)`.
    """
    grey = np.asarray(changes, np.float64).mean(axis=-1)
    limit = limit or max(float(np.abs(grey).max()), 1e-3)
    return plt.get_cmap("RdBu_r")(0.5 + 0.5 * grey / limit)[..., :3]


@styled
def projections(scores, groups, xlabel, width=5.0, title=None):
    """Histograms of one number in several groups, on one axis.

    Args:
        scores: Shape `(n,)`.
        groups: Dictionary of names to booleans of shape `(n,)`.
    """
    figure, axes = new_figure(width, 0.55 * width)
    bins = np.linspace(scores.min(), scores.max(), 31)
    for colour, (name, chosen) in zip(COLOURS, groups.items(), strict=False):
        label = f"{name} ({int(np.sum(chosen))})"
        axes[0, 0].hist(scores[chosen], bins, density=True, color=colour, alpha=0.5, label=label)
    axes[0, 0].set(xlabel=xlabel, ylabel="density", title=title or "")
    axes[0, 0].legend()
    return figure


@styled
def intervals(rows, xlabel, reference=None, width=6.5, title=None):
    """Numbers with their intervals, one below the other.

    Args:
        rows: Dictionary of names to `(value, low, high)`; NaN where there is no interval.
        xlabel: What the numbers are.
        reference: Where a vertical line stands, or None.
        width: Inches.
        title: Above it, or None.
    """
    figure, axes = new_figure(width, 0.7 + 0.28 * len(rows) + (0.25 if title else 0.0))
    axis = axes[0, 0]
    if reference is not None:
        axis.axvline(reference, color="#bbbbbb", linewidth=1)
    for number, (value, low, high) in enumerate(rows.values()):
        axis.plot([low, high], [number, number], color=COLOURS[0], linewidth=2, alpha=0.6)
        axis.plot(value, number, marker="o", color=COLOURS[0])
        axis.text(1.02, number, f"{value:.2f}", transform=axis.get_yaxis_transform(), va="center")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlabel=xlabel, title=title or "")
    axis.invert_yaxis()
    return figure


@styled
def calibration(tables, width=4.6):
    """Accuracy against confidence; a calibrated model stays on the diagonal.

    Args:
        tables: Dictionary of names to tables of `metrics.calibration_error`; the area of a mark
            grows with the images that it stands for.
    """
    figure, axes = new_figure(width, 0.95 * width)
    axis = axes[0, 0]
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    known = looks(tables)
    for name, rows in tables.items():
        colour, marker = known[name]
        axis.plot(rows["confidence"], rows["accuracy"], color=colour, alpha=0.5)
        sizes = 8 + 200 * rows["n"] / rows["n"].sum()
        axis.scatter(
            rows["confidence"], rows["accuracy"], s=sizes, color=colour, marker=marker, label=name
        )
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    axis.legend(loc="upper left")
    return figure


@styled
def cosine_table(table, width=None):
    """A square table of cosines as colours with their numbers; see `directions.cosines`."""
    side = width or 1.0 + 0.75 * len(table)
    figure, axes = new_figure(side + 0.6, side)
    axes[0, 0].imshow(table, cmap="RdBu_r", vmin=-1, vmax=1)
    for row in range(len(table)):
        for column in range(len(table)):
            value = table.iloc[row, column]
            ink = "white" if abs(value) > 0.6 else INK
            axes[0, 0].text(column, row, f"{value:.2f}", ha="center", va="center", color=ink)
    axes[0, 0].set_xticks(range(len(table)), list(table.columns), rotation=35, ha="right")
    axes[0, 0].set_yticks(range(len(table)), list(table.index))
    axes[0, 0].spines[:].set_visible(False)
    return figure


@styled
def anomalies(images, made, maps, limit, masks=None, label="score", heads=None, width=9.6):
    """Images, their reconstructions, and maps of what is abnormal in one colour scale.

    Args:
        images, made: Floats in [0, 1], shape `(n, height, width, channels)`.
        maps: Shape `(n, height, width)`; values at or below 0 are black.
        limit: Value at the end of the colour scale, the same in all figures that are compared.
        masks: Not 0 where there is a lesion, `(n, height, width, 1)`, outlined on images and maps;
            or None.
        label: What the maps show.
        heads: Titles of the columns, or None.
        width: Inches.
    """
    n, high, wide = maps.shape
    names = ("image", "reconstruction", "map")
    figure, axes = new_figure(width, (width - 1.2) / n * high / wide * 3 + 0.4, 3, n)
    grey = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}
    for row, (kind, rule) in enumerate(
        ((images, grey), (made, grey), (maps, {"cmap": "inferno", "vmin": 0.0, "vmax": limit}))
    ):
        for column in range(n):
            axis, picture = axes[row, column], np.asarray(kind[column], np.float32)
            picture = picture.squeeze(-1) if picture.shape[-1] == 1 and row < 2 else picture
            shown = axis.imshow(picture, **rule, interpolation="nearest")
            if masks is not None and row != 1 and masks[column].any():
                outline = np.asarray(masks[column]).reshape(high, wide) != 0
                axis.contour(outline, levels=[0.5], colors=["#39ff8f"], linewidths=0.8)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if not column:
                axis.set_ylabel(names[row])
            if not row and heads is not None:
                axis.set_title(heads[column], fontsize=9, loc="center")
    figure.colorbar(shown, ax=list(axes[2]), label=label, fraction=0.05, aspect=8)
    return figure


@styled
def alarm(groups, curves=None, threshold=None, width=9.0, title=None):
    """Scores of subjects with the alarm's threshold, and ROC curves of images.

    Args:
        groups: Dictionary of names to scores of subjects.
        curves: Dictionary of names to `(scores, ill)` of images, `(n,)` each; None: no curves.
        threshold: Of the alarm, drawn; or None.
        width: Inches.
        title: Of the scores, or None.
    """
    figure, axes = new_figure(width, 0.42 * width, 1, 1 if curves is None else 2)
    axis, values = axes[0, 0], np.concatenate(list(groups.values()))
    bins = np.linspace(values.min(), max(values.max(), threshold or values.max()), 31)
    for colour, (name, scores) in zip(COLOURS, groups.items(), strict=False):
        look = {"histtype": "stepfilled", "facecolor": (*colour, 0.15), "edgecolor": colour}
        axis.hist(scores, bins, **look, linewidth=1.8, label=f"{name} ({len(scores)})")
    if threshold is not None:
        axis.axvline(threshold, color=INK, linewidth=1, linestyle="--", label="alarm above")
    axis.set(xlabel="score of a subject", ylabel="subjects", title=title)
    # Below the axis: names of groups may be as long as a sentence.
    axis.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), fontsize=8)
    if curves is None:
        return figure
    axis = axes[0, 1]
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for colour, (name, (scores, ill)) in zip(COLOURS, curves.items(), strict=False):
        order = np.argsort(-np.asarray(scores), kind="stable")
        found = np.asarray(ill, bool)[order]
        wrong, right = np.cumsum(~found) / (~found).sum(), np.cumsum(found) / found.sum()
        axis.plot(np.r_[0, wrong], np.r_[0, right], color=colour, label=name)
    axis.set(xlabel="lesion-free images above", ylabel="images with a lesion above", aspect="equal")
    axis.legend(loc="lower right", fontsize=8)
    return figure


def save_gif(images, path, seconds=4.0, hold=0.5, loop=True, scale=1):
    """Writes frames as an animated GIF.

    Args:
        images: Floats in [0, 1] or uint8, shape `(frames, height, width, channels)`.
        path: Where to.
        seconds: That the frames take.
        hold: Seconds that the first and the last one stay besides.
        loop: Whether it starts again at its end, for ever.
        scale: Whole number, side of the square that every pixel becomes; None: as large as fits
            256 pixels of height.

    Returns:
        The path.
    """
    images = np.asarray(images)
    images = _pixels(images / 255.0 if images.dtype == np.uint8 else images)
    scale = max(1, 256 // images.shape[1]) if scale is None else scale
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    times = np.full(len(images), max(20, round(1000 * seconds / len(images))))  # milliseconds
    times[[0, -1]] += round(1000 * hold)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = map(Image.fromarray, images)
    options = {"loop": 0} if loop else {}
    first.save(
        path, save_all=True, append_images=others, duration=times.tolist(), disposal=2, **options
    )
    return path
