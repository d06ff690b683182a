"""Encodes an archive of images of any size into one Parquet table: a row for each image.

The files are encoded in parts. A part is a file whose name identifies its input (the weights, the
directions, the files' sizes and dates), so that an interrupted encoding is resumed. Parts are
encoded one after the other on this machine, or by Ray on all machines that see the same folders.
Finally they are joined into one table, which is made again when any file, weight or direction has
changed.
"""

import hashlib
import importlib.util
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import config
import train
from analysis.directions import Direction
from nn import metrics
from nn.batches import as_float, rows_at_a_time
from sources import decoding, files
from storage import checkpoints, cluster, disk, runs

PART = 2**27  # bytes of images in a part
MOST_FILES = 2048  # in a part
CORES = 2  # of a worker without a GPU
MARK = b"latent_atlas"  # key of the input's hash in the table's metadata
POSTERIOR = ("z_mean", "z_log_var")  # columns of the table
NO_ARROW = "a Parquet table needs pyarrow: pip install pyarrow"
NO_RAY = 'other machines are reached through Ray: pip install "ray[data]"'


def reading_of(run, bits=0) -> decoding.Reading:
    """How files are read into images like those that a run was trained on.

    Args:
        run: Run folder.
        bits: Bit depth of pictures if the run does not record it; see `decoding.Reading`.
    """
    settings, origin = runs.load_settings(run), runs.origin_of(run)
    return decoding.Reading.of(settings, origin and origin.bits or bits)


