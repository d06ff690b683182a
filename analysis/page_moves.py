"""The tabs of the page that move images: along a direction, and along a path.

Needs Bokeh, the extra `explore`.
"""

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bokeh.models import (
    Button,
    Column,
    RadioButtonGroup,
    Row,
    Select,
    Slider,
    Spinner,
    TextInput,
)

from analysis import pictures, plots
from analysis.atlas import PATHS
from analysis.directions import COMPARE, METHODS
from analysis.page_parts import Latest, beside, on_change

NEW = "(find one below)"
GROUPS = "two groups of the lasso"
CIRCULAR = (
    "The groups were chosen on the map, that is by the latents themselves. So a high AUC is no "
    "evidence that anything else tells them apart."
)
UNTESTED = "A saved direction; what its name says is no label of these images, so it is not tested."
EVERY = 0.3  # seconds between two messages of progress
TICK = 70  # milliseconds of a frame that is played


class DirectionsView:
    """A direction, saved or new, its effect on the chosen image, and the evidence for it."""

    title = "Directions"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        self.found, self.label, self.how = None, None, ("fisher", ())
        self.groups = [None, None]
        refused = self.atlas.refusal("directions")
        if refused:
            self.layout = Column(session.note(refused), sizing_mode="stretch_width")
            return
        self.saved = Select(
            title="Direction",
            options=[NEW, *self.atlas.directions],
            value=NEW,
            width=170,
            name="direction",
        )
        self.saved.on_change("value", self._on_saved)
        self.strength = Slider(
            title="Strength, in standard deviations",
            start=-4,
            end=4,
            step=0.1,
            value=2,
            bar_color="#2b5f8f",
            sizing_mode="stretch_width",
            name="strength",
        )
        on_change(Latest(session.doc, self._draw), self.strength)
        self.shown, self.scale, self.proof = (
            session.div(name=name) for name in ("effect", "effect-scale", "evidence")
        )
        self.keep = Button(label="Keep with the run", width=136, name="keep", disabled=True)
        self.keep.on_click(self._keep)
        session.listeners.append(self._on_told)
        self.layout = Column(
            *self._finder(),
            self.shown,
            self.scale,
            self.strength,
            self.proof,
            sizing_mode="stretch_both",
            spacing=4,
        )
        self.shown.text = self._hint()
        self.strength.visible = False

    def _finder(self):
        """Widgets that name a direction."""
        if not len(self.atlas):
            return [beside(self.saved)]
        columns = [*self.atlas.columns(), GROUPS]
        self.column = Select(
            title="New, of", options=columns, value=columns[0], width=150, name="column"
        )
        self.compare = Select(title=" ", options=["is yes", *COMPARE], width=70, name="compare")
        self.value = TextInput(title="Value", width=80, name="value")
        self.method = Select(title="Method", options=list(METHODS), value="fisher", width=90)
        self.adjust = TextInput(
            title="Adjusted for", placeholder="columns: age, sex", width=150, name="adjust"
        )
        self.find = Button(label="Find", button_type="primary", width=70, name="find")
        self.sides = [
            Button(label=f"{name} = lasso", width=110, name=f"group-{name}") for name in "AB"
        ]
        for number, button in enumerate(self.sides):
            button.visible = False
            button.on_click(lambda number=number: self._take(number))
        self.column.on_change("value", self._on_column)
        self.find.on_click(self._find)
        self._on_column("value", None, self.column.value)
        return [
            beside(self.saved, self.method, self.adjust, self.keep),
            beside(self.column, self.compare, self.value, *self.sides, self.find),
        ]

    def _hint(self):
        text = (
            "Choose a column and find its direction, or take two groups from the map with the "
            "lasso (the tool beside the map)."
        )
        return f'<p class="said">{text}</p>'

    def call(self):
        if self.found is None:
            return None
        method, adjust = self.how
        arguments = {"label": self.label, "row": self.session.row}
        arguments |= {"strength": float(self.strength.value)}
        if not (isinstance(self.label, str) and self.label in self.atlas.directions):
            arguments |= {"method": method, "adjust": adjust}
        return "direction", arguments

    # --- naming one ----------------------------------------------------------------------------

    def _on_column(self, attribute, old, new):
        groups = new == GROUPS
        for button in self.sides:
            button.visible = groups
        self.compare.visible = self.value.visible = not groups
        if groups:
            return
        values = self.atlas.table[new].dropna()
        if set(values.unique()) <= {0, 1}:
            self.compare.value, self.value.value = "is yes", ""
        elif values.nunique() <= 20 or new == self.atlas.label:
            self.compare.value, self.value.value = "==", str(values.mode().iloc[0])
        elif np.issubdtype(values.to_numpy().dtype, np.number):
            self.compare.value, self.value.value = ">", f"{values.median():.4g}"
        else:
            self.compare.value, self.value.value = "==", str(values.iloc[0])

    def _take(self, number):
        rows = self.session.selection
        if not len(rows):
            self.session.say("Draw a lasso around some points of the map first.")
            return
        self.groups[number] = [int(row) for row in rows]
        self.sides[number].label = f"{'AB'[number]}: {len(rows)} images"

    def _named(self):
        """The label that the widgets describe."""
        if self.column.value == GROUPS:
            if None in self.groups:
                raise ValueError("choose both groups: lasso, A; lasso, B")
            both = set(self.groups[0]) & set(self.groups[1])
            if both:
                raise ValueError(f"{len(both)} images are in both groups; choose them apart")
            return tuple(self.groups)
        if self.compare.value == "is yes":
            return self.column.value
        return f"{self.column.value}{self.compare.value}{self.value.value.strip()}"

    def _find(self):
        try:
            label = self._named()
            how = (
                self.method.value,
                tuple(filter(None, map(str.strip, self.adjust.value.split(",")))),
            )
            found = self.atlas.direction(label, *how)
        except ValueError as error:
            self.session.say(f"No direction: {error}")
            return
        self._take_up(label, how, found)
        self.keep.disabled = False
        self._test(label, how)

    def _on_saved(self, attribute, old, new):
        if new == NEW:
            return
        found = self.atlas.directions[new]
        self._take_up(new, (found.method, found.adjusted_for), found)
        self.keep.disabled = True
        auc = self.atlas.tested(found) if len(self.atlas) else None
        told = f"AUC {auc:.2f} on the images shown" if auc is not None else UNTESTED
        source = f"{found.method}; from {found.source}" if found.source else found.method
        self.proof.text = (
            f"<p>{pictures.escaped(told)}</p><p class='said'>{pictures.escaped(source)}</p>"
        )

    def _take_up(self, label, how, found):
        self.label, self.how, self.found = label, how, found
        self.strength.visible = True
        self._draw()

    def _keep(self):
        try:
            path = self.atlas.save_direction(self.found)
        except OSError as error:
            self.session.say(f"The direction could not be written: {error}")
            return
        self.keep.disabled = True
        self.saved.options = [NEW, *self.atlas.directions]
        self.session.say(f"Written to {path}.")

    # --- evidence ------------------------------------------------------------------------------

    def _test(self, label, how):
        """Computes the evidence in the background; that of an older question is dropped."""
        told = [0.0]

        def current():
            return (self.label, self.how) == (label, how)

        def show(share):
            if current():
                width = f"width:{100 * share:.0f}%"
                self.proof.text = (
                    f'<p class="said">The evidence is computed: {share:.0%} of the resamples</p>'
                    f'<div class="progress"><i style="{width}"></i></div>'
                )

        def progress(share):
            if time.monotonic() - told[0] > EVERY:
                told[0] = time.monotonic()
                self.session.later(lambda: show(share))

        def done(found):
            if current():
                self.proof.text = told_of(found, isinstance(label, tuple))

        def failed(text):
            if current():
                note = f"No evidence: {text}"
                self.proof.text = f'<p class="note">{pictures.escaped(note)}</p>'

        show(0.0)
        self.session.work(lambda: self.atlas.evidence(label, *how, progress=progress), done, failed)

    # --- effect --------------------------------------------------------------------------------

    def _on_told(self, what):
        if what == "row" and self.found is not None:
            self._draw()

    def _draw(self):
        if self.found is None:
            return
        z, strength = self.atlas.start(self.session.row), float(self.strength.value)
        before, after, limit = self.atlas.effect(self.found, z, strength)
        row = self.session.row
        name = "mean latent" if row is None else f"image {row + 1:,}, reconstructed"
        self.shown.text = pictures.together(
            pictures.figure_of(before, name),
            pictures.figure_of(after, f"{strength:+.1f} along {self.found.name}"),
            pictures.figure_of(pictures.change(before, after, limit), "difference"),
        )
        self.scale.text = pictures.scale_of(limit)
        self.session.tell("line")


