"""Figures from arrays. Every function returns its figure and leaves no other trace."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from PIL import Image

from storage import disk

INK = "#222222"
COLOURS = plt.get_cmap("tab10").colors
MOST_NAMED = 20  # classes whose names a map has room for
STYLE = {
    "figure.dpi": 80,
    "savefig.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


styled = plt.rc_context(STYLE)  # decorates every function that draws


def _figure(width, height, rows=1, columns=1, **options):
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


def _show(axis, sheet):
    sheet = sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet
    axis.imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axis.set_axis_off()


@styled
def image_grid(images, columns=10, title=None, gap=1, width=8.0):
    """A sheet of images; see `tile`."""
    sheet = tile(images, columns, gap)
    figure, axes = _figure(
        width, width * sheet.shape[0] / sheet.shape[1] + (0.35 if title else 0.05)
    )
    _show(axes[0, 0], sheet)
    if title:
        axes[0, 0].set_title(title)
    return figure


@styled
def image_rows(rows, width=8.0):
    """Rows of images that belong together column by column, each with its name on the left.

    Args:
        rows: Dictionary of names to images, all of one shape `(n, height, width, channels)`; where
            a row has fewer of them, it ends in blanks.
    """
    columns = max(map(len, rows.values()))
    sheets = {name: tile(images, columns) for name, images in rows.items()}
    first = next(iter(sheets.values()))
    height = (width - 1.2) * first.shape[0] / first.shape[1] + 0.06
    figure, axes = _figure(width, height * len(rows), rows=len(rows))
    for axis, (name, sheet) in zip(axes[:, 0], sheets.items(), strict=True):
        _show(axis, sheet)
        axis.text(-0.012, 0.5, name, transform=axis.transAxes, ha="right", va="center", color=INK)
    return figure


@styled
def loss_curves(history, terms=("loss", "reconstruction", "kl", "ssim"), unit="nats per image"):
    """Training curves: one panel per term, training and validation.

    Args:
        history: Table with `epoch`, the terms, and their `val_` columns; a missing term gets no
            panel.
        unit: Of every term but SSIM, which has none.
    """
    present = [term for term in terms if term in history]
    figure, axes = _figure(2.6 * len(present) + 0.4, 2.6, columns=len(present))
    look = {"marker": "o"} if len(history) == 1 else {}  # one epoch is not a line
    for axis, term in zip(axes[0], present, strict=True):
        axis.plot(history["epoch"], history[term], color=COLOURS[0], label="training", **look)
        if f"val_{term}" in history:
            values = history[f"val_{term}"]
            axis.plot(history["epoch"], values, color=COLOURS[1], label="validation", **look)
        axis.set(title=term, xlabel="epoch", ylabel="" if term == "ssim" else unit)
        if term != "ssim":  # the first epochs would flatten all that follows
            curves = [line.get_ydata()[len(history) // 8 :] for line in axis.lines]
            low, high = min(map(np.min, curves)), max(map(np.max, curves))
            margin = 0.15 * (high - low) + 1e-9
            axis.set_ylim(low - margin, high + margin)
    axes[0, -1].legend(loc="lower right")
    return figure


@styled
def curve(x, lines, xlabel, ylabel, log=False, errors=None, width=5.0):
    """Lines with a mark at every value.

    Args:
        x: Values of the horizontal axis, shape `(n,)`.
        lines: Dictionary of names to n values.
        log: Whether the horizontal axis is logarithmic (base 2).
        errors: Dictionary of names to n half widths of a band, for some of the lines.
    """
    figure, axes = _figure(width, 0.62 * width)
    axis = axes[0, 0]
    for name, values in lines.items():
        (line,) = axis.plot(x, values, marker="o", label=name)
        if errors and name in errors:
            middle, half = np.asarray(values), np.asarray(errors[name])
            axis.fill_between(x, middle - half, middle + half, color=line.get_color(), alpha=0.2)
    if log:
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(x), [f"{value:g}" for value in x])
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    return figure


@styled
def trade(panels, by="model", width=9.0, across=None):
    """Trade-offs: runs as points, a panel for each pair of measures, a colour for each model.

    Args:
        panels: Dictionary of titles to `(table, (x, xlabel), (y, ylabel))`: a row of the table is a
            run, `x` and `y` are columns; runs without one of the two are left out of the panel.
        by: Column that determines the colours, which are the same in all panels and in all figures
            of one table.
        across: Panels in a row; None puts all into one.
    """
    across = across or len(panels)
    down = math.ceil(len(panels) / across)
    figure, axes = _figure(width, 0.8 * width / across * down + 0.4, rows=down, columns=across)
    names = dict.fromkeys(name for table, *_ in panels.values() for name in table[by])
    looks = {name: _look(number) for number, name in enumerate(names)}
    drawn = set()
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, (table, (x, xlabel), (y, ylabel))) in zip(
        axes.flat[: len(panels)], panels.items(), strict=True
    ):
        for name, runs in table.dropna(subset=[x, y]).groupby(by, sort=False):
            colour, marker = looks[name]
            axis.scatter(
                runs[x], runs[y], color=colour, marker=marker, s=60, alpha=0.8, edgecolor="white"
            )
            drawn.add(name)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    entries = [
        Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="", label=name)
        for name, (colour, marker) in looks.items()
        if name in drawn
    ]
    columns = min(len(entries), max(2, int(width // 1.8)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
    return figure


def _look(number):
    """Colour and marker of one of many things."""
    return COLOURS[number % len(COLOURS)], "os^D"[number // len(COLOURS) % 4]


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
    figure, axes = _figure(width, 0.85 * width)
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
def value_map(points, values, label, names=("$z_1$", "$z_2$"), width=6.0):
    """Scatter of latents in a plane, coloured by a number: an age, a size, an error.

    Args:
        points: Shape `(n, 2)`, from `latent.plane`.
        values: Shape `(n,)`.
        label: What the numbers are.
        names: Of the two axes.
    """
    points = np.asarray(points)
    figure, axes = _figure(width, 0.75 * width)
    size = float(np.clip(6000 / len(points), 3, 18))
    dots = axes[0, 0].scatter(*points.T, s=size, c=values, cmap="viridis", alpha=0.8, linewidths=0)
    figure.colorbar(dots, label=label)
    axes[0, 0].set(xlabel=names[0], ylabel=names[1], aspect="equal")
    return figure


@styled
def thumbnails(points, images, side=0.05, width=8.0, title=None):
    """A map of images, each at its latent's position; images that would overlap are left out.

    Their number is given below the map.

    Args:
        points: Shape `(n, 2)`, from `latent.plane`.
        images: Shape `(n, height, width, channels)`.
        side: Of a thumbnail, as a share of the map's.
    """
    figure, axes = _figure(width, width)
    axis = axes[0, 0]
    low, high = points.min(axis=0), points.max(axis=0)
    places = (points - low) / np.maximum(high - low, 1e-9)
    kept = apart(places, side)
    for row in kept:
        left, bottom = places[row] - side / 2
        image = np.asarray(images[row]).squeeze()
        top = 255 if image.dtype == np.uint8 else 1.0
        box = (left, left + side, bottom, bottom + side)
        axis.imshow(image, cmap="gray", vmin=0, vmax=top, extent=box, interpolation="antialiased")
    axis.set(xlim=(-side, 1 + side), ylim=(-side, 1 + side), title=title or "")
    axis.set_axis_off()
    if len(kept) < len(points):
        left = f"{len(points) - len(kept)} more images overlap these and are not shown"
        axis.text(0.5, -side, left, ha="center", va="top", color=INK)
    return figure


def apart(places, side):
    """Rows of points whose squares do not overlap, taken greedily in their order.

    Args:
        places: Shape `(n, 2)`.
        side: Of the squares.
    """
    kept = []
    for row, place in enumerate(places):
        if not kept or np.abs(places[kept] - place).max(axis=1).min() >= side:
            kept.append(row)
    return np.array(kept)


@styled
def histograms(z, axes=None, columns=6, width=9.0):
    """The aggregated posterior on some latent axes, against the prior N(0, 1).

    Args:
        z: Draws of the posteriors, shape `(n, latent_dim)`.
        axes: Which axes, in this order; None: the first twelve.
    """
    chosen = list(range(min(12, z.shape[1])) if axes is None else axes)
    rows = -(-len(chosen) // columns)
    figure, panels = _figure(width, 1.3 * rows, rows, columns, sharex=True, sharey=True)
    grid = np.linspace(-4, 4, 81)
    for axis, number in zip(panels.flat, chosen, strict=False):
        axis.hist(z[:, number], bins=grid[::2], density=True, color=COLOURS[0], alpha=0.6)
        axis.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1)
        axis.set_title(f"$z_{{{number}}}$", fontsize=9)
    for axis in panels.flat[len(chosen) :]:
        axis.set_axis_off()
    for axis in panels.flat:
        axis.set_yticks([])
    return figure


@styled
def difference_maps(images, names, absolute=False, width=9.0):
    """Effect of a strength sweep: images, then their differences in one colour scale.

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
    aspect = grey.shape[1] / grey.shape[2]
    figure, axes = _figure(width, 3 * aspect * (width - 1.0) / columns + 0.3, 3, columns)
    for column in range(columns):
        axes[0, column].imshow(grey[column], cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(names[column], fontsize=10, loc="center")
        for row, kind in ((1, steps), (2, changes)):
            shown = axes[row, column].imshow(kind[column], **scale)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, name in zip(axes[:, 0], ("image", "step", "in all"), strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.colorbar(shown, ax=axes[1:, :], shrink=0.7, label="grey levels, of 1")
    return figure


@styled
def projections(scores, groups, xlabel, width=5.0):
    """Histograms of one number in several groups, on one axis.

    Args:
        scores: Shape `(n,)`.
        groups: Dictionary of names to booleans of shape `(n,)`.
    """
    figure, axes = _figure(width, 0.55 * width)
    bins = np.linspace(scores.min(), scores.max(), 31)
    for colour, (name, chosen) in zip(COLOURS, groups.items(), strict=False):
        label = f"{name} ({int(np.sum(chosen))})"
        axes[0, 0].hist(scores[chosen], bins, density=True, color=colour, alpha=0.5, label=label)
    axes[0, 0].set(xlabel=xlabel, ylabel="density")
    axes[0, 0].legend()
    return figure


@styled
def calibration(tables, width=4.6):
    """Accuracy against confidence; a calibrated model is on the diagonal.

    Args:
        tables: Dictionary of names to tables of `metrics.calibration_error`; the area of a mark
            grows with its number of images.
    """
    figure, axes = _figure(width, 0.95 * width)
    axis = axes[0, 0]
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for colour, (name, rows) in zip(COLOURS, tables.items(), strict=False):
        axis.plot(rows["confidence"], rows["accuracy"], color=colour, alpha=0.5)
        sizes = 8 + 200 * rows["n"] / rows["n"].sum()
        axis.scatter(rows["confidence"], rows["accuracy"], s=sizes, color=colour, label=name)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    axis.legend(loc="upper left")
    return figure


@styled
def cosine_table(table, width=None):
    """A square table of cosines as colours with their numbers; see `directions.cosines`."""
    side = width or 1.0 + 0.75 * len(table)
    figure, axes = _figure(side + 0.6, side)
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


def save_gif(images, path, seconds=4.0, hold=0.5, loop=True, scale=1):
    """Writes frames as an animated GIF.

    Args:
        images: Floats in [0, 1] or uint8, shape `(frames, height, width, channels)`.
        path: Where to.
        seconds: That the frames take.
        hold: Seconds that the first and the last one stay besides.
        loop: Whether it starts again at its end, for ever.
        scale: Whole number, side of the square that every pixel becomes.

    Returns:
        The path.
    """
    images = np.asarray(images)
    images = _pixels(images / 255.0 if images.dtype == np.uint8 else images)
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


@styled
def architecture(networks, width=9.0):
    """Networks drawn from their layers: every slab is a feature map, true to scale in logarithms.

    Args:
        networks: Dictionary of titles to rows `(kind, name, output_shape, parameters)`, from
            `networks.layers_of`. Only layers that change the shape are drawn.
    """
    figure, axes = _figure(width, 2.1 * len(networks), rows=len(networks))
    for axis, (title, rows) in zip(axes[:, 0], networks.items(), strict=True):
        _slabs(axis, rows)
        total = sum(row[3] for row in rows)
        axis.set_title(f"{title}: {total:,} parameters")
    return figure


# Layers that only rearrange what the layer before them made.
_REARRANGE = ("Flatten", "Reshape", "Clip", "ZeroPadding2D", "BatchNormalization")
_NAMES = {"InputLayer": "", "Conv2D": "conv", "Conv2DTranspose": "conv\u1d40", "Dense": "dense"}


def _drawn(rows):
    """The rows worth a slab: those that change the shape, and the heads."""
    kept = []
    for row in rows:
        kind, name, shape, _ = row
        head = name in ("z_mean", "z_log_var")
        if head or (kind not in _REARRANGE and (not kept or shape != kept[-1][2])):
            kept.append(row)
    return sorted(kept, key=lambda row: row[1] == "z_log_var")  # below z_mean, at the end


def _slabs(axis, rows):
    left = 0.0
    rows = _drawn(rows)
    heads = [name for _, name, _, _ in rows if name in ("z_mean", "z_log_var")]
    for kind, name, shape, _ in rows:
        flat = len(shape) == 1
        height = np.log2(shape[0] + 1) / (8 if flat else 5)
        thick = 0.1 if flat else 0.1 + np.log2(shape[-1]) / 12
        depth = 0.0 if flat else 0.3 * np.log2(shape[1] + 1) / 5
        middle = 0.0
        if len(heads) == 2 and name in heads:  # one above the other
            middle = 0.75 if name == heads[0] else -0.75
            left -= 1.0 if name == heads[1] else 0.0
        _slab(axis, left, middle - height / 2, thick, height, depth, COLOURS[1 if flat else 0])
        caption = name if name in (*heads, "images", "z", "logits") else _NAMES.get(kind, kind)
        caption += "\n" + "x".join(map(str, shape))
        axis.text(left + thick / 2, middle - height / 2 - 0.1, caption, ha="center", va="top")
        left += 1.0 if name in heads else thick + depth + 0.75
    axis.set(xlim=(-0.6, left), ylim=(-1.6, 1.2), aspect="equal")
    axis.set_axis_off()


def _slab(axis, left, bottom, thick, height, depth, colour):
    """One box seen from the front, from above and from the right."""
    right, top, rise = left + thick, bottom + height, depth / 2
    front = [(left, bottom), (right, bottom), (right, top), (left, top)]
    lid = [(left, top), (left + depth, top + rise), (right + depth, top + rise), (right, top)]
    side = [
        (right, bottom),
        (right + depth, bottom + rise),
        (right + depth, top + rise),
        (right, top),
    ]
    for face, shade in zip((front, lid, side), (0.75, 0.5, 0.95), strict=True):
        paint = 1 - (1 - np.array(colour)) * shade
        axis.add_patch(
            Polygon(face, closed=True, facecolor=paint, edgecolor="white", linewidth=0.8)
        )
