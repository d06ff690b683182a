"""Image files of any kind into one uint8 array: each checked and decoded once, then remembered.

`gather` is the way in. It decodes what it has not seen before (in threads), brings it to one shape
and writes it into an array in a cache folder; the next call with the same files reads nothing but
their sizes and dates. Nothing about a file is trusted: what cannot be read is named with a reason.
"""

import errno
import gzip
import hashlib
import importlib.util
import itertools
import json
import math
import mmap
import os
import shutil
import stat
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError

from storage import disk

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")
UNREAD = (".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".raw", ".cr2", ".nef", ".dng")
DICOM = (".dcm", ".dicom")
DEEP = (".png", ".tif", ".tiff")  # what may hold more than 8 bits
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # by content, whatever the name says
READERS = ("nibabel", "pydicom", "pylibjpeg", "jpeg_ls")
MAX_PIXELS = 64_000_000  # four times the largest radiograph; a decompression bomb claims more
MAX_BYTES = 2**28 + 2**20  # of a volume or DICOM file: 512 x 512 x 512 in 16 bits, and a header
NOT_TEXT = "has a name that is not UTF-8; rename it"
NAMED = 10  # bad files that an error lists
TASK = 32  # files that a thread takes at a time
FITS = ("crop", "stretch", "pad")
VERSION = 4  # of what `read` makes of a file; a new one makes old caches worthless


class BadFile(ValueError):
    """One file that cannot be used; the message is the reason alone."""


class NoReader(BadFile):
    """A file that can be read another day, so that it is not remembered as bad.

    Its reader is not installed, and the message says what to type; or the system refused it.
    """


class BadFiles(ValueError):
    """Files that cannot be used, named with their reasons."""


@dataclass(frozen=True)
class Reading:
    """How files become images.

    Args:
        image_shape: `(height, width, channels)`; colour becomes grey where channels is 1.
        fit: What happens to another aspect ratio: `"crop"` the longer side around the middle,
            `"stretch"`, or `"pad"` with black.
        axis: Of a NIfTI volume, the axis along which it is cut into slices (2 is axial).
        span: Which slices, as shares of that axis.
        bits: Of pictures deeper than 8 bits: values from 0 to `2**bits - 1` become grey levels. 0:
            as many as hold the largest value of the file, which differs from file to file; for a
            folder see `bits_of`.
    """

    image_shape: tuple[int, int, int]
    fit: str = "crop"
    axis: int = 2
    span: tuple[float, float] = (0.35, 0.65)
    bits: int = 0


class Rows:
    """Chosen rows of an array on disk, read when asked for and then let go.

    Behaves like the array `(n, height, width, channels)` where it is indexed, measured or walked
    through. A plain memory map would keep every page that was ever touched in this process.
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


def suffix(name) -> str:
    """The ending that tells the kind of a file, in lower case: `.png`, `.nii.gz`, ..."""
    name = str(name).lower()
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]


def listed(folder, kinds=PICTURES + VOLUMES + DICOM) -> list[str]:
    """Names of all files of the given kinds below a folder, relative to it, sorted.

    Folders that are links are entered, once. Images of kinds that are not read are counted in a
    printed line.

    Raises:
        BadFiles: naming the folders that cannot be entered.
    """
    found, other, closed, entered = [], Counter(), [], set()
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # a link back to where we came from
            folders.clear()
            continue
        entered.add(real)
        below = Path(place).relative_to(folder).as_posix()
        for name in names:
            if name.startswith("."):
                continue
            if suffix(name) in kinds:
                found.append(name if below == "." else f"{below}/{name}")
            elif suffix(name) in UNREAD:
                other[suffix(name)] += 1
    if closed:
        lines = [f"  {error.filename}: {error.strerror}" for error in closed[:NAMED]]
        raise BadFiles(f"{folder}: {len(closed)} folders cannot be read:\n" + "\n".join(lines))
    if other:
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(other.items()))
        print(f"{folder}: left out, of kinds that are not read: {counts}")
    return sorted(found)


def missing_readers() -> list[str]:
    """Packages that read some kinds of files and are not installed."""
    return [name for name in READERS if importlib.util.find_spec(name) is None]


def gather(root, names, reading, cache, on_bad_file="stop", in_memory=2**29):
    """All images of the named files, in their order.

    Args:
        root: Folder that the names are relative to.
        names: Relative paths.
        reading: `Reading`.
        cache: Folder of the decoded arrays; made where missing.
        on_bad_file: `"stop"` with a list of names and reasons, or `"skip"` them and say how many.
        in_memory: Bytes up to which the images are held in memory.

    Returns:
        `(images, table)`: uint8 `(n, height, width, channels)`, an array or `Rows`; and a table of
        n rows, `file` (its name), `slice` (number within the file) and `digest` of the pixels.

    Raises:
        BadFiles: naming the files, what is wrong with each, and what to do.
    """
    root, cache = Path(root), Path(cache)
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
        raise BadFiles(f"{root}: not one of {total} files can be used")
    table = pd.DataFrame(parts, columns=["file", "slice", "digest", "row"])
    rows = Rows(array, table.pop("row").to_numpy())
    return (rows[:] if rows.nbytes <= in_memory else rows), table


def bits_of(root, names, cache) -> int:
    """How many bits the deep pictures of a folder have: one range for all of them.

    Pictures of 10, 12 or 14 bits come in files of 16, so the file does not say it. The largest
    value in the whole folder does: the smallest number of bits that holds it. Only pictures deeper
    than 8 bits are decoded for it, and once; what they hold is remembered by size and date.

    Args:
        root, names, cache: See `gather`.

    Returns:
        8 to 32, or 0 where no file is deeper than 8 bits.
    """
    root, cache = Path(root), Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.blake2s(f"bits {root.resolve()}".encode(), digest_size=10).hexdigest()
    index = cache / f"{key}.bits.json"
    deep = [name for name in names if suffix(name) in DEEP]
    with FileLock(f"{index}.lock"):
        try:
            known = json.loads(index.read_text())
            known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            known = {}
        marks = {name: mark(root / name) for name in deep}
        fresh = [name for name in deep if name not in known or known[name][0] != marks[name]]
        if fresh:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda name: _bits(root / name), fresh, chunksize=TASK)
                known |= {
                    name: [marks[name], bits] for name, bits in zip(fresh, found, strict=True)
                }
            disk.write_json(index, known)
    return max((known[name][1] for name in deep), default=0)


def _bits(path):
    """Bits of a deep picture, at least 8; 0 for others and for what cannot be read."""
    try:
        _check(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or not _is_deep(image):
                return 0
            values = np.asarray(image)
    except Exception:  # whatever is wrong with it, `read` says it
        return 0
    high = values.max(initial=0)
    if not (np.isfinite(high) and _whole(values)):
        return 0
    return max(8, int(high).bit_length())


def _is_deep(image):
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _whole(values):
    """Whether numbers are counts rather than shares from 0 to 1."""
    if not np.issubdtype(values.dtype, np.floating):
        return True
    return values.max() > 1 and all(np.array_equal(row, np.round(row)) for row in values)


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
    """What tells that a file is still the one that was read: size and time of change."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _remembered(base, reading):
    """What the cache holds: an entry per file, and the array; empty where it holds nothing good."""
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
    """Those of some files whose decoded images are not those that were written."""

    def is_damaged(name):
        entry = known[name]
        first, digests = entry["first"], entry["digests"]
        return [digest(array[first + row]) for row in range(len(digests))] != digests

    if not names:
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases Python's lock
        found = pool.map(is_damaged, names, chunksize=TASK)
        damaged = [name for name, is_so in zip(names, found, strict=True) if is_so]
    if hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)
    return damaged