def told_of(found, circular=False) -> str:
    """`evidence.Evidence` as a piece of the page.

    Args:
        found: The evidence.
        circular: Whether the groups were chosen by the latents.
    """
    interval = (
        "no interval" if math.isnan(found.low) else f"95 % {found.low:.2f} to {found.high:.2f}"
    )
    stability = "–" if math.isnan(found.stability) else f"{found.stability:.2f}"
    numbers = (
        (f"{found.auc:.2f}", f"AUC on unseen subjects ({interval})"),
        (f"{found.p_value:.3g}", "p, by permutation"),
        (stability, "cosine of two halves"),
        (
            f"{found.images[0]} / {found.images[1]}",
            f"images with it and without, of {found.subjects[0]} / {found.subjects[1]} subjects",
        ),
    )
    parts = "".join(
        f'<div><span class="number">{pictures.escaped(number)}</span>'
        f'<p class="said">{pictures.escaped(text)}</p></div>'
        for number, text in numbers
    )
    cautions = ([CIRCULAR] if circular else []) + ([found.caution] if found.caution else [])
    notes = "".join(f'<p class="note">Caution: {pictures.escaped(each)}</p>' for each in cautions)
    return f'<div class="numbers">{parts}</div>{notes}'


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
        add = Button(label="Add chosen image", button_type="primary", width=140, name="add")
        back = Button(label="Remove last", width=100, name="remove")
        add.on_click(self._add)
        back.on_click(self._remove)
        self.kind = RadioButtonGroup(labels=list(PATHS), active=1, name="path-kind")
        self.frames = Spinner(title="Frames", low=5, high=200, step=5, value=40, width=80)
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
            beside(add, back, self.frames),
            self.kind,
            self.strip,
            self.film,
            self.row,
            self.shown,
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
            pictures.figure_of(self.atlas.image(row), f"{row + 1:,}", "small", row)
            for row in self.rows
        ]
        hint = (
            ""
            if len(self.rows) > 1
            else (
                '<p class="said">Choose an image on the map and add it; two or more make a path.</p>'
            )
        )
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
            self.shown.text = ""
            self.session.tell("line")
            return
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
        self.shown.text = pictures.figure_of(self.images[number], text, "middle")

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
