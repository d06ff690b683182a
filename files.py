"""Image files of any kind into one uint8 array: each checked and decoded once, then remembered.

`gather` is the way in. It decodes what it has not seen before (in threads), brings it to one shape
and writes it into an array in a cache folder; the next call with the same files reads nothing but
their sizes and dates. Nothing about a file is trusted: what cannot be read is named with a reason.
"""

import hashlib
import importlib.util
import itertools
import json
import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom")
DEEP = (".png", ".tif", ".tiff")  # what may hold more than 8 bits
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # by content, whatever the name says
READERS = ("nibabel", "pydicom")
MAX_PIXELS = 64_000_000  # four times the largest radiograph; a decompression bomb claims more
NAMED = 10  # bad files that an error lists
TASK = 32  # files that a thread takes at a time
FITS = ("crop", "stretch", "pad")
SAVING = "saving-"  # how names begin of what is being written
VERSION = 3  # of what `read` makes of a file; a new one makes old caches worthless


class BadFile(ValueError):
    """One file that cannot be used; the message is the reason alone."""


class NoReader(BadFile):
    """A file of a kind whose reader is not installed; the message says what to type."""


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
    """Names of all files of the given kinds below a folder, relative to it, sorted."""
    found = []
    for place, _, names in os.walk(folder):
        chosen = [name for name in names if suffix(name) in kinds and not name.startswith(".")]
        if chosen:
            below = Path(place).relative_to(folder).as_posix()
            found += chosen if below == "." else [f"{below}/{name}" for name in chosen]
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
    base = cache / hashlib.blake2s(key.encode(), digest_size=10).hexdigest()
    with FileLock(f"{base}.lock"):
        known, array = _remembered(base, reading)
        marks = {name: mark(root / name) for name in names}
        fresh = [name for name in names if name not in known or known[name]["mark"] != marks[name]]
        if fresh:
            known, array = _decoded(root, base, reading, known, array, fresh, marks)
    bad = [(name, known[name]["reason"]) for name in names if known[name]["reason"]]
    if bad:
        _tell(root, bad, len(names), on_bad_file)
    parts = []
    for name in names:
        entry = known[name]
        for number, digest in enumerate(entry["digests"]):
            parts.append((name, number, digest, entry["first"] + number))
    if not parts:
        raise BadFiles(f"{root}: not one of {len(names)} files can be used")
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
        fresh = [name for name in deep if known.get(name, [None])[0] != marks[name]]
        if fresh:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda name: _bits(root / name), fresh, chunksize=TASK)
                known |= {
                    name: [marks[name], bits] for name, bits in zip(fresh, found, strict=True)
                }
            write_json(index, known)
    return max((known[name][1] for name in deep), default=0)


def _bits(path):
    """Bits of a deep picture, at least 8; 0 for others and for what cannot be read."""
    try:
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
    return values.max() > 1 and np.array_equal(values, np.round(values))


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
    try:
        written = json.loads(index.read_text())
        array = np.load(base.with_name(written["array"]), mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return {}, None
    if array.shape != (written["rows"], *reading.image_shape) or array.dtype != np.uint8:
        return {}, None
    return written["files"], array


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
    for name in fresh:
        own, count, reason = marks[name], 0, ""
        try:
            count = _count(root / name, reading)
        except NoReader as error:
            own, reason = None, str(error)  # tried again once it is installed
        except BadFile as error:
            reason = str(error)
        entries[name] = {"mark": own, "first": first, "digests": [], "reason": reason}
        first += count

    for stale in base.parent.glob(f"{base.name}-*.part"):  # of a process that was killed
        stale.unlink()
    part = base.with_name(f"{base.name}-{os.getpid()}.part")
    shape = (first, *reading.image_shape)
    made = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    for name, entry in kept.items():
        old, new = entry["first"], entries[name]["first"]
        count = len(entry["digests"])
        made[new : new + count] = array[old : old + count]

    _decode(root, made, entries, fresh, reading)
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


def _decode(root, made, entries, fresh, reading):
    """Fills the rows of the fresh files, in threads; notes digests, or the reason of a bad file."""

    def decode(name):
        entry = entries[name]
        if entry["reason"]:
            return
        try:
            images = read(root / name, reading)
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


@contextmanager
def replacing(path):
    """Another name to write a file or a new folder under; what is there takes its place.

    Where writing fails nothing is left of it, and what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{SAVING}{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path):
    """Takes a file or a folder away, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path, values):
    """Writes a JSON file under another name, then renames."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


# --- one file ------------------------------------------------------------------------------------


def _count(path, reading):
    """How many images a file holds, from its header."""
    return len(_slices(_volume(path), reading)) if suffix(path.name) in VOLUMES else 1


def read(path, reading):
    """The images of one file.

    Pictures, DICOM files: one image; NIfTI volumes: one for each slice of `reading.span`. Alpha is
    dropped, palettes are resolved, EXIF rotation is applied. Values beyond 8 bits are scaled by
    `2**bits - 1`, see `Reading`, so that 12-bit data in a 16-bit file are not black. DICOM files
    are windowed as they say, MONOCHROME1 is inverted; volumes are scaled between their 0.5 and 99.5
    percentiles.

    Returns:
        uint8 `(images, height, width, channels)`.

    Raises:
        BadFile: with the reason.
    """
    try:
        if os.stat(path).st_size == 0:
            raise BadFile("is empty (0 bytes)")
    except FileNotFoundError:
        raise BadFile("does not exist") from None
    kind = suffix(path)
    if kind in VOLUMES:
        images = [fitted(each, reading) for each in _volume_images(path, reading)]
    elif kind in DICOM:
        images = [fitted(_dicom(path), reading)]
    else:
        images = [fitted(_picture(path, reading.bits), reading)]
    return np.stack(images)


def _picture(path, bits):
    """A Pillow image of mode L, RGB or F (grey, 0 to 255)."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(f"claims {image.width} x {image.height} pixels, too many to be true")
            if image.format == "TIFF" and image.tag_v2.get(274, 1) > 4:
                raise BadFile("is a TIFF turned by its orientation tag; save it upright")
            image.load()
            image = ImageOps.exif_transpose(image)
    except BadFile:
        raise
    except UnidentifiedImageError:
        raise BadFile(f"is no {', '.join(FORMATS)} image ({_beginning(path)})") from None
    except Image.DecompressionBombError:
        raise BadFile("claims more pixels than can be true") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFile(f"is damaged ({error})") from None
    if _is_deep(image):
        return _grey(np.asarray(image), bits)
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    if image.mode == "P":
        image = image.convert("RGBA")
    red, green, blue = image.convert("RGB").split()
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    return red if grey else image.convert("RGB")


