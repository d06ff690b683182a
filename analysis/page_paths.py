"""The tab of the page that goes from image to image along a path.

Needs Bokeh, the extra `explore`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bokeh.models import Button, Column, RadioButtonGroup, Row, Slider, Spinner

from analysis import pictures, plots
from analysis.atlas import PATHS
from analysis.page_parts import Latest, beside, on_change

TICK = 70  # milliseconds of a frame that is played


class PathsView:
    """A path over two or more images, to be stepped through, played and saved."""

    title = "Paths"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        self.rows, self.images, self.playing = [], None, None
        refused = self.atlas.refusal("paths")
        if refused:
            self.layout = Column(session.note(refused), sizing_mode="stretch_width")
            return
        add = Button(label="Add chosen image", button_type="primary", width=130, name="add")
        back = Button(label="Remove", width=76, name="remove")
        add.on_click(self._add)
        back.on_click(self._remove)
        self.kind = RadioButtonGroup(labels=list(PATHS), active=1, name="path-kind")
        self.frames = Spinner(title="Frames", low=5, high=200, step=5, value=40, width=74)
        self.at = Slider(
            title="Between the images",
            start=0,
            end=39,
            step=1,
            value=0,
            show_value=False,
            bar_color="#2b5f8f",
            sizing_mode="stretch_width",
            name="at",
        )
        self.play = Button(label="Play", width=80, name="play")
        self.save = Button(label="Save GIF", width=90, name="gif")
        self.play.on_click(self._play)
        self.save.on_click(self._gif)
        on_change(self._make, self.kind, of="active")
        on_change(self._make, self.frames)
        on_change(Latest(session.doc, self._draw), self.at)
        self.strip, self.shown = session.div(name="strip"), session.div(name="path-image")
        self.film = session.div(name="film")
        self.row = Row(self.at, self.play, self.save, sizing_mode="stretch_width")
        self.layout = Column(
            beside(add, back, self.kind, self.frames),
            self.film,
            self.row,
            Row(self.shown, self.strip, sizing_mode="stretch_width", spacing=14),
            sizing_mode="stretch_both",
            spacing=6,
        )
        self._make()

    def call(self):
        if self.images is None:
            return None
        return "path", {"rows": list(self.rows), "kind": PATHS[self.kind.active]}

    def _add(self):
        self.rows.append(self.session.row)
        self._make()

    def _remove(self):
        self.rows = self.rows[:-1]
        self._make()

    def _make(self):
        """Decodes the whole path at once."""
        found = [
            pictures.figure_of(self.atlas.image(row), f"image {row}", "small", row)
            for row in self.rows
        ]
        few = "Choose an image on the map and add it; two or more make a path."
        hint = "" if len(self.rows) > 1 else f'<p class="said">{few}</p>'
        self.strip.text = hint + pictures.together(*found, wrap=True)
        self.images = None
        frames = int(self.frames.value or 40)
        if len(self.rows) > 1:
            try:
                path = self.atlas.path(self.rows, PATHS[self.kind.active], frames)
                self.images = self.atlas.decode(path)
            except ValueError as error:
                self.session.say(str(error))
        there = self.images is not None
        self.row.visible = self.film.visible = there
        if not there:
            self._stop()
            self.shown.update(text="", visible=False)
            self.session.tell("line")
            return
        self.shown.visible = True
        self.at.update(end=frames - 1, value=min(int(self.at.value), frames - 1))
        chosen = np.linspace(0, frames - 1, min(9, frames)).astype(int)
        small = plots.tile(plots.fitted(self.images[chosen], 72), len(chosen), gap=2)
        self.film.text = pictures.figure_of(small, "", "film")
        self._draw()
        self.session.tell("line")

    def _draw(self):
        if self.images is None:
            return
        number = int(np.clip(self.at.value, 0, len(self.images) - 1))
        share = number / (len(self.images) - 1)
        text = f"frame {number + 1} of {len(self.images)}, {share:.0%} of the way"
        self.shown.text = pictures.figure_of(self.images[number], text, "large")

    def _play(self):
        if self.playing is not None:
            self._stop()
            return
        if int(self.at.value) >= len(self.images) - 1:
            self.at.value = 0
        self.play.label = "Stop"
        self.playing = self.session.doc.add_periodic_callback(self._step, TICK)

    def _stop(self):
        if self.playing is not None:
            self.session.doc.remove_periodic_callback(self.playing)
            self.playing = None
            self.play.label = "Play"

    def _step(self):
        if self.images is None or int(self.at.value) >= len(self.images) - 1:
            self._stop()
        else:
            self.at.value = int(self.at.value) + 1

    def _gif(self):
        images = self.images
        name = f"{self.atlas.called}_path.gif"

        def done(content):
            self.session.download(name, "image/gif", content)
            self.session.say(f"Saved {name}.")

        def write():
            with TemporaryDirectory() as folder:
                return plots.save_gif(images, Path(folder) / name, scale=None).read_bytes()

        self.session.work(write, done)