def _is_text(name):
    """Whether a name can be written into a table: not where its bytes are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(root, base, reading, known, array, fresh, marks):
    """A new array: the rows that are still good copied, the fresh files decoded.

    Written under another name and renamed when complete, then the index that points to it; a kill
    at any moment leaves the old pair or the new one.
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
            count = _count(root / name, reading)
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
        disk.reserve(part, made.offset)  # a map that outgrows the disk would kill the process
    except OSError as error:
        disk.remove(part)
        size, free = math.prod(shape) / 1e6, shutil.disk_usage(part.parent).free / 1e6
        raise OSError(
            error.errno or errno.ENOSPC,
            f"the decoded images need {size:,.0f} MB and {free:,.0f} MB are free; make room, or "
            "set CACHE_DIR to another disk",
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
    """Fills the rows of the fresh files, in threads; notes digests, or the reason of a bad file."""

    def decode(name):
        entry = entries[name]
        if entry["reason"]:
            return
        try:
            images = read(root / name, reading)
            if len(images) != counts[name]:
                raise NoReader("changed while it was read")
        except BadFile as error:
            entry["reason"] = str(error)
            if isinstance(error, NoReader):
                entry["mark"] = None  # tried again once it is installed
            return
        made[entry["first"] : entry["first"] + len(images)] = images
        entry["digests"] = [digest(image) for image in images]

    def decode_all(part):
        for name in part:
            decode(name)
        return len(part)

    # Pillow decodes outside Python's lock; one task for every file would cost half as much again.
    parts = [fresh[first : first + TASK] for first in range(0, len(fresh), TASK)]
    long = len(fresh) > 2000
    bar = keras.utils.Progbar(len(fresh), unit_name="file", verbose=long, interval=1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in itertools.accumulate(pool.map(decode_all, parts)):
            bar.update(done)


def digest(image) -> str:
    """Short hash of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16]


# --- one file ------------------------------------------------------------------------------------


def _count(path, reading):
    """How many images a file holds, from its header alone. Raises `BadFile`, as `read` does."""
    if suffix(path) not in VOLUMES:
        return 1
    with _only_bad_files(path):
        header, _ = _nifti(path, whole=False)
        values = np.broadcast_to(np.uint8(0), header.get_data_shape())  # takes no memory
        return len(_slices(_upright(values, header), reading))


def read(path, reading):
    """The images of one file.

    Pictures, DICOM files: one image; NIfTI volumes: one for each slice of `reading.span`. Alpha is
    dropped, palettes are resolved, EXIF rotation is applied. Values beyond 8 bits are scaled by
    `2**bits - 1`, see `Reading`, so that 12-bit data in a 16-bit file are not black. DICOM files
    are windowed as they say, MONOCHROME1 is inverted; volumes are scaled between their 0.5 and 99.5
    percentiles. Checksums are verified where a format has them.

    What a file claims is checked before it is decoded: a picture has at most `MAX_PIXELS` pixels; a
    volume and a DICOM file at most `MAX_BYTES` bytes, inflated. So no file takes much more than
    1 GB of memory, and most of the largest take half of that.

    Returns:
        uint8 `(images, height, width, channels)`.

    Raises:
        BadFile: with the reason, whatever is wrong.
    """
    with _only_bad_files(path):
        if suffix(path) in VOLUMES:
            images = list(_volume_images(path, reading))
        elif suffix(path) in DICOM:
            images = [fitted(_dicom(path), reading)]
        else:
            images = [fitted(_picture(path, reading.bits), reading)]
        return np.stack(images)


@contextmanager
def _only_bad_files(path):
    """Checks that a path is a file that opens, and makes a `BadFile` of every error that follows.

    Readers raise errors of any kind over damaged files.
    """
    try:
        _check(path)
        yield
    except BadFile:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):
            raise NoReader("needs more memory than is free") from None
        # A seek to where a damaged file points is an invalid argument.
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise NoReader(f"cannot be read ({error.strerror})") from None
        what = "cannot be read as DICOM" if suffix(path) in DICOM else "is damaged"
        raise BadFile(f"{what} ({_said(error)})") from None


def _check(path):
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadFile("is a folder")
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes into it
            raise BadFile("is a pipe, a socket or a device")
        if status.st_size == 0:
            raise BadFile("is empty (0 bytes)")
        open(path, "rb").close()
    except FileNotFoundError:
        raise BadFile("does not exist") from None


def _said(error):
    """The kind of an error and what it says, in one short line."""
    text = "".join(each if each.isprintable() else " " for each in str(error))
    return f"{type(error).__name__}: {' '.join(text.split())}"[:200].removesuffix(": ")


def _picture(path, bits):
    """A Pillow image, of mode F (grey, 0 to 255) where it is deeper than 8 bits."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(f"claims {image.width} x {image.height} pixels, too many to be true")
            if image.format == "TIFF" and image.tag_v2.get(274, 1) > 4:
                raise BadFile("is a TIFF turned by its orientation tag; save it upright")
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise BadFile(f"is no {', '.join(FORMATS)} image ({_beginning(path)})") from None
    except Image.DecompressionBombError:
        raise BadFile("claims more pixels than can be true") from None
    if _is_deep(image):
        values = np.asarray(image)
        del image  # there are never more than two copies of a large picture
        return _grey(values, bits)
    if image.mode == "P":
        image = image.convert("RGBA")
    # Other modes than these would become another grey than that of their colours.
    return image if image.mode in ("1", "L", "LA", "RGB", "RGBA") else image.convert("RGB")


def _beginning(path):
    with open(path, "rb") as file:
        start = file.read(16)
    return f"it begins with {start!r}"


def _grey(values, bits):
    """Numbers beyond 8 bits as a Pillow image of mode F from 0 to 255."""
    if not values.size:
        raise BadFile("has no pixels")
    low, high = values.min().item(), values.max().item()  # NaN where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadFile("has NaN or infinite pixels")
    if low < 0:
        raise BadFile(f"has negative pixels (the lowest is {low:g})")
    integers = _whole(values)
    if not integers and high > 1:
        raise BadFile(f"has fractional pixels up to {high:g}; scale them to 0..1")
    full = 2.0 ** (bits or max(8, int(high).bit_length())) - 1 if integers else 1.0
    if high > full:
        raise BadFile(
            f"has a pixel of {high:g}, beyond the {bits} bits of the images it belongs to"
        )
    scaled = values.astype(np.float32)
    scaled *= 255.0 / full
    return Image.fromarray(scaled)


def fitted(image, reading):
    """A Pillow image, or a uint8 array, as a uint8 array of the shape asked for.

    On the way down every pixel is the mean of the area that it covers, on the way up the
    interpolation is bicubic.
    """
    height, width, channels = reading.image_shape
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    mode = "F" if image.mode == "F" else "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if reading.fit == "crop":
        box, size = crop_box(image.width, image.height, width, height), (width, height)
    else:
        box, size = (0, 0, image.width, image.height), (width, height)
        if reading.fit == "pad":
            scale = max(image.width / width, image.height / height)
            size = (max(round(image.width / scale), 1), max(round(image.height / scale), 1))
    if box != (0, 0, *size):
        smaller = size[0] * size[1] < (box[2] - box[0]) * (box[3] - box[1])
        kind = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
        image = image.resize(size, kind, box=box)
    values = np.asarray(image)
    if values.dtype != np.uint8:
        values = np.round(np.clip(values, 0, 255)).astype(np.uint8)
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, channels))
    rows, columns = height - values.shape[0], width - values.shape[1]
    if rows or columns:
        around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        values = np.pad(values, around)
    return values


