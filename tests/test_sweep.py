"""Many runs of one experiment: planned, finished once, and put into one table."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import config
import sweep
from storage import cluster

ROOT = Path(__file__).parent.parent
SMALL = config.Settings(widths=(4,), latent_dim=2, epochs=1, batch_size=64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beta=1,4,16", ("beta", [1, 4, 16])),
        ("seed=0:3", ("seed", [0, 1, 2])),
        ("model=VAE,InfoVAE", ("model", ["VAE", "InfoVAE"])),
        ("widths=[(8,), (8, 16)]", ("widths", [(8,), (8, 16)])),
    ],
)
def test_values_are_read_as_they_are_written(text, expected):
    assert sweep.values_of(text) == expected


@pytest.mark.parametrize("text", ["beta", "beta=", "seed=3:3"])
def test_values_that_are_none_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match="write it as beta=1,4,16"):
        sweep.values_of(text)


def test_every_combination_is_planned_and_checked_before_anything_is_trained():
    trials = sweep.plan(SMALL, {"beta": [1, 4], "seed": [0, 1, 2]})
    assert list(trials)[:2] == ["beta=1-seed=0", "beta=1-seed=1"] and len(trials) == 6
    changes, chosen = trials["beta=4-seed=2"]
    assert changes == {"beta": 4, "seed": 2} and (chosen.beta, chosen.seed) == (4.0, 2)
    with pytest.raises(ValueError, match="bta.*allowed: beta"):
        sweep.plan(SMALL, {"bta": [1]})
    (name,) = sweep.plan(SMALL, {"widths": [(8, 16)]})
    assert name.startswith("widths=_8__16_-")  # and a hash, so the name is unique


def measured(run, value):
    run.mkdir(parents=True)
    metrics = {"negative_elbo": {"value": value}, "ssim": {"value": 1 / value}}
    (run / "metrics.json").write_text(json.dumps({"metrics": metrics}))


def test_a_finished_sweep_is_one_table_one_figure_and_the_best_settings(tmp_path):
    swept = {"beta": [4, 1], "seed": [0, 1]}
    trials = sweep.plan(SMALL, swept)
    for value, name in enumerate(trials, start=1):
        measured(tmp_path / name, float(value))
    table, best = sweep.finish(trials, swept, tmp_path, "negative_elbo")
    assert best == "beta=4-seed=0" and len(table) == 4
    assert sweep.finish(trials, swept, tmp_path, "ssim")[1] == "beta=4-seed=0"  # higher is better
    numbers = sweep.summarised(table, swept, "negative_elbo")
    assert list(numbers.index) == ["4", "1"] and list(numbers["mean"]) == [1.5, 3.5]
    assert numbers["std"].iloc[0] == pytest.approx(0.5**0.5)
    assert config.Settings.from_dict(json.loads((tmp_path / "best.json").read_text())).beta == 4
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 4
    with pytest.raises(
        ValueError, match="--metric psnr was not measured; measured were: negative_elbo"
    ):
        sweep.finish(trials, swept, tmp_path, "psnr")


def test_a_trial_is_an_ordinary_run_and_is_not_trained_twice(tmp_path):
    told = []
    values = sweep.trial(SMALL, tmp_path / "run", told.append)
    assert [row["epoch"] for row in told] == [1] and told[0]["val_loss"] > 0
    assert (tmp_path / "run" / "model.weights.h5").exists() and sweep.over(tmp_path / "run")
    assert sweep.trial(SMALL, tmp_path / "run", told.append) == values and len(told) == 1
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert {each["split"] for each in written.values()} == {
        "validation"
    }  # a sweep chooses, so no test images
    with pytest.raises(ValueError, match="was started with epochs = 1, not 50"):
        sweep.trial(replace(SMALL, epochs=50), tmp_path / "run")


def test_the_best_settings_have_the_best_mean_and_not_the_luckiest_seed(tmp_path):
    swept = {"beta": [1, 4], "seed": [0, 1]}
    trials = sweep.plan(SMALL, swept)
    for value, name in zip((1.0, 9.0, 3.0, 3.0), trials, strict=True):
        measured(tmp_path / name, value)
    assert sweep.finish(trials, swept, tmp_path, "negative_elbo")[1] == "beta=4-seed=0"


def test_a_run_that_was_ended_early_is_over_only_while_pruning(tmp_path):
    (tmp_path / sweep.PRUNED).write_text("{}")
    assert sweep.over(tmp_path, prune=True) and not sweep.over(tmp_path)


def test_what_cannot_be_meant_is_told_before_anything_is_trained(tmp_path):
    def refused(*words):
        with pytest.raises(SystemExit) as stop:
            sweep.main(["digits", "--out", str(tmp_path / "out"), *words])
        assert not (tmp_path / "out").exists()
        return str(stop.value)

    assert "give every setting once" in refused("--over", "beta=1", "--over", "beta=2")
    assert "--metric rate has no better direction" in refused(
        "--over", "beta=1", "--metric", "rate"
    )


def test_other_machines_are_told_where_the_images_are(tmp_path, monkeypatch):
    assert all(hasattr(config, name) for name in config.PATHS)
    monkeypatch.setattr(config, "CHEST_DIR", Path("somewhere"))
    told = cluster.environment(3)
    assert told["CHEST_DIR"] == str(Path("somewhere").resolve())
    assert told["TF_NUM_INTRAOP_THREADS"] == "3" and "MNIST_PATH" not in told


def test_without_ray_the_line_to_type_is_told_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["digits", "--over", "seed=0:2", "--out", str(tmp_path), "--at-once", "2"]
    with pytest.raises(SystemExit, match=r'pip install "ray\[tune\]"'):
        sweep.main(words)


def test_without_ray_runs_are_trained_one_by_one_and_failures_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trained = []

    def trial(settings, run):
        trained.append(settings.seed)
        if settings.seed == 1:
            raise FloatingPointError("first line\nthe loss is nan")

    monkeypatch.setattr(sweep, "trial", trial)
    trials = sweep.plan(config.settings("digits"), {"seed": [0, 1, 2]})
    assert sweep.run_all(trials, tmp_path) == {"seed=1": "the loss is nan"}
    assert trained == [0, 1, 1, 2]
    assert "3 runs are trained one after the other" in capsys.readouterr().out


def test_values_that_differ_in_what_no_file_name_may_hold_are_two_runs():
    swept = {"label_column": ["a b", "a_b", "A_b", "c"]}
    names = list(sweep.plan(config.settings("digits"), swept))
    assert len({name.casefold() for name in names}) == 4 and names[3] == "label_column=c"


@pytest.mark.skipif(os.environ.get("ATLAS_LONG") != "1", reason="make test-long")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_whose_driver_is_killed_finishes_the_rest_alone(tmp_path, end):
    pytest.importorskip("ray")
    out = tmp_path / "sweep"
    words = ["digits", "--over", "beta=1,2,4", "--over", "seed=0:4", "--epochs", "4"]
    words += ["--set", "widths=(4,)", "--out", str(out), "--at-once", "2"]
    command = [sys.executable, ROOT / "sweep.py", *words]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 400
    while len(list(out.glob("*/metrics.json"))) < 3 and time.monotonic() < deadline:
        assert driver.poll() is None
        time.sleep(0.2)
    driver.send_signal(end)
    driver.wait()
    time.sleep(5)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/metrics.json")}
    assert 3 <= len(kept) < 12
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert f"12 runs in {out}, {len(kept)} of them finished" in ended.stdout
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(pd.read_csv(out / "sweep.csv")) == 12
