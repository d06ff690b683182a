"""Many runs of one experiment, on all available cores, GPUs or machines.

python sweep.py chest --over beta=1,4,16 --over seed=0:5 --out sweeps/beta [--metric NAME]
    [--at-once N] [--gpus SHARE] [--prune] [--address HOST:PORT] [--set field=value ...]

Every combination becomes an ordinary run folder below `--out`, measured on the validation images.
The same command again finishes what is not finished. Runs in parallel, pruning and clusters need
Ray: pip install "ray[tune]"; without it the runs are trained one after the other. On a cluster
every machine needs this project, its environment and the data under the same paths.
"""

import argparse
import sys
from pathlib import Path

import config


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description="Train every combination of some settings.")
    parser.add_argument("experiment", help=", ".join(config.EXPERIMENTS))
    parser.add_argument("--over", action="append", required=True, metavar="FIELD=VALUES")
    parser.add_argument("--model", help=", ".join(config.MODELS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--metric", default="negative_elbo", help="for the figure and the best run")
    parser.add_argument("--at-once", type=int, help="runs in parallel; default: half the cores")
    parser.add_argument(
        "--gpus", type=float, help="GPUs per run, or a fraction; default: 1 if there are any"
    )
    parser.add_argument(
        "--prune", action="store_true", help="stop runs early whose validation loss lags (ASHA)"
    )
    parser.add_argument("--address", help="address of a Ray cluster; default: this machine")
    arguments = parser.parse_args(words)
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import importlib.util
import itertools
import json
import math
import os

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import config
import data
import evaluate
import train
from analysis import plots
from families import registry
from storage import checkpoints, cluster, disk, runs

MEASURED, PRUNED = evaluate.METRICS, "pruned.json"  # in a run folder: the run is finished
MISSING = '--at-once, --gpus, --prune and --address need Ray: pip install "ray[tune]"'


# --- which runs ----------------------------------------------------------------------------------


def values_of(text: str) -> tuple[str, list]:
    """A setting and its values.

    Args:
        text: `beta=1,4,16`, `seed=0:5` (0 to 4), `model=VAE,InfoVAE` or, if the values contain
            commas, `widths=[(16,32),(32,64)]`.

    Raises:
        ValueError: for another text, which is named, with how to write it.
    """
    name, sign, told = text.partition("=")
    first, colon, last = told.partition(":")
    if sign and colon and first.isdigit() and last.isdigit():
        values = list(range(int(first), int(last)))
    elif told.startswith("["):
        values = train.parse_value(told)
    else:
        values = [train.parse_value(each) for each in told.split(",") if each]
    if not sign or not isinstance(values, list) or not values:
        raise ValueError(f"--over {text}: write it as beta=1,4,16 or seed=0:5")
    return name, values


def plan(settings, swept) -> dict:
    """All combinations of the values: names of run folders to (changes, settings), checked.

    Args:
        settings: `config.Settings` with all other values.
        swept: Names to values, from `values_of`.
    """
    planned = []
    for values in itertools.product(*swept.values()):
        changes = dict(zip(swept, values, strict=True))
        values = {name: config.checked(name, value) for name, value in changes.items()}
        model = values.pop("model", settings.model)
        chosen = registry.with_model(settings, model, **values)
        registry.require_fit(chosen)
        planned.append((changes, chosen))
    words = ["-".join(f"{name}={value}" for name, value in each.items()) for each, _ in planned]
    return dict(zip(disk.file_names(words), planned, strict=True))


# --- one run -------------------------------------------------------------------------------------


def trial(settings, run, told=None) -> dict:
    """Trains or resumes a run, and measures it on the validation images.

    A sweep chooses settings, so the test images are not used: no choice may depend on them.

    Args:
        settings: `config.Settings`.
        run: Folder.
        told: Called with the history's row after every epoch.

    Returns:
        The values of `evaluate.report`.

    Raises:
        ValueError: if the folder holds a run of other settings.
    """
    run = Path(run)
    _refuse_other(run, settings)
    if not over(run):
        images = data.load(settings)
        model = registry.from_settings(settings, registry.conditions_of(settings, images))
        begun = checkpoints.begun(run)
        told = [_telling(told)] if told else []
        train.fit(model, images, settings, run, verbose=0, resume=begun, callbacks=told)
        evaluate.report(model, images, run, split="validation")
    return _values(run)


def _refuse_other(run, settings):
    """Refuses a folder that holds a run of other settings."""
    if (run / "settings.json").exists():
        runs.require_settings(run, settings)


def _values(run):
    metrics = json.loads((Path(run) / MEASURED).read_text())["metrics"]
    values = {name: each["value"] for name, each in metrics.items()}
    return {name: math.nan if value is None else value for name, value in values.items()}


def _telling(told):
    """A Keras callback that passes on the epoch and its numbers."""

    def on_epoch_end(epoch, logs):
        told({"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()})

    return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)


# --- all of them ---------------------------------------------------------------------------------


def run_all(trials, out, at_once=None, address=None, prune=False, gpus=None) -> dict:
    """Trains the unfinished runs, scheduled by Ray; without Ray, one after the other.

    Args:
        trials: From `plan`.
        out: Folder that gets a run folder for each; on a cluster, one that all machines see.
        at_once: Runs in parallel; default: one for every two cores, or every GPU.
        address: Address of a Ray cluster; None starts Ray on this machine.
        prune: Whether runs whose validation loss lags behind are stopped early (ASHA).
        gpus: GPUs per run, or a fraction; default: one if there are any.

    Returns:
        Names of the runs that failed twice, and the last line of their errors.

    Raises:
        ImportError: if Ray is needed and not installed, with the command to install it.
        ValueError: if a folder holds a run of other settings.
    """
    alone = importlib.util.find_spec("ray") is None
    if alone and (at_once or address or prune or gpus is not None):
        raise ImportError(MISSING)
    out = Path(out).resolve()
    for name, (_, chosen) in trials.items():
        _refuse_other(out / name, chosen)
    waiting = [name for name in trials if not over(out / name, prune)]
    if not waiting:
        return {}
    if alone:
        return _one_by_one(trials, waiting, out)
    from ray import tune

    cores = os.cpu_count() or 1
    threads = max(1, cores // at_once) if at_once and not address else min(2, cores)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends this program, not a run
    told = {name: (chosen.to_dict(), str(out / name)) for name, (_, chosen) in trials.items()}

    def one(space):
        if not gpus:
            tf.config.set_visible_devices([], "GPU")
        values, run = told[space["run"]]
        trial(config.Settings.from_dict(values), run, tune.report)

    scheduler = None
    if prune:
        longest = max(chosen.epochs for _, chosen in trials.values())
        scheduler = tune.schedulers.ASHAScheduler("epoch", "val_loss", "min", max_t=longest + 1)
    own = {"num_cpus": max(cores, threads * (at_once or 1)), "include_dashboard": False}
    with cluster.joined(address, threads, **own) as (present, _):
        if gpus is None:
            gpus = float(present > 0)
        tuner = tune.Tuner(
            tune.with_resources(one, {"cpu": threads, "gpu": gpus}),
            param_space={"run": tune.grid_search(waiting)},
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(out),
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=1,
            ),
        )
        results = tuner.fit()
    failed = {}
    for each in results:
        name = each.config["run"]
        if each.error is not None:
            failed[name] = str(each.error).strip().splitlines()[-1]
        elif prune and not over(out / name):
            disk.write_json(out / name / PRUNED, {"epoch": each.metrics["epoch"]})
    return failed


def _one_by_one(trials, names, out):
    """Trains runs in this process; as with Ray, a failed run is tried a second time."""
    print(f"Ray is not installed: {len(names)} runs are trained one after the other")
    failed = {}
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}", flush=True)
        for _ in range(2):
            try:
                trial(trials[name][1], out / name)
                failed.pop(name, None)
                break
            except (ValueError, OSError, FloatingPointError, tf.errors.OpError) as error:
                failed[name] = str(error).strip().splitlines()[-1]
    return failed


def over(run, prune=False) -> bool:
    """Whether a run is finished: it is measured or, with pruning, was stopped early."""
    return (Path(run) / MEASURED).exists() or (prune and (Path(run) / PRUNED).exists())


def collected(trials, out) -> pd.DataFrame:
    """The numbers of all finished runs: swept settings and measurements."""
    rows = []
    for name, (changes, _) in trials.items():
        run = Path(out) / name
        if (run / MEASURED).exists():
            swept = {key: str(value) for key, value in changes.items()}
            rows.append({"run": name} | swept | _values(run))
    return pd.DataFrame(rows)


def summarised(table, swept, metric):
    """Mean of `metric` at each value of the first swept setting, and its spread over the rest.

    Returns:
        Table indexed by the value, with `mean`, `std` (NaN for one run) and `count`.
    """
    name = next(iter(swept))
    order = [str(each) for each in swept[name]]
    groups = table.groupby(name)[metric].agg(["mean", "std", "count"])
    return groups.reindex([each for each in order if each in groups.index])


def direction_of(metric) -> str:
    """`"higher"` or `"lower"`, whichever is better; an error if neither is."""
    ranked = [name for name, (_, better, *_) in evaluate.PROTOCOL.items() if better]
    if metric not in ranked:
        raise ValueError(
            f"--metric {metric} has no better direction; choose one of: {', '.join(ranked)}"
        )
    return evaluate.PROTOCOL[metric][1]


def finish(trials, swept, out, metric):
    """Writes `sweep.csv`, `sweep.png` and `best.json`.

    Returns:
        `(table, best)`: all numbers, and the name of the first run of the best settings: those
        whose mean over the seeds is best.
    """
    out, better = Path(out), direction_of(metric)
    table = collected(trials, out)
    if table.empty:
        raise ValueError(f"no run in {out} is finished")
    if metric not in table:
        known = ", ".join(name for name in evaluate.PROTOCOL if name in table)
        raise ValueError(f"--metric {metric} was not measured; measured were: {known}")
    with disk.replacing(out / "sweep.csv") as temporary:
        table.to_csv(temporary, index=False)
    fields = [name for name in swept if name != "seed"]
    means = table.groupby(fields)[metric].transform("mean") if fields else table[metric]
    best = table["run"][means.idxmax() if better == "higher" else means.idxmin()]
    disk.write_json(out / "best.json", trials[best][1].to_dict())
    numbers, line = summarised(table, swept, metric), f"{metric}, ± sd"
    figure = plots.curve(
        np.arange(len(numbers)),
        {line: numbers["mean"]},
        next(iter(swept)),
        f"{metric}, {evaluate.PROTOCOL[metric][0]}".rstrip(", "),
        errors={line: numbers["std"].fillna(0.0)},
    )
    figure.axes[0].set_xticks(np.arange(len(numbers)), list(numbers.index))
    plots.save(figure, out / "sweep.png")
    return table, best


def main(words=None):
    arguments = parsed(words)
    try:
        swept = dict(values_of(each) for each in arguments.over)
        if len(swept) < len(arguments.over):
            raise ValueError("--over: give every setting once, with all its values")
        direction_of(arguments.metric)
        trials = plan(train.settings_from(arguments), swept)
        done = sum(over(arguments.out / name, arguments.prune) for name in trials)
        print(f"{len(trials)} runs in {arguments.out}, {done} of them finished")
        failed = run_all(
            trials,
            arguments.out,
            arguments.at_once,
            arguments.address,
            arguments.prune,
            arguments.gpus,
        )
        table, best = finish(trials, swept, arguments.out, arguments.metric)
    except KeyboardInterrupt:
        print("\nsweep.py: stopped; run the same command to continue", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"sweep.py: {error}")
    print(summarised(table, swept, arguments.metric).to_string())
    print(f"best {arguments.metric}: {best} (best.json); all numbers: {arguments.out}/sweep.csv")
    for name, why in failed.items():
        print(f"failed twice: {name}: {why}", file=sys.stderr)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
