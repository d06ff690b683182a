"""The page of a run: the map on the left, its tools as tabs on the right, what it saves below.

Needs Bokeh, the extra `explore`; `explore.py` serves it.
"""

import base64
import dataclasses
import io
import json
from pathlib import Path

import pandas as pd
from bokeh.core.validation import silence
from bokeh.core.validation.warnings import EMPTY_LAYOUT
from bokeh.models import Button, Column, CustomJS, InlineStyleSheet, Row, TabPanel, Tabs, Toggle
from jinja2 import Environment

import config
from analysis import figures, pictures, plots
from analysis.page_directions import DirectionsView
from analysis.page_map import Map
from analysis.page_parts import DRAWING, HERE, Session
from analysis.page_paths import PathsView
from analysis.page_views import ImageView, OutliersView, SamplesView, SlidersView
from storage import runs

IMPORTS = "import explore; from analysis import figures"
TABS = """
.bk-header { border-bottom: 1px solid var(--line) !important; margin-bottom: 6px }
.bk-tab { padding: 6px 11px 7px; border: 0; border-bottom: 2px solid transparent; outline: 0;
  color: var(--soft); font-size: 14px }
.bk-tab.bk-active { border-bottom-color: var(--accent); color: var(--accent); font-weight: 600 }
.bk-tab:focus-visible { background: #eef3f8 }
"""
PIXELS = """
document.documentElement.style.setProperty("--rendering", cb_obj.active ? "pixelated" : "auto")
"""
COPY = """
navigator.clipboard.writeText(line.tags[0])
const before = cb_obj.origin.label
cb_obj.origin.label = "Copied"
setTimeout(() => { cb_obj.origin.label = before }, 1200)
"""


class AboutView:
    """What the run has and lacks: remarks, settings, training, measurements."""

    title = "About"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        notes = [session.note(text) for text in self.atlas.lacks]
        self.shown = session.div(name="about")
        self.drawn = False
        self.layout = Column(*notes, self.shown, sizing_mode="stretch_both")

    def call(self):
        return None

    def opened(self):
        if self.drawn:
            return
        self.drawn = True
        run = self.atlas.run
        parts = []
        try:
            settings = runs.load_settings(run)
            plain = {each.name: each.default for each in dataclasses.fields(config.Settings)}
            told = [(k, v) for k, v in settings.to_dict().items() if v != plain.get(k)]
            parts.append(("Settings that differ from the defaults", pictures.facts(told)))
        except (ValueError, OSError):
            pass  # the remarks say so
        measured = _measured(run / "metrics.json")
        if measured:
            parts.append(("Measurements (metrics.json)", pictures.facts(measured)))
        text = "".join(f"<h2>{head}</h2>{body}" for head, body in parts)
        self.shown.text = text
        if (run / "history.csv").is_file():
            self.session.work(lambda: _curves(run / "history.csv"), self._add_curves)

    def _add_curves(self, image):
        head = "<h2>Training</h2>"
        picture = f'<img class="curves" src="{image}" alt="loss curves">'
        self.shown.text = head + picture + self.shown.text