def crop_box(width, height, to_width, to_height):
    """The largest box of another aspect ratio in the middle of an image: left, top, right, bottom.

    Args:
        width, height: Of the image, in pixels.
        to_width, to_height: Whose aspect ratio is wanted.
    """
    scale = min(width / to_width, height / to_height)
    across, down = to_width * scale, to_height * scale
    left, top = (width - across) / 2, (height - down) / 2
    # By rounding it may end outside of the image, which Pillow refuses.
    return max(left, 0.0), max(top, 0.0), min(left + across, width), min(top + down, height)


def _slices(upright, reading):
    length = upright.shape[reading.axis]
    first, last = (int(round(share * length)) for share in reading.span)
    chosen = range(first, max(last, first + 1))
    if len(chosen) * math.prod(reading.image_shape) > MAX_BYTES:
        raise BadFile(f"has {len(chosen)} slices, too many to be held at {reading.image_shape}")
    return chosen


def _nifti(path, whole):
    """The header of a NIfTI volume, checked, and the file's content, inflated.

    Args:
        whole: Reads it to its end, where the checksum of a `.nii.gz` stands. Several gzip members
            are one content, as gunzip has it; what follows the last must be zeros.
    """
    try:
        import nibabel
    except ImportError:
        raise NoReader("is NIfTI, for which nibabel is missing: pip install nibabel") from None
    with gzip.open(path) if suffix(path) == ".nii.gz" else open(path, "rb") as stream:
        content = bytearray(stream.read(nibabel.Nifti2Header.sizeof_hdr))
        for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
            if kind.may_contain_header(content):
                break
        else:
            raise BadFile(f"is no NIfTI volume (it begins with {bytes(content[:16])!r})")
        header = kind(bytes(content[: kind.sizeof_hdr]))
        shape, stored = header.get_data_shape(), header.get_data_dtype()
        # No side is longer than NIfTI-1 can say.
        if len(shape) != 3 or not all(0 < side < 2**15 for side in shape):
            raise BadFile(f"has the shape {shape}, not that of one volume")
        if stored.kind not in "iuf":
            raise BadFile(f"has voxels of {header.get_value_label('datatype')}, not numbers")
        start = header.get_data_offset()
        end = start + math.prod(shape) * stored.itemsize
        if end > MAX_BYTES:
            raise BadFile(f"claims {end:,} bytes; up to {MAX_BYTES:,} are read")
        while whole and (chunk := stream.read(2**20)):
            content += chunk
            if len(content) > MAX_BYTES:
                raise BadFile(f"holds more than {MAX_BYTES:,} bytes")
    if whole:
        if len(content) < end:
            raise BadFile(f"is cut off at {len(content):,} of the {end:,} bytes that it claims")
        # Checks the extensions, which go to the end where no start of the voxels is said.
        between = content[:start] if start >= kind.sizeof_hdr + 4 else content
        kind.from_fileobj(BytesIO(between))
    return header, content


