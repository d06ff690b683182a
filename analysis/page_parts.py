"""What the parts of the page share: one visitor's session, its widgets and its downloads.

Needs Bokeh, the extra `explore`.
"""

import base64
import logging
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    Div,
    InlineStyleSheet,
    Row,
)

from analysis import figures, pictures, plots

HERE = Path(__file__).parent
STEPS = ("ArrowLeft", "ArrowRight")  # keys: the image before, and after
# A click on an image that has a row, and arrow keys where no widget has the focus.
LISTEN = """
const told = (row, key) => { picked.data = {row: [row], key: [key], turn: [Math.random()]} }
const row_of = (event) => {
  for (const each of event.composedPath()) {
    if (each.dataset && each.dataset.row !== undefined) return Number(each.dataset.row)
  }
  return null
}
document.addEventListener("click", (event) => {
  const row = row_of(event)
  if (row !== null) told(row, "")
})
document.addEventListener("keydown", (event) => {
  const at = event.composedPath()[0]
  const row = row_of(event)
  if (row !== null && event.key === "Enter") told(row, "")
  const busy = at.matches && at.matches("input, select, textarea, [role=slider], [role=tab]")
  const modified = event.ctrlKey || event.metaKey || event.altKey
  if (busy || modified || !keys.includes(event.key)) return
  event.preventDefault()
  told(-1, event.key)
})
"""
SAVE = """
for (let i = 0; i < out.data.name.length; i++) {
  const bytes = Uint8Array.from(atob(out.data.body[i]), (each) => each.charCodeAt(0))
  const link = document.createElement("a")
  link.href = URL.createObjectURL(new Blob([bytes], {type: out.data.kind[i]}))
  link.download = out.data.name[i]
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}
"""
DRAWING = threading.Lock()  # pyplot holds one figure for all threads


class Latest:
    """Calls a function once for many requests that come while it has not run yet."""

    def __init__(self, doc, function, wait=0):
        self.doc, self.function, self.wait, self.due = doc, function, wait, False

    def __call__(self):
        if self.due:
            return
        self.due = True
        if self.wait:
            self.doc.add_timeout_callback(self._run, self.wait)
        else:
            self.doc.add_next_tick_callback(self._run)

    def _run(self):
        self.due = False
        self.function()


class Session:
    """One visitor: what is chosen, and what the parts of the page tell each other.

    Attributes:
        atlas: `atlas.Atlas`, shared by all visitors and never changed by one.
        doc: Bokeh document of this visitor.
        workers: `ThreadPoolExecutor` of the server, for what takes longer.
        row: Row of the chosen image, or None.
        selection: Rows within the lasso, or an empty array.
        listeners: Functions of the parts, called with what changed: `"row"`, `"selection"`.
    """

    def __init__(self, atlas, doc, workers):
        self.atlas, self.doc, self.workers = atlas, doc, workers
        self.row = 0 if len(atlas) else None
        self.selection = np.empty(0, int)
        self.listeners = []
        self.sheet = InlineStyleSheet(css=(HERE / "piece.css").read_text())
        self.status = self.div(name="status", margin=(4, 0, 0, 0))
        self.out = ColumnDataSource({"name": [], "kind": [], "body": []}, name="out")
        self.out.js_on_change("data", CustomJS(args={"out": self.out}, code=SAVE))
        self.picked = ColumnDataSource({"row": [], "key": [], "turn": []}, name="picked")
        self.picked.on_change("data", self._on_picked)
        self.status.tags = [self.out, self.picked]  # so that they are part of the document
        args = {"picked": self.picked, "keys": list(STEPS)}
        doc.js_on_event("document_ready", CustomJS(args=args, code=LISTEN))
        doc.on_session_destroyed(lambda context: self.listeners.clear())

    # --- what is chosen ------------------------------------------------------------------------

    def choose(self, row):
        """Makes a row the chosen image."""
        if len(self.atlas) and row is not None:
            self.row = int(row) % len(self.atlas)
            self.tell("row")

    def select(self, rows):
        self.selection = np.asarray(rows, int)
        self.tell("selection")

    def tell(self, what):
        for each in list(self.listeners):
            each(what)

    def _on_picked(self, attribute, old, new):
        if not len(new["row"]):
            return
        row, key = new["row"][0], new["key"][0]
        if key in STEPS:
            self.choose((self.row or 0) + (1 if key == STEPS[1] else -1))
        elif isinstance(row, int | float) and 0 <= row < len(self.atlas):
            self.choose(int(row))

    # --- work and messages ---------------------------------------------------------------------

    def say(self, text):
        """Shows a line of text at the foot of the page."""
        self.status.text = f'<p class="said line">{pictures.escaped(text)}</p>'

    def work(self, function, done, failed=None):
        """Runs a function in the background, then `done(result)` in the session.

        A problem is told, by `failed(text)` or at the foot of the page.
        """

        def run():
            try:
                result, problem = function(), None
            except (ValueError, OSError, ImportError) as error:
                result, problem = None, str(error)
            except Exception as error:  # the page stays usable, and the terminal has the traceback
                logging.getLogger(__name__).exception("a task of the page failed")
                result, problem = None, f"{type(error).__name__}: {error}"
            if problem is None:
                self.later(lambda: done(result))
            else:
                self.later(lambda: (failed or self.say)(problem))

        self.workers.submit(run)

    def later(self, function):
        """Calls a function within the session, from any thread; not once the session has ended."""
        if self.doc.session_context is None or not self.doc.session_context.destroyed:
            self.doc.add_next_tick_callback(function)

    # --- what leaves the page ------------------------------------------------------------------

    def download(self, name, kind, content):
        """Hands a file to the browser; `content` is bytes."""
        body = base64.b64encode(content).decode()
        self.out.data = {"name": [name], "kind": [kind], "body": [body]}
        self.doc.add_timeout_callback(self._forget, 2000)

    def _forget(self):
        self.out.data = {"name": [], "kind": [], "body": []}

    def save_figure(self, call):
        """Saves the figure of a call, `(name, arguments)` of `analysis.figures`, as PNG."""
        name, arguments = call

        def draw():
            with DRAWING, TemporaryDirectory() as folder:
                figure = getattr(figures, name)(self.atlas, **arguments)
                plots.save(figure, Path(folder) / "figure.png")
                return (Path(folder) / "figure.png").read_bytes()

        self.say("The figure is drawn ...")

        def done(content):
            self.download(f"{self.atlas.called}_{name}.png", "image/png", content)
            self.say(f"Saved {self.atlas.called}_{name}.png.")

        self.work(draw, done)

    # --- widgets -------------------------------------------------------------------------------

    def div(self, content="", **options):
        """A piece of the page; `content` is HTML made of escaped text."""
        options = {"sizing_mode": "stretch_width", "margin": (2, 4, 2, 4)} | options
        return Div(text=content, stylesheets=[self.sheet], disable_math=True, **options)

    def note(self, text):
        """A remark that stands out; `text` is escaped."""
        return self.div(f'<p class="note">{pictures.escaped(text)}</p>' if text else "")


def on_change(function, *widgets, of="value"):
    """Calls a function without arguments when a property of some widgets changes."""
    for widget in widgets:
        widget.on_change(of, lambda attr, old, new: function())


def beside(*parts, **options):
    """Widgets in a row, in line with each other's lower edges."""
    options = {"sizing_mode": "stretch_width", "spacing": 8} | options
    return Row(children=list(parts), styles={"align-items": "end"}, **options)
