"""Several workers that share every batch give the same training as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import train
from families import registry
from nn import distribution
from sources import splits

PROGRAM = Path(__file__).parent / "workers.py"
LONG = os.environ.get("ATLAS_LONG") == "1"
# Notebook 10 has an InfoVAE of two workers.
ON_WORKERS, ON_DEVICES = ("SoftIntroVAE",), ("IWAE-muon", "SemiSupervisedVAE-few")
if LONG:
    ON_WORKERS = (*registry.REGISTRY, "VAE-norm", "VAE-groups", "VAE-clip")
    ON_WORKERS += ("SemiSupervisedVAE-few", "M2-few", "VAE-muon")
    ON_DEVICES = ON_WORKERS


def started(folder, epochs, kinds, resume="no", count=2, strategy="auto"):
    """Processes that share a training on this machine."""
    hosts = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            hosts.append(f"127.0.0.1:{free.getsockname()[1]}")
    processes = []
    for index in range(count):
        told = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
        environment |= {"TF_CONFIG": json.dumps(told)} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, PROGRAM, folder, str(epochs), resume, strategy, *kinds],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def ended(processes):
    told = [each.communicate(timeout=900)[0] for each in processes]
    assert all(each.returncode == 0 for each in processes), told


@pytest.mark.slow
def test_two_workers_or_devices_end_with_the_weights_of_one(tmp_path):
    processes = started(tmp_path / "workers", 5, ON_WORKERS)  # 20 steps
    processes += started(tmp_path / "devices", 5, ON_DEVICES, count=1, strategy="mirrored")
    kinds = dict.fromkeys(ON_WORKERS + ON_DEVICES)
    ended(processes + started(tmp_path / "one", 5, kinds, count=1))
    pairs = [(kind, "workers") for kind in ON_WORKERS]
    pairs += [(kind, "devices") for kind in ON_DEVICES]
    for kind, name in pairs:
        alone, shared = tmp_path / "one" / kind, tmp_path / name / kind
        one, two = (np.load(run / "all.npy") for run in (alone, shared))
        assert np.abs(one - two).max() < 1e-5 * np.abs(one).max(), (kind, name)
        told = [pd.read_csv(run / "history.csv") for run in (alone, shared)]
        for column in ("loss", "val_loss"):
            np.testing.assert_allclose(*(each[column] for each in told), rtol=1e-4)
        files = sorted(each.name for each in shared.iterdir())
        assert files == sorted(each.name for each in alone.iterdir())


@pytest.mark.skipif(not LONG, reason="make test-long")
def test_a_killed_worker_ends_the_other_and_both_resume_to_the_same_weights(tmp_path):
    ended(started(tmp_path / "whole", 40, ["VAE"]))
    chief, other = started(tmp_path / "killed", 40, ["VAE"])
    run = tmp_path / "killed" / "VAE"
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/epoch_*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    other.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    told = chief.communicate(timeout=120)[0]
    assert time.monotonic() - killed < 60
    assert chief.returncode != 0 and ("worker" in told and "resume" in told), told
    ended(started(tmp_path / "killed", 40, ["VAE"], resume="yes"))
    one, two = (np.load(tmp_path / name / "VAE" / "all.npy") for name in ("whole", "killed"))
    np.testing.assert_array_equal(one, two)


def test_replicas_read_their_own_slices_of_every_batch(spots):
    whole = spots.train.batches(12, shuffle=True, seed=3, shift=1)
    parts = [
        spots.train.batches(12, shuffle=True, seed=3, shift=1, part=part)
        for part in (splits.Part(0, 2, 3), splits.Part(2, 1, 3))
    ]
    first, second = (iter(each) for each in parts)
    for batch in whole.take(8):
        pieces = [next(first), next(first), next(second)]
        assert [len(each) for each in pieces] == [4, 4, 4]
        np.testing.assert_array_equal(np.concatenate(pieces), batch)


def test_labelled_and_other_images_are_both_shared(spots):
    few = splits.few_labels(spots, 10, 0)
    whole, steps = few.train.mixed_batches(16, "half", 0.5, first_epoch=2)
    parts = [
        few.train.mixed_batches(16, "half", 0.5, first_epoch=2, part=splits.Part(each, 1, 2))
        for each in (0, 1)
    ]
    assert {each for _, each in parts} == {steps}
    for batch, *pieces in zip(whole.take(9), *(each for each, _ in parts), strict=False):
        for one, *slices in zip(batch, *pieces, strict=True):
            np.testing.assert_array_equal(np.concatenate(slices), one)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(spots):
    with pytest.raises(ValueError, match="3 replicas cannot share a batch of 16"):
        spots.train.batches(16, shuffle=True, part=splits.Part(0, 1, 3))


def test_xla_beside_replicas_is_refused(spots, tiny, monkeypatch):
    model = registry.from_settings(tiny())
    shared = tf.distribute.OneDeviceStrategy("CPU:0")
    monkeypatch.setattr(type(shared), "num_replicas_in_sync", 2)
    monkeypatch.setattr(model, "_distribute_strategy", shared)
    with pytest.raises(ValueError, match='jit_compile = "on" is not possible with several'):
        train.compile_model(model, tiny(jit_compile="on"), 10)


def test_the_environment_chooses_the_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert distribution.strategy("auto") is tf.distribute.get_strategy()  # no GPU, no cluster
    assert distribution.is_chief(distribution.strategy("none"))
    with pytest.raises(ValueError, match="set TF_CONFIG on each.*srun"):
        distribution.strategy("multiworker")
    with pytest.raises(ValueError, match="strategy = 'ring'"):
        distribution.strategy("ring")


def test_the_tasks_of_a_slurm_step_are_the_workers(monkeypatch):
    made = []
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda cluster_resolver: made.append(cluster_resolver),
    )
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert distribution.strategy("auto") is tf.distribute.get_strategy()  # no srun
    for name, value in {"NUM_TASKS": "4", "NODELIST": "n[1-2]", "TASKS_PER_NODE": "2(x2)"}.items():
        monkeypatch.setenv(f"SLURM_STEP_{name}", value)
    distribution.strategy("auto")
    (resolver,) = made
    hosts = resolver.cluster_spec().as_dict()["worker"]
    assert hosts == ["n1:8888", "n1:8889", "n2:8888", "n2:8889"]
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)


def test_a_lost_worker_is_told_from_other_errors():
    lost = tf.errors.UnavailableError(None, None, "Task 1 heartbeat timeout")
    assert "start all workers again with --resume" in distribution.worker_lost(lost)
    assert distribution.worker_lost(tf.errors.InvalidArgumentError(None, None, "shape")) == ""


def test_worker_0_beside_a_chief_is_not_the_one_that_writes():
    class Strategy(NamedTuple):
        cluster_resolver: object

    def chief(task, index, *jobs):
        cluster = tf.train.ClusterSpec({job: ["a:1", "b:1"] for job in jobs})
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type=task, task_id=index
        )
        return distribution.is_chief(Strategy(resolver))

    assert chief("chief", 0, "chief", "worker") and not chief("worker", 0, "chief", "worker")
    assert chief("worker", 0, "worker") and not chief("worker", 1, "worker")
