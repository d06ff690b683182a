"""Training writes a complete run that can be loaded, and refuses wrong settings in advance."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

import config
import data
import train
from families import registry
from nn import distribution
from spots import blobs
from storage import checkpoints, keep, runs


def test_bfloat16_that_is_emulated_is_told_before_training(monkeypatch, capsys):
    """Without AVX-512 a step took 20 times as long."""
    spent = {tf.float32: 0.01, tf.bfloat16: 0.2}
    monkeypatch.setattr(distribution, "_seconds", spent.get)
    train._warn_if_emulated("float32")
    assert not capsys.readouterr().out
    train._warn_if_emulated("bfloat16")
    assert "convolutions take 20 times as long as in float32" in capsys.readouterr().out
    spent[tf.bfloat16] = 0.007
    train._warn_if_emulated("bfloat16")
    assert not capsys.readouterr().out


def test_the_slowdown_of_bfloat16_is_measured():
    assert 0.05 < distribution.bfloat16_slowdown() < 1000


def test_a_run_folder_is_complete(run, spots):
    assert {each.name for each in run.iterdir()} >= {
        "settings.json",
        "split.csv",
        "history.csv",
        "samples",
        checkpoints.WEIGHTS,
        checkpoints.DIGEST,
    }
    assert not list(run.glob("saving*"))
    assert len(pd.read_csv(run / "split.csv")) == 96
    history = pd.read_csv(run / "history.csv")
    assert list(history["epoch"]) == [0, 1]
    assert {"loss", "val_loss", "kl", "val_kl", "ssim", "active_units"} <= set(history)
    assert history.notna().all().all()


def test_samples_show_the_same_latent_points_after_every_epoch(run, tiny):
    first, second = (
        np.asarray(Image.open(run / "samples" / f"epoch_{epoch:03d}.png")) for epoch in (1, 2)
    )
    assert first.shape == second.shape and np.any(first != second)
    last = train.load(run).sample(train.SAMPLES).numpy()[0, ..., 0]
    assert np.abs(second[:12, :12] / 255 - last).max() < 0.01


def test_a_loaded_run_is_the_trained_model(tmp_path, spots, tiny):
    settings = tiny(dropout=0.1, batch_norm=True)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    again = train.load(tmp_path / "run")
    images = spots.test.images
    np.testing.assert_array_equal(again.reconstruct(images), model.reconstruct(images))
    assert runs.load_settings(tmp_path / "run") == settings
    assert int(again.steps) == int(model.steps) == 2 * spots.train.steps(16)


def test_saving_in_the_middle_of_training_changes_nothing(tmp_path, spots, tiny, monkeypatch):
    weights, settings = [], tiny(epochs=3, dropout=0.1)
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(keep, "CHECKPOINT_SECONDS", seconds)
        model = registry.from_settings(settings)
        train.fit(model, spots, settings, tmp_path / str(seconds), verbose=0)
        weights.append(model.decoder.get_weights()[0])
    np.testing.assert_array_equal(*weights)
    size = (tmp_path / "0.0" / checkpoints.WEIGHTS).stat().st_size
    assert size < 4 * model.count_params() + 60_000  # no optimizer: float32 and some overhead


def test_the_same_seed_trains_the_same_weights(tmp_path, spots, tiny):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = tiny(seed=seed, dropout=0.2, binarize="dynamic")
        model = registry.from_settings(settings)
        train.fit(model, spots, settings, tmp_path / name, verbose=0)
        weights.append(model.decoder.get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.any(weights[0] != weights[2])


def test_two_steps_per_execution_train_the_same_weights_as_one(tmp_path, spots, tiny):
    weights = []
    for together in (1, 2):
        settings = tiny(steps_per_execution=together)
        model = registry.from_settings(settings)
        train.fit(model, spots, settings, tmp_path / str(together), verbose=0)
        weights.append(model.decoder.get_weights()[0])
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("schedule", ["cosine", "exponential"])
def test_a_schedule_ends_at_a_hundredth_of_the_learning_rate(schedule, tiny):
    model = registry.from_settings(tiny())
    train.compile_model(model, tiny(schedule=schedule, learning_rate=1e-2, epochs=3), steps=4)
    rate = model.optimizer._learning_rate
    assert float(rate(0)) == pytest.approx(1e-2) and float(rate(12)) == pytest.approx(1e-4)


def test_clipping_bounds_the_global_norm_of_the_gradient(tiny):
    model = registry.from_settings(tiny())
    train.compile_model(model, tiny(clip_norm=5.0), steps=1)
    assert model.optimizer.global_clipnorm == 5.0


def test_early_stopping_ends_and_keeps_the_best_weights(tmp_path, spots, tiny):
    settings = tiny(epochs=40, patience=1, learning_rate=0.3, seed=0)
    model = registry.from_settings(settings)
    history = train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    assert len(history) < 40
    best = history["val_loss"].min()
    measured = train.load(tmp_path / "run")
    train.compile_model(measured, settings, steps=1)
    again = measured.evaluate(spots.validation.batches(16), verbose=0, return_dict=True)
    assert again["loss"] == pytest.approx(best, rel=1e-4)


# --- refusals ------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_overwritten(run, spots, tiny):
    before = (run / checkpoints.WEIGHTS).read_bytes()
    with pytest.raises(FileExistsError, match="already contains a trained run"):
        train.fit(registry.from_settings(tiny()), spots, tiny(), run, verbose=0)
    assert (run / checkpoints.WEIGHTS).read_bytes() == before


def test_images_of_another_size_than_the_model_are_refused_before_training(tmp_path, tiny):
    images, labels = blobs(40, (10, 14, 1))
    with pytest.raises(ValueError, match=r"\(12, 12, 1\).*\(10, 14, 1\)"):
        train.fit(
            registry.from_settings(tiny()),
            data.from_arrays(images, labels),
            tiny(),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_training_split_is_refused_before_training(tmp_path, spots, tiny):
    with pytest.raises(ValueError, match="batch_size = 128"):
        settings = tiny(batch_size=128)
        train.fit(registry.from_settings(settings), spots, settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_training_and_its_weights_are_not_saved(
    tmp_path, spots, tiny
):
    settings = tiny(learning_rate=1.0, reconstruction="gaussian", sigma=1e-4, epochs=5)
    model = registry.from_settings(settings)
    model.log_sigma.assign(np.nan)
    with pytest.raises(FloatingPointError, match="at step 1 of epoch 1.*learning_rate"):
        train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / checkpoints.WEIGHTS).exists()


@pytest.mark.parametrize("together", [1, 4])
def test_the_step_at_which_the_loss_broke_is_the_one_that_is_told(together, tmp_path, spots, tiny):
    """Regardless of where the loss is checked, and of the steps per execution."""
    settings = tiny(batch_size=4, epochs=3, steps_per_execution=together)  # 16 steps an epoch
    model = registry.from_settings(settings)
    objective = model.objective

    def breaking(result):
        terms = objective(result)
        broken = tf.where(result.training & (model.steps == 22), np.nan, 0.0)
        return terms | {"reconstruction": terms["reconstruction"] + broken}

    model.objective = breaking
    with pytest.raises(FloatingPointError, match="the loss is nan at step 6 of epoch 2"):
        train.fit(model, spots, settings, tmp_path / "run", verbose=0)


def test_with_several_steps_per_execution_the_loss_is_looked_at_within_an_epoch(
    tmp_path, spots, tiny, monkeypatch
):
    monkeypatch.setattr(keep, "LOOK_STEPS", 4)
    looks, require = [], train.Keep._require_finite
    monkeypatch.setattr(
        train.Keep, "_require_finite", lambda self, logs: looks.append(1) or require(self, logs)
    )
    settings = tiny(batch_size=4, epochs=1, steps_per_execution=2)
    train.fit(registry.from_settings(settings), spots, settings, tmp_path / "run", verbose=0)
    assert len(looks) == 6  # after 2, 6, 10, 14 and 16 steps, and at the end of the epoch


@pytest.mark.parametrize("kind", ["InfoVAE", "MMD-AE", "BetaTCVAE"])
def test_one_validation_image_left_over_does_no_harm(kind, tmp_path, spots, tiny):
    odd = dataclasses.replace(spots, validation=spots.validation.only(np.arange(9)))
    settings = tiny(model=kind, batch_size=8, epochs=1)
    history = train.fit(
        registry.from_settings(settings), odd, settings, tmp_path / "run", verbose=0
    )
    assert np.isfinite(history["val_loss"]).all()


def test_progress_fits_a_line_and_the_history_has_everything(tmp_path, spots, tiny, capsys):
    settings = tiny(epochs=1, dssim_weight=5.0)
    model = registry.from_settings(settings)
    history = train.fit(model, spots, settings, tmp_path / "run", verbose=2)
    shown = capsys.readouterr().out.strip().splitlines()[-1]
    assert "val_loss" in shown and "regularizer" not in shown and len(shown) < 140
    assert {"regularizer", "dssim", "val_regularizer"} <= set(history)


def test_damaged_weights_are_not_loaded(run):
    weights = run / checkpoints.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        train.load(run)


def test_what_is_not_a_run_is_refused_by_name(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        train.load(tmp_path)
    values = json.loads((run / "settings.json").read_text())
    values["settings"]["latent_dim"] = 10**9
    (run / "settings.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="settings.json.*latent_dim = 1000000000"):
        train.load(run)


# --- command line --------------------------------------------------------------------------------


def test_the_command_line_trains_the_experiment_with_its_changes(tmp_path, capsys):
    words = ["digits", "--epochs", "1", "--model", "MMD-AE", "--set", "latent_dim=5"]
    words += ["--set", "widths=(4, 4)", "--set", "mmd_kernel=rbf", "--out", str(tmp_path / "run")]
    train.main(words)
    settings = runs.load_settings(tmp_path / "run")
    expected = dataclasses.replace(
        config.settings("digits"),
        epochs=1,
        model="MMD-AE",
        latent_dim=5,
        widths=(4, 4),
        mmd_kernel="rbf",
    )
    assert settings == expected
    assert f"python evaluate.py {tmp_path / 'run'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "--set", "beta=-1"], "beta = -1"),
        (["digits", "--set", "bta=1"], "there is no setting 'bta'"),
        (["digits", "--set", "beta"], "write it as field=value"),
        (["digits", "--model", "GAN"], "model = 'GAN'"),
        (["digit"], "EXPERIMENT = 'digit' is unknown.*did you mean digits"),
        (["digits", "--model", "vae"], "model = 'vae'.*did you mean 'VAE'"),
        (["digits", "--epochs", "0"], "epochs = 0"),
    ],
)
def test_a_bad_command_line_ends_with_one_sentence_and_makes_no_run(words, message, capsys):
    before = set(config.RUNS_DIR.glob("*"))
    with pytest.raises(SystemExit, match=f"train.py: .*{message}"):
        train.main(words)
    assert set(config.RUNS_DIR.glob("*")) == before


def test_help_names_every_field(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{each.name}=" in shown for each in dataclasses.fields(config.Settings))


def test_new_runs_never_share_a_folder():
    first, second = train.new_run("twice"), train.new_run("twice")
    assert first != second and first.is_dir() and second.is_dir()


def test_one_line_tells_a_whole_training_in_one_line(capsys):
    line = train.OneLine("VAE")
    line.set_params({"epochs": 2, "steps": 4})
    line.on_train_begin()
    for epoch in range(2):
        line.on_epoch_begin(epoch)
        line.on_train_batch_end(0, {"loss": 3.0})
        line.on_epoch_end(epoch, {"loss": 2.0 - epoch, "val_loss": 1.5})
    line.on_train_end()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "left" in said.split("\r")[1]
    assert said.split("\r")[-1].startswith("VAE: epoch 2 of 2, loss 1.0, validation 1.5, 0 s")
