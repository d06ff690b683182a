"""A trained run on new files: the written files are the model's outputs."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import anomaly
import apply
import audit
import config
import data
import evaluate
import prior
import train
from analysis import anomaly as scores
from analysis import directions, folders, latent
from analysis.directions import Direction
from families import densities, priors, registry
from sources import files
from storage import checkpoints, runs


@pytest.fixture
def direction(tmp_path):
    path = tmp_path / "left.json"
    Direction("left", np.array([0.0, 1.0, 0.0]), spread=0.5).save(path)
    return path


def test_every_file_gets_its_latent_its_error_and_its_reconstruction(run, folder, tmp_path):
    apply.main([str(run), str(folder), "--out", str(tmp_path / "out")])
    written = pd.read_csv(tmp_path / "out" / "latents.csv")
    assert list(written["file"]) == files.listed(folder)
    model = train.load(run)
    for _, row in written.iterrows():
        image = np.asarray(Image.open(folder / row["file"]))[None, ..., None]
        z = model.encode(image)[0].numpy()
        np.testing.assert_allclose(row[["z_0", "z_1", "z_2"]].astype(float), z[0], atol=1e-5)
        made = model.decode(z).numpy()[0, ..., 0]
        assert row["error"] == pytest.approx(np.square(image[0, ..., 0] / 255 - made).mean(), 1e-3)
        kept = np.asarray(Image.open(tmp_path / "out" / "reconstructions" / row["file"]))
        assert np.abs(kept / 255 - made).max() <= 0.51 / 255
    assert (tmp_path / "out" / "map.png").is_file()


def test_outliers_and_flat_pictures_are_least_like_their_reconstructions(
    folder, capsys, spots, tiny, tmp_path
):
    """The squared error of a grey picture is small for every run."""
    settings = tiny(epochs=40, learning_rate=5e-3)
    train.fit(registry.from_settings(settings), spots, settings, tmp_path / "long", verbose=0)
    Image.fromarray(np.full((12, 12), 40, np.uint8)).save(folder / "flat.png")
    apply.main([str(tmp_path / "long"), str(folder)])
    written = pd.read_csv(tmp_path / "long" / "applied" / "latents.csv").set_index("file")
    assert set(written["unexplained"].nlargest(2).index) == {"6.png", "flat.png"}
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("least like their reconstructions (error over variance): flat.png")


def test_what_marks_outliers_is_high_for_flat_noisy_and_inverted_images(spots, tiny):
    settings = tiny(epochs=40, learning_rate=5e-3)
    model = registry.from_settings(settings)
    train.compile_model(model, settings, steps=4)
    batches = spots.train.batches(16, shuffle=True)
    model.fit(batches, steps_per_epoch=4, epochs=40, verbose=0, shuffle=False)
    own, random = spots.test.images, np.random.default_rng(0)
    table = pd.DataFrame({"file": range(len(own)), "slice": 0})

    def unexplained(images):
        return apply.encode(model, images.astype(np.uint8), table)[0]["unexplained"]

    usual = unexplained(own).median()
    for images in (
        np.zeros_like(own) + random.integers(20, 255, (len(own), 1, 1, 1)),
        random.integers(0, 256, own.shape),
        255 - own,
    ):
        assert unexplained(images).median() > 3 * usual


def test_latents_between_the_clusters_of_a_mixture_are_unfamiliar(run, folder, capsys, tmp_path):
    z = apply.encode(train.load(run), *apply.load_images(run, folder))[0]
    z = apply.coordinates(z)
    mixture = densities.Mixture([0.4, 0.6], [z[0], z[1]], 0.1 * np.eye(3)[None].repeat(2, axis=0))
    runs.save_prior(run, "mixture", *mixture.parts(), own=True)
    apply.main([str(run), str(folder), "--out", str(tmp_path / "out")])
    written = pd.read_csv(tmp_path / "out" / "latents.csv")
    expected = scores.unfamiliarity(z, mixture)
    np.testing.assert_allclose(written["unfamiliar"], expected, rtol=1e-3, atol=1e-3)
    first = written["file"][expected.argmax()]
    assert f"least familiar latents (nats): {first} {expected.max():.1f}" in capsys.readouterr().out

    runs.save_prior(run, "one", *mixture.gaussian().parts(), own=True)
    apply.main([str(run), str(folder), "--out", str(tmp_path / "again")])
    assert "unfamiliar" not in pd.read_csv(tmp_path / "again" / "latents.csv")


def test_a_prior_of_other_weights_is_told_and_the_rest_is_written(run, folder, capsys, tmp_path):
    mixture = densities.Mixture([0.5, 0.5], np.eye(3)[:2], np.eye(3)[None].repeat(2, axis=0))
    runs.save_prior(run, "mixture", *mixture.parts(), own=True)
    path = run / "priors" / "mixture" / "prior.json"
    path.write_text(path.read_text().replace(checkpoints.sha256(run / checkpoints.WEIGHTS), "0"))
    apply.main([str(run), str(folder), "--out", str(tmp_path / "out")])
    assert "unfamiliar" not in pd.read_csv(tmp_path / "out" / "latents.csv")
    assert "no column unfamiliar: " in capsys.readouterr().out


def test_a_picture_is_called_like_its_file_and_no_two_alike():
    names = ["a.png", "a.jpg", "deep/b.jpeg", "b.tiff", "b.bmp", "v.nii.gz", "v.nii.gz"]
    table = pd.DataFrame({"file": names, "slice": [0, 0, 0, 0, 0, 3, 4]})
    assert folders.picture_names(table) == [
        "a.png",
        "a.jpg.png",
        "deep/b.png",
        "b.png",
        "b.bmp.png",
        "v.nii.gz.slice3.png",
        "v.nii.gz.slice4.png",
    ]


def test_a_direction_cannot_write_outside_of_the_folder(run, folder, tmp_path):
    for name in (str(tmp_path / "ESC"), "../../ESC"):
        Direction(name, np.array([0.0, 1.0, 0.0]), spread=0.5).save(tmp_path / "bad.json")
        words = ["--direction", str(tmp_path / "bad.json"), "--out", str(tmp_path / "deep" / "out")]
        apply.main([str(run), str(folder), *words])
    assert not list(tmp_path.glob("ESC*")) and not list(tmp_path.glob("*/ESC*"))
    assert len([each for each in (tmp_path / "deep" / "out").glob("*ESC*") if each.is_dir()]) == 2


def test_a_name_as_long_as_a_disk_allows_is_written(run, folder, tmp_path):
    name = "n" * 251 + ".png"
    (folder / "2.png").rename(folder / name)
    apply.main([str(run), str(folder), "--out", str(tmp_path / "out")])
    assert len(list((tmp_path / "out" / "reconstructions").rglob("*.png"))) == 7


def test_an_m2_is_not_moved_along_a_direction(tmp_path, folder, direction, spots, tiny):
    settings = tiny(model="M2", classes=2, epochs=1)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, tmp_path / "m2", verbose=0)
    with pytest.raises(SystemExit, match="decoder needs a class.*SemiSupervisedVAE"):
        apply.main([str(tmp_path / "m2"), str(folder), "--direction", str(direction)])
    with pytest.raises(ValueError, match="pass one class per latent"):
        model.decode(np.zeros((1, 3), np.float32))


def test_a_direction_moves_every_image(run, folder, direction, tmp_path):
    words = ["--direction", str(direction), "--strength", "3", "--out", str(tmp_path / "out")]
    apply.main([str(run), str(folder), *words])
    written = pd.read_csv(tmp_path / "out" / "latents.csv")
    np.testing.assert_allclose(written["along left"], written["z_1"] / 0.5, rtol=1e-4)
    z = apply.coordinates(written)
    assert z.shape == (7, 3)
    z[:, 1] += 3 * 0.5
    expected = train.load(run).decode(z).numpy()
    kept = np.asarray(Image.open(tmp_path / "out" / "left_3" / "4.png"))
    row = list(written["file"]).index("4.png")
    assert np.abs(kept / 255 - expected[row, ..., 0]).max() <= 0.51 / 255


@pytest.mark.parametrize("kind", ["lerp", "slerp", "data"])
def test_a_path_between_two_files_begins_and_ends_with_them(run, folder, kind):
    model = train.load(run)
    latents, made = apply.encode(model, *apply.load_images(run, folder))
    frames = apply.between(model, latents, "2.png", "5.png", 9, kind)
    names = list(latents["file"])
    assert len(frames) == 9
    np.testing.assert_allclose(frames[0], made[names.index("2.png")], atol=1e-5)
    np.testing.assert_allclose(frames[-1], made[names.index("5.png")], atol=1e-5)


def test_the_path_is_written_as_a_gif(run, folder):
    apply.main([str(run), str(folder), "--between", "2.png", "3.png", "--frames", "12"])
    with Image.open(run / "applied" / "between.gif") as gif:
        assert gif.n_frames == 12 and gif.size == (252, 252)


def test_what_cannot_work_is_said_before_anything_is_written(
    run, folder, direction, tmp_path, monkeypatch
):
    def refused(*words):
        with pytest.raises(SystemExit) as stop:
            apply.main([str(run), *map(str, words)])
        assert not (run / "applied").exists()
        return str(stop.value)

    assert "is not a folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "contains no image" in refused(tmp_path / "empty")
    assert "no file 'x.png'" in refused(folder, "--between", "x.png", "2.png")
    Direction("left", np.ones(5), spread=0.5).save(direction)
    assert "5 axes and the run's latent 3" in refused(folder, "--direction", direction)
    (folder / "torn.png").write_bytes(b"no picture")
    assert "torn.png: is no PNG" in refused(folder)
    apply.main([str(run), str(folder), "--skip-bad-files"])
    assert len(pd.read_csv(run / "applied" / "latents.csv")) == 7


def test_parquet_says_what_it_needs(tmp_path, monkeypatch):
    def absent(*_, **__):
        raise ImportError("no engine")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", absent)
    with pytest.raises(ValueError, match="pip install pyarrow, or take csv"):
        folders.save_table(pd.DataFrame({"a": [1]}), tmp_path / "latents.parquet")


def test_images_of_one_name_do_not_meet_in_one_file(tmp_path):
    table = pd.DataFrame({"file": ["a.jpg", "a.png", "v.nii", "v.nii"], "slice": [0, 0, 0, 1]})
    folders.save_images(np.zeros((4, 2, 2, 3)), table, tmp_path)
    names = ["a.jpg.png", "a.png", "v.nii.slice0.png", "v.nii.slice1.png"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names


def test_between_uses_the_folders_own_images(run, folder):
    model = train.load(run)
    latents, _ = apply.encode(model, *apply.load_images(run, folder))
    z = apply.coordinates(latents)
    rows = latent.through_data(z, 0, len(z) - 1)
    assert rows[0] == 0 and rows[-1] == len(z) - 1


@pytest.fixture(scope="module")
def map_run(tmp_path_factory, spots, tiny):
    """A run whose latent is a map, with a flow prior."""
    place = tmp_path_factory.mktemp("maps") / "run"
    settings = tiny(latent_map=(6, 6, 2), epochs=1)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, place, verbose=0)
    flow = priors.fit("flow", model, spots.train, steps=20, width=8)
    runs.save_prior(place, "flow", *flow.parts())
    return place


def picture(path):
    return np.asarray(Image.open(path)) / np.float32(255)


def test_variations_are_drawn_by_the_flow_and_saved_by_draw(map_run, folder, tmp_path):
    out = tmp_path / "out"
    words = ["--vary", "0.5", "--draws", "2", "--seed", "7", "--evaluations", "6"]
    apply.main([str(map_run), str(folder), *words, "--out", str(out)])
    model, flow = train.load(map_run), priors.of_run(map_run, "flow")
    latents, made = apply.encode(model, *apply.load_images(map_run, folder))
    row = list(latents["file"]).index("4.png")
    z = flow.varied(apply.coordinates(latents), 0.5, seed=8, evaluations=6)
    expected = model.decode(z).numpy()[row, ..., 0]
    assert np.abs(picture(out / "variations" / "2" / "4.png") - expected).max() < 0.01
    assert np.abs(expected - made[row, ..., 0]).max() > 0.01
    assert (out / "variations.png").is_file()


@pytest.mark.parametrize("each_its_own", [False, True])
def test_holes_are_filled_and_nothing_else_is_changed(map_run, folder, tmp_path, each_its_own):
    hole = np.zeros((12, 12), np.uint8)
    hole[3:6, 4:8] = 255
    if each_its_own:
        for path in folder.rglob("*.png"):
            mask = tmp_path / "masks" / path.relative_to(folder)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(hole if path.name != "5.png" else 0 * hole).save(mask)
    else:
        Image.fromarray(hole).save(tmp_path / "hole.png")
    masks = tmp_path / ("masks" if each_its_own else "hole.png")
    out = tmp_path / "out"
    words = ["--holes", str(masks), "--draws", "2", "--out", str(out)]
    apply.main([str(map_run), str(folder), *words])
    for name in ("4.png", "5.png"):
        image, *draws = (
            picture(each)
            for each in (folder / name, *(out / "filled" / str(draw) / name for draw in (1, 2)))
        )
        filled = hole > 0 if name == "4.png" or not each_its_own else hole > 255
        for made in draws:
            np.testing.assert_array_equal(made[~filled], image[~filled])
            assert not filled.any() or np.abs(made - image)[filled].max() > 0.01
        assert np.any(draws[0] != draws[1]) == filled.any()
    assert (out / "filled.png").is_file()


def test_a_path_through_noise_begins_and_ends_with_the_two_files(map_run, folder):
    words = ["--between", "2.png", "5.png", "--path", "noise", "--frames", "5"]
    apply.main([str(map_run), str(folder), *words, "--evaluations", "64"])
    with Image.open(map_run / "applied" / "between.gif") as gif:
        assert gif.n_frames == 5
    model, flow = train.load(map_run), priors.of_run(map_run, "flow")
    latents, made = apply.encode(model, *apply.load_images(map_run, folder))
    options = {"flow": flow, "evaluations": 64}
    frames = apply.between(model, latents, "2.png", "5.png", 5, "noise", **options)
    for frame, name in ((frames[0], "2.png"), (frames[-1], "5.png")):
        expected = made[list(latents["file"]).index(name)]
        np.testing.assert_allclose(frame, expected, atol=0.01)


def test_what_a_flow_cannot_do_is_said_before_anything_is_written(
    map_run, run, folder, tmp_path, monkeypatch
):
    def refused(run, *words):
        with pytest.raises(SystemExit) as stop:
            apply.main([str(run), str(folder), "--out", str(tmp_path / "out"), *map(str, words)])
        assert not (tmp_path / "out").exists()
        return str(stop.value)

    assert "has no prior 'flow'" in refused(run, "--vary", 0.5)
    assert "needs a flow prior; the prior normal" in refused(
        run, "--vary", 0.5, "--prior", "normal", "--evaluations", 8
    )
    assert "need a flow prior, normal is none" in refused(run, "--vary", 0.5, "--prior", "normal")
    assert "was fitted without conditions" in refused(
        map_run, "--vary", 0.5, "--condition", "half=1"
    )
    (tmp_path / "masks").mkdir()
    assert "--holes: there are no masks in" in refused(map_run, "--holes", tmp_path / "masks")
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "other.png")
    assert "has (12, 9) pixels, and the image" in refused(
        map_run, "--holes", tmp_path / "other.png"
    )
    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(tmp_path / "all.png")
    assert "nothing of its latent map is known" in refused(map_run, "--holes", tmp_path / "all.png")


@pytest.fixture(scope="module")
def told_run(tmp_path_factory, spots, tiny):
    place = tmp_path_factory.mktemp("told") / "run"
    settings = tiny(model="ConditionalVAE", conditions=("half",), epochs=20, learning_rate=5e-3)
    model = registry.from_settings(settings, registry.conditions_of(settings, spots))
    train.fit(model, spots, settings, place, verbose=0)
    return place


def test_every_image_is_shown_under_another_condition(told_run, folder, tmp_path):
    images, table = apply.load_images(told_run, folder)
    halves = [0, 1, 0, 1, 0, 1]
    known = pd.DataFrame({"file": table["file"][:6], "half": halves})
    known.sample(frac=1.0, random_state=0).to_csv(tmp_path / "known.csv", index=False)
    out = tmp_path / "out"
    words = ["--change", "half=1", "--known", str(tmp_path / "known.csv"), "--out", str(out)]
    apply.main([str(told_run), str(folder), *words])
    model = train.load(told_run)
    before = model.conditions(pd.DataFrame({"half": [*halves, None]}))
    after = model.conditions(pd.DataFrame({"half": [1] * 7}))
    z = model.encode(images, before)[0]
    change = (model.decode(z, after) - model.decode(z, before)).numpy()
    for row, name in enumerate(table["file"]):
        expected = np.clip(images[row] / 255 + change[row], 0, 1)[..., 0]
        assert np.abs(picture(out / "changed" / name) - expected).max() < 0.01
    for row, half in enumerate(halves):  # nothing is asked of those that have it
        assert (np.abs(change[row]).max() > 0.01) == (half == 0)
    assert (out / "changed.png").is_file()


def test_a_change_that_cannot_be_made_is_said_before_anything_is_written(
    told_run, run, folder, tmp_path
):
    def refused(run, *words):
        with pytest.raises(SystemExit) as stop:
            apply.main([str(run), str(folder), "--out", str(tmp_path / "out"), *map(str, words)])
        assert not (tmp_path / "out").exists()
        return str(stop.value)

    assert "needs a conditional model, and the run's is a VAE" in refused(run, "--change", "half=1")
    assert "no column 'age' to change" in refused(told_run, "--change", "age=+10")
    assert "half = 7 is none of the classes: 0, 1" in refused(told_run, "--change", "half=7")
    assert "half = +1: nothing can be added" in refused(told_run, "--change", "half=+1")
    table = tmp_path / "known.csv"
    table.write_text("name,half\n2.png,1\n")
    assert "there is no column 'file'" in refused(told_run, "--change", "half=1", "--known", table)
    table.write_text("file,half\n2.png,1\n2.png,0\n")
    assert "2.png has several rows" in refused(told_run, "--change", "half=1", "--known", table)


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory, spots, tiny):
    place = tmp_path_factory.mktemp("labelled") / "m2"
    settings = tiny(model="M2", classes=2, epochs=1)
    train.fit(registry.from_settings(settings), spots, settings, place, verbose=0)
    return place


@pytest.mark.parametrize("labels", ["csv", "folders"])
def test_a_generated_data_set_is_read_back_by_the_folder_source(
    labelled_run, tmp_path, monkeypatch, labels, capsys
):
    place = tmp_path / "made"
    apply.main([str(labelled_run), "--generate", "40", "--to", str(place)])
    assert "labels: 0: 20, 1: 20" in capsys.readouterr().out
    monkeypatch.setattr(config, "IMAGES_DIR", place)
    monkeypatch.setattr(config, "LABELS_CSV", place / "labels.csv")
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")
    images = data.load(
        config.Settings(dataset="gallery", image_shape=(12, 12, 1), widths=(8,), labels=labels)
    )
    model, own = train.load(labelled_run), priors.of_run(labelled_run)
    made, classes = model.generate(40, prior=own)
    expected = {
        f"{label}/{number:05d}.png": (image, label)
        for number, (image, label) in enumerate(zip(made.numpy(), classes, strict=True))
    }
    seen = 0
    for split in images.splits.values():
        numbers = split.labels(images.label)
        for pixels, name, label in zip(split.images, split.table["file"], numbers, strict=True):
            image, truth = expected[name]
            np.testing.assert_allclose(pixels, 255 * image, atol=0.51)
            assert images.classes[label] == str(truth)
            seen += 1
    assert seen == 40


def test_generating_without_labels_and_of_one_class(run, labelled_run, tmp_path):
    table = folders.generate(train.load(run), 3, tmp_path / "plain")
    assert list(table.columns) == ["file"] and (tmp_path / "plain" / "00002.png").is_file()
    one = tmp_path / "one"
    apply.main([str(labelled_run), "--generate", "4", "--label", "1", "--to", str(one)])
    assert pd.read_csv(one / "labels.csv")["label"].tolist() == [1] * 4


def test_generate_refuses_what_cannot_be(run, labelled_run, folder, tmp_path, capsys):
    def told(*words):
        with pytest.raises(SystemExit) as stopped:
            apply.main([str(word) for word in words])
        return f"{stopped.value} {capsys.readouterr().err}"

    assert f"{folder} is not empty" in told(run, "--generate", 3, "--to", folder)
    assert "does not learn from labels" in told(
        run, "--generate", 3, "--label", 1, "--to", tmp_path / "x"
    )
    assert "at least one image" in told(run, "--generate", 0, "--to", tmp_path / "x")
    assert "half = 2 is none of the classes: 0, 1" in told(
        labelled_run, "--generate", 3, "--label", 2, "--to", tmp_path / "x"
    )
    assert "give a FOLDER" in told(run)
    assert "give a FOLDER" in told(run, folder, "--generate", 3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--strength", "3"], "--strength is an option of --direction; give both"),
        (["--frames", "9"], "--frames is an option of --between"),
        (["--draws", "9"], "--draws is an option of --vary, --holes"),
        (["--prior", "flow"], "--prior is an option of --vary, --holes, --between"),
        (["--condition", "half=1"], "--condition is an option of --vary, --holes"),
        (["--known", "known.csv"], "--known is an option of --change"),
        (["--between", "a", "b", "--frames", "1"], "--frames 1: give 2 or more"),
        (["--vary", "0.5", "--evaluations", "0"], "--evaluations 0: give 2 or more"),
        (["--vary", "0.5", "--draws", "0"], "--draws 0: give 1 or more"),
        (["--vary", "2"], "--vary 2: give a number from 0 to 1"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(words, expected, folder, capsys):
    with pytest.raises(SystemExit):
        apply.parsed(["a_run", str(folder), *words])
    assert expected in capsys.readouterr().err


def test_results_are_not_written_among_the_images(run, folder):
    with pytest.raises(SystemExit, match="--out: .* lies in .* and would be read as images"):
        apply.main([str(run), str(folder), "--out", str(folder / "out")])
    assert not (folder / "out").exists()


def test_known_conditions_are_text_and_what_a_table_lacks_is_missing(told_run, folder, tmp_path):
    images, table = apply.load_images(told_run, folder)
    model, path = train.load(told_run), tmp_path / "known.csv"
    path.write_bytes("file,half\nä,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="known.csv is not UTF-8"):
        apply.known_conditions(model, table, path)
    path.write_text("file,age\n0.png,1\n")
    with pytest.raises(ValueError, match="known.csv: there is no column of half"):
        apply.known_conditions(model, table, path)
    path.write_text("file,half\n2.png,NA\n3.png,\n4.png,01\n")
    known = apply.known_conditions(model, table, path).set_index(table["file"])["half"]
    assert known["2.png"] == "NA" and known["4.png"] == "01" and known.isna().sum() == 5


@pytest.mark.parametrize("program", [apply, anomaly, audit, evaluate, prior])
def test_a_program_that_is_stopped_says_so(program, run, folder, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "load", stopped)
    for name in ("images_of", "load"):
        monkeypatch.setattr(data, name, stopped)
    words = {apply: [str(folder)], anomaly: ["--out", str(folder / "out")]}.get(program, [])
    with pytest.raises(SystemExit) as end:
        program.main([str(run), *words])
    assert end.value.code == 130 and "stopped" in capsys.readouterr().err


# --- directions ----------------------------------------------------------------------------------


def test_a_direction_is_found_with_its_evidence_and_moves_images(
    trained_once, run, spots, monkeypatch, capsys
):
    monkeypatch.setattr(apply.data, "images_of", lambda run: spots)
    apply.main([str(run), "--find", "half", "--method", "mean"])
    said = capsys.readouterr().out
    path = run / "directions" / "half.json"
    direction = Direction.load(path, 3, checkpoints.sha256(run / checkpoints.WEIGHTS))
    z, _ = latent.encode(train.load(run), spots.train)
    known = Direction.of(z, spots.train.table, "half", "mean")
    np.testing.assert_allclose(direction.vector, known.vector, atol=1e-6)
    held, _ = latent.encode(train.load(run), spots.test)
    has = spots.test.table["half"].to_numpy() == 1
    auc = apply.evidence.auc_within(direction.project(held), has)
    assert f"half, on the test subjects: AUC {auc:.2f} (95 % " in said
    with pytest.raises(ValueError, match="fitted on other weights"):
        Direction.load(path, 3, "0")
    for name in ("sweep", "differences"):
        assert Image.open(run / "directions" / "half" / f"{name}.png").size[0] > 100


def test_a_label_is_a_column_or_a_comparison():
    table = pd.DataFrame(
        {"digit": [3, 5, None], "sex": ["F", "M", None], "ill": [True, False, None]}
    )
    assert directions.labelled(table, "digit==3").tolist()[:2] == [True, False]
    assert directions.labelled(table, "digit >= 4").tolist()[:2] == [False, True]
    assert directions.labelled(table, "sex == F").tolist()[:2] == [True, False]
    for text in ("digit==3", "sex!=M", "ill"):
        assert directions.labelled(table, text).isna().tolist() == [False, False, True]
    with pytest.raises(ValueError, match="no column 'age'; there are: digit, sex, ill"):
        directions.labelled(table, "age>60")
    with pytest.raises(ValueError, match="digit is not yes or no; compare it: digit==..."):
        directions.labelled(table, "digit")


def test_a_label_that_no_image_has_is_refused(run, spots, monkeypatch):
    monkeypatch.setattr(apply.data, "images_of", lambda run: spots)
    with pytest.raises(SystemExit, match="0 of .* train images have it; a direction needs"):
        apply.main([str(run), "--find", "half==7"])
