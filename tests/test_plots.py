"""Figures: what they are given is what they show, and they leave nothing open."""

import base64
import importlib.util
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from analysis import diagrams, plots
from nn import networks


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert not plt.get_fignums()


def images(n=5, channels=1):
    return np.random.default_rng(0).uniform(size=(n, 4, 6, channels)).astype(np.float32)


def test_tile_puts_every_image_in_its_place():
    made, sheet = images(5), plots.tile(images(5), columns=3, gap=1)
    assert sheet.shape == (9, 20, 1)
    for index, image in enumerate(made):
        top, left = (index // 3) * 5, (index % 3) * 7
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 6], image)
    assert np.all(sheet[5:, 14:] == 1.0)


def test_a_sheet_on_disk_is_the_tile(tmp_path):
    for channels in (1, 3):
        plots.save_sheet(images(4, channels), tmp_path / "sheet.png", columns=2)
        read = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(9, 13, channels)
        expected = plots.tile(images(4, channels), columns=2)
        assert np.abs(read / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_loss_curves_has_a_panel_for_each_term_that_is_there():
    history = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.0], "ssim": [0.1, 0.2]})
    figure = plots.loss_curves(history.assign(val_loss=[2.5, 1.5]))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "loss",
        "ssim",
    ]
    assert [len(axis.lines) for axis in figure.axes] == [2, 1]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [2.5, 1.5])


def test_curve_draws_every_line_over_its_values():
    figure = plots.curve([2, 8, 32], {"a": [1, 2, 3], "b": [3, 2, 1]}, "x", "y", log=True)
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.lines[1].get_xydata(), [[2, 3], [8, 2], [32, 1]])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]


def test_latent_map_draws_every_point_in_its_class():
    points = np.arange(20.0).reshape(10, 2)
    labels = np.array([0, 1] * 4 + [-1, -1])
    figure = plots.latent_map(points, labels, classes=("a", "b"))
    drawn = np.concatenate([each.get_offsets() for each in figure.axes[0].collections])
    np.testing.assert_array_equal(np.sort(drawn, axis=0), points)
    assert len(figure.axes[0].collections) == 3
    assert {text.get_text() for text in figure.axes[0].texts} == {"a", "b"}


def test_image_rows_names_every_row():
    figure = plots.image_rows({"original": images(), "reconstruction": images()})
    assert [axis.texts[0].get_text() for axis in figure.axes] == ["original", "reconstruction"]


@pytest.mark.parametrize("stochastic", [True, False])
def test_the_diagram_tells_the_parameters_and_shapes_of_each_network(stochastic):
    options = {"image_shape": (33, 20, 1), "latent_dim": 7, "widths": (4, 6), "dense_widths": (9,)}
    encoder = networks.encoder(**options, stochastic=stochastic)
    figure = diagrams.architecture({"encoder": networks.layers_of(encoder)})
    text = " ".join(each.get_text() for each in figure.axes[0].texts)
    assert f"{encoder.count_params():,} parameters" in figure.axes[0].get_title(loc="left")
    assert "33x20x1" in text and "z_mean\n7" in text
    assert ("z_log_var" in text) == stochastic


def test_save_makes_the_folder_and_returns_the_figure(tmp_path):
    figure = plots.image_grid(images(), columns=3, title="five")
    assert plots.save(figure, tmp_path / "figures" / "five.png") is figure
    assert Image.open(tmp_path / "figures" / "five.png").width > 300


def test_a_gif_holds_its_frames_and_their_times(tmp_path):
    frames = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 4, 6, 1))
    path = plots.save_gif(frames, tmp_path / "new" / "a.gif", seconds=0.5, hold=0.3, scale=2)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (5, (12, 8), 0)
        times = []
        for number in range(5):
            gif.seek(number)
            times.append(gif.info["duration"])
            assert np.abs(np.asarray(gif.convert("L")) - 255.0 * number / 4).max() <= 2
    assert times == [400, 100, 100, 100, 400]
    once = plots.save_gif(images(3, 3), tmp_path / "b.gif", loop=False)
    with Image.open(once) as gif:
        assert "loop" not in gif.info and gif.n_frames == 3


