"""Diagrams of networks: their layers, and how the introspective ones feed each other."""

import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from analysis.plots import COLOURS, GREY, INK, new_figure, styled


@styled
def architecture(networks, width=9.0):
    """Networks drawn from their layers: every slab is a feature map, true to scale in logarithms.

    Args:
        networks: Dictionary of titles to rows `(kind, name, output_shape, parameters)`, from
            `networks.layers_of`. Only layers that change the shape are drawn.
    """
    figure, axes = new_figure(width, 2.1 * len(networks), rows=len(networks))
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


@styled
def introspection(width=9.0):
    """How an introspective VAE trains: one encoder reads three kinds of images.

    Returns:
        Figure: on the left where the images come from, in the middle the encoder, on the right
        what each of the two networks minimises.
    """
    figure, axes = new_figure(width, 0.52 * width)
    axis = axes[0, 0]
    axis.set(xlim=(0, 18), ylim=(-0.3, 9.4))
    axis.set_axis_off()
    blue, orange, white = "#dbe9f6", "#fde5cd", "#ffffff"

    def box(middle, words, colour=white, wide=2.9, high=1.15):
        x, y = middle[0] - wide / 2, middle[1] - high / 2
        shape = {"boxstyle": "round,pad=0.02,rounding_size=0.15", "facecolor": colour}
        axis.add_patch(FancyBboxPatch((x, y), wide, high, edgecolor="#888888", **shape))
        axis.text(*middle, words, ha="center", va="center", color=INK)

    def arrow(start, end, words="", colour="#555555", bend=0.0, at=(0.0, 0.0), style="-|>"):
        options = {"arrowstyle": style, "mutation_scale": 13, "color": colour, "shrinkA": 0}
        rule = f"arc3,rad={bend}"
        axis.add_patch(FancyArrowPatch(start, end, connectionstyle=rule, **options, shrinkB=0))
        middle = (start[0] + end[0]) / 2 + at[0], (start[1] + end[1]) / 2 + at[1]
        axis.text(*middle, words, ha="center", va="center", color=colour, fontsize=9)

    axis.text(1.6, 9.1, "images", ha="center", color=GREY)
    axis.text(6.7, 9.1, "encoder = critic", ha="center", color=GREY)
    axis.text(13.9, 9.1, "what is minimised", ha="center", color=GREY)
    box((1.6, 7.8), "real $x$")
    box((1.6, 4.6), "reconstructed\n$x_r = D(z)$")
    box((1.6, 1.4), "generated\n$x_g = D(z_p)$")
    for y in (7.8, 4.6, 1.4):
        box((6.7, y), "encoder $E$", blue, wide=2.5)
        arrow((3.05, y), (5.45, y))
    for y, index in ((7.8, ""), (4.6, "_r"), (1.4, "_g")):
        arrow((7.95, y), (9.6, y))
        axis.text(9.7, y, rf"KL$(x{index})$", ha="left", va="center", color=INK)
    arrow((6.7, 7.2), (4.95, 6.45), r"$z$", at=(0.25, -0.2))
    box((3.9, 6.1), "decoder $D$", orange, wide=2.1, high=0.7)
    arrow((2.85, 6.1), (2.2, 5.2))
    axis.text(6.7, 3.0, r"$z_p \sim \mathcal{N}(0, I)$", ha="center", va="center", color=INK)
    arrow((5.55, 3.0), (4.95, 3.0))
    box((3.9, 3.0), "decoder $D$", orange, wide=2.1, high=0.7)
    arrow((2.85, 3.0), (2.2, 2.0))

    box((14.9, 6.6), "", blue, wide=6.0, high=3.5)
    axis.text(12.2, 7.75, "encoder", color=INK, weight="bold", va="center")
    axis.text(12.2, 6.95, r"error$(x)$ + KL$(x)$ small", color=INK, va="center")
    axis.text(12.2, 6.2, "real images look normal", color=GREY, fontsize=9, va="center")
    axis.text(12.2, 5.45, r"KL$(x_r)$, KL$(x_g)$ large", color=INK, va="center")
    box((14.9, 2.4), "", orange, wide=6.0, high=3.5)
    axis.text(12.2, 3.55, "decoder", color=INK, weight="bold", va="center")
    axis.text(12.2, 2.75, r"error$(x)$ small", color=INK, va="center")
    axis.text(12.2, 2.0, r"KL$(x_r)$, KL$(x_g)$ small", color=INK, va="center")
    axis.text(12.2, 1.25, "its images pass for real ones", color=GREY, fontsize=9, va="center")
    for start, end, colour, bend in (
        ((10.95, 7.7), (11.85, 7.2), COLOURS[0], 0.0),
        ((11.05, 4.75), (11.85, 5.4), COLOURS[3], 0.0),
        ((11.05, 1.6), (11.85, 5.1), COLOURS[3], -0.1),
        ((11.05, 4.45), (11.85, 2.5), COLOURS[0], 0.1),
        ((11.05, 1.3), (11.85, 2.0), COLOURS[0], 0.0),
    ):
        arrow(start, end, colour=colour, bend=bend)
    axis.text(9.7, 0.25, "blue: pushed down, red: pushed up", color=GREY, fontsize=9)
    return figure
