"""Reads folders of image files into one uint8 array; each file is decoded once and cached.

The main function is `gather`. It decodes new files (in threads, by `decoding.read`) and writes them
into an array in a cache folder; the next call with the same files reads only their sizes and dates.
"""

import errno
import hashlib
import json
import math
import mmap
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from filelock import FileLock

from sources import decoding
from sources.decoding import BadFile, NoReader
from storage import disk

KINDS = decoding.PICTURES + decoding.VOLUMES + decoding.DICOM
UNREAD = (".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".raw", ".cr2", ".nef", ".dng")
NOT_TEXT = "has a name that is not UTF-8; rename it"
NAMED = 10  # bad files that an error lists
TASK = 32  # files that a thread takes at a time
VERSION = 5  # of the results of `decoding.read`; a new version invalidates old caches


class BadFiles(ValueError):
    """Files that cannot be used, with their reasons."""


class Rows:
    """Some rows of an array on disk, read on request and not kept in memory.

    Behaves like the array `(n, height, width, channels)` for indexing, `len`, `shape` and
    iteration. A plain memory map would keep every page that was read in this process's memory.
    """

    def __init__(self, array: np.memmap, rows):
        self._array = array
        self._rows = np.asarray(rows)
        self.shape = (len(self._rows), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, wanted):
        taken = np.take(np.asarray(self._array), self._rows[wanted], axis=0)  # always a copy
        if hasattr(mmap, "MADV_DONTNEED"):
            self._array._mmap.madvise(mmap.MADV_DONTNEED)
        return taken

    def only(self, rows):
        """Some of these rows, still on disk."""
        return Rows(self._array, self._rows[rows])

    def __iter__(self):
        return (self[row] for row in range(len(self)))

    @property
    def nbytes(self):
        return len(self) * int(np.prod(self.shape[1:]))


def listed(folder, kinds=KINDS) -> list[str]:
    """Names of all files of the given kinds below a folder, relative to it, sorted.

    Folders that are links are entered, once. Images of formats that are not read are counted in a
    printed line.

    Raises:
        BadFiles: if folders cannot be entered; they are named.
    """
    found, other, closed, entered = [], Counter(), [], set()
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # a link to a folder that was entered before
            folders.clear()
            continue
        entered.add(real)
        below = Path(place).relative_to(folder).as_posix()
        for name in names:
            if name.startswith("."):
                continue
            if decoding.suffix(name) in kinds:
                found.append(name if below == "." else f"{below}/{name}")
            elif decoding.suffix(name) in UNREAD:
                other[decoding.suffix(name)] += 1
    if closed:
        lines = [f"  {error.filename}: {error.strerror}" for error in closed[:NAMED]]
        raise BadFiles(f"{folder}: {len(closed)} folders cannot be read:\n" + "\n".join(lines))
    if other:
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(other.items()))
        print(f"{folder}: left out, of formats that are not read: {counts}")
    return sorted(found)


