"""A training can be resumed after any interruption, and damaged files are detected."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import any_images
import data
import train
from families import registry
from spots import blobs
from storage import checkpoints, keep, runs

ROOT = Path(__file__).parent.parent
LONG = os.environ.get("ATLAS_LONG") == "1"  # `make test-long`: more kills, more flips
# Models with state: dropout, moving averages, schedules, controllers, two optimizers.
KINDS = {
    "VAE": {
        "dropout": 0.2,
        "batch_norm": True,
        "binarize": "dynamic",
        "kl_warmup_steps": 8,
        "shift": 1,
        "schedule": "cosine",
    },
    "learned": {"model": "VAE", "reconstruction": "learned-gaussian", "clip_norm": 100.0},
    "M2": {"model": "M2", "classes": 2, "labelled_share": 0.25},
    "AAE": {"model": "AAE", "instance_noise": 0.3},
    "ASIntroVAE": {
        "model": "ASIntroVAE",
        "reconstruction": "gaussian",
        "sigma": 0.5,
        "optimizer": "muon",
    },
    "IntroVAE": {"model": "IntroVAE", "reconstruction": "gaussian", "sigma": 0.5},
}


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(keep, "CHECKPOINT_SECONDS", 0.0)


def trained(settings, images, run, resume=False):
    model = registry.from_settings(settings)
    history = train.fit(model, images, settings, run, verbose=0, resume=resume)
    return model, history


def interrupted_at(step, monkeypatch):
    """Ctrl-C after so many steps of a training."""
    ask = train.Keep.on_train_batch_end

    def end(self, batch, logs=None):
        ask(self, batch, logs)
        if int(self.model.steps) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.Keep, "on_train_batch_end", end)


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS if LONG else ("VAE", "ASIntroVAE"))
def test_a_training_that_is_interrupted_ends_as_one_that_is_not(
    kind, tmp_path, spots, tiny, monkeypatch
):
    settings = tiny(**{"epochs": 3, "model": "VAE"} | KINDS[kind])
    whole, history = trained(settings, spots, tmp_path / "whole")
    steps = int(whole.steps) // 3
    assert steps > 2
    with monkeypatch.context() as patch:
        interrupted_at(steps + 2, patch)
        with pytest.raises(KeyboardInterrupt, match="train.py --resume"):
            trained(settings, spots, tmp_path / "run")
    model, again = trained(settings, spots, tmp_path / "run", resume=True)
    for one, other in zip(whole.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    for name in checkpoints.OPTIMIZERS:
        for one, other in zip(states(whole, name), states(model, name), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=one.path)
    pd.testing.assert_frame_equal(history, again, check_exact=True)


def states(model, name):
    optimizer = getattr(model, name, None)
    return optimizer.variables if optimizer else ()


@pytest.mark.parametrize("interrupted", [3, 10] if LONG else [10])
def test_early_stopping_goes_on_counting(interrupted, tmp_path, spots, tiny, monkeypatch):
    settings = tiny(epochs=40, patience=2, learning_rate=0.1)
    whole, history = trained(settings, spots, tmp_path / "whole")
    assert 3 < len(history) < 40
    with monkeypatch.context() as patch:
        interrupted_at(interrupted, patch)
        with pytest.raises(KeyboardInterrupt):
            trained(settings, spots, tmp_path / "run")
    model, again = trained(settings, spots, tmp_path / "run", resume=True)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    for one, other in zip(whole.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = train.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.sample(3), model.sample(3))


def test_a_finished_run_goes_on_to_nothing(run, spots, tiny):
    before = train.load(run).get_weights()
    _, history = trained(tiny(epochs=2), spots, run, resume=True)
    assert len(history) == 2
    for one, other in zip(before, train.load(run).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_goes_on_only_with_its_own_settings_and_images(run, spots, tiny):
    with pytest.raises(ValueError, match="started with epochs = 2, not 3"):
        trained(tiny(epochs=3), spots, run, resume=True)
    others = data.from_arrays(*blobs(seed=9), name="others", label="half")
    with pytest.raises(ValueError, match="the images of others are not those"):
        trained(tiny(epochs=2), others, run, resume=True)
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        trained(tiny(epochs=2), spots, run / "nowhere", resume=True)


@pytest.mark.parametrize("patience", [0, 9])
def test_a_kill_between_the_last_checkpoint_and_its_weights_loses_nothing(
    patience, tmp_path, spots, tiny, monkeypatch
):
    settings = tiny(epochs=2, patience=patience)
    whole, _ = trained(settings, spots, tmp_path / "whole")
    save = checkpoints.save

    def killed(model, run):
        if int(model.steps) == int(whole.steps):
            raise SystemExit
        save(model, run)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(SystemExit):
            trained(settings, spots, tmp_path / "run")
    trained(settings, spots, tmp_path / "run", resume=True)
    np.testing.assert_array_equal(train.load(tmp_path / "run").sample(3), whole.sample(3))


def test_a_trained_run_without_checkpoints_is_not_trained_over(run, spots, tiny):
    before = (run / checkpoints.WEIGHTS).read_bytes()
    shutil.rmtree(run / checkpoints.FOLDER)
    with pytest.raises(ValueError, match="a trained run without checkpoints"):
        trained(tiny(epochs=2), spots, run, resume=True)
    assert (run / checkpoints.WEIGHTS).read_bytes() == before


def test_ctrl_c_waits_for_the_end_of_a_step_and_a_second_one_does_not(
    tmp_path, spots, tiny, monkeypatch
):
    handlers = []

    def strike(self, batch, logs=None):
        if int(self.model.steps) == 2:
            signal.raise_signal(signal.SIGINT)
            handlers.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(train.Samples, "on_train_batch_end", strike)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="interrupted in epoch 1 of 2"):
        trained(tiny(), spots, tmp_path / "run")
    assert handlers == [before] and signal.getsignal(signal.SIGINT) is before
    (place,) = (tmp_path / "run" / checkpoints.FOLDER).iterdir()
    assert place.name == "epoch_000000_step_00000002"


def test_two_checkpoints_are_kept(tmp_path, spots, tiny):
    trained(tiny(epochs=5), spots, tmp_path / "run")
    names = sorted(each.name for each in (tmp_path / "run" / checkpoints.FOLDER).iterdir())
    assert names == ["epoch_000004_step_00000000", "epoch_000005_step_00000000"]


# --- kills ---------------------------------------------------------------------------------------

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import train
from storage import keep
keep.CHECKPOINT_SECONDS = 0.0
train.main(sys.argv[1:])
"""
KILLED = {
    "VAE": ["--set", "dropout=0.2", "--set", "batch_norm=True"],
    "M2": ["--model", "M2", "--set", "labels_per_class=10", "--set", "binarize=none"],
    "SoftIntroVAE": ["--model", "SoftIntroVAE", "--set", "binarize=none"],
}
ONCE = [kind for kind in registry.REGISTRY if kind not in KILLED]  # killed less often
KILLED |= {kind: ["--model", kind, "--set", "binarize=none"] for kind in ONCE}
SMALL = ["--set", "widths=(4, 4)", "--set", "dense_widths=()", "--epochs", "8" if LONG else "4"]


