"""The map of the page: images as points, thumbnails, the lasso and the click.

Needs Bokeh, the extra `explore`.
"""

import importlib.util

import numpy as np
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.events import RangesUpdate, Tap
from bokeh.models import (
    Column,
    ColumnDataSource,
    HoverTool,
    LassoSelectTool,
    Range1d,
    Select,
    Toggle,
    WheelZoomTool,
)
from bokeh.plotting import figure

from analysis import pictures, plots
from analysis.page_parts import Latest, beside, on_change

NONE = "(one colour)"
PLANES = {
    "pca": "PCA",
    "axes": "two axes",
    "tsne": "t-SNE",
    "umap": "UMAP",
}
REACH = 9  # pixels around a point that count as the point
MARK = 46  # pixels of a thumbnail on the map
ZOOMED = 2.5  # from which zoom on thumbnails are shown
MARKS = 220  # most thumbnails
TRIED = 1500  # most points that they are sought among
TIP = """
<div style="max-width:170px;font:13px system-ui">
<img src="thumb/@row" width="112"
 style="display:block;margin:0 auto 4px;image-rendering:var(--rendering)">
<div style="overflow-wrap:anywhere">@told</div></div>
"""


class Map:
    """Map with its controls; `layout` is its place on the page."""

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        self.place = None  # where the empty place of the last click is
        self.on_place = lambda z, said: None
        refused = self.atlas.refusal("map")
        if refused:
            self.layout = Column(session.div("<h2>Map</h2>"), session.note(refused), name="map")
            return
        self.seed = 0
        kinds = [
            (kind, name)
            for kind, name in PLANES.items()
            if kind != "umap" or importlib.util.find_spec("umap")
        ]
        first = "axes" if self.atlas.model.latent_dim == 2 else "pca"
        self.plane = Select(title="Map", options=kinds, value=first, width=120, name="plane")
        columns = [NONE, *self.atlas.columns()]
        chosen = columns[1] if len(columns) > 1 else NONE
        self.colour = Select(
            title="Colour", options=columns, value=chosen, width=150, name="colour"
        )
        self.always = Toggle(label="Thumbnails", width=104, name="marks")
        self.title = session.div(name="map-title")
        self.legend = session.div(name="legend")
        self._sources()
        self._figure()
        for widget in (self.plane, self.colour):
            widget.on_change("value", self._on_choice)
        on_change(self._draw_marks, self.always, of="active")
        session.listeners.append(self._on_told)
        self.redraw()
        self.layout = Column(
            beside(self.plane, self.colour, self.always),
            self.title,
            self.plot,
            self.legend,
            sizing_mode="stretch_both",
            name="map",
        )

    def _sources(self):
        self.source = ColumnDataSource({name: [] for name in ("x", "y", "colour", "row", "told")})
        self.source.selected.on_change("indices", self._on_lasso)
        self.marks = ColumnDataSource({"image": [], "x": [], "y": [], "w": [], "h": []})
        self.ring = ColumnDataSource({"x": [], "y": []})
        self.cross = ColumnDataSource({"x": [], "y": []})

    def _figure(self):
        self.x, self.y = Range1d(0, 1), Range1d(0, 1)
        plot = self.plot = figure(
            x_range=self.x,
            y_range=self.y,
            tools="pan,box_zoom,save,reset",
            toolbar_location="right",
            sizing_mode="stretch_both",
            min_height=240,
            name="plot",
            outline_line_color=None,
            stylesheets=[":host(:focus), *:focus { outline: none }"],
        )
        plot.toolbar.logo = None
        lasso, wheel = LassoSelectTool(continuous=False), WheelZoomTool()
        lasso.overlay.fill_alpha, lasso.overlay.line_color = 0.06, "#2b5f8f"
        plot.add_tools(lasso, wheel)
        plot.toolbar.active_scroll = wheel
        many = len(self.atlas)
        points = plot.scatter(
            "x",
            "y",
            source=self.source,
            size=float(np.clip(260 / np.sqrt(many), 3.5, 9)),
            color="colour",
            alpha=0.75 if many < 3000 else 0.6,
            line_color=None,
            nonselection_alpha=0.12,
        )
        plot.image_rgba("image", x="x", y="y", dw="w", dh="h", anchor="center", source=self.marks)
        ring = {"fill_color": None, "line_color": "#111111", "line_width": 2}
        plot.scatter("x", "y", source=self.ring, size=17, **ring)
        plot.scatter("x", "y", source=self.cross, size=14, marker="x", **ring)
        plot.add_tools(
            HoverTool(
                renderers=[points],
                tooltips=TIP,
                point_policy="snap_to_data",
                attachment="horizontal",
            )
        )
        for axis in plot.axis:
            axis.axis_label_text_font_style = "normal"
            axis.axis_label_text_font_size = "13px"
            axis.major_label_text_font_size = "12px"
            axis.axis_line_color = axis.minor_tick_line_color = None
            axis.major_tick_line_color = "#c5ccd3"
        plot.grid.grid_line_color = "#eef1f4"
        plot.on_event(Tap, self._on_tap)
        later = Latest(self.session.doc, self._draw_marks, wait=180)
        plot.on_event(RangesUpdate, lambda event: later())

    # --- drawing -------------------------------------------------------------------------------

    @property
    def kind(self):
        return self.plane.value

    @property
    def column(self):
        return None if self.colour.value == NONE else self.colour.value

    def call(self):
        """The call of `analysis.figures` that draws this map."""
        return "as_map", {"plane": self.kind, "colour": self.column, "seed": self.seed}

    def redraw(self):
        """Draws the chosen map; one that is not computed yet comes later."""
        kind = self.kind
        if kind in ("pca", "axes") or self.atlas.map.has(kind, self.seed):
            self._show(self.atlas.map.plane(kind, self.seed))
            return
        self.session.say(
            f"{PLANES[kind]} of {len(self.atlas):,} images is computed; this map stays until then."
        )

        def done(plane):
            if self.kind == kind:
                self._show(plane)
                self.session.say(f"{PLANES[kind]} is there.")

        self.session.work(lambda: self.atlas.map.plane(kind, self.seed), done)

    def _show(self, plane):
        self.points = np.asarray(plane.points, float)
        low, high = np.quantile(self.points, (0.0005, 0.9995), axis=0)
        middle, half = (low + high) / 2, 0.55 * np.maximum(high - low, 1e-6)
        for axis, each in ((self.x, 0), (self.y, 1)):
            axis.update(
                start=middle[each] - half[each],
                end=middle[each] + half[each],
                reset_start=middle[each] - half[each],
                reset_end=middle[each] + half[each],
            )
        self.whole = 2 * half
        self.plot.xaxis.axis_label, self.plot.yaxis.axis_label = plane.names
        of = "" if len(self.atlas) == self.atlas.total else f" of {self.atlas.total:,}"
        drawn = ", drawn at random (seed 0)" if of else ""
        text = f"{len(self.atlas):,}{of} images{drawn}: {plane.title}"
        self.title.text = f"<p>{pictures.escaped(text)}</p>"
        self.place = None
        self.cross.data = {"x": [], "y": []}
        self._colour(moved=True)
        self._mark_row()
        self._draw_marks()

    def _colour(self, moved=False):
        name = self.column
        rows = np.arange(len(self.atlas))
        if name is None:
            colours, told = ["#2b5f8f"] * len(rows), [f"image {row}" for row in rows]
            self.legend.text = ""
        else:
            column = self.atlas.table[name]
            classes = self.atlas.classes if name == self.atlas.label else ()
            found = pictures.colours(column, classes)
            colours = found.rows
            self.legend.text = pictures.legend(found)
            told = [
                f"image {row}, {name}: {pictures.named(each, classes)}"
                for row, each in enumerate(column)
            ]
        if moved:
            x, y = self.points.T
            self.source.selected.indices = []
            self.source.data = {"x": x, "y": y, "colour": colours, "row": rows, "told": told}
        else:
            self.source.data = dict(self.source.data) | {"colour": colours, "told": told}
            self._draw_marks()

    def _mark_row(self):
        row = self.session.row
        x, y = ([], []) if row is None or self.place is not None else self.points[row][:, None]
        self.ring.data = {"x": x, "y": y}

    def _pixels(self):
        """Width and height of the map on the screen."""
        try:
            return np.array([self.plot.inner_width, self.plot.inner_height], float)
        except UnsetValueError:  # the browser has not drawn it yet
            return np.array([480.0, 480.0])

    def _draw_marks(self):
        """Thumbnails at the places of images, where there is room."""
        span = np.array([self.x.end - self.x.start, self.y.end - self.y.start])
        pixels = self._pixels()
        zoom = float(np.max(self.whole / span))
        if not self.always.active and zoom < ZOOMED:
            if len(self.marks.data["x"]):
                self.marks.data = {name: [] for name in self.marks.data}
            return
        corner = np.array([self.x.start, self.y.start])
        inside = ((self.points > corner) & (self.points < corner + span)).all(axis=1)
        rows = np.random.default_rng(0).permutation(len(self.points))
        rows = rows[inside[rows]][:TRIED]
        if not len(rows):
            self.marks.data = {name: [] for name in self.marks.data}
            return
        places = (self.points[rows] - corner) / span * pixels
        rows = rows[plots.apart(places, MARK + 2)][:MARKS]
        high, wide = self.atlas.images.shape[1:3]
        colours = self.source.data["colour"]
        unit = span / pixels * MARK / max(high, wide)
        self.marks.data = {
            "image": [
                pictures.rgba(np.asarray(self.atlas.images[[row]][0]), 64, colours[row])
                for row in rows
            ],
            "x": self.points[rows, 0],
            "y": self.points[rows, 1],
            "w": np.full(len(rows), wide * unit[0]),
            "h": np.full(len(rows), high * unit[1]),
        }

    # --- what a visitor does -------------------------------------------------------------------

    def _on_choice(self, attribute, old, new):
        if attribute == "value" and new in PLANES:
            self.redraw()
        else:
            self._colour()

    def _on_lasso(self, attribute, old, new):
        self.session.select(new)
        if new:
            self.session.say(f"{len(new):,} images are within the lasso.")

    def _on_told(self, what):
        if what == "row":
            self.place = None
            self.cross.data = {"x": [], "y": []}
            self._mark_row()

    def _on_tap(self, event):
        if event.x is None:
            return
        span = np.array([self.x.end - self.x.start, self.y.end - self.y.start])
        pixels = self._pixels()
        point = np.array([event.x, event.y])
        away = np.linalg.norm((self.points - point) / span * pixels, axis=1)
        near = int(away.argmin())
        if away[near] <= REACH:
            self.session.choose(near)
            return
        self.place = tuple(float(each) for each in point)
        self.cross.data = {"x": [point[0]], "y": [point[1]]}
        self.ring.data = {"x": [], "y": []}
        if self.atlas.model.needs_class:
            self.session.say(self.atlas.refusal("paths"))
            return
        self.on_place(*self.atlas.map.at(self.kind, self.place, self.seed))
