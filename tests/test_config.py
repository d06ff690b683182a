"""Settings: invalid ones are refused by name, before anything is built."""

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import config

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent_dim", 0),
        ("latent_dim", -1),
        ("latent_dim", 2.5),
        ("latent_dim", True),
        ("latent_dim", "16"),
        ("latent_dim", 10**9),
        ("beta", -1.0),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", 1e3),
        ("epochs", 0),
        ("batch_size", 1),
        ("dropout", 1.0),
        ("model", "VEA"),
        ("dataset", "mnits"),
        ("reconstruction", "mse"),
        ("mmd_kernel", "mdd"),
        ("precision", "float16"),
        ("image_shape", (28, 28)),
        ("image_shape", (28, 28, 2)),
        ("image_shape", "28x28"),
        ("widths", ()),
        ("widths", (32, 0)),
        ("strides", (2, 2, 2)),
        ("residual", 1),
    ],
)
def test_an_impossible_value_names_field_value_and_what_is_allowed(field, value):
    with pytest.raises(ValueError) as caught:
        replace(config.Settings(), **{field: value})
    message = str(caught.value)
    assert f"{field} = {value!r} is not valid" in message
    assert "allowed: " in message


def test_values_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match='reconstruction = .gaussian.*binarize="dynamic"'):
        config.Settings(binarize="dynamic", reconstruction="gaussian")
    with pytest.raises(ValueError, match="corrupt = 'mask'.*Autoencoder, VAE and Denoiser"):
        config.Settings(corrupt="mask", model="InfoVAE")


def test_a_latent_map_gives_the_latent_its_size_and_the_stages_their_strides():
    settings = config.Settings(image_shape=(64, 96, 1), widths=(8, 16, 24), latent_map=(16, 24, 3))
    assert settings.latent_dim == 16 * 24 * 3
    assert settings.stage_strides == (2, 2, 1)
    assert replace(settings, latent_map=(), latent_dim=7).stage_strides == (2, 2, 2)
    assert replace(settings, strides=(1, 4, 2)).stage_strides == (1, 4, 1)
    assert replace(settings, patch=2).stage_strides == (2, 1, 1)
    assert replace(settings, patch=4).stage_strides == (1, 1, 1)
    with pytest.raises(ValueError, match="times the patch, multiply to 4"):
        replace(settings, patch=3)
    assert config.Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("shape", "changes", "allowed"),
    [
        ((8, 8), {}, r"\(height, width, channels\)"),
        ((5, 8, 2), {}, "sides divide those of the image, 32 x 32, alike"),
        ((4, 8, 2), {}, "sides divide those of the image, 32 x 32, alike"),
        ((64, 64, 2), {}, "no larger than the image, 32 x 32"),
        ((4, 4, 2), {}, "stages whose first strides, times the patch, multiply to 8"),
        ((16, 16, 2), {"strides": (4,)}, "whose first strides, times the patch, multiply to 2"),
        ((8, 8, 2), {"model": "M2"}, r"\(\) for M2"),
        ((16, 16, 512), {}, "whole numbers from 1 to 65536"),
    ],
)
def test_a_latent_map_that_cannot_be_is_refused_with_what_can(shape, changes, allowed):
    with pytest.raises(ValueError, match=allowed):
        config.Settings(latent_map=shape, **changes)


def test_a_latent_map_leaves_no_place_for_dense_layers_and_one_norm_for_another():
    with pytest.raises(ValueError, match=r"dense_widths = \(64,\).*\(\) with a latent_map"):
        config.Settings(latent_map=(8, 8, 2), dense_widths=(64,))
    with pytest.raises(ValueError, match="group_norm = True.*False with batch_norm"):
        config.Settings(group_norm=True, batch_norm=True)


def test_a_misspelt_field_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="there is no setting 'latent_dims'.*latent_dim"):
        config.Settings.from_dict({"latent_dims": 3})
    with pytest.raises(TypeError, match="latent_dims"):
        replace(config.Settings(), latent_dims=3)


def test_settings_survive_json_and_cannot_be_changed_in_place():
    settings = config.settings("mnist")
    assert config.Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(FrozenInstanceError):
        settings.beta = 2.0


def test_a_number_serves_for_a_tuple_of_one():
    assert config.Settings(widths=8).widths == (8,)


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(ValueError, match="EXPERIMENT = 'minst'.*digits, mnist"):
        config.settings("minst")


@pytest.mark.parametrize(
    ("embedded", "expected"), [("0", "mnist /somewhere/mnist.npz"), ("1", "digits None")]
)
def test_the_environment_wins_over_the_file_and_embedded_over_both(embedded, expected):
    environment = os.environ | {
        "EXPERIMENT": "mnist",
        "MNIST_PATH": "/somewhere/mnist.npz",
        "ATLAS_EMBEDDED": embedded,
    }
    code = "import config; print(config.EXPERIMENT, config.MNIST_PATH)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected


def test_a_size_alone_is_a_square_in_the_colours_of_the_dataset():
    assert replace(config.Settings(), image_shape=128).image_shape == (128, 128, 1)
    assert replace(config.settings("gallery"), image_shape=128).image_shape == (128, 128, 3)
    with pytest.raises(ValueError, match="image_shape = .*allowed: "):
        config.Settings(image_shape=-5)


@pytest.mark.parametrize(
    ("name", "dataset", "meant"),
    [
        ("IMAGE_DIR", "gallery", "IMAGES_DIR"),
        ("IMAGES_PATH", "gallery", "IMAGES_DIR"),
        ("MNIST_DIR", "mnist", "MNIST_PATH"),
        ("OASIS_FOLDER", "brain", "OASIS_DIR"),
        ("EXPERIMENTS", "digits", "EXPERIMENT"),
        ("CCACHE_DIR", "gallery", None),
        ("CHEST_DIR", "gallery", None),
        ("LABELS", "gallery", None),
    ],
)
def test_a_misspelt_variable_is_noticed_and_others_are_not(name, dataset, meant, monkeypatch):
    for each in (*config.PATHS, "EXPERIMENT"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "/data")
    assert config.misspelt(dataset).get(name) == meant
    if meant:
        monkeypatch.setenv(
            meant, "/data"
        )  # also set: the other variable belongs to another program
        assert name not in config.misspelt(dataset)


def test_a_misspelt_path_is_asked_about_before_stand_ins_are_taken():
    environment = os.environ | {"IMAGE_DIR": "/data", "ATLAS_EMBEDDED": "0"}
    words = [sys.executable, "train.py", "gallery", "--epochs", "1"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "IMAGE_DIR is not used; did you mean IMAGES_DIR?" in done.stderr


def test_every_training_can_be_shortened_and_a_begun_run_keeps_its_epochs(monkeypatch):
    monkeypatch.setattr(config, "MOST_EPOCHS", 2)
    settings = config.settings("digits")
    assert replace(settings, epochs=30).epochs == 2 and replace(settings, epochs=1).epochs == 1
    assert config.Settings.from_dict({"epochs": 300}).epochs == 2
    assert config.Settings.from_dict({"epochs": 300}, shortened=False).epochs == 300


def test_a_variable_that_is_no_number_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "import config"],
        cwd=ROOT,
        env=os.environ | {"ATLAS_EPOCHS": "few"},
        capture_output=True,
        text=True,
    )
    assert "the environment variable ATLAS_EPOCHS = 'few'; give a whole number" in done.stderr


def test_words_may_be_separated_by_commas():
    made = config.Settings(conditions="Hernia, age,view")
    assert made.conditions == ("Hernia", "age", "view")
    assert config.Settings(findings="No Finding").findings == ("No Finding",)
