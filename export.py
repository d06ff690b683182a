"""Exports a trained run's networks for programs without this project.

    python export.py RUN [--to FOLDER] [--as keras saved_model onnx] [--prior NAME]

The folder gets a `.keras` file and a SavedModel with only Keras' own layers for the encoder, the
decoder and, if the model has one, the classifier; for the run's prior a sampler, from noise to
latents for the decoder; ONNX files if `tf2onnx` is installed; and `networks.json` with the inputs
and outputs of each. Every file is read back and compared with the model before the folder gets its
name.
"""

import argparse
import sys
from pathlib import Path

import config

FORMATS = ("keras", "saved_model", "onnx")


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="default: RUN/exported")
    parser.add_argument(
        "--as", dest="formats", nargs="+", metavar="FORMAT", help="of " + ", ".join(FORMATS)
    )
    parser.add_argument(
        "--prior",
        metavar="NAME",
        help="of the run, written as sampler; default: its own; normal: N(0, I), which needs none",
    )
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="what the sampler draws, of a prior that was fitted with it, and what networks.json "
        "tells a conditional model's decoder",
    )
    parser.add_argument("--guidance", type=float, help="of a flow prior with a condition")
    parser.add_argument("--evaluations", type=int, help="of a flow prior's network, for each draw")
    arguments = parser.parse_args(words)
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import importlib.util
import os
import warnings
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

import train
from sources.conditions import repeated
from storage import disk

ONNX = ("onnx", "onnxruntime", "tf2onnx")
CHECKED = 3  # inputs that every written file is tested with
TOLERANCE = 1e-4  # of outputs, relative to the largest


def export(model, folder, formats=None, prior=None):
    """Writes a model's `endpoints` in standard formats.

    Args:
        model: A trained model.
        folder: New folder.
        formats: Some of FORMATS; default: all that can be written here.
        prior: From `priors.of_run`, written as the network `sampler`; None: N(0, I), without one.

    Returns:
        The content of `networks.json`: names to inputs, outputs, files; of a conditional model's
            networks also a row of the input `conditions`, with a name for each number.

    Raises:
        FileExistsError: if the folder exists.
        ModuleNotFoundError: if ONNX is requested and its packages are missing, with the command to
            install them.
        ValueError: for an unknown format, or if a file's outputs differ from the model's.
    """
    folder = Path(folder)
    lacking = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if formats is None:
        formats = [each for each in FORMATS if each != "onnx" or not lacking]
    for each in formats:
        if each not in FORMATS:
            raise ValueError(f"format {each!r} is unknown; allowed: {', '.join(FORMATS)}")
    if "onnx" in formats and lacking:
        raise ModuleNotFoundError(f"ONNX needs more packages: pip install {' '.join(lacking)}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another folder")
    networks = model.endpoints()
    if prior is not None:
        networks["sampler"] = prior.sampler()
    written = {}
    with disk.replacing(folder) as temporary, _silent():
        temporary.mkdir()
        for name, network in networks.items():
            inputs = _tried(network)
            expected = _arrays(network(inputs))
            for each in formats:
                path = temporary / f"{name}{'' if each == 'saved_model' else f'.{each}'}"
                WRITERS[each](network, path)
                _require_equal(expected, READERS[each](path, inputs), path.name)
            written[name] = {
                "inputs": {each.name: _described(each) for each in network.inputs},
                "outputs": [_described(each) for each in network.outputs],
                "formats": list(formats),
            }
            if model.conditions is not None and "conditions" in written[name]["inputs"]:
                written[name]["conditions"] = _told(model.conditions, prior)
        disk.write_json(temporary / "networks.json", written)
    return written


@contextmanager
def _silent():
    """Silences what TensorFlow and its converters write to the process's standard error.

    They do not write through Python, so the file descriptor is redirected. Errors are still raised.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _told(conditions, prior):
    """A row of the input `conditions`, named: what the prior is asked for, others missing."""
    asked = getattr(prior, "condition", None) or {}
    row = conditions.partly(repeated(asked, 1))[0] if asked else conditions.missing
    return dict(zip(conditions.features, row.tolist(), strict=True))


def _described(tensor):
    return {"shape": list(tensor.shape), "dtype": tensor.dtype}


def _tried(network):
    """Some inputs in the range of images; classes are whole numbers."""
    random = np.random.default_rng(0)
    made = [
        np.zeros(CHECKED, np.int32)
        if each.dtype == "int32"
        else random.random((CHECKED, *each.shape[1:]), np.float32)
        for each in network.inputs
    ]
    return made if len(made) > 1 else made[0]


def _arrays(outputs):
    return [np.asarray(each) for each in tf.nest.flatten(outputs)]


def _require_equal(expected, found, name):
    for one, other in zip(expected, found, strict=True):
        gap = np.abs(one - other).max() / max(np.abs(one).max(), 1e-6)
        if not gap < TOLERANCE:
            raise ValueError(f"{name} differs from the model by {gap:.1e} and was discarded")


def _write_onnx(network, path):
    signature = [
        keras.InputSpec(shape=each.shape, dtype=each.dtype, name=each.name)
        for each in network.inputs
    ]
    signature = [signature] if len(signature) > 1 else signature
    network.export(path, format="onnx", input_signature=signature, verbose=False)


def _read_saved_model(path, inputs):
    loaded = tf.saved_model.load(str(path))  # keeps its variables alive
    return _arrays(loaded.serve(inputs))


def _read_onnx(path, inputs):
    import onnxruntime  # optional, and slow to import

    session = onnxruntime.InferenceSession(str(path))
    values = inputs if isinstance(inputs, list) else [inputs]
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, values, strict=True)))


WRITERS = {
    "keras": lambda network, path: network.save(path),
    "saved_model": lambda network, path: network.export(path, verbose=False),
    "onnx": _write_onnx,
}
READERS = {
    "keras": lambda path, inputs: _arrays(keras.saving.load_model(path, compile=False)(inputs)),
    "saved_model": _read_saved_model,
    "onnx": _read_onnx,
}


def main(words=None):
    arguments = parsed(words)
    folder = arguments.to or arguments.run / "exported"
    try:
        model = train.load(arguments.run)
        prior = train.prior_of(arguments.run, arguments, model)
        written = export(model, folder, arguments.formats, prior)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"export.py: {error}")
    for name, network in written.items():
        taken = ", ".join(f"{each} {one['shape']}" for each, one in network["inputs"].items())
        print(f"{name} ({', '.join(network['formats'])}): takes {taken}")
    print(f"Written to {folder}")


if __name__ == "__main__":
    main()
