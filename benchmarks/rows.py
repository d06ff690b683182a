"""A table of results that can be resumed, and the runs behind its rows."""

import shutil
import time
from pathlib import Path

import keras
import pandas as pd

import train
from families import registry
from storage import checkpoints, disk


def resumable(path, todo, measure) -> pd.DataFrame:
    """Fills a table row by row; rows that it holds are not measured again.

    Args:
        path: CSV file, read if it exists and written after every row.
        todo: Dictionaries of the columns that identify each row.
        measure: Takes such a dictionary, returns one of further columns.

    Returns:
        The table.
    """
    path = Path(path)
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = [{name: row.get(name) for name in todo[0]} for row in rows]
    for key in todo:
        if key in done:
            continue
        rows.append(key | measure(key))
        print({name: _short(value) for name, value in rows[-1].items()}, flush=True)
        with disk.replacing(path) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.5g")
        keras.backend.clear_session()
    return pd.DataFrame(rows)


def trained(settings, images, run):
    """Trains a model into the folder `run`; an unfinished run starts from the beginning.

    Returns:
        The model, and the CPU seconds of training.
    """
    shutil.rmtree(run, ignore_errors=True)
    model = registry.from_settings(settings)
    start = time.process_time()
    train.fit(model, images, settings, run, verbose=0)
    return model, round(time.process_time() - start)


def continued(settings, images, run):
    """The model of the folder `run`, which is trained, or trained on, unless it is finished."""
    history = run / "history.csv"
    if not history.exists() or len(pd.read_csv(history)) < settings.epochs:
        model = registry.from_settings(settings, registry.conditions_of(settings, images))
        train.fit(model, images, settings, run, verbose=0, resume=checkpoints.begun(run))
    return train.load(run)


def _short(value):
    return value if isinstance(value, str | int) else round(float(value), 4)