def _upright(values, header):
    """A view of a volume's values: axes rightwards, forwards and upwards."""
    from nibabel import orientations

    turned = orientations.io_orientation(header.get_best_affine())
    return orientations.apply_orientation(values, turned)


def _volume_images(path, reading):
    from nibabel.volumeutils import apply_read_scaling

    header, content = _nifti(path, whole=True)
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    stored = np.ndarray(shape, kind, content, header.get_data_offset(), order="F")
    slope, inter = header.get_slope_inter()

    def scaled(values):
        return np.asarray(apply_read_scaling(values, slope, inter), np.float32)

    if not np.isfinite(scaled(np.array([stored.min(), stored.max()]))).all():
        raise BadFile("has NaN or infinite voxels")
    low, high = _range(stored, scaled, falling=slope is not None and slope < 0)
    upright = _upright(stored, header)
    for number in _slices(upright, reading):
        values = scaled(np.moveaxis(upright, reading.axis, 0)[number])
        values = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
        image = Image.fromarray(np.ascontiguousarray(np.rot90(values)))  # the front, or the top, up
        yield fitted(image, reading)


def _range(stored, scaled, falling):
    """The 0.5 and 99.5 percentiles of a volume, as `np.percentile` has them.

    Scales none but the stored values that they lie between: all of them would take four times the
    memory of the volume.

    Args:
        stored: The voxels as the file has them.
        scaled: What makes float32 values of them, in the same order or, where `falling`, the other.
    """
    last = stored.size - 1
    places = [np.float64(last * share) for share in (0.005, 0.995)]
    ranks = [min(int(place) + step, last) for place in places for step in (0, 1)]
    at = [last - rank for rank in ranks] if falling else ranks
    ordered = stored.astype(stored.dtype.newbyteorder("=")).ravel(order="K")
    ordered.partition(at)
    below, above = scaled(ordered[at])[::2], scaled(ordered[at])[1::2]
    shares = np.array([place - int(place) for place in places])
    gap = above - below
    return np.where(shares < 0.5, below + gap * shares, above - gap * (1 - shares))


