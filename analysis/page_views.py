"""The tabs of the page that show one image, and samples: image, sliders, samples, outliers.

Needs Bokeh, the extra `explore`. Every tab has `title`, `layout`, and `call()`, the call of
`analysis.figures` that draws what it shows, or None.
"""

from functools import partial

import numpy as np
from bokeh.models import Button, Column, Row, Select, Slider, Spinner

from analysis import pictures
from analysis.atlas import SLIDERS
from analysis.page_parts import Latest, beside, on_change

COUNTS = ("9", "16", "25", "36", "64", "100")
NEAR = 8  # nearest images shown
WORST = 40  # outliers shown


class ImageView:
    """The chosen image, its reconstruction, their difference, its row and its neighbours."""

    title = "Image"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        self.place = None
        if session.row is None:
            self.layout = Column(session.note(self.atlas.refusal("map") or "There are no images."))
            return
        self.head, self.shown, self.scale = (
            session.div(name=name) for name in ("image-head", "image", "image-scale")
        )
        self.row = session.div(name="facts", sizing_mode="stretch_both")
        self.near = session.div(name="nearest")
        session.listeners.append(self._on_told)
        self._draw()
        self.layout = Column(
            *(self.head, self.shown, self.scale, self.near, self.row),
            sizing_mode="stretch_both",
            spacing=4,
        )

    def call(self):
        if self.session.row is None:
            return None
        if self.place is not None:
            plane, point, seed = self.place
            return "at_place", {"plane": plane, "point": point, "seed": seed}
        return "of_image", {"row": self.session.row}

    def _on_told(self, what):
        if what == "row":
            self.place = None
            self._draw()

    def _draw(self):
        row, atlas = self.session.row, self.atlas
        name = str(atlas.table["file"].iloc[row])
        text = pictures.escaped(f"Image {row} of {len(atlas):,}: {name}")
        hint = '<span class="said">&ensp;← → next</span>'
        self.head.text = f"<h2>{text}{hint}</h2>"
        before, after = atlas.image(row), atlas.reconstruction(row)
        limit = max(float(np.abs((after - before).mean(axis=-1)).max()), 1e-3)
        values = atlas.table.iloc[row]
        self.shown.text = pictures.together(
            pictures.figure_of(before, "image"),
            pictures.figure_of(after, f"reconstruction, SSIM {values['ssim']:.3f}"),
            pictures.figure_of(pictures.change(before, after, limit), "reconstruction less image"),
        )
        self.scale.text = pictures.scale_of(limit)
        pairs = [
            (key, pictures.named(value, atlas.classes if key == atlas.label else ()))
            for key, value in values.items()
        ]
        self.row.text = pictures.facts(pairs, columns=2)
        self._draw_near(atlas.z[row], without=row)

    def _draw_near(self, z, without=None):
        rows, away = self.atlas.nearest(z, NEAR, without)
        found = [
            pictures.figure_of(self.atlas.image(each), f"{far:.2f}", "eighth", each)
            for each, far in zip(rows, away, strict=True)
        ]
        head = '<p class="said">nearest images, by the distance of their latents</p>'
        self.near.text = head + pictures.together(*found)

    def show_place(self, plane, point, seed, z, said):
        """Shows what the decoder makes at an empty place of the map."""
        self.place = plane, point, seed
        self.head.text = "<h2>A place of the map without an image</h2>"
        made = self.atlas.decode(z[None])[0]
        self.shown.text = pictures.together(pictures.figure_of(made, "decoded", "place"))
        self.scale.text = f'<p class="said">{pictures.escaped(said)}</p>'
        values = self.atlas.values(z)[:SLIDERS]
        pairs = [(axis.name, value) for axis, value in zip(self.atlas.axes, values, strict=False)]
        self.row.text = pictures.facts(pairs, columns=2)
        self._draw_near(z)
        self.session.tell("line")