def test_thumbnails_never_overlap():
    places = np.random.default_rng(0).uniform(size=(200, 2))
    kept = plots.apart(places, 0.1)
    far = np.abs(places[kept][:, None] - places[kept][None]).max(axis=-1)
    assert far[~np.eye(len(kept), dtype=bool)].min() >= 0.1 and kept[0] == 0
    left_out = np.setdiff1d(np.arange(200), kept)
    assert np.abs(places[left_out][:, None] - places[kept][None]).max(-1).min(1).max() < 0.1
    rows, corners = plots.settled(places, 0.1, reach=1.0)
    far = np.abs(corners[:, None] - corners[None]).max(axis=-1)
    assert far[~np.eye(len(rows), dtype=bool)].min() > 0.0999 and len(rows) > len(kept)
    assert np.abs(corners - places[rows]).max() <= 0.15 + 1e-9


def test_a_map_of_thumbnails_shows_every_image_that_has_a_place():
    places = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    white, frame = np.ones((3, 4, 4, 1), np.float32), 1 - np.array(plots.COLOURS[0])
    figure = plots.thumbnails(places, 0 * white, side=0.1, width=1.0)
    sheet = figure.axes[0].images[0].get_array()
    assert (sheet == 0).all(axis=-1).sum() == 3 * 8 * 8  # twice 4 pixels, in squares of 10
    assert np.all(sheet[91:99, 1:9] == 0) and np.all(sheet[1:9, 91:99] == 0)
    figure = plots.thumbnails(places, white, side=0.1, width=1.0, labels=np.array([0, -1, -1]))
    sheet = 1 - np.asarray(figure.axes[0].images[0].get_array())
    assert sheet.sum() == pytest.approx((100 - 64) * frame.sum(), rel=1e-3)
    crowd = plots.thumbnails(np.zeros((4, 2)), white[[0, 0, 0, 0]], side=0.1, reach=0.0)
    assert crowd.axes[0].texts[0].get_text().startswith("3 of 4")


