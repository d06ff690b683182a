"""Figures: what they are given is what they show, and they leave nothing open."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import networks
import plots


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
    figure = plots.architecture({"encoder": networks.layers_of(encoder)})
    text = " ".join(each.get_text() for each in figure.axes[0].texts)
    assert f"{encoder.count_params():,} parameters" in figure.axes[0].get_title(loc="left")
    assert "33x20x1" in text and "z_mean\n7" in text
    assert ("z_log_var" in text) == stochastic


def test_save_makes_the_folder_and_returns_the_figure(tmp_path):
    figure = plots.image_grid(images(), columns=3, title="five")
    assert plots.save(figure, tmp_path / "figures" / "five.png") is figure
    assert Image.open(tmp_path / "figures" / "five.png").width > 300