@pytest.fixture
def start(tmp_path):
    """Starts `train.py` and waits until its images are loaded; returns process and its output."""
    outputs = []

    def started(words, paths=None):
        environment = os.environ | {"ATLAS_EMBEDDED": "1", "TF_NUM_INTRAOP_THREADS": "1"}
        environment |= paths or {}
        output = tmp_path / f"output{len(outputs)}.txt"
        outputs.append(output)
        with open(output, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *map(str, words)],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        while "Training" not in output.read_text():
            assert process.poll() is None, output.read_text()[-2000:]
            time.sleep(0.05)
        return process, output

    return started


def ended(process, output):
    assert process.wait() == 0, output.read_text()[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLED if LONG else ["VAE"])
def test_kill_9_at_any_moment_changes_nothing(kind, tmp_path, start):
    kills = 1 if kind in ONCE or not LONG else 20
    chosen = ["digits", *SMALL, *KILLED[kind]]
    whole = start([*chosen, "--out", tmp_path / "whole"])
    began = time.monotonic()
    ended(*whole)
    lasted = time.monotonic() - began
    expected = (tmp_path / "whole" / checkpoints.DIGEST).read_text()

    moments, number = random.Random(0), 0
    while kills:
        run = tmp_path / f"run{number}"
        number += 1
        words, alive = [*chosen, "--out", run], True
        while alive:
            process, output = start(words)
            if kills:
                time.sleep(moments.uniform(0.0, 0.9 * lasted))
                alive = process.poll() is None
                process.kill()
                process.wait()
                kills -= alive
            else:
                ended(process, output)
                alive = False
            if (run / "split.csv").exists():
                words = ["--resume", run]
        assert (run / checkpoints.DIGEST).read_text() == expected
        assert not list(run.rglob("saving*"))
        assert checkpoints.sha256(run / checkpoints.WEIGHTS) == expected.split()[0]


