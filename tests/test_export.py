"""Exported files open without this project and have the model's outputs."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import export
import train
from families import densities, registry
from nn import layers

KINDS = {
    "VAE": {"dropout": 0.3, "batch_norm": True, "residual": True},
    "MMD-AE": {"upsampling": "nearest", "patch": 2},
    "SemiSupervisedVAE": {"classes": 2, "dropout": 0.3},
    "M2": {"classes": 2},
    "SoftIntroVAE": {"reconstruction": "gaussian"},
}

LONG = os.environ.get("ATLAS_LONG") == "1"  # `make test-long`

# Run by a Python that cannot import this project: `-I` ignores the folder and PYTHONPATH.
STRANGER = """
import json, sys
from pathlib import Path
import keras, numpy as np, onnxruntime, tensorflow as tf
folder = Path(sys.argv[1])
inputs = dict(np.load(folder / "inputs.npz"))
for name, known in json.loads((folder / "out/networks.json").read_text()).items():
    given = [inputs[each] for each in known["inputs"]]
    one = given if len(given) > 1 else given[0]
    network = keras.saving.load_model(folder / f"out/{name}.keras")
    served = tf.saved_model.load(str(folder / "out" / name))
    session = onnxruntime.InferenceSession(str(folder / f"out/{name}.onnx"))
    feed = {each.name: value for each, value in zip(session.get_inputs(), given)}
    found = {
        "keras": tf.nest.flatten(network(one)),
        "saved_model": tf.nest.flatten(served.serve(one)),
        "onnx": session.run(None, feed),
    }
    for kind, outputs in found.items():
        for number, each in enumerate(outputs):
            np.save(folder / f"{name}-{kind}-{number}.npy", np.asarray(each))
for module in ("model", "networks", "train", "config"):
    try:
        __import__(module)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{module} could be imported")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS if LONG else [*KINDS][:-1])
def test_exports_open_without_this_project_and_give_the_models_numbers(kind, tmp_path, tiny):
    settings = tiny(**KINDS[kind], model=kind)
    model = registry.from_settings(settings)
    for each in model.weights:  # as if trained: no bias 0, no running mean of 0
        if each.dtype == "float32" and each.shape.rank:
            each.assign(each + 0.05 * np.random.default_rng(len(each.path)).random(each.shape))
    random = np.random.default_rng(0)
    inputs = {
        "images": random.random((4, *settings.image_shape), np.float32),
        "z": random.normal(size=(4, settings.latent_dim)).astype(np.float32),
        "label": np.array([0, 1, 1, 0], np.int32),
        "noise": random.normal(size=(4, settings.latent_dim)).astype(np.float32),
        "choice": np.array([[0.0], [0.3], [0.6], [0.99]], np.float32),
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    prior = None
    if kind == "VAE":
        prior = densities.Mixture.fitted(random.normal(size=(500, settings.latent_dim)), 0, 3)
    written = export.export(model, tmp_path / "out", prior=prior)

    knows = {"label"} & set(written["decoder"]["inputs"])
    expected = {
        "encoder": [each.numpy() for each in model.encode(inputs["images"])],
        "decoder": [model.decode(inputs["z"], *(inputs[each] for each in knows)).numpy()],
    }
    if kind == "MMD-AE":
        expected["encoder"] = expected["encoder"][:1]
    if kind == "SemiSupervisedVAE":
        expected["classifier"] = [model.classify_latents(inputs["z"]).numpy()]
    if kind == "M2":
        expected["encoder"].append(model.classify(inputs["images"]).numpy())
    if prior is not None:
        expected["sampler"] = [prior.sampler()([inputs["noise"], inputs["choice"]]).numpy()]
    assert set(expected) == set(written)

    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, outputs in expected.items():
        for number, each in enumerate(outputs):
            for form in export.FORMATS:
                found = np.load(tmp_path / f"{name}-{form}-{number}.npy")
                np.testing.assert_allclose(found, each, atol=2e-5, err_msg=f"{name} {form}")


def test_stock_networks_have_no_layer_of_ours(tiny):
    model = registry.from_settings(tiny(dropout=0.4, dense_widths=(6,)))
    assert any(isinstance(each, layers.Dropout) for each in model.encoder.layers)
    for network in model.endpoints().values():
        for each in network._flatten_layers():
            assert type(each).__module__.startswith("keras."), each


def test_a_file_that_gives_other_numbers_is_not_kept(tmp_path, tiny, monkeypatch):
    model = registry.from_settings(tiny())
    read = export.READERS["keras"]
    wrong = {"keras": lambda *words: [1.01 * each for each in read(*words)]}
    monkeypatch.setattr(export, "READERS", wrong)
    with pytest.raises(ValueError, match="encoder.keras differs from the model"):
        export.export(model, tmp_path / "out", ["keras"])
    assert not list(tmp_path.iterdir())


def test_the_command_line_exports_a_run_and_refuses_by_name(run, tmp_path, capsys, monkeypatch):
    export.main([str(run), "--as", "keras", "saved_model"])
    assert "encoder (keras, saved_model): takes images [None, 12, 12, 1]" in capsys.readouterr().out
    z = np.ones((2, 3), np.float32)
    expected = train.load(run).decode(z)
    decoder = keras.saving.load_model(run / "exported" / "decoder.keras")
    np.testing.assert_allclose(decoder(z), expected, atol=1e-6)
    served = tf.saved_model.load(str(run / "exported" / "decoder"))
    np.testing.assert_allclose(served.serve(z), expected, atol=1e-6)
    known = json.loads((run / "exported" / "networks.json").read_text())
    assert known["decoder"]["outputs"][0]["shape"] == [None, 12, 12, 1]
    for words, message in (
        ([], "exists already"),
        (["--to", str(tmp_path / "a"), "--as", "tflite"], "'tflite' is unknown; allowed: keras"),
    ):
        with pytest.raises(SystemExit, match=f"export.py: .*{message}"):
            export.main([str(run), *words])
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install onnx onnxruntime tf2onnx"):
        export.main([str(run), "--to", str(tmp_path / "b"), "--as", "onnx"])
