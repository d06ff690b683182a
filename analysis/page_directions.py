"""The tab of the page that moves an image along a direction, and says what the evidence is.

Needs Bokeh, the extra `explore`.
"""

import math
import time

import numpy as np
from bokeh.models import (
    Button,
    Column,
    Select,
    Slider,
    TextInput,
)

from analysis import pictures
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
        self.compare = Select(title=" ", options=["is yes", *COMPARE], width=84, name="compare")
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
        name = "mean latent" if row is None else f"image {row}, reconstructed"
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
        "no interval" if math.isnan(found.low) else f"95\u00a0% {found.low:.2f} to {found.high:.2f}"
    )
    stability = "–" if math.isnan(found.stability) else f"{found.stability:.2f}"
    numbers = (
        (f"{found.auc:.2f}", f"AUC on subjects unseen by the fit ({interval})"),
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