class SlidersView:
    """An image and a slider for each of the axes that say most."""

    title = "Sliders"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        refused = self.atlas.refusal("sliders")
        self.sliders = []
        if refused:
            self.layout = Column(session.note(refused), sizing_mode="stretch_width")
            return
        self.start, self.prior, self.row = self.atlas.start(), None, None
        self.first, self.muted = 0, False
        atlas = self.atlas
        names = [
            f"{at + 1} to {min(at + SLIDERS, len(atlas.axes))} of {len(atlas.axes)}"
            for at in range(0, len(atlas.axes), SLIDERS)
        ]
        self.group = Select(title="Axes", options=names, value=names[0], width=120, name="axes")
        self.group.visible = len(names) > 1
        self.prior_of = Select(
            title="Random from", options=list(atlas.priors), value=atlas.own_prior, width=110
        )
        self.seed = Spinner(title="Seed", low=0, step=1, value=0, width=76, name="slider-seed")
        self.buttons = [
            Button(label=label, width=width, name=name)
            for label, width, name in (
                ("Random", 84, "random"),
                ("Chosen image", 112, "from-image"),
                ("Mean", 64, "mean"),
                ("Reset", 64, "reset"),
            )
        ]
        for button, act in zip(
            self.buttons, (self._random, self._image, self._mean, self._reset), strict=True
        ):
            button.on_click(act)
        self.shown = session.div(name="slider-image")
        self.caption = session.div(name="slider-caption")
        self.sliders = [
            Slider(
                start=-4,
                end=4,
                step=0.05,
                value=0,
                title="",
                bar_color="#2b5f8f",
                sizing_mode="stretch_width",
                name=f"slider-{number}",
                margin=(0, 4, 3, 4),
            )
            for number in range(min(SLIDERS, len(atlas.axes)))
        ]
        self._later = Latest(session.doc, self._draw)
        for number, slider in enumerate(self.sliders):
            slider.on_change("value", partial(self._on_slide, number))
        self.group.on_change("value", self._on_group)
        self.changes = {}
        self._place_sliders()
        self._draw()
        random, image, mean, reset = self.buttons
        left = Column(self.shown, self.caption, sizing_mode="stretch_width")
        right = Column(self.group, *self.sliders, sizing_mode="stretch_width")
        self.layout = Column(
            session.div(f'<p class="said">{pictures.escaped(atlas.about_sliders())}</p>'),
            Row(left, right, sizing_mode="stretch_width", spacing=16),
            beside(random, self.prior_of, self.seed, image, mean, reset),
            sizing_mode="stretch_both",
            spacing=6,
        )

    def call(self):
        if not self.sliders:
            return None
        arguments = {"values": dict(self.changes)}
        if self.prior is not None:
            arguments |= {"prior": self.prior[0], "seed": self.prior[1]}
        elif self.row is not None:
            arguments["start"] = self.row
        return "sliders", arguments

    @property
    def _shown_axes(self):
        return self.atlas.axes[self.first : self.first + len(self.sliders)]

    def _place_sliders(self):
        """Gives every slider its axis, range and value, without a move."""
        self.muted = True
        values = (
            dict(
                zip(
                    [each.name for each in self.atlas.axes],
                    self.atlas.values(self.start),
                    strict=True,
                )
            )
            | self.changes
        )
        shown = self._shown_axes
        for number, slider in enumerate(self.sliders):
            slider.visible = number < len(shown)
            if not slider.visible:
                continue
            axis = shown[number]
            nats = "" if np.isnan(axis.nats) or np.isinf(axis.nats) else f" · {axis.nats:.1f} nats"
            far = 4.0 if self.atlas.model.latent_map else max(4.0, np.ceil(4 * axis.spread))
            value = float(np.clip(values[axis.name], -far, far))
            slider.update(title=axis.name + nats, start=-far, end=far, value=value)
        self.muted = False

    def _on_group(self, attribute, old, new):
        self.first = self.group.options.index(new) * SLIDERS
        self._place_sliders()

    def _on_slide(self, number, attribute, old, new):
        if not self.muted:
            self.changes[self._shown_axes[number].name] = round(float(new), 4)
            self._later()

    def _draw(self):
        z = self.atlas.moved(self.start, self.changes)
        made = self.atlas.decode(z[None])[0]
        if self.prior is not None:
            said = f"from {self.prior[0]}, seed {self.prior[1]}"
        else:
            said = "from the mean latent" if self.row is None else f"from image {self.row}"
        if self.changes:
            said += (
                f", {len(self.changes)} axes moved" if len(self.changes) > 1 else ", 1 axis moved"
            )
        self.shown.text = pictures.figure_of(made, said, "large")
        self.session.tell("line")

    def _begin(self, z, row=None, prior=None):
        self.start, self.row, self.prior, self.changes = z, row, prior, {}
        self._place_sliders()
        self._draw()

    def _random(self):
        prior, seed = self.prior_of.value, int(self.seed.value or 0)
        if self.prior == (prior, seed) and not self.changes:
            seed += 1  # a second click is another draw
            self.seed.value = seed
        self._begin(self.atlas.drawn(prior, seed)[0], prior=(prior, seed))

    def _image(self):
        if self.session.row is None:
            self.session.say("There is no image to start from.")
            return
        self._begin(self.atlas.start(self.session.row), row=self.session.row)

    def _mean(self):
        self._begin(self.atlas.start())

    def _reset(self):
        self._begin(self.start, self.row, self.prior)