def names_in(folder) -> list[str]:
    """Names of the images below a folder; an error if it is not a folder or has none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    names = files.listed(folder)
    if not names:
        raise ValueError(
            f"{folder} contains no image; looked for {', '.join(decoding.PICTURES)}, ..."
        )
    return names


@dataclass(frozen=True)
class Task:
    """What to do with every file, as plain values that can be sent to any machine.

    Args:
        run: Run folder.
        folder: Of images.
        directions: Files of `Direction.save`.
        bits: Bit depth of pictures deeper than 8 bits; 0: the run's, or found from the files.
    """

    run: str
    folder: str
    directions: tuple[str, ...] = ()
    bits: int = 0

    def checked(self):
        """The same with absolute paths and known bits, which are valid on every machine.

        Raises:
            ValueError: if a direction is of another latent, or two have one name.
        """
        settings = runs.load_settings(self.run)
        if settings.normalize != "none":
            raise ValueError(
                f"{self.run} has normalize = {settings.normalize!r}, which needs all images of a "
                "subject at once; an archive is read in parts. Use apply.py without --to"
            )
        known = settings.latent_dim, checkpoints.digest_of(self.run)
        whole = {str(Path(path).resolve()): None for path in self.directions}
        names = [Direction.load(path, *known).name for path in whole]
        if len(set(names)) < len(names):
            raise ValueError(f"two directions have the same name: {', '.join(names)}")
        reading = reading_of(self.run, self.bits)
        reading = files.with_bits(self.folder, names_in(self.folder), reading, config.CACHE_DIR)
        run, folder = (str(Path(each).resolve()) for each in (self.run, self.folder))
        return Task(run, folder, tuple(whole), reading.bits)

    def digest(self):
        """Hash of everything that a row depends on except its file."""
        content = hashlib.sha256()
        for path in (Path(self.run) / checkpoints.WEIGHTS, *self.directions):
            content.update(checkpoints.sha256(path).encode())
        content.update(repr(reading_of(self.run, self.bits)).encode())
        # Once a missing reader is installed, files that were skipped are read.
        content.update("".join(decoding.missing_readers()).encode())
        return content.hexdigest()


class Encoder:
    """Turns files into rows; each process has one."""

    def __init__(self, task):
        settings = runs.load_settings(task.run)
        self.folder, self.reading = Path(task.folder), reading_of(task.run, task.bits)
        self.model = train.load(task.run)
        self.directions = [Direction.load(path) for path in task.directions]
        self.axes = self.model.latent_dim
        self.columns = [
            "error",
            *(["label", "confidence"] if self.model.uses_labels else []),
            *(f"along {each.name}" for each in self.directions),
        ]
        signature = [tf.TensorSpec((None, *settings.image_shape), tf.uint8)]
        self.measure = tf.function(self._measure, input_signature=signature, autograph=False)
        # With many more threads than cores, small files wait for each other instead of the disk.
        self.pool = ThreadPoolExecutor((os.cpu_count() or 1) + 1)

    def _measure(self, images):
        """The columns of a batch and its posterior, `(batch, columns + 2 latent_dim)`."""
        z_mean, z_log_var, made = self.model.describe(images)
        found = [metrics.mse(as_float(images), made)]
        if self.model.uses_labels:
            shares = self.model.classify(images)
            found += [tf.cast(tf.argmax(shares, -1), tf.float32), tf.reduce_max(shares, -1)]
        for each in self.directions:
            unit = tf.constant(each.vector / each.spread, tf.float32)
            found.append(tf.linalg.matvec(z_mean, unit))
        return tf.concat([tf.stack(found, axis=1), z_mean, z_log_var], axis=1)

    def _read(self, names):
        """Images of each file, or the reason why it cannot be read."""
        found = []
        for name in names:
            try:
                found.append((name, decoding.read(f"{self.folder}/{name}", self.reading), ""))
            except decoding.BadFile as error:
                found.append((name, (), str(error)))
        return found

    def read(self, names):
        """Starts to read files in threads; returns the argument of `rows`."""
        groups = [names[at : at + files.TASK] for at in range(0, len(names), files.TASK)]
        return self.pool.map(self._read, groups)

    def rows(self, reading):
        """The rows of some files.

        Args:
            reading: From `read`.

        Returns:
            `(table, bad)`: a row for each image with `file`, `slice`, the columns and the
                posterior, which has a column for each axis, or, if the latent is a map, two columns
                of vectors; and a list of `(name, reason)` of the files that cannot be read.
        """
        size, known = rows_at_a_time((None, *self.reading.image_shape)), len(self.columns)
        places, bad, waiting = [], [], []
        made = [np.zeros((0, known + 2 * self.axes), np.float32)]

        def measure_waiting():
            images = np.concatenate(waiting)
            for start in range(0, len(images), size):
                made.append(self.measure(tf.constant(images[start : start + size])).numpy())
            waiting.clear()

        for group in reading:  # the threads continue while a batch is encoded
            for name, images, reason in group:
                if reason:
                    bad.append((name, reason))
                else:
                    waiting.append(images)
                    places += [(name, number) for number in range(len(images))]
            if sum(map(len, waiting)) >= size:
                measure_waiting()
        if waiting:
            measure_waiting()
        made = np.concatenate(made)
        table = pd.DataFrame(made[:, :known], columns=self.columns)
        for name, z in zip(POSTERIOR, np.split(made[:, known:], 2, axis=1), strict=True):
            if self.model.latent_map:
                table[name] = list(z)
            else:
                names = [f"{name}_{axis}" for axis in range(self.axes)]
                table = pd.concat([table, pd.DataFrame(z, columns=names)], axis=1)
        table.insert(0, "file", [name for name, _ in places])
        table.insert(1, "slice", np.array([number for _, number in places], np.int32))
        return table, bad

    def write(self, part, reading):
        """Writes a part's file, and then its list of bad files, which marks it as complete."""
        import pyarrow
        from pyarrow import parquet

        table, bad = self.rows(reading)
        kinds = {"file": pyarrow.string(), "slice": pyarrow.int32(), "label": pyarrow.int32()}
        kinds |= dict.fromkeys(POSTERIOR, pyarrow.list_(pyarrow.float32(), self.axes))
        kinds = [(name, kinds.get(name, pyarrow.float32())) for name in table.columns]
        schema = pyarrow.schema(kinds)  # the same for a part without any readable file
        rows = pyarrow.Table.from_pandas(table, schema=schema, preserve_index=False)
        with disk.replacing(part) as temporary:
            parquet.write_table(rows, temporary)
        disk.write_json(_bad_of(part), bad)


