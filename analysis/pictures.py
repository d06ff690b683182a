"""Images, colours and table rows in the form in which a browser shows them.

What comes from a table or a file name is escaped: a browser shows it as text.
"""

import base64
import html
import io
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps, colors
from PIL import Image, ImageOps

from analysis import plots
from analysis.atlas import FEW, is_text

MISSING = "#b9bec6"
SCALE = "viridis"  # of numbers
CHANGES = "RdBu_r"  # of differences: red is brighter, blue darker
THUMBNAIL = 96  # pixels, at most


def png(image, most=None) -> bytes:
    """An image, floats in [0, 1] or uint8, as PNG; shrunk where it is larger than `most` pixels."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    made = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if most and max(made.size) > most:
        made.thumbnail((most, most), Image.LANCZOS)
    file = io.BytesIO()
    made.save(file, "png", compress_level=1)  # fast: it goes to this machine's browser
    return file.getvalue()


def url(image, most=None) -> str:
    """An image as a `data:` URL."""
    return "data:image/png;base64," + base64.b64encode(png(image, most)).decode()


def rgba(image, side, frame=None):
    """An image as Bokeh draws it: uint32 `(height, width)`, the last row first.

    Args:
        image: uint8 `(height, width, channels)`.
        side: Most pixels of it.
        frame: Colour of a frame, over the outermost pixels; or None. A small image is enlarged
            first.
    """
    made = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGBA")
    if max(made.size) > side:
        made.thumbnail((side, side), Image.LANCZOS)
    elif frame is not None:
        made = made.resize([each * (side // max(made.size)) for each in made.size], Image.BICUBIC)
    if frame is not None:
        made = ImageOps.expand(made.crop((2, 2, made.width - 2, made.height - 2)), 2, frame)
    return np.ascontiguousarray(np.asarray(made)[::-1]).view(np.uint32).squeeze(-1)


def change(before, after, limit):
    """A difference in colours, white at 0, ends of the scale at plus and minus `limit`."""
    return plots.coloured(np.asarray(after, np.float32) - before, limit)


class Colours(NamedTuple):
    """Colours of a column: one per row, and what a legend says.

    `names` are `(colour, text)` of classes; `ends` are the numbers at the ends of the scale.
    """

    rows: list[str]
    names: list[tuple[str, str]]
    ends: tuple[float, float] | None


def colours(column, classes=()) -> Colours:
    """A colour for every row of a column: of classes for text and few whole numbers, else a scale.

    Args:
        column: Of a table.
        classes: Names of the classes that whole numbers stand for.
    """
    known = column.notna().to_numpy()
    values = column[known]
    few = values.nunique() <= FEW and not pd.api.types.is_float_dtype(values)
    if is_text(column) or pd.api.types.is_bool_dtype(column) or few:
        counts = values.value_counts()
        kept = sorted(counts.index[:FEW], key=lambda each: (str(type(each)), each))
        palette = [
            colors.to_hex(each) for each in (*colormaps["tab10"].colors, "#2b4a6f", "#8a6d3b")
        ]
        of = dict(zip(kept, palette, strict=False))
        rows = [of.get(each, MISSING) for each in column]
        names = [(of[each], named(each, classes)) for each in kept]
        if len(counts) > FEW:
            names.append((MISSING, f"{len(counts) - FEW} others"))
    else:
        numbers = values.to_numpy(np.float64)
        low, high = np.quantile(numbers, (0.01, 0.99)) if len(numbers) else (0.0, 1.0)
        share = np.clip((numbers - low) / max(high - low, 1e-12), 0, 1)
        rows = np.full(len(column), MISSING, object)
        rows[known] = [colors.to_hex(each) for each in colormaps[SCALE](share)]
        return Colours(list(rows), _missing(known), (float(low), float(high)))
    return Colours(rows, names + _missing(known), None)


def _missing(known):
    return [] if known.all() else [(MISSING, f"no value ({int((~known).sum())})")]


def cell(value) -> str:
    """A cell of a table as text, numbers to four digits."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


def named(value, classes=()) -> str:
    """A value as text: the name of its class, if it is the number of one."""
    whole = isinstance(value, bool | np.bool_ | int | np.integer)
    return str(classes[int(value)]) if whole and 0 <= value < len(classes) else cell(value)


# --- pieces of the page --------------------------------------------------------------------------


def escaped(text) -> str:
    return html.escape(str(text), quote=True)


def figure_of(image, caption, size="third", row=None) -> str:
    """An image with a line below it.

    Args:
        image: Floats in [0, 1] or uint8.
        caption: Text.
        size: `"large"`, `"third"`, `"small"` or `"tiny"`; see `piece.css`.
        row: Row of the image that a click chooses, or None.
    """
    height, width = np.shape(image)[:2]
    pick = "" if row is None else f' data-row="{int(row)}" tabindex="0" role="button"'
    most = {"small": 160, "tiny": 120}.get(size, 1024)
    return (
        f'<figure class="{size}"><img src="{url(image, most)}" alt="{escaped(caption)}" '
        f'decoding="sync" style="aspect-ratio:{width}/{height}"{pick}>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def together(*parts, wrap=False) -> str:
    """Images side by side, in several lines if `wrap`."""
    return f'<div class="pictures{" wrap" if wrap else ""}">{"".join(parts)}</div>'


def facts(pairs, columns=1) -> str:
    """Names and values as a table, or as two tables side by side."""
    rows = [
        f"<tr><th>{escaped(name)}</th><td>{escaped(cell(value))}</td></tr>" for name, value in pairs
    ]
    size = max(1, -(-len(rows) // columns))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    tables = "".join(f'<table class="facts">{"".join(part)}</table>' for part in parts)
    return f'<div class="beside">{tables}</div>'


def legend(found) -> str:
    """The legend of `Colours`: chips, or a scale with its ends."""
    parts = []
    if found.ends is not None:
        stops = ",".join(colors.to_hex(each) for each in colormaps[SCALE](np.linspace(0, 1, 9)))
        low, high = (escaped(cell(each)) for each in found.ends)
        parts.append(
            f'<span class="end">{low}</span><i class="scale" style="background:'
            f'linear-gradient(90deg,{stops})"></i><span class="end">{high}</span>'
        )
    parts += [
        f'<span class="chip"><i style="background:{colour}"></i>{escaped(text)}</span>'
        for colour, text in found.names
    ]
    return f'<div class="legend">{"".join(parts)}</div>'


def scale_of(limit) -> str:
    """The colours of differences with their ends."""
    stops = ",".join(colors.to_hex(each) for each in colormaps[CHANGES](np.linspace(0, 1, 9)))
    return (
        f'<div class="legend"><span class="end">darker −{limit:.2f}</span>'
        f'<i class="scale" style="background:linear-gradient(90deg,{stops})"></i>'
        f'<span class="end">+{limit:.2f} brighter (white is 1)</span></div>'
    )


def sheet(images, columns, side):
    """Images side by side, each of about `side` pixels; floats in [0, 1]."""
    return plots.tile(plots.fitted(images, side), columns, gap=2)