def drawn(figure):
    """The pixels of a figure, floats in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255.0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_every_pixel_as_a_square_of_one_size(channels):
    pixels = drawn(plots.image_grid(images(4, channels), columns=2, width=0.4, gap=1))
    sheet = plots.tile(images(4, channels).repeat(3, 1).repeat(3, 2), columns=2, gap=1)
    shown = pixels[2 : 2 + sheet.shape[0], 2 : 2 + sheet.shape[1]]
    assert np.abs(shown - sheet).max() < 1.5 / 255
    rows = plots.image_rows({"a": images(2, channels), "b": images(2, channels)}, heads="xy")
    wide = rows.axes[0].images[0].get_array().shape[1]
    box = rows.axes[0].get_window_extent()
    assert box.width == pytest.approx(wide) and (wide - 2) % 12 == 0
    assert [each.get_text() for each in rows.axes[0].texts] == ["a", "x", "y"]


def test_images_that_do_not_fit_are_shrunk_with_antialiasing():
    stripes = np.zeros((1, 8, 64, 1), np.float32)
    stripes[:, :, ::2] = 1.0
    shrunk = plots.fitted(stripes, 16)
    assert shrunk.shape == (1, 2, 16, 1)
    assert np.abs(shrunk[:, :, 2:-2] - 0.5).max() < 0.05  # "nearest" would give 0 or 1
    assert plots.fitted(np.full((1, 2, 2, 3), 255, np.uint8), 5).shape == (1, 4, 4, 3)


def test_before_and_after_show_their_difference():
    before, after = np.full((4, 4, 1), 0.2), np.full((4, 4, 1), 0.6)
    figure = plots.before_after(before, after, limit=0.5)
    heads = [axis.get_title() for axis in figure.axes[:3]]
    assert heads == ["before", "after", "difference"]
    change = figure.axes[2].images[0]
    assert change.get_array().mean() == pytest.approx(0.4) and change.get_clim() == (-0.5, 0.5)


def test_loss_curves_say_what_they_leave_out():
    losses = [900.0, 100.0, *np.linspace(20, 10, 14)]
    history = pd.DataFrame({"epoch": range(16), "loss": losses, "ssim": np.linspace(0, 1, 16)})
    loss, ssim = plots.loss_curves(history).axes
    assert "epochs 1 to 2\noff the scale\n(first: 900)" == loss.texts[0].get_text()
    assert not ssim.texts and loss.lines[0].get_xdata()[0] == 1


def test_a_model_looks_the_same_everywhere_and_no_two_alike():
    one, two = plots.looks(["VAE", "AAE, Gaussian", "x"]), plots.looks(["y", "AAE", "VAE"])
    assert one["VAE"] == two["VAE"] == plots.LOOKS["vae"]
    assert one["AAE, Gaussian"] == two["AAE"]
    many = plots.looks(["VAE, beta 2", "VAE, beta 8", "VAE", *map(str, range(30))])
    assert len(set(many.values())) == len(many)
    assert many["VAE, beta 2"][0] == many["VAE, beta 8"][0]


def test_axes_of_a_plane_are_named_by_the_variance_that_they_show():
    points = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert plots.plane_names(points, 0.5) == ("PC 1 (45 %)", "PC 2 (5 %)")
    assert plots.plane_names(points, 1.0) == ("$z_1$", "$z_2$")
    assert plots.plane_names(points, np.nan)[0] == "t-SNE 1"


def test_the_diagram_of_introspection_names_both_networks_and_all_three_images():
    (axis,) = diagrams.introspection().axes
    words = " ".join(each.get_text() for each in axis.texts)
    for word in ("real", "reconstructed", "generated", "encoder", "decoder", "KL"):
        assert word in words


def test_difference_maps_share_one_scale_and_show_the_differences():
    sweep = np.stack([np.full((4, 4, 1), level) for level in (0.2, 0.3, 0.7)])
    figure = plots.difference_maps(sweep, ["0", "1", "2"])
    panels = np.array(figure.axes[:9]).reshape(3, 3)
    step, change = (panels[row, 2].images[0] for row in (1, 2))
    assert step.get_array().mean() == pytest.approx(0.4)
    assert change.get_array().mean() == pytest.approx(0.5)
    assert step.get_clim() == change.get_clim() == pytest.approx((-0.5, 0.5))
    figure = plots.difference_maps(sweep[::-1], ["2", "1", "0"], absolute=True)
    change = np.array(figure.axes[:9]).reshape(3, 3)[2, 2].images[0]
    assert change.get_array().mean() == pytest.approx(0.5) and change.get_clim()[0] == 0


def test_histograms_are_of_the_axes_asked_for():
    z = np.random.default_rng(0).normal(size=(500, 4))
    figure = plots.histograms(z, axes=[3, 0], columns=3)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[:2] == ["$z_{3}$", "$z_{0}$"]
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert sum(heights) * 0.2 == pytest.approx(1.0)


def test_clouds_have_one_ground_and_one_plane():
    random = np.random.default_rng(0)
    ground, points = random.normal(size=(200, 2)), random.normal(size=(50, 2))
    figure = plots.clouds({"a": points, "b": points + 1, "c": points}, ground, across=2)
    shown = figure.axes[:3]
    assert [axis.get_title(loc="left") for axis in shown] == ["a", "b", "c"]
    for axis, moved in zip(shown, (0, 1, 0), strict=True):
        behind, before = (each.get_offsets() for each in axis.collections)
        np.testing.assert_allclose(behind, ground)
        np.testing.assert_allclose(before, points + moved)
        assert axis.get_xlim() == shown[0].get_xlim() and axis.get_ylim() == shown[0].get_ylim()
    assert not figure.axes[3].axison


def test_a_band_is_drawn_around_its_line():
    figure = plots.curve([0, 1], {"a": [1.0, 2.0]}, "x", "y", errors={"a": [0.5, 0.25]})
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == 0.5 and heights.max() == 2.25


def test_projections_value_map_and_cosines_show_what_they_are_given():
    scores, chosen = np.arange(10.0), np.arange(10) < 4
    figure = plots.projections(scores, {"few": chosen, "many": ~chosen}, "score")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["few (4)", "many (6)"]
    figure = plots.value_map(np.arange(8.0).reshape(4, 2), np.arange(4), "age")
    np.testing.assert_array_equal(figure.axes[0].collections[0].get_array(), np.arange(4))
    table = pd.DataFrame([[1.0, 0.25], [0.25, 1.0]], ["a", "b"], ["a", "b"])
    texts = [text.get_text() for text in plots.cosine_table(table).axes[0].texts]
    assert texts == ["1.00", "0.25", "0.25", "1.00"]


def test_intervals_stand_below_each_other_in_their_order():
    figure = plots.intervals({"a": (0.8, 0.7, 0.9), "b": (0.5, np.nan, np.nan)}, "AUC", 0.5)
    (axis,) = figure.axes
    assert [each.get_text() for each in axis.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [(0.7, 0), (0.9, 0)])
    assert axis.texts[0].get_text() == "0.80" and axis.yaxis_inverted()


def test_a_calibration_curve_has_a_line_and_marks_for_each_model_beside_the_diagonal():
    table = np.array([(0.5, 0.4, 10), (0.9, 1.0, 30)], dtype="f8,f8,i8")
    table.dtype.names = ("confidence", "accuracy", "n")
    (axis,) = plots.calibration({"one": table, "other": table[:1]}).axes
    assert len(axis.lines) == 3 and len(axis.collections) == 2
    np.testing.assert_allclose(axis.collections[0].get_offsets(), [[0.5, 0.4], [0.9, 1.0]])
    small, large = axis.collections[0].get_sizes()
    assert (large - 8) / (small - 8) == pytest.approx(3)


def test_a_trade_has_a_panel_for_each_pair_a_point_for_each_run_and_a_colour_for_each_model():
    table = pd.DataFrame(
        {
            "model": ["VAE", "VAE", "sharp"],
            "psnr": [20.0, 21.0, 19.0],
            "rate": [np.nan, np.nan, 7.0],
            "distance": [1.0, 1.1, 0.5],
        }
    )
    psnr, distance = ("psnr", "dB"), ("distance", "squared units")
    rate = ("rate", "nats")
    figure = plots.trade({"one": (table, psnr, distance), "two": (table, rate, distance)})
    one, two = figure.axes
    assert [each.get_title(loc="left") for each in (one, two)] == ["one", "two"]
    np.testing.assert_array_equal(one.collections[0].get_offsets(), [(20.0, 1.0), (21.0, 1.1)])
    np.testing.assert_array_equal(one.collections[1].get_offsets(), [(19.0, 0.5)])
    (sharp,) = two.collections  # VAE has no rate
    np.testing.assert_array_equal(sharp.get_facecolor(), one.collections[1].get_facecolor())
    assert [each.get_text() for each in figure.legends[0].get_texts()] == ["VAE", "sharp"]
    stacked = plots.trade({each: (table, rate, distance) for each in "abc"}, across=2)
    a, b, c = (each.get_subplotspec() for each in stacked.axes)
    assert a.rowspan == b.rowspan != c.rowspan and a.colspan == c.colspan != b.colspan
    alone = plots.trade({"alone": (table, rate, distance)})
    (again,) = alone.axes[0].collections
    np.testing.assert_array_equal(sharp.get_facecolor(), again.get_facecolor())
    assert [each.get_text() for each in alone.legends[0].get_texts()] == ["sharp"]


def test_stored_figures_are_packed_without_loss_unless_they_are_large_and_coloured():
    path = Path(__file__).parent.parent / "notebooks" / "execute.py"
    specification = importlib.util.spec_from_file_location("execute", path)
    execute = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(execute)

    def through(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).convert("RGBA").save(file, "PNG")
        short = execute.packed(base64.b64encode(file.getvalue()).decode())
        return Image.open(io.BytesIO(base64.b64decode(short)))

    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (20, 30, 1), np.uint8).repeat(3, axis=-1)
    colours = random.integers(0, 256, (20, 30, 3), np.uint8)
    for pixels, mode in ((grey, "L"), (colours, "RGB"), (colours // 64 * 64, "P")):
        stored = through(pixels)
        assert stored.mode == mode
        np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), pixels)
    wide = np.linspace(0, 255, 300).astype(np.uint8)[None, :, None]
    photo = np.clip(wide + random.integers(-9, 9, (300, 300, 3)), 0, 255).astype(np.uint8)
    stored = through(photo)
    assert stored.mode == "P"
    assert np.abs(np.asarray(stored.convert("RGB")).astype(int) - photo).mean() < 8