def encode(task, to, address=None, told=True):
    """Writes the table of an archive.

    Args:
        task: `Task`.
        to: Path of the Parquet file; the parts are stored next to it until it is complete. Files
            that cannot be read are listed in a CSV file next to it.
        address: Of a Ray cluster, or `"local"` for the cores or GPUs of this machine; None: no Ray.
        told: Whether to show progress.

    Returns:
        `(rows, bad)`: the number of images, and a table with the `file` and `reason` of those
            skipped.

    Raises:
        ImportError: if pyarrow or Ray is missing, with the command to install it.
        ValueError: if no image can be read, or a direction is of another latent.
        FileExistsError: if the file exists and is another table.
    """
    needed = {"pyarrow": NO_ARROW} | ({"ray": NO_RAY} if address else {})
    for package, line in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ImportError(line)
    from pyarrow import parquet

    task, to = task.checked(), Path(to).absolute()
    parts = _planned(task, to)
    mark = hashlib.sha256("".join(path.name for path in parts).encode()).hexdigest()
    if _mark_of(to) != mark:
        missing = {path: names for path, names in parts.items() if not _bad_of(path).exists()}
        if told and len(missing) < len(parts):
            print(f"{len(parts) - len(missing)} of {len(parts)} parts exist already")
        if missing and address:
            _on_ray(task, missing, address)
        elif missing:
            _here(task, missing, told)
        _join(parts, to, mark)
    listed = _list_beside(to)
    bad = pd.read_csv(listed) if listed.exists() else pd.DataFrame(columns=["file", "reason"])
    return parquet.read_metadata(to).num_rows, bad


def _mark_of(to):
    """Hash of the input that a table was made from; None if there is no table yet."""
    from pyarrow import parquet

    if not to.exists():
        return None
    known = parquet.read_schema(to).metadata or {}
    if MARK not in known:
        raise FileExistsError(f"{to} was not made by this project; give another file")
    return known[MARK].decode()


def _bad_of(part):
    return part.with_suffix(".json")


def _list_beside(to):
    return to.with_suffix(".bad.csv")


def _planned(task, to):
    """The parts' paths, each with the names of its files."""
    names, digest = names_in(task.folder), task.digest()
    size = math.prod(runs.load_settings(task.run).image_shape)
    size = max(1, min(MOST_FILES, PART // size))
    parts = {}
    for at in range(0, len(names), size):
        own = names[at : at + size]
        marks = [(name, files.mark(f"{task.folder}/{name}")) for name in own]
        content = hashlib.sha256(f"{digest} {marks}".encode()).hexdigest()[:16]
        name = f"{at // size:05d}-{content}.parquet"
        parts[to.with_name(f"{to.name}.parts") / name] = own
    return parts


def _here(task, parts, told):
    bar = keras.utils.Progbar(
        sum(map(len, parts.values())), verbose=int(told), unit_name="file", interval=1
    )
    encoder = Encoder(task)
    begun = map(encoder.read, parts.values())
    following = next(begun)
    for path, names in parts.items():
        reading, following = following, next(begun, None)  # is read while this one is encoded
        encoder.write(path, reading)
        bar.add(len(names))


def _on_ray(task, parts, address):
    """A worker for every GPU, or every `CORES` cores, each with its own model."""
    import ray

    class Worker:
        def __init__(self):
            self.encoder = Encoder(task)

        def __call__(self, batch):
            for part in batch["part"]:
                reading = self.encoder.read(parts[Path(part)])
                self.encoder.write(Path(part), reading)
            return {"part": batch["part"]}

    with cluster.joined(address, CORES) as (gpus, cores):
        need = {"num_gpus": 1} if gpus else {"num_cpus": min(CORES, cores)}
        workers = gpus or max(1, cores // CORES)
        # Blocks are made here, one for each part: tasks for them would wait for the pool's cores.
        paths = [{"part": str(path)} for path in parts]
        rows = ray.data.from_items(paths, override_num_blocks=len(parts)).materialize()
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(parts)))
        rows.map_batches(Worker, batch_size=1, compute=pool, **need).materialize()


def _join(parts, to, mark):
    """Joins the parts into one file, in their order, and deletes them."""
    from pyarrow import parquet

    bad = [each for path in parts for each in json.loads(_bad_of(path).read_text())]
    schema = parquet.read_schema(next(iter(parts)))
    schema = schema.with_metadata(schema.metadata | {MARK: mark.encode()})
    images = sum(parquet.read_metadata(path).num_rows for path in parts)
    if not images:
        name, reason = bad[0]
        raise ValueError(f"none of {len(bad)} files can be used; {name}: {reason}")
    if bad:
        with disk.replacing(_list_beside(to)) as temporary:
            pd.DataFrame(bad, columns=["file", "reason"]).to_csv(temporary, index=False)
    else:
        disk.remove(_list_beside(to))
    with disk.replacing(to) as temporary:
        with parquet.ParquetWriter(temporary, schema) as writer:
            for path in parts:
                writer.write_table(
                    parquet.read_table(path).replace_schema_metadata(schema.metadata)
                )
    disk.remove(next(iter(parts)).parent)