def gather(root, names, reading, cache, on_bad_file="stop", in_memory=2**29):
    """All images of the named files, in their order.

    Args:
        root: Folder that the names are relative to.
        names: Relative paths.
        reading: `decoding.Reading`; missing bits of deep pictures are found from the files.
        cache: Folder of the decoded arrays; made if it is missing.
        on_bad_file: `"stop"` with a list of names and reasons, or `"skip"` and report their number.
        in_memory: Bytes up to which the images are held in memory.

    Returns:
        `(images, table)`: uint8 `(n, height, width, channels)`, an array or `Rows`; and a table of
        n rows, `file` (its name), `slice` (number within the file) and `digest` of the pixels.

    Raises:
        BadFiles: if files cannot be used; each is named with the reason, and what to do.
    """
    root, cache = Path(root), Path(cache)
    reading = with_bits(root, names, reading, cache)
    cache.mkdir(parents=True, exist_ok=True)
    key = f"{VERSION} {root.resolve()} {reading}"
    base = cache / hashlib.blake2s(os.fsencode(key), digest_size=10).hexdigest()
    total, bad = len(names), [(ascii(name), NOT_TEXT) for name in names if not _is_text(name)]
    names = [name for name in names if _is_text(name)]
    disk.remove_left(cache)
    with FileLock(f"{base}.lock"):
        known, array = _remembered(base, reading)
        marks = {name: mark(root / name) for name in names}
        fresh = [name for name in names if name not in known or known[name]["mark"] != marks[name]]
        damaged = _damaged(known, array, sorted(set(names) - set(fresh)))
        if damaged:
            print(f"{cache}: {len(damaged)} decoded files were damaged and are decoded again")
        if fresh or damaged:
            fresh = [name for name in names if name in {*fresh, *damaged}]
            known, array = _decoded(root, base, reading, known, array, fresh, marks)
    bad += [(name, known[name]["reason"]) for name in names if known[name]["reason"]]
    if bad:
        _tell(root, bad, total, on_bad_file)
    parts = []
    for name in names:
        entry = known[name]
        for number, digest in enumerate(entry["digests"]):
            parts.append((name, number, digest, entry["first"] + number))
    if not parts:
        raise BadFiles(f"{root}: none of {total} files can be used")
    table = pd.DataFrame(parts, columns=["file", "slice", "digest", "row"])
    numbers = table.pop("row").to_numpy()
    rows = Rows(array, numbers)
    if rows.nbytes > in_memory:
        return rows, table
    if np.array_equal(numbers, np.arange(len(array))):
        return np.load(array.filename), table  # several times as fast as to copy a memory map
    return rows[:], table


def with_bits(root, names, reading, cache) -> decoding.Reading:
    """A reading with the bits of deep pictures: its own, or those that `bits_of` finds.

    Args:
        root, names, reading, cache: See `gather`.
    """
    return reading if reading.bits else replace(reading, bits=bits_of(root, names, cache))


def bits_of(root, names, cache) -> int:
    """Bit depth of the deep pictures of a folder, the same range for all of them.

    Pictures of 10, 12 or 14 bits are stored in files of 16, so a file does not record its depth.
    The result is the smallest number of bits for the largest value in the folder. Only pictures
    deeper than 8 bits are decoded for this, once; the results are cached by size and date.

    Args:
        root, names, cache: See `gather`.

    Returns:
        8 to 32, or 0 if no file is deeper than 8 bits.
    """
    root, cache = Path(root), Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.blake2s(f"bits {root.resolve()}".encode(), digest_size=10).hexdigest()
    index = cache / f"{key}.bits.json"
    deep = [name for name in names if decoding.suffix(name) in decoding.DEEP]
    with FileLock(f"{index}.lock"):
        try:
            known = json.loads(index.read_text())
            known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            known = {}
        marks = {name: mark(root / name) for name in deep}
        fresh = [name for name in deep if name not in known or known[name][0] != marks[name]]
        if fresh:
            found = _in_threads(lambda name: decoding.bits_of(root / name), fresh)
            known |= {name: [marks[name], bits] for name, bits in zip(fresh, found, strict=True)}
            disk.write_json(index, known)
    return max((known[name][1] for name in deep), default=0)


