"""Tiny settings and small data that many tests share."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import config
import data
import train
from families import registry
from spots import SHAPE, blobs
from storage import keep


@pytest.fixture(scope="session")
def tiny():
    """A function that makes settings of a one-stage network, fast enough to train in a test."""

    def make(**changes):
        base = config.Settings(
            image_shape=SHAPE, widths=(8,), latent_dim=3, batch_size=16, epochs=2, seed=1
        )
        return replace(base, **changes)

    return make


@pytest.fixture(scope="session")
def spots():
    """`ImageData` of such images, labelled by the half that the spot lies in."""
    images, labels = blobs()
    return data.from_arrays(images, labels, name="spots", label="half")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory, spots, tiny):
    """A trained run's folder with a checkpoint of each epoch, which all tests share."""
    place, settings = tmp_path_factory.mktemp("trained") / "run", tiny(epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep, "CHECKPOINT_SECONDS", 0.0)
        train.fit(registry.from_settings(settings), spots, settings, place, verbose=0)
    return place


@pytest.fixture(autouse=True)
def no_prior_of_its_own(monkeypatch):
    """Trainings of single tests end without the fit of a prior; that of `trained_once` has one."""
    monkeypatch.setattr(train, "_fit_own_prior", lambda *_: None)


@pytest.fixture
def run(trained_once, tmp_path):
    """A copy of it, which a test may write into and damage."""
    return shutil.copytree(trained_once, tmp_path / "run")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Seven images with two kinds of names, one image different from the others."""
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")
    place = tmp_path / "new"
    (place / "deep").mkdir(parents=True)
    images = blobs(7, seed=5)[0]
    images[6] = 255 * (np.indices((12, 12)).sum(axis=0) % 2)[..., None]
    for number, image in enumerate(images[..., 0]):
        name = f"deep/{number}.png" if number < 2 else f"{number}.png"
        Image.fromarray(image).save(place / name)
    return place


@pytest.fixture(scope="session")
def of_folder_once(tmp_path_factory):
    """A folder, and a run on it; the tests use copies."""
    root = tmp_path_factory.mktemp("mine")
    (root / "mine").mkdir()
    for number, image in enumerate(blobs(160)[0]):
        Image.fromarray(image[..., 0]).save(root / "mine" / f"{number:03d}.png")
    words = ["gallery", "--epochs", "1", "--set", "image_shape=(12,12,1)", "--set", "widths=(4,)"]
    words += ["--set", "kernel_sizes=3", "--set", "strides=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE_DIR", root / "cache")
        patch.setattr(config, "IMAGES_DIR", root / "mine")
        train.main([*words, "--out", str(root / "run")])
    return root


@pytest.fixture
def of_folder(of_folder_once, tmp_path, monkeypatch):
    """A run on a folder from a variable that is not set any more, and the folder."""
    shutil.copytree(of_folder_once, tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "run" / "settings.json"
    settings.write_text(settings.read_text().replace(str(of_folder_once), str(tmp_path)))
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(config, "IMAGES_DIR", None)
    return tmp_path / "run", tmp_path / "mine"