def _dicom(path):
    """The one image of a DICOM file: a Pillow image of mode F (grey, 0 to 255), or uint8 colour."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise NoReader("is DICOM, for which pydicom is missing: pip install pydicom") from None
    _check_dicom_size(path)
    file = pydicom.dcmread(path)
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(file.dir()):
        raise BadFile("is a DICOM file without an image")
    rows, columns, samples = int(file.Rows), int(file.Columns), int(file.SamplesPerPixel)
    frames = int(file.get("NumberOfFrames") or 1)
    decoder = pixels.get_decoder(file.file_meta.TransferSyntaxUID)
    if frames == 1 and decoder.is_encapsulated:
        encoded = list(pydicom.encaps.generate_frames(file.PixelData, number_of_frames=1))
        frames = len(encoded)
    if frames != 1:
        raise BadFile(f"has pixels of shape {(frames, rows, columns)}, not those of one image")
    if rows * columns > MAX_PIXELS or rows * columns * samples * file.BitsAllocated > 8 * MAX_BYTES:
        raise BadFile(f"claims {columns} x {rows} pixels, too many to be true")
    missing = _missing_decoder(file, decoder)
    if missing:
        raise NoReader(f"is {decoder.UID.name}, for which a decoder is missing: {missing}")
    if decoder.is_encapsulated:
        _check_encoded(encoded[0], (columns, rows))
    values, made = decoder.as_array(file, raw=True, allow_excess_frames=decoder.is_native)
    kind = made["photometric_interpretation"]
    if values.shape == (rows, columns) and kind in ("MONOCHROME1", "MONOCHROME2"):
        return _dicom_grey(values, file)
    if values.shape == (rows, columns) and kind == "PALETTE COLOR":
        return _in_blocks(lambda block: _looked_up(block, file), values)
    if values.shape == (rows, columns, 3) and kind in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        full = 2**file.BitsStored - 1

        def colour(block):
            if kind != "RGB":
                block = pixels.convert_color_space(block, kind, "RGB")
            return _to_bytes(block, full)

        return _in_blocks(colour, values)
    if values.shape in ((rows, columns), (rows, columns, 3)):
        raise BadFile(f"has pixels of the kind {kind}")
    raise BadFile(f"has pixels of shape {values.shape}, not those of one image")


def _check_dicom_size(path):
    """That a DICOM file is one, and no larger than `MAX_BYTES`, inflated where it is deflated."""
    from pydicom import filereader, uid

    size = os.path.getsize(path)
    if size <= MAX_BYTES:
        with open(path, "rb") as stream:
            filereader.read_preamble(stream, force=False)
            meta = filereader.read_dataset(
                stream, False, True, stop_when=lambda tag, kind, length: tag >> 16 != 2
            )
            if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
                inflating = zlib.decompressobj(-zlib.MAX_WBITS)
                size = len(inflating.decompress(stream.read(), MAX_BYTES + 1))
    if size > MAX_BYTES:
        raise BadFile(f"holds more than {MAX_BYTES:,} bytes")


def _missing_decoder(file, decoder):
    """The line to type where no decoder is installed for the pixels of a DICOM file; or nothing."""
    if decoder.is_native:
        return ""
    # Pillow is one of the decoders; of these it makes 8 bits, or nothing.
    deep = file.BitsStored > 8 and (
        file.SamplesPerPixel > 1 or decoder.UID.name.startswith("JPEG Extended")
    )
    if decoder.is_available and not (deep and decoder.available_plugins == ("pillow",)):
        return ""
    needed = decoder.missing_dependencies[-1].partition("requires ")[2]  # "numpy and pyjpegls>=1.2"
    packages = [word.partition(">=")[0].strip(",") for word in needed.split() if word != "and"]
    return f"pip install {' '.join(packages)}"


def _check_encoded(frame, size):
    """That a frame of JPEG is of the size that its DICOM file says, before it is decoded."""
    at = 12 if frame.startswith(b"\0\0\0\x0cjP  ") else len(frame)
    while at < len(frame) and frame[at + 4 : at + 8] != b"jp2c":  # boxes around JPEG 2000
        size_of_box = int.from_bytes(frame[at : at + 4], "big")
        if size_of_box < 8:
            raise BadFile("is damaged (JPEG 2000 with an empty box)")  # pydicom would never end
        at += size_of_box
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != size:
                raise BadFile(f"claims {size[0]} x {size[1]} pixels and holds {image.size}")
    except UnidentifiedImageError:
        return  # of another kind, or damaged, which the decoder says


def _in_blocks(work, values):
    """Changes an array some rows at a time, so that what it takes in between is small."""
    made = None
    for rows in _blocks(values):
        part = work(values[rows])
        if made is None:
            made = np.empty((len(values), *part.shape[1:]), part.dtype)
        made[rows] = part
    return made


def _blocks(values):
    size = max(1, 2**20 // values[0].size)
    return [slice(at, at + size) for at in range(0, len(values), size)]


def _to_bytes(values, full):
    """Values from 0 to `full` as uint8."""
    return np.round(np.clip(values, 0, full) * (255 / full)).astype(np.uint8)


def _looked_up(values, file):
    """The colours of numbers in a DICOM file's palette, uint8."""
    from pydicom import pixels

    entries, first, bits = file.RedPaletteColorLookupTableDescriptor
    last = first + (entries or 2**16) - 1
    values = np.clip(values.astype(np.int32), first, last)  # pydicom wraps what lies beyond
    return _to_bytes(pixels.apply_color_lut(values, file)[..., :3], 2**bits - 1)