def _in_threads(work, names):
    """Results of `work` for each name, in their order.

    Pillow decodes without the GIL, so processes would be no faster. One task for each file would
    take half as much time again.
    """
    parts = [names[first : first + TASK] for first in range(0, len(names), TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for results in pool.map(lambda part: [work(name) for name in part], parts):
            yield from results


def _tell(root, bad, total, on_bad_file):
    if on_bad_file == "skip":
        print(f"{root}: left out {len(bad)} of {total} files that cannot be read")
        return
    lines = [f"  {name}: {reason}" for name, reason in bad[:NAMED]]
    if len(bad) > NAMED:
        lines.append(f"  and {len(bad) - NAMED} more")
    raise BadFiles(
        f"{root}: {len(bad)} of {total} files cannot be used:\n"
        + "\n".join(lines)
        + '\nRepair or remove them, or set on_bad_file="skip" to leave them out'
    )


# --- the cache -----------------------------------------------------------------------------------


def mark(path):
    """Size and modification time of a file, which show whether it has changed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _remembered(base, reading):
    """Content of the cache: an entry per file, and the array; empty if it is not usable."""
    index = base.with_suffix(".json")
    if not index.exists():
        return {}, None
    try:
        written = json.loads(index.read_text())
        array = np.load(base.with_name(Path(written["array"]).name), mmap_mode="r")
        whole = array.shape == (written["rows"], *reading.image_shape) and array.dtype == np.uint8
        for entry in written["files"].values():
            count = len(entry["digests"])
            whole &= entry["first"] + count <= len(array) and {"mark", "reason"} <= set(entry)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError):
        whole = False
    if not whole:
        print(f"{index} is damaged; the files are decoded again")
        return {}, None
    return written["files"], array


def _damaged(known, array, names):
    """The files whose decoded images in the cache were damaged."""

    def is_damaged(name):
        entry = known[name]
        first, digests = entry["first"], entry["digests"]
        return [digest(array[first + row]) for row in range(len(digests))] != digests

    if not names:
        return []
    found = _in_threads(is_damaged, names)
    damaged = [name for name, is_so in zip(names, found, strict=True) if is_so]
    if hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)
    return damaged


def _is_text(name):
    """Whether a name is UTF-8 and can be written into a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(root, base, reading, known, array, fresh, marks):
    """A new array with the valid rows of the old one and the newly decoded files.

    It is written under another name and renamed when complete, then the index that points to it. If
    the process is killed, the old or the new pair remains.
    """
    kept = {name: entry for name, entry in known.items() if name not in set(fresh)}
    entries, first = {}, 0
    for name, entry in kept.items():
        entries[name] = entry | {"first": first}
        first += len(entry["digests"])
    counts = {}
    for name in fresh:
        own, count, reason = marks[name], 0, ""
        try:
            count = decoding.count(root / name, reading)
        except NoReader as error:
            own, reason = None, str(error)  # tried again once it is installed
        except BadFile as error:
            reason = str(error)
        entries[name] = {"mark": own, "first": first, "digests": [], "reason": reason}
        counts[name] = count
        first += count

    part = base.with_name(f"{base.name}-{os.getpid()}.part")
    shape = (first, *reading.image_shape)
    try:
        made = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        disk.reserve(part, made.offset)  # a memory map larger than the disk would kill the process
    except OSError as error:
        disk.remove(part)
        size, free = math.prod(shape) / 1e6, shutil.disk_usage(part.parent).free / 1e6
        raise OSError(
            error.errno or errno.ENOSPC,
            f"the decoded images need {size:,.0f} MB and only {free:,.0f} MB are free; free "
            "space, or set CACHE_DIR to another disk",
            str(part.parent),
        ) from error
    for name, entry in kept.items():
        old, new = entry["first"], entries[name]["first"]
        count = len(entry["digests"])
        made[new : new + count] = array[old : old + count]

    _decode(root, made, entries, fresh, reading, counts)
    made.flush()
    del made
    name = f"{base.name}-{hashlib.blake2s(repr(entries).encode(), digest_size=6).hexdigest()}.npy"
    os.replace(part, base.with_name(name))
    written = {"array": name, "rows": first, "files": entries}
    temporary = base.with_suffix(".json.part")
    temporary.write_text(json.dumps(written))
    os.replace(temporary, base.with_suffix(".json"))
    for old in base.parent.glob(f"{base.name}-*.npy"):
        if old.name != name:
            old.unlink()
    return _remembered(base, reading)


def _decode(root, made, entries, fresh, reading, counts):
    """Decodes the new files; stores digests, or the reason for a bad file."""

    def decode(name):
        entry = entries[name]
        if entry["reason"]:
            return
        try:
            images = decoding.read(root / name, reading)
            if len(images) != counts[name]:
                raise NoReader("changed while it was read")
        except BadFile as error:
            entry["reason"] = str(error)
            if isinstance(error, NoReader):
                entry["mark"] = None  # tried again once it is installed
            return
        made[entry["first"] : entry["first"] + len(images)] = images
        entry["digests"] = [digest(image) for image in images]

    bar = keras.utils.Progbar(len(fresh), unit_name="file", verbose=len(fresh) > 2000, interval=1)
    for done, _ in enumerate(_in_threads(decode, fresh), 1):
        if done % TASK == 0 or done == len(fresh):
            bar.update(done)


def digest(image) -> str:
    """Short hash of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16]
