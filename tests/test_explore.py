"""Exploring a run without a browser: what is asked of it, what is drawn, what is missing."""

import base64
import io
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import explore
import train
from analysis import anomaly, evidence, figures, latent, pictures
from analysis.atlas import NORMAL, PATHS, Atlas, chosen
from analysis.directions import Direction
from families import densities, registry
from nn import metrics
from sources.splits import Split
from spots import blobs
from storage import checkpoints, runs

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture
def of_spots(run, spots, monkeypatch):
    """A function that opens the trained run on its spots."""
    monkeypatch.setattr(explore.data, "images_of", lambda run: spots)
    return lambda *words, **options: explore.opened(run, *words, **options)


@pytest.fixture
def atlas(of_spots):
    return of_spots("all")


# --- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", (7, 40, 400))
def test_at_most_so_many_rows_are_drawn_each_once_and_always_the_same(most):
    parts = chosen([10, 0, 50], most)
    assert sum(map(len, parts)) == min(most, 60)
    for rows, count in zip(parts, (10, 0, 50), strict=True):
        assert len(np.unique(rows)) == len(rows) and (rows == np.sort(rows)).all()
        assert ((rows >= 0) & (rows < count)).all()
    for once, again in zip(parts, chosen([10, 0, 50], most), strict=True):
        np.testing.assert_array_equal(once, again)