def _dicom_grey(values, file):
    """The grey levels that a DICOM file asks for, as a Pillow image of mode F from 0 to 255.

    Without a window they run from the lowest value to the highest. Padding is not counted: it is no
    part of the image (DICOM PS3.3 C.7.5.1.1.2).
    """
    from pydicom import pixels

    windowed = all(file.get(name) not in (None, "") for name in ("WindowCenter", "WindowWidth"))
    apply = pixels.apply_windowing if windowed else pixels.apply_voi

    def shown(block):
        # As float64, for the difference of two numbers of 16 bits may have 17.
        return apply(pixels.apply_modality_lut(block, file), file).astype(np.float64)

    if windowed:
        low, high = pixels.apply_windowing(np.array([-1e9, 1e9]), file)  # what it maps onto
    else:
        ends = []
        for rows in _blocks(values):
            inside = shown(values[rows][~_is_padding(values[rows], file)])
            ends += [inside.min(), inside.max()] if inside.size else []
        low, high = (min(ends), max(ends)) if ends else (shown(values[:1]).max(),) * 2
    inverted = file.PhotometricInterpretation == "MONOCHROME1"

    def grey(block):
        light = np.clip((shown(block) - low) / (high - low or 1e-6), 0, 1) * 255
        return (255 - light if inverted else light).astype(np.float32)

    made = _in_blocks(grey, values)
    if not np.isfinite(made.max()):
        raise BadFile("has NaN or infinite pixels")
    return Image.fromarray(made)


def _is_padding(values, file):
    """Which stored values fill the frame around an image."""
    one = file.get("PixelPaddingValue")
    other = file.get("PixelPaddingRangeLimit", one)
    if not (isinstance(one, int) and isinstance(other, int)):
        return np.zeros(values.shape, bool)
    return (values >= min(one, other)) & (values <= max(one, other))