@pytest.mark.skipif(not LONG, reason="make test-long")
@pytest.mark.parametrize("source", [name for name in data.SOURCES if name != "digits"])
def test_kill_9_changes_nothing_whatever_the_images_come_from(source, tmp_path, start):
    made = {"mnist": any_images.mnist, "brain": any_images.oasis, "chest": any_images.chest}
    chosen = made.get(source, any_images.colours)(tmp_path).environment
    paths = {name: str(path) for name, path in chosen.items()} | {"ATLAS_EMBEDDED": "0"}
    words = [source, *SMALL, "--epochs", "4", "--set", "batch_size=4"]
    words += ["--set", f"image_shape={28 if source == 'mnist' else 32}"]
    ended(*start([*words, "--out", tmp_path / "whole"], paths))
    process, _ = start([*words, "--out", tmp_path / "run"], paths)
    while not list((tmp_path / "run").glob("checkpoints/epoch_*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    ended(*start(["--resume", tmp_path / "run"]))  # in a shell without path variables
    whole, run = ((tmp_path / each / checkpoints.DIGEST).read_text() for each in ("whole", "run"))
    assert whole == run


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, start):
    process, output = start(["digits", "--epochs", "500", "--out", tmp_path / "run"])
    while not list((tmp_path / "run" / checkpoints.FOLDER).glob("epoch_*")):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    last = output.read_text().strip().splitlines()[-1]
    assert re.search(r"interrupted in epoch \d+ of 500.*train.py --resume", last)


# --- damage --------------------------------------------------------------------------------------


def damage(path, how, where):
    """Truncates a file, or flips one of its bits; `where` is a share of its length."""
    content = bytearray(path.read_bytes())
    place = min(int(where * len(content)), len(content) - 1)
    if how == "cut":
        path.write_bytes(content[:place])
    else:
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)


@pytest.fixture
def two_checkpoints(tmp_path, spots, tiny):
    """A run that was interrupted in its third epoch: folder, settings, and both checkpoints."""
    settings = tiny(epochs=3, dropout=0.2)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_at(2 * spots.train.steps(16) + 2, patch)
        with pytest.raises(KeyboardInterrupt):
            trained(settings, spots, tmp_path / "run")
    older, newer = sorted((tmp_path / "run" / checkpoints.FOLDER).glob("epoch_*"))
    return tmp_path / "run", settings, older, newer


