"""Settings: what is impossible is refused by name, before anything is built."""

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
    assert f"{field} = {value!r} is not possible" in message
    assert "allowed: " in message


def test_values_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match='reconstruction = .gaussian.*binarize="dynamic"'):
        config.Settings(binarize="dynamic", reconstruction="gaussian")
    with pytest.raises(ValueError, match="corrupt = 'mask'.*Autoencoder and VAE"):
        config.Settings(corrupt="mask", model="InfoVAE")


def test_a_misspelt_field_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="no setting is called 'latent_dims'.*latent_dim"):
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