class SamplesView:
    """A sheet of images decoded from draws of a prior."""

    title = "Samples"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        refused = self.atlas.refusal("samples")
        self.prior = None
        if refused:
            self.layout = Column(session.note(refused), sizing_mode="stretch_width")
            return
        self.prior = Select(
            title="Prior",
            options=list(self.atlas.priors),
            value=self.atlas.own_prior,
            width=140,
            name="prior",
        )
        self.count = Select(title="Samples", options=list(COUNTS), value="36", width=90)
        self.seed = Spinner(title="Seed", low=0, step=1, value=0, width=90, name="sample-seed")
        another = Button(label="Other samples", width=120, name="other")
        another.on_click(self._another)
        self.said, self.shown = session.div(visible=False), session.div(name="samples")
        later = Latest(session.doc, self.draw)
        on_change(later, self.prior, self.count, self.seed)
        self.drawn = False
        self.layout = Column(
            beside(self.prior, self.count, self.seed, another),
            self.said,
            self.shown,
            sizing_mode="stretch_both",
        )

    def opened(self):
        """The first sheet is drawn when the tab is looked at."""
        if self.prior is not None and not self.drawn:
            self.draw()

    def call(self):
        if self.prior is None:
            return None
        count, seed = int(self.count.value), int(self.seed.value or 0)
        return "samples", {"prior": self.prior.value, "count": count, "seed": seed}

    def draw(self):
        self.drawn = True
        arguments = self.call()[1]
        columns = int(np.ceil(np.sqrt(arguments["count"])))

        def done(images):
            if self.call()[1] != arguments:
                return
            sheet = pictures.sheet(images, columns, max(1, 640 // columns))
            head = (
                f"{arguments['count']} samples from {arguments['prior']}, seed {arguments['seed']}"
            )
            self.shown.text = pictures.figure_of(sheet, head, "large")

        known = (
            ""
            if self.atlas.model.latent_map == () or arguments["prior"] != "N(0, I)"
            else (
                "The numbers of a latent map depend on each other; draws of N(0, I) ignore this. "
                "A flow prior does not: python prior.py RUN --kind flow."
            )
        )
        self.said.update(text=f'<p class="note">{known}</p>', visible=bool(known))
        self.session.work(lambda: self.atlas.samples(**arguments), done)
        self.session.tell("line")

    def _another(self):
        self.seed.value = int(self.seed.value or 0) + 1


class OutliersView:
    """The images that are least like their reconstructions, or score highest."""

    title = "Outliers"

    def __init__(self, session):
        self.session, self.atlas = session, session.atlas
        if session.row is None:
            self.layout = Column(session.note("There are no images to compare."))
            return
        by = [
            f"{name} ({'lowest' if name == 'ssim' else 'highest'} first)"
            for name in self.atlas.marks
        ]
        self.by = Select(title="By", options=by, value=by[0], width=220, name="by")
        on_change(self.draw, self.by)
        self.shown = session.div(name="outliers")
        said = (
            "SSIM and squared error compare an image with its reconstruction; unfamiliar latents "
            "(in nats) lie between the clusters of those in training. None of them is calibrated "
            "or says anything about disease. A click chooses an image."
        )
        self.drawn = False
        self.layout = Column(
            beside(self.by),
            session.div(f'<p class="said">{said}</p>'),
            self.shown,
            sizing_mode="stretch_both",
        )

    def opened(self):
        if self.session.row is not None and not self.drawn:
            self.draw()

    def call(self):
        if self.session.row is None:
            return None
        return "outliers", {"by": self.by.value.split(" (")[0]}

    def draw(self):
        self.drawn = True
        name = self.by.value.split(" (")[0]
        found = [
            pictures.figure_of(
                self.atlas.image(row), pictures.cell(self.atlas.table[name].iloc[row]), "small", row
            )
            for row in self.atlas.worst(name, WORST)
        ]
        self.shown.text = pictures.together(*found, wrap=True)
        self.session.tell("line")