def test_no_damaged_checkpoint_is_read_and_none_blocks_the_other(
    two_checkpoints, spots, tmp_path, capsys
):
    run, settings, older, newer = two_checkpoints
    random = np.random.default_rng(0)
    names = (checkpoints.STATE_WEIGHTS, checkpoints.STATE, checkpoints.SUMS)
    model = registry.from_settings(settings)
    train.compile_model(model, settings, spots.train.steps(16))
    for number in range(50 if LONG else 12):
        path = newer / names[number % 3]
        content = path.read_bytes()
        damage(path, ("cut", "flip")[number // 3 % 2], random.random())
        told = []
        state = checkpoints.read(model, run, told.append)
        assert (state.epoch, state.batch) == (2, 0), path.name
        assert str(newer) in told[0] and "damaged" in told[0]
        (newer.parent / f"damaged_{newer.name}").rename(newer)
        path.write_bytes(content)
    assert checkpoints.read(model, run).batch == 2


def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_been(
    two_checkpoints, spots, tmp_path, capsys
):
    run, settings, older, newer = two_checkpoints
    damage(newer / checkpoints.STATE_WEIGHTS, "flip", 0.5)
    model, _ = trained(settings, spots, run, resume=True)
    assert "set aside as damaged_" in capsys.readouterr().out
    whole, _ = trained(settings, spots, tmp_path / "whole")
    for one, other in zip(whole.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_without_a_whole_checkpoint_says_so(two_checkpoints, spots):
    run, settings, older, newer = two_checkpoints
    for each in (older, newer):
        damage(each / checkpoints.STATE, "cut", 0.5)
    with pytest.raises(
        ValueError, match="all checkpoints .* are damaged; .*can still be used; .*--out"
    ):
        trained(settings, spots, run, resume=True)
    assert older.exists() and newer.exists()
    (run / checkpoints.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="delete that folder and resume again"):
        trained(settings, spots, run, resume=True)
    shutil.rmtree(run / checkpoints.FOLDER)
    _, history = trained(settings, spots, run, resume=True)  # the advice of the error works
    assert len(history) == 3


def test_a_run_without_checkpoints_is_told_what_can_be_done(run, spots, tiny):
    shutil.rmtree(run / checkpoints.FOLDER)
    with pytest.raises(ValueError, match="cannot be resumed; its weights can be used.*--out"):
        trained(tiny(epochs=2), spots, run, resume=True)
    with pytest.raises(FileExistsError, match="choose another folder$"):
        trained(tiny(epochs=2), spots, run)


def test_a_kill_between_the_two_renames_of_a_save_leaves_a_run_that_opens(run, monkeypatch):
    model = train.load(run)
    before = model.sample(2)
    model.decoder.set_weights([1.5 * each for each in model.decoder.get_weights()])

    replace = os.replace

    def killed(old, new):
        if new == run / checkpoints.WEIGHTS:
            raise SystemExit
        replace(old, new)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        checkpoints.save(model, run)
    np.testing.assert_array_equal(train.load(run).sample(2), before)


# --- what cannot be written ----------------------------------------------------------------------


@contextmanager
def files_of_at_most(size):
    """Simulates a disk that is full after this many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_and_harms_no_file(run, spots, tiny):
    model = train.load(run)
    before = {each: each.read_bytes() for each in sorted(run.rglob("*")) if each.is_file()}
    with files_of_at_most(4096), pytest.raises(OSError, match="cannot write the weights"):
        checkpoints.save(model, run)
    train.compile_model(model, tiny(), 1)
    with files_of_at_most(4096), pytest.raises(OSError, match="files saved earlier are kept"):
        checkpoints.write(model, run, checkpoints.State(epoch=3))
    after = {each: each.read_bytes() for each in sorted(run.rglob("*")) if each.is_file()}
    assert before == after


def test_what_a_kill_left_half_written_in_a_run_is_taken_away(two_checkpoints, spots):
    run, settings, *_ = two_checkpoints
    for place in (run, run / "samples", run / checkpoints.FOLDER):
        (place / "saving-1.half").write_text("")
    trained(settings, spots, run, resume=True)
    assert not list(run.rglob("saving*"))


def test_too_little_room_is_told_before_training(tmp_path, spots, tiny, monkeypatch):
    usage = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="needs .* MB and only 0 MB are free"):
        trained(tiny(), spots, tmp_path / "run")
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, spots, tiny):
    (tmp_path / "file").write_text("where a folder should be")  # not writable for root either
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        trained(tiny(), spots, tmp_path / "file" / "run")


def test_weights_that_are_not_finite_are_never_written(run, spots, tiny):
    model = train.load(run)
    train.compile_model(model, tiny(), 1)
    before = (run / checkpoints.WEIGHTS).read_bytes()
    kernel = model.decoder.trainable_variables[0]
    kernel.assign(np.where(np.arange(kernel.shape[-1]) == 0, np.nan, kernel))
    with pytest.raises(FloatingPointError, match=re.escape(kernel.path)):
        checkpoints.save(model, run)
    with pytest.raises(FloatingPointError, match="files saved earlier are kept"):
        checkpoints.write(model, run, checkpoints.State(epoch=3))
    assert (run / checkpoints.WEIGHTS).read_bytes() == before
    assert len(list((run / checkpoints.FOLDER).iterdir())) == 2


def test_a_loss_that_stops_being_finite_stops_at_its_step(tmp_path, spots, tiny, monkeypatch):
    monkeypatch.setattr(keep, "LOOK_STEPS", 1)
    settings, steps = tiny(epochs=4), spots.train.steps(16)
    model = registry.from_settings(settings)

    def poison(self, batch, logs=None):
        if int(self.model.steps) == 2 * steps + 1:
            self.model.encoder.trainable_variables[0].assign_add(np.inf)

    monkeypatch.setattr(train.Samples, "on_train_batch_end", poison)
    with pytest.raises(FloatingPointError, match="at step 2 of epoch 3; files saved earlier"):
        train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    monkeypatch.undo()
    _, history = trained(settings, spots, tmp_path / "run", resume=True)
    assert len(history) == 4 and np.isfinite(history).all(axis=None)


# --- what is opened ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 5}, r"latent_dim = 3, this one has 5"),
        ({"image_shape": (16, 16, 1)}, r"image_shape = \(12, 12, 1\), this one has \(16"),
    ],
)
def test_weights_of_another_size_are_refused_with_both_sizes(changes, message, run):
    values = json.loads((run / "settings.json").read_text())
    values["settings"] |= changes
    (run / "settings.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        train.load(run)


def test_a_model_file_with_code_in_it_is_not_opened(tmp_path):
    inputs = keras.Input((2,))
    outputs = keras.layers.Lambda(lambda x: x, output_shape=(2,))(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "foreign.keras")
    with pytest.raises(ValueError, match="[Ll]ambda"):
        keras.saving.load_model(tmp_path / "foreign.keras")


def test_nothing_here_asks_for_unsafe_loading():
    for path in (*ROOT.glob("*.[ip]*y*"), *ROOT.glob("[a-z]*/*.[ip]*y*")):
        if path.parent.name == "tests" or path.suffix not in (".py", ".ipynb"):
            continue
        asked = "safe_mode|unsafe_deserialization|allow_pickle=True|import pickle"
        assert not re.search(asked, path.read_text()), path


def test_settings_larger_than_their_weights_are_refused_before_anything_is_built(run, monkeypatch):
    values = json.loads((run / "settings.json").read_text())
    values["settings"]["dense_widths"] = [4096, 4096]
    (run / "settings.json").write_text(json.dumps(values))
    monkeypatch.setattr(registry, "from_settings", None)
    with pytest.raises(ValueError, match="describes a model of .* weights, and model.weights.h5"):
        train.load(run)


@pytest.mark.parametrize(
    "text",
    [
        '{"settings": {"beta": ' + "9" * 400 + "}}",
        '{"settings": {"latent_dim": ' + "9" * 5000 + "}}",
        "[" * 100_000 + "]" * 100_000,
        '{"settings": {"widths": ' + "[" * 900 + "]" * 900 + "}}",
        '{"settings": {"widths": [' + "1," * 3000 + "1]}}",
        '{"settings": []}',
        "[]",
        "",
    ],
    ids=["digits", "more digits", "levels", "levels inside", "items", "list", "no dict", "empty"],
)
def test_strange_settings_of_a_run_end_with_its_name(text, run):
    (run / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="settings.json cannot be read as settings") as caught:
        runs.load_settings(run)
    assert len(str(caught.value)) < 1000


def test_settings_of_a_run_stay_settings(run):
    for name, value in (("widths", [10**9]), ("model", "os.system"), ("surprise", 1)):
        values = json.loads((run / "settings.json").read_text())
        values["settings"][name] = value
        other = run.parent / f"run-{name}"
        other.mkdir()
        (other / "settings.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match=name):
            train.load(other)


def test_steps_together_must_divide_an_epoch(tmp_path, spots, tiny):
    steps = spots.train.steps(16)
    with pytest.raises(ValueError, match=f"does not divide the {steps} steps of an epoch"):
        trained(replace(tiny(), steps_per_execution=steps - 1), spots, tmp_path / "run")
    assert not (tmp_path / "run").exists()