def _measured(path):
    """Names and values of a run's metrics, or an empty list."""
    try:
        known = json.loads(Path(path).read_text())["metrics"]
        return [
            (name, each["value"] if isinstance(each, dict) else each)
            for name, each in known.items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _curves(path):
    """The curves of a training as a `data:` URL."""
    with DRAWING:
        figure = plots.loss_curves(pd.read_csv(path))
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


KINDS = (
    *(ImageView, SlidersView, SamplesView, DirectionsView, PathsView, OutliersView),
    AboutView,
)


class Page:
    """All of one visitor's page.

    Args:
        atlas: `atlas.Atlas`.
        doc: Bokeh document of this visitor.
        opening: Python that opens the run as here.
        workers: See `Session`.
    """

    def __init__(self, atlas, doc, opening, workers):
        self.atlas, self.opening = atlas, opening
        session = self.session = Session(atlas, doc, workers)
        self.map = Map(session)
        # A tab is made when it is first looked at, so that the page itself comes sooner.
        # Until then Bokeh would warn that it is empty.
        silence(EMPTY_LAYOUT)
        places = [
            Column(
                sizing_mode="stretch_both",
                styles={"overflow": "hidden auto", "min-height": "0"},  # a high tab scrolls
            )
            for _ in KINDS
        ]
        panels = [
            TabPanel(child=place, title=kind.title)
            for place, kind in zip(places, KINDS, strict=True)
        ]
        self.views = [None] * len(KINDS)
        self.map.on_place = self._show_place
        active = 0 if atlas.model is not None else len(panels) - 1
        self.tabs = Tabs(
            tabs=panels,
            active=active,
            sizing_mode="stretch_both",
            stylesheets=[InlineStyleSheet(css=TABS)],
            name="tabs",
        )
        self._open(active)
        self.tabs.on_change("active", self._on_tab)
        side = Column(self.tabs, self._bar(), sizing_mode="stretch_both", name="side")
        session.listeners.append(self._on_told)
        self._on_told("line")
        session.say(
            HINT if atlas.axes and len(atlas) else "See the page About for what is missing."
        )
        self._fill(doc, side)

    def _fill(self, doc, side):
        pixels = Toggle(label="Show pixels", width=100, name="pixels")
        pixels.js_on_change("active", CustomJS(code=PIXELS))
        tools = Row(pixels, name="tools")
        foot = Column(
            self.session.status,
            name="foot",
            sizing_mode="stretch_width",
        )
        doc.title = f"{self.atlas.called} · Latent Atlas"
        doc.template = Environment(autoescape=False).from_string((HERE / "page.html").read_text())
        doc.template_variables.update(
            css=(HERE / "page.css").read_text(),
            run=self.atlas.called,
            what=self.atlas.about(),
        )
        for root in (self.map.layout, side, tools, foot):
            doc.add_root(root)

    def _bar(self):
        """What the page saves, and the lines of Python."""
        self.png = Button(label="PNG", width=64, name="png")
        self.csv = Button(label="CSV", width=64, name="csv")
        self.copy = Button(label="Copy Python", width=110, name="copy")
        self.line = self.session.div(name="line")
        self.png.on_click(self._save)
        self.csv.on_click(self._save_table)
        self.copy.js_on_click(CustomJS(args={"line": self.line}, code=COPY))
        return Row(self.png, self.csv, self.copy, self.line, sizing_mode="stretch_width")

    @property
    def view(self):
        return self.views[self.tabs.active]

    def _open(self, number):
        """Makes the contents of a tab, once."""
        if self.views[number] is None:
            self.views[number] = KINDS[number](self.session)
            self.tabs.tabs[number].child.children = [self.views[number].layout]
        if hasattr(self.view, "opened"):
            self.view.opened()

    def _on_tab(self, attribute, old, new):
        self._open(new)
        self._on_told("line")

    def _on_told(self, what):
        """Writes the Python of what is shown: of the open tab, and of the map."""
        if self.view is None:  # being made
            return
        calls = [self.view.call()]
        if hasattr(self.map, "plot"):
            calls.append(self.map.call())
        lines = [figures.line_of(self.opening, call) for call in calls if call is not None]
        self.png.disabled = calls[0] is None
        self.csv.disabled = self.atlas.z is None
        self.line.tags = ["\n".join([IMPORTS, *lines])]
        self.line.text = f"<code>{pictures.escaped(lines[0])}</code>" if lines else ""

    def _show_place(self, z, said):
        self.tabs.active = 0
        self.view.show_place(self.map.kind, self.map.place, self.map.seed, z, said)

    def _save(self):
        call = self.view.call()
        if call is not None:
            self.session.save_figure(call)

    def _save_table(self):
        rows = self.session.selection
        name = f"{self.atlas.called}_{'selection' if len(rows) else 'images'}.csv"

        def done(content):
            self.session.download(name, "text/csv", content)
            count = len(rows) or len(self.atlas)
            self.session.say(f"Saved {name}: table and latents of {count:,} images.")

        self.session.work(lambda: self.atlas.rows_as_table(rows).to_csv(index=False).encode(), done)


HINT = (
    "Click a point to see its image, or an empty place to see what the decoder makes there; zoom "
    "in for thumbnails."
)