def _beginning(path):
    with open(path, "rb") as file:
        start = file.read(16)
    return f"it begins with {start!r}"


def _grey(values, bits):
    """Numbers beyond 8 bits as a Pillow image of mode F from 0 to 255."""
    if not values.size:
        raise BadFile("has no pixels")
    integers = _whole(values)
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadFile("has NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    if low < 0:
        raise BadFile(f"has negative pixels (the lowest is {low:g})")
    if not integers and high > 1:
        raise BadFile(f"has fractional pixels up to {high:g}; scale them to 0..1")
    full = 2.0 ** (bits or max(8, int(high).bit_length())) - 1 if integers else 1.0
    if high > full:
        raise BadFile(
            f"has a pixel of {high:g}, beyond the {bits} bits of the images it belongs to"
        )
    return Image.fromarray(values * (255.0 / full))


def fitted(image, reading):
    """A Pillow image, or a uint8 array, as a uint8 array of the shape asked for.

    On the way down every pixel is the mean of the area that it covers, on the way up the
    interpolation is bicubic.
    """
    height, width, channels = reading.image_shape
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if image.mode != "F":
        image = image.convert("L" if channels == 1 else "RGB")
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


def _slices(volume, reading):
    length = volume.shape[reading.axis]
    first, last = (int(round(share * length)) for share in reading.span)
    return range(first, max(last, first + 1))


def _volume(path):
    """A NIfTI volume, its values not yet read."""
    try:
        import nibabel
    except ImportError:
        raise NoReader("is NIfTI, for which nibabel is missing: pip install nibabel") from None
    try:
        volume = nibabel.load(path)
        shape = volume.shape
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise BadFile(f"is no NIfTI volume ({str(error).splitlines()[0]})") from None
    if len(shape) != 3 or np.prod(shape) > 8 * MAX_PIXELS or min(shape) < 1:
        raise BadFile(f"has the shape {shape}, not that of one volume")
    return nibabel.as_closest_canonical(volume)  # axes rightwards, forwards and upwards


def _volume_images(path, reading):
    volume = _volume(path)
    try:
        values = np.asarray(volume.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise BadFile(f"is damaged ({error})") from None
    if not np.isfinite(values).all():
        raise BadFile("has NaN or infinite voxels")
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    for number in _slices(volume, reading):
        slice_ = np.take(scaled, number, axis=reading.axis)
        yield Image.fromarray(np.ascontiguousarray(np.rot90(slice_)))  # the front, or the top, up


def _dicom(path):
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
    except ImportError:
        raise NoReader("is DICOM, for which pydicom is missing: pip install pydicom") from None
    try:
        file = pydicom.dcmread(path)
        if int(file.Rows) * int(file.Columns) > MAX_PIXELS:
            raise BadFile(f"claims {file.Columns} x {file.Rows} pixels, too many to be true")
        values = file.pixel_array
    except BadFile:
        raise
    except Exception as error:  # pydicom's decoders raise many kinds, all of them about this file
        raise BadFile(f"cannot be read as DICOM ({str(error).splitlines()[0]})") from None
    if getattr(file, "NumberOfFrames", 1) not in (None, 1) or values.ndim not in (2, 3):
        raise BadFile(f"has pixels of shape {values.shape}, not those of one image")
    if values.ndim == 3:
        return Image.fromarray(values.astype(np.uint8))
    values = apply_modality_lut(values, file)
    if "WindowWidth" in file:
        values = apply_windowing(values, file)
        low, high = apply_windowing(np.array([-1e9, 1e9]), file)  # what the window maps onto
    else:
        values = apply_voi_lut(values, file)
        low, high = values.min(), values.max()
    values = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    if file.get("PhotometricInterpretation") == "MONOCHROME1":
        values = 255 - values
    return Image.fromarray(values.astype(np.float32))
