"""A table of a whole archive: correct, complete, and not made twice."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import apply
import archive
import train
from analysis.directions import Direction
from families import registry
from sources import decoding
from spots import blobs

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(folder):
    """The seven images, and one file that is not an image."""
    (folder / "torn.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def task(run, folder):
    path = run / "directions" / "left.json"
    Direction("left", np.array([0.0, 1.0, 0.0]), spread=0.5).save(path)
    return archive.Task(str(run), str(folder), (str(path),))


@pytest.fixture
def encoded(monkeypatch):
    """Records every part that is encoded, of two files each."""
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    heard, write = [], archive.Encoder.write

    def counted(encoder, part, reading):
        heard.append(part)
        write(encoder, part, reading)

    monkeypatch.setattr(archive.Encoder, "write", counted)
    return heard


def test_the_table_says_what_apply_says_and_more(task, folder, tmp_path):
    to = tmp_path / "latents.parquet"
    rows, bad = archive.encode(task, to, told=False)
    table = pd.read_parquet(to)
    model = train.load(task.run)
    expected, _ = apply.encode(model, *apply.load_images(task.run, folder, "skip"))
    assert rows == len(table) == 7
    assert list(table["file"]) == list(expected["file"])
    z = apply.coordinates(table)
    np.testing.assert_allclose(z, apply.coordinates(expected), atol=1e-5)
    np.testing.assert_allclose(table["error"], expected["error"], rtol=1e-4)
    np.testing.assert_allclose(table["along left"], z[:, 1] / 0.5, rtol=1e-5)
    image = np.asarray(Image.open(folder / "deep/1.png"))[None, ..., None]
    spread = model.encode(image)[1].numpy()[0]
    row = table[table["file"] == "deep/1.png"].filter(regex="^z_log_var_")
    np.testing.assert_allclose(row.iloc[0], spread, atol=1e-5)
    assert pd.api.types.is_string_dtype(table["file"]) and table["slice"].dtype == np.int32
    assert set(table.dtypes.iloc[2:]) == {np.dtype("float32")}
    assert list(bad["file"]) == ["torn.png"] and "is no PNG" in bad["reason"][0]
    assert sorted(path.name for path in tmp_path.glob("latents*")) == [
        "latents.bad.csv",
        "latents.parquet",
    ]


def test_one_that_was_ended_does_only_what_is_missing(task, tmp_path, monkeypatch, encoded):
    to = tmp_path / "latents.parquet"
    write = archive.Encoder.write

    def dying(encoder, part, reading):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        write(encoder, part, reading)

    monkeypatch.setattr(archive.Encoder, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        archive.encode(task, to, told=False)
    assert not to.exists() and len(encoded) == 2
    monkeypatch.setattr(archive.Encoder, "write", write)
    assert archive.encode(task, to, told=False)[0] == 7
    assert len(encoded) == len(set(encoded)) == 4
    archive.encode(task, to, told=False)
    assert len(encoded) == 4  # nothing has changed
    monkeypatch.setattr(archive, "MOST_FILES", 100)
    whole = tmp_path / "whole.parquet"
    archive.encode(task, whole, told=False)
    pd.testing.assert_frame_equal(pd.read_parquet(to), pd.read_parquet(whole), atol=1e-5)


def test_another_file_or_another_direction_is_noticed(task, folder, tmp_path, encoded):
    to = tmp_path / "latents.parquet"
    archive.encode(task, to, told=False)
    Image.fromarray(blobs(1, seed=9)[0][0, ..., 0]).save(folder / "torn.png")
    rows, bad = archive.encode(task, to, told=False)
    assert rows == 8 and bad.empty and not (tmp_path / "latents.bad.csv").exists()
    Direction("left", np.array([1.0, 0.0, 0.0]), spread=0.5).save(task.directions[0])
    archive.encode(task, to, told=False)
    table = pd.read_parquet(to)
    np.testing.assert_allclose(table["along left"], table["z_mean_0"] / 0.5, rtol=1e-5)


def test_a_model_that_knows_classes_names_each_image_its_own(spots, tiny, folder, tmp_path):
    settings = tiny(model="M2", classes=2, epochs=1)
    run, to = tmp_path / "m2", tmp_path / "latents.parquet"
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, run, verbose=0)
    archive.encode(archive.Task(str(run), str(folder)), to, told=False)
    table = pd.read_parquet(to)
    images, _ = apply.load_images(run, folder, "skip")
    shares = model.classify(images).numpy()
    assert table["label"].dtype == np.int32 and list(table["label"]) == list(shares.argmax(axis=1))
    np.testing.assert_allclose(table["confidence"], shares.max(axis=1), atol=1e-5)
    again = np.square(model.reconstruct(images) - images / np.float32(255)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(table["error"], again, rtol=1e-4)


@pytest.mark.skipif(os.environ.get("ATLAS_LONG") != "1", reason="make test-long")
def test_ray_writes_the_same_table(task, tmp_path, encoded):
    pytest.importorskip("ray")
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    archive.encode(task, here, told=False)
    archive.encode(task, there, address="local", told=False)
    pd.testing.assert_frame_equal(pd.read_parquet(here), pd.read_parquet(there), atol=1e-5)
    assert (tmp_path / "there.bad.csv").read_text() == (tmp_path / "here.bad.csv").read_text()


def test_what_cannot_be_done_is_told_before_it_is_begun(task, folder, tmp_path, monkeypatch):
    to = tmp_path / "latents.parquet"

    def refused(*words):
        with pytest.raises(SystemExit) as stop:
            apply.main([task.run, str(folder), *map(str, words)])
        return str(stop.value)

    assert "name a file that ends in .parquet" in refused("--to", tmp_path / "latents.csv")
    twin, other = tmp_path / "twin.json", tmp_path / "other.json"
    Direction("left", np.array([0.0, 0.0, 1.0]), spread=0.5).save(twin)
    Direction("right", np.ones(5), spread=0.5).save(other)
    assert "5 axes and the run's latent 3" in refused("--to", to, "--direction", other)
    assert "two directions have the same name: left" in refused("--to", to, "--direction", twin)
    theirs = tmp_path / "theirs.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(theirs)
    assert "not made by this project" in refused("--to", theirs)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else name)
    assert 'pip install "ray[data]"' in refused("--to", to, "--address", "head:6379")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install pyarrow" in refused("--to", to)
    assert not list(tmp_path.glob("latents*"))


def test_deep_pictures_of_an_archive_have_one_range_that_every_worker_knows(task, folder, tmp_path):
    for name, high in {"a": 4095, "b": 70}.items():
        Image.fromarray(np.full((12, 12), high, np.uint16)).save(folder / f"deep_{name}.png")
    assert task.checked().bits == 12
    reading = archive.reading_of(task.run, task.checked().bits)
    assert decoding.read(folder / "deep_b.png", reading).max() == round(70 / 4095 * 255)
    known = json.loads((Path(task.run) / "settings.json").read_text())
    known["images"] = {"paths": {}, "bits": 16}  # the range of the images it was trained on
    (Path(task.run) / "settings.json").write_text(json.dumps(known))
    assert task.checked().bits == 16


def test_an_archive_is_made_anew_once_a_missing_reader_is_installed(task, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(decoding, "missing_readers", lambda: ["nibabel"])
        lacking = task.checked().digest()
    monkeypatch.setattr(decoding, "missing_readers", lambda: [])
    assert task.checked().digest() != lacking


def test_a_latent_map_is_one_column_of_vectors(spots, tiny, folder, tmp_path):
    settings = tiny(latent_map=(6, 6, 2), epochs=1)
    run, to = tmp_path / "map", tmp_path / "latents.parquet"
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, run, verbose=0)
    archive.encode(archive.Task(str(run), str(folder)), to, told=False)
    table = pd.read_parquet(to)
    assert list(table.columns) == ["file", "slice", "error", "z_mean", "z_log_var"]
    images, _ = apply.load_images(run, folder, "skip")
    z_mean, z_log_var = model.encode(images)
    np.testing.assert_allclose(apply.coordinates(table), z_mean, atol=1e-5)
    np.testing.assert_allclose(np.stack(table["z_log_var"]), z_log_var, atol=1e-5)