def test_latents_table_and_images_line_up_and_likeness_is_that_of_the_reconstruction(atlas, spots):
    assert len(atlas) == atlas.total == sum(map(len, spots.splits.values()))
    model = train.load(atlas.run)
    for row in (0, len(atlas) // 2, len(atlas) - 1):
        place = atlas.table.iloc[row]
        split = spots.splits[place["split"]]
        (at,) = np.flatnonzero(split.table["file"] == place["file"])
        image = split.images[at] / np.float32(255)
        np.testing.assert_array_equal(atlas.image(row), image)
        np.testing.assert_allclose(atlas.z[row], model.encode(image[None])[0][0], atol=1e-5)
        made = model.reconstruct(image[None]).numpy()
        np.testing.assert_allclose(atlas.reconstruction(row), made[0], atol=1e-5)
        assert place["error"] == pytest.approx(np.square(image - made[0]).mean(), rel=1e-3)
        assert place["ssim"] == pytest.approx(float(metrics.ssim(image[None], made)[0]), abs=1e-4)


def test_a_run_without_a_latent_opens_and_says_so(spots, tiny, tmp_path):
    settings = tiny(model="Denoiser", corrupt="coarse")
    train.fit(registry.from_settings(settings), spots, settings, tmp_path / "run", verbose=0)
    atlas = explore.opened(tmp_path / "run")
    assert atlas.model is None
    assert atlas.lacks == ["A Denoiser has no latent, so there is no map of it: see anomaly.py."]


def test_of_more_images_a_random_part_is_shown_and_said(of_spots):
    atlas = of_spots("all", most=20)
    assert len(atlas) == 20 < atlas.total and f"20 of {atlas.total} images" in atlas.about()


def test_a_folder_of_images_can_be_shown_instead(of_folder, folder):
    run, _ = of_folder
    atlas = explore.opened(run, str(folder))
    assert len(atlas) == 7 and set(atlas.table["subject"]) == set(atlas.table["file"])
    assert "no label" in " ".join(atlas.lacks)


def test_a_run_without_images_keeps_what_needs_none(of_folder):
    run, folder = of_folder
    shutil.rmtree(folder)
    atlas = explore.opened(run)
    assert "images cannot be opened" in atlas.lacks[0] and not len(atlas)
    assert "needs images" in atlas.refusal("map") and "needs images" in atlas.refusal("paths")
    assert not atlas.refusal("sliders") and not atlas.refusal("samples")
    moved = atlas.decode(atlas.moved(atlas.start(), {"z_1": 2.0})[None])
    assert moved.shape == (1, 12, 12, 1) and np.isnan(atlas.axes[0].nats)
    assert atlas.samples(NORMAL, 4).shape == (4, 12, 12, 1)


@pytest.mark.parametrize("damage", ("weights", "settings", "gone"))
def test_a_damaged_run_opens_and_says_what_is_wrong(of_spots, run, damage):
    if damage == "weights":
        content = bytearray((run / checkpoints.WEIGHTS).read_bytes())
        content[len(content) // 2] ^= 255
        (run / checkpoints.WEIGHTS).write_bytes(content)
    elif damage == "settings":
        (run / "settings.json").write_text("{")
    else:
        (run / checkpoints.WEIGHTS).unlink()
    atlas = of_spots("test")
    assert atlas.model is None and "model cannot be opened" in atlas.lacks[0]
    for tool in ("map", "sliders", "samples", "directions", "paths"):
        assert "cannot be opened" in atlas.refusal(tool)


def test_other_images_than_those_of_the_training_are_told(run, of_spots):
    assert not [each for each in of_spots("test").lacks if "trained on" in each]
    table = pd.read_csv(run / "split.csv", dtype=str)
    table.iloc[1:].to_csv(run / "split.csv", index=False)
    assert "not all images that it was trained on: 1 new" in " ".join(of_spots("test").lacks)
    (run / "split.csv").unlink()
    assert "split.csv cannot be read" in " ".join(of_spots("test").lacks)


def test_a_damaged_prior_and_a_damaged_direction_are_named_and_the_rest_opens(of_spots, run):
    for path in (run / "priors").glob("*/arrays.npz"):
        path.write_bytes(b"no arrays")
        name = path.parent.name
    (run / "directions").mkdir()
    (run / "directions" / "torn.json").write_text("{")
    atlas = of_spots("test")
    assert list(atlas.priors) == [NORMAL] and atlas.own_prior == NORMAL
    told = " ".join(atlas.lacks)
    assert f"priors/{name} is damaged" in told and "torn.json cannot be read" in told


def test_no_folder_and_no_split_are_errors_that_say_what_to_give(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a trained run"):
        explore.opened(tmp_path / "none")
    with pytest.raises(ValueError, match="data = tset: give test, validation, train, all, or a f"):
        explore.opened(run, "tset")


def test_scores_of_a_run_become_columns_by_the_file(of_spots, run):
    table = of_spots("test").table
    scores = table[["file"]].assign(score_spots=np.arange(len(table), dtype=float), other=1)
    (run / "anomaly").mkdir()
    scores.iloc[::-1].to_csv(run / "anomaly" / "images.csv", index=False)
    atlas = of_spots("test")
    assert atlas.scores == ["score_spots"] and "other" not in atlas.table
    np.testing.assert_array_equal(atlas.table["score_spots"], np.arange(len(table)))
    assert atlas.worst("score_spots", 3).tolist() == [len(table) - 1 - each for each in range(3)]
    (run / "anomaly" / "images.csv").write_text("nothing\n1\n")
    atlas = of_spots("test")
    assert atlas.scores == [] and "cannot be read as scores" in " ".join(atlas.lacks)


def test_images_can_be_listed_by_how_unfamiliar_they_are(run, of_spots):
    assert of_spots("test").marks == ["ssim", "error"]
    mixture = densities.Mixture([0.5, 0.5], np.eye(3)[:2], np.eye(3)[None].repeat(2, axis=0))
    runs.save_prior(run, "mixture", *mixture.parts(), own=True)
    atlas = of_spots("test")
    assert atlas.marks == ["ssim", "error", "unfamiliar"]
    expected = anomaly.unfamiliarity(atlas.z, mixture)
    np.testing.assert_allclose(atlas.table["unfamiliar"], expected, atol=1e-5)
    assert atlas.worst("unfamiliar", 1)[0] == expected.argmax()


# --- map -----------------------------------------------------------------------------------------


def test_a_place_of_a_plane_is_inverted_exactly(atlas):
    plane = atlas.map.plane("pca")
    z, said = atlas.map.at("pca", plane.points[5])
    assert "at this very place" in said and "components at their mean" in said
    vectors = np.linalg.svd(atlas.z - atlas.z.mean(axis=0), full_matrices=False)[2][:2]
    kept = vectors.T @ vectors  # what the two components keep of a latent
    wanted = atlas.z.mean(axis=0) + kept @ (atlas.z[5] - atlas.z.mean(axis=0))
    np.testing.assert_allclose(z, wanted, atol=1e-4)

    first, second = latent.by_kl(atlas.z, atlas.z_log_var)[0][:2]
    z, said = atlas.map.at("axes", (1.5, -2.0))
    assert z[first] == 1.5 and z[second] == -2.0 and f"z_{first} = 1.50, z_{second} = -2.00" in said
    (rest,) = set(range(3)) - {first, second}
    assert z[rest] == pytest.approx(atlas.z[:, rest].mean(), abs=1e-6)


def test_a_place_of_a_map_without_an_inverse_is_the_mean_of_its_neighbours(atlas):
    point = atlas.map.plane("tsne").points[7]
    z, said = atlas.map.at("tsne", point)
    away = np.linalg.norm(atlas.map.plane("tsne").points - point, axis=1)
    rows = np.argsort(away)[:5]
    np.testing.assert_allclose(z, atlas.z[rows].mean(axis=0), atol=1e-6)
    assert "cannot be inverted" in said and "mean latent of the 5 images" in said


def test_the_nearest_are_those_of_an_independent_search_without_the_image_itself(atlas):
    rows, away = atlas.nearest(atlas.z[3], 4, without=3)
    others = np.delete(np.arange(len(atlas)), 3)
    row, distance = latent.nearest(atlas.z[3][None], atlas.z[others])
    assert rows[0] == others[row[0]] and away[0] == pytest.approx(distance[0], rel=1e-4)
    assert 3 not in rows and (np.diff(away) >= 0).all() and len(rows) == 4


def test_columns_to_colour_by_leave_out_what_says_nothing(atlas):
    assert atlas.columns()[0] == "half"
    assert {"split", "error", "ssim"} <= set(atlas.columns())
    assert "file" not in atlas.columns()  # each image has its own


# --- axes ----------------------------------------------------------------------------------------


def test_a_slider_moves_its_axis_and_no_other(atlas):
    z = atlas.z[4]
    names = [axis.name for axis in atlas.axes]
    assert names == [f"z_{axis}" for axis in latent.by_kl(atlas.z, atlas.z_log_var)[0]]
    np.testing.assert_allclose(atlas.moved(z, dict(zip(names, atlas.values(z), strict=True))), z)
    moved = atlas.moved(z, {"z_2": 1.25})
    assert moved[2] == 1.25
    np.testing.assert_allclose(np.delete(moved, 2), np.delete(z, 2), atol=1e-6)


def test_sliders_of_a_latent_map_move_along_components_and_say_why(tiny, spots, run):
    model = registry.from_settings(tiny(latent_map=(6, 6, 2)))
    atlas = Atlas(run, model, spots.test, "spots")
    assert "6 x 6 x 2 = 72 numbers" in atlas.about_sliders()
    assert [axis.name for axis in atlas.axes[:2]] == ["component 1", "component 2"]
    z = atlas.z[1]
    moved = atlas.moved(z, {"component 2": 1.5})
    values = atlas.values(moved)
    assert values[1] == pytest.approx(1.5, abs=1e-3)
    np.testing.assert_allclose(np.delete(values, 1), np.delete(atlas.values(z), 1), atol=1e-2)
    scores = (atlas.z - atlas.z.mean(axis=0)) @ atlas.axes[0].vector
    assert scores.std() == pytest.approx(atlas.axes[0].spread, rel=1e-3)
    bare = Atlas(run, model)
    assert "moves one spot of the image" in bare.refusal("sliders")


def test_a_model_that_needs_a_class_reconstructs_and_samples_and_refuses_the_rest(tiny, spots, run):
    model = registry.from_settings(tiny(model="M2", classes=2))
    atlas = Atlas(run, model, spots.test, "spots")
    assert not atlas.refusal("map") and not atlas.refusal("samples")
    for tool in ("sliders", "directions", "paths"):
        assert "needs a class" in atlas.refusal(tool)
    image = atlas.image(0)[None]
    np.testing.assert_allclose(atlas.reconstruction(0), model.reconstruct(image)[0], atol=1e-6)
    assert atlas.samples(NORMAL, 3).shape == (3, 12, 12, 1)


def test_samples_are_those_of_the_model_for_the_same_seed_and_prior(atlas):
    model = atlas.model
    np.testing.assert_allclose(atlas.samples(NORMAL, 4, 3), model.sample(4, 3), atol=1e-5)
    own = atlas.own_prior
    assert own != NORMAL
    wanted = model.sample(4, 3, atlas.priors[own])
    np.testing.assert_allclose(atlas.samples(own, 4, 3), wanted, atol=1e-5)


# --- paths and directions ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_begins_and_ends_at_its_images(atlas, kind):
    path = atlas.path([2, 9], kind, 21)
    assert path.shape == (21, 3)
    np.testing.assert_allclose(path[[0, -1]], atlas.z[[2, 9]], atol=1e-4)
    three = atlas.path([2, 9, 30], kind, 400)
    middle = np.linalg.norm(three - atlas.z[9], axis=1).min()
    assert middle < np.linalg.norm(np.diff(three, axis=0), axis=1).max()
    with pytest.raises(ValueError, match="at least two images"):
        atlas.path([2], kind)


def test_a_straight_path_is_straight_and_even(atlas):
    path = atlas.path([0, 5], "straight", 9)
    np.testing.assert_allclose(path, latent.lerp(atlas.z[0], atlas.z[5], 9), atol=1e-5)


def test_a_direction_is_that_of_its_label_and_lassoed_groups_are_a_label_too(atlas):
    has = atlas.table["half"].to_numpy() == 1
    found = atlas.direction("half==1", "mean")
    wanted = Direction.of(atlas.z, atlas.table.assign(h=has), "h", "mean")
    np.testing.assert_allclose(found.vector, wanted.vector, atol=1e-9)
    groups = np.flatnonzero(has)[:20].tolist(), np.flatnonzero(~has)[:20].tolist()
    found = atlas.direction(groups, "mean")
    apart = atlas.z[groups[0]].mean(axis=0) - atlas.z[groups[1]].mean(axis=0)
    np.testing.assert_allclose(found.vector, apart / np.linalg.norm(apart), atol=1e-5)
    assert found.images == (20, 20)
    with pytest.raises(ValueError, match="0 of 96 images have it; a direction needs"):
        atlas.direction("half==9")


def test_the_evidence_is_that_of_its_module_and_its_progress_rises_to_the_end(atlas):
    told = []
    found = atlas.evidence("half==1", "mean", progress=told.append)
    has = atlas.table["half"].to_numpy() == 1
    wanted = evidence.of(atlas.z, has, atlas.table["subject"], "mean")
    assert str(found) == str(wanted)
    assert told == sorted(told) and told[0] > 0 and told[-1] == 1.0 and len(told) > 100


def test_the_scale_of_an_effect_is_the_same_for_every_strength(atlas):
    found = atlas.direction("half==1")
    limits, largest = [], []
    for strength in (-4.0, 0.0, 1.0, 4.0):
        before, after, limit = atlas.effect(found, atlas.z[0], strength)
        limits.append(limit)
        largest.append(np.abs((after - before).mean(axis=-1)).max())
    assert len(set(limits)) == 1 and largest[1] == 0
    assert max(largest[0], largest[3]) == pytest.approx(limits[0], rel=1e-5)


def test_a_direction_that_is_kept_comes_back(of_spots):
    atlas = of_spots("test")
    found = atlas.direction("half==1")
    path = atlas.save_direction(found)
    again = of_spots("test")
    np.testing.assert_allclose(again.direction("half==1").vector, found.vector)
    assert path.parent == atlas.run / "directions"
    has = again.table["half"].to_numpy() == 1
    wanted = evidence.auc_within(found.project(again.z), has)
    assert again.tested(again.directions["half==1"]) == pytest.approx(wanted)
    assert again.tested(Direction("wings", found.vector, 1.0)) is None


# --- what a browser gets -------------------------------------------------------------------------


def test_a_picture_comes_back_from_its_url_and_its_last_row_is_drawn_first():
    image = blobs(1, shape=(9, 7, 3))[0][0]
    content = base64.b64decode(pictures.url(image).split(",")[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
    drawn = pictures.rgba(image, 64).view(np.uint8).reshape(9, 7, 4)
    np.testing.assert_array_equal(drawn[::-1, :, :3], image)
    assert (drawn[..., 3] == 255).all()
    framed = pictures.rgba(image, 64, "#ff0000").view(np.uint8).reshape(63, 49, 4)
    assert (framed[:2, :, :3] == (255, 0, 0)).all() and (framed[:, -2:, 0] == 255).all()
    small = Image.open(io.BytesIO(pictures.png(np.zeros((90, 60, 1)), most=30)))
    assert small.size == (20, 30)


def test_a_difference_is_white_where_nothing_changes_red_where_brighter_blue_where_darker():
    before = np.full((1, 3, 1), 0.5, np.float32)
    after = before + np.array([0.0, 0.2, -0.2], np.float32)[None, :, None]
    same, brighter, darker = pictures.change(before, after, 0.2)[0]
    assert same.min() > 0.95 and brighter[0] > 2 * brighter[2] and darker[2] > 2 * darker[0]


def test_classes_get_a_colour_each_numbers_a_scale_and_what_is_missing_is_grey():
    found = pictures.colours(pd.Series([2, 0, 2, 1]), ("a", "b", "c"))
    assert found.rows[0] == found.rows[2] and len(set(found.rows)) == 3 and found.ends is None
    assert [name for _, name in found.names] == ["a", "b", "c"]
    assert found.names[2][0] == found.rows[0]
    found = pictures.colours(pd.Series([True, False]), ("no", "yes"))
    assert [name for _, name in found.names] == ["no", "yes"]
    numbers = pd.Series([*np.linspace(20, 80, 101), np.nan])
    found = pictures.colours(numbers)
    assert found.rows[-1] == pictures.MISSING and found.names == [
        (pictures.MISSING, "no value (1)")
    ]
    assert found.ends == pytest.approx((20.6, 79.4)) and len(set(found.rows)) > 50
    many = pictures.colours(pd.Series([str(each % 30) for each in range(300)]))
    assert many.names[-1] == (pictures.MISSING, "18 others")


def test_text_of_tables_and_files_is_never_html():
    column = pd.Series([HOSTILE, "b"])
    made = [
        pictures.facts([(HOSTILE, HOSTILE)]),
        pictures.legend(pictures.colours(column)),
        pictures.figure_of(np.zeros((2, 2, 1)), HOSTILE),
    ]
    for each in made:
        assert "<img src=x" not in each and "&lt;img src=x" in each
        assert re.search(r"&quot;|&#x27;", each)


def test_cells_are_short_numbers_and_the_empty_ones_are_told():
    assert [pictures.cell(each) for each in (0.123456, 3, "F", None, np.nan, pd.NA)] == [
        *("0.1235", "3", "F"),
        *("–",) * 3,
    ]


# --- what leaves it ------------------------------------------------------------------------------

CALLS = {
    "as_map": {"plane": "pca", "colour": "half", "seed": 0},
    "of_image": {"row": 3},
    "nearest": {"row": 3},
    "at_place": {"plane": "axes", "point": (0.5, -1.0), "seed": 0},
    "sliders": {"values": {"z_0": 1.0}, "start": 2},
    "samples": {"prior": NORMAL, "count": 9, "seed": 1},
    "direction": {"label": "half==1", "row": 3, "strength": 2.0, "method": "mean", "adjust": ()},
    "path": {"rows": [1, 2], "kind": "spherical"},
    "outliers": {"by": "ssim"},
}


@pytest.mark.parametrize("name", CALLS)
def test_the_line_of_python_draws_the_same_figure(of_spots, run, name):
    def pixels(figure, path):
        figure.savefig(path)
        return np.asarray(Image.open(path))

    line = figures.line_of(f"explore.opened({str(run)!r}, 'test')", (name, CALLS[name]))
    by_line = eval(line, {"figures": figures, "explore": explore})
    by_call = getattr(figures, name)(of_spots("test"), **CALLS[name])
    assert by_call.axes and not plt.get_fignums()
    np.testing.assert_array_equal(
        pixels(by_line, run / "line.png"), pixels(by_call, run / "call.png")
    )


def test_the_line_has_plain_values():
    values = {"values": {"z_1": np.float32(0.5)}, "rows": [np.int64(3)], "point": np.ones(2)}
    wanted = "figures.f(a, values={'z_1': 0.5}, rows=[3], point=[1.0, 1.0])"
    assert figures.line_of("a", ("f", values)) == wanted


def test_a_selection_leaves_as_its_rows_and_latents(atlas):
    table = atlas.rows_as_table([5, 2])
    assert table["file"].tolist() == atlas.table["file"].iloc[[5, 2]].tolist()
    np.testing.assert_array_equal(table[["z_0", "z_1", "z_2"]], atlas.z[[5, 2]])
    assert len(atlas.rows_as_table(np.empty(0, int))) == len(atlas)


# --- command line --------------------------------------------------------------------------------


def test_without_bokeh_it_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setattr(explore.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        explore.main([str(run)])
    assert "pip install -r requirements.txt" in capsys.readouterr().err
    with pytest.raises(ImportError, match="needs Bokeh"):
        explore.view(run)


@pytest.mark.parametrize("words", (["--port", "70000"], ["--most", "1"]))
def test_impossible_numbers_are_refused_before_anything_is_opened(words, capsys):
    with pytest.raises(SystemExit):
        explore.parsed(["run", *words])
    assert words[1] in capsys.readouterr().err


def test_images_of_another_shape_than_the_model_are_left_out(run, monkeypatch):
    images, labels = blobs(96, shape=(16, 16, 1))
    others = explore.data.from_arrays(images, labels, name="others", label="half")
    monkeypatch.setattr(explore.data, "images_of", lambda run: others)
    atlas = explore.opened(run)
    assert not len(atlas) and "shape (16, 16, 1), the model (12, 12, 1)" in atlas.lacks[0]


def test_a_table_without_subjects_takes_each_file_as_one(run, spots):
    table = spots.test.table.drop(columns="subject")
    atlas = Atlas(run, train.load(run), Split(spots.test.images, table), "spots")
    assert atlas.table["subject"].tolist() == atlas.table["file"].tolist()
