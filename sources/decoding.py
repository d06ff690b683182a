"""Reads one image file of any kind as uint8 images: checked, decoded, resized.

The main function is `read`. No file is trusted: its header is checked before it is decoded, and a
file that cannot be read raises `BadFile` with a reason.
"""

import errno
import gzip
import importlib.util
import math
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sources import dicom
from sources.accepted import MAX_BYTES, MAX_PIXELS, BadFile, NoReader

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom")
DEEP = (".png", ".tif", ".tiff")  # formats that may have more than 8 bits
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # by content, not by name
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins,
PNG_DEPTH = 24  # and the place of the byte that tells its bits
READERS = ("nibabel", "pydicom", "pylibjpeg", "jpeg_ls")
FITS = ("crop", "stretch", "pad")


@dataclass(frozen=True)
class Reading:
    """How files are turned into images.

    Args:
        image_shape: `(height, width, channels)`; with 1 channel, colours become grey.
        fit: How another aspect ratio is changed: `"crop"` the longer side around the middle,
            `"stretch"`, or `"pad"` with black.
        axis: Axis along which a NIfTI volume is cut into slices (2 is axial).
        span: Range of the slices, as shares of that axis.
        bits: Bit depth of pictures deeper than 8 bits: values from 0 to `2**bits - 1` become grey
            levels. 0: the bits of the largest value of the file, which differ between files;
            `files.with_bits` finds one range for a folder.
        mask: Whether they are label maps, whose values are kept: resized by nearest neighbour,
            neither scaled nor interpolated. `image_shape` then has one channel.
    """

    image_shape: tuple[int, int, int]
    fit: str = "crop"
    axis: int = 2
    span: tuple[float, float] = (0.35, 0.65)
    bits: int = 0
    mask: bool = False

    @classmethod
    def of(cls, settings, bits=0) -> "Reading":
        """The reading of `config.Settings`."""
        return cls(settings.image_shape, settings.fit, bits=bits)


def patient(path) -> str:
    """The patient that a file's header names; nothing if it is not DICOM or names none."""
    return dicom.patient(path) if suffix(path) in DICOM else ""


def suffix(name) -> str:
    """The suffix of a file name in lower case: `.png`, `.nii.gz`, ..."""
    name = str(name).lower()
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]


def missing_readers() -> list[str]:
    """Packages that read some kinds of files and are not installed."""
    return [name for name in READERS if importlib.util.find_spec(name) is None]


def size(path) -> tuple[int, ...]:
    """Sides of a file's image in pixels, from its header only. Raises `BadFile`, as `read` does.

    Of a picture width and height, of a volume its three sides.
    """
    with _only_bad_files(path):
        if suffix(path) in VOLUMES:
            header, _ = _nifti(path, whole=False)
            return tuple(map(int, header.get_data_shape()))
        if suffix(path) in DICOM:
            import pydicom

            header = pydicom.dcmread(path, stop_before_pixels=True)
            return int(header.Columns), int(header.Rows)
        with Image.open(path, formats=FORMATS) as image:
            turned = image.getexif().get(274, 1) > 4  # rotated by a quarter when it is read
            return image.size[::-1] if turned else image.size


def count(path, reading):
    """Number of images in a file, from its header only. Raises `BadFile`, as `read` does."""
    if suffix(path) not in VOLUMES:
        return 1
    with _only_bad_files(path):
        header, _ = _nifti(path, whole=False)
        values = np.broadcast_to(np.uint8(0), header.get_data_shape())  # needs no memory
        return len(_slices(_upright(values, header), reading))


def read(path, reading):
    """The images of one file.

    Pictures, DICOM files: one image; NIfTI volumes: one for each slice of `reading.span`. Alpha is
    dropped, palettes are resolved, EXIF rotation is applied. Values beyond 8 bits are scaled by
    `2**bits - 1`, see `Reading`, so that 12-bit data in a 16-bit file are not black. DICOM files
    are shown in their own window, MONOCHROME1 is inverted; volumes are scaled between their 0.5 and
    99.5 percentiles. Checksums are verified if a format has them.

    Sizes are checked before decoding: a picture has at most `MAX_PIXELS` pixels; a volume and a
    DICOM file at most `MAX_BYTES` bytes, inflated. So no file needs much more than 1 GB of memory,
    and most of the largest need half of that.

    Returns:
        uint8 `(images, height, width, channels)`.

    Raises:
        BadFile: for any problem, with the reason.
    """
    with _only_bad_files(path):
        if suffix(path) in VOLUMES:
            images = list(_volume_images(path, reading))
        elif suffix(path) in DICOM:
            picture = (
                Image.fromarray(_labels(dicom.stored(path)))
                if reading.mask
                else dicom.picture(path)
            )
            images = [fitted(picture, reading)]
        else:
            picture = _label_map(path) if reading.mask else _picture(path, reading.bits)
            images = [fitted(picture, reading)]
        return np.stack(images)


@contextmanager
def _only_bad_files(path):
    """Checks that a path is a file that opens, and turns every later error into a `BadFile`.

    Readers raise errors of all kinds for damaged files.
    """
    try:
        _check(path)
        yield
    except BadFile:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):
            raise NoReader("needs more memory than is free") from None
        # A damaged file can lead to a seek with an invalid argument.
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise NoReader(f"cannot be read ({error.strerror})") from None
        what = "cannot be read as DICOM" if suffix(path) in DICOM else "is damaged"
        raise BadFile(f"{what} ({_said(error)})") from None


def _check(path):
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadFile("is a folder")
        if not stat.S_ISREG(
            status.st_mode
        ):  # opening a pipe would block until something writes to it
            raise BadFile("is a pipe, a socket or a device")
        if status.st_size == 0:
            raise BadFile("is empty (0 bytes)")
        open(path, "rb").close()
    except FileNotFoundError:
        raise BadFile("does not exist") from None


def _said(error):
    """Type and message of an error, in one short line."""
    text = "".join(each if each.isprintable() else " " for each in str(error))
    return f"{type(error).__name__}: {' '.join(text.split())}"[:200].removesuffix(": ")


def bits_of(path) -> int:
    """Bits of a deep picture, at least 8; 0 for other files and for unreadable ones."""
    try:
        _check(path)
        with open(path, "rb") as file:
            beginning = file.read(PNG_DEPTH + 1)
        if beginning.startswith(PNG) and beginning[PNG_DEPTH] < 16:
            return 0  # the rule, and ten times as fast as to open it
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or not _is_deep(image):
                return 0
            values = np.asarray(image)
    except Exception:  # `read` reports the problem
        return 0
    high = values.max(initial=0)
    if not (np.isfinite(high) and _whole(values)):
        return 0
    return max(8, int(high).bit_length())


def _is_deep(image):
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _whole(values):
    """Whether values are whole numbers rather than shares from 0 to 1."""
    if not np.issubdtype(values.dtype, np.floating):
        return True
    return values.max() > 1 and all(np.array_equal(row, np.round(row)) for row in values)


def _picture(path, bits):
    """A Pillow image, of mode F (grey, 0 to 255) if it is deeper than 8 bits."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFile(
                    f"claims {image.width} x {image.height} pixels, more than are accepted"
                )
            if image.format == "TIFF" and image.tag_v2.get(274, 1) > 4:
                raise BadFile("is a TIFF rotated by its orientation tag; save it upright")
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise BadFile(f"is no {', '.join(FORMATS)} image ({_beginning(path)})") from None
    except Image.DecompressionBombError:
        raise BadFile("claims more pixels than are accepted") from None
    if _is_deep(image):
        values = np.asarray(image)
        del image  # at most two copies of a large picture at a time
        return _grey(values, bits)
    if image.mode == "P":
        image = image.convert("RGBA")
    # Other modes would not become the grey of their colours.
    return image if image.mode in ("1", "L", "LA", "RGB", "RGBA") else image.convert("RGB")


def _label_map(path):
    """A Pillow image of mode L with the stored labels; for a palette image, its indices."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadFile(f"claims {image.width} x {image.height} pixels, more than are accepted")
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("1", "L", "P") and not _is_deep(image):
            raise BadFile(f"is a mask in colour (mode {image.mode}); save it as grey levels")
        values = np.asarray(image)
    return Image.fromarray(_labels(values))


def _labels(values):
    """Values of a mask as uint8; an error if they are not labels from 0 to 255."""
    values = np.asarray(values)
    if not values.size or values.min() < 0 or values.max() > 255 or not _counts(values):
        raise BadFile("is a mask with values that are not whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _counts(values):
    return np.issubdtype(values.dtype, np.integer) or np.array_equal(values, np.round(values))


def _beginning(path):
    with open(path, "rb") as file:
        start = file.read(16)
    return f"it begins with {start!r}"


def _grey(values, bits):
    """Numbers beyond 8 bits as a Pillow image of mode F from 0 to 255."""
    if not values.size:
        raise BadFile("has no pixels")
    low, high = values.min().item(), values.max().item()  # NaN if there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadFile("has NaN or infinite pixels")
    if low < 0:
        raise BadFile(f"has negative pixels (the lowest is {low:g})")
    integers = _whole(values)
    if not integers and high > 1:
        raise BadFile(f"has fractional pixels up to {high:g}; scale them to 0..1")
    full = 2.0 ** (bits or max(8, int(high).bit_length())) - 1 if integers else 1.0
    if high > full:
        raise BadFile(f"has a pixel of {high:g}, beyond the {bits} bits of its folder or run")
    scaled = values.astype(np.float32)
    scaled *= 255.0 / full
    return Image.fromarray(scaled)


def fitted(image, reading):
    """A Pillow image, or a uint8 array, resized to the requested shape.

    Reduced images are averages over areas; enlarged images are interpolated bicubically.
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
        kind = Image.Resampling.NEAREST if reading.mask else kind
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
    """The largest central box of another aspect ratio: left, top, right, bottom.

    Args:
        width, height: Size of the image, in pixels.
        to_width, to_height: Size with the new aspect ratio.
    """
    scale = min(width / to_width, height / to_height)
    across, down = to_width * scale, to_height * scale
    left, top = (width - across) / 2, (height - down) / 2
    # Rounding may move it outside of the image, which Pillow refuses.
    return max(left, 0.0), max(top, 0.0), min(left + across, width), min(top + down, height)


def _slices(upright, reading):
    length = upright.shape[reading.axis]
    first, last = (int(round(share * length)) for share in reading.span)
    chosen = range(first, max(last, first + 1))
    if len(chosen) * math.prod(reading.image_shape) > MAX_BYTES:
        raise BadFile(f"has {len(chosen)} slices, too many for memory at {reading.image_shape}")
    return chosen


def _nifti(path, whole):
    """The header of a NIfTI volume, checked, and the file's content, inflated.

    Args:
        whole: Whether to read to the end, where a `.nii.gz` has its checksum. Several gzip members
            are concatenated, as by gunzip; only zeros may follow the last.
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
        # No side is longer than NIfTI-1 allows.
        if len(shape) != 3 or not all(0 < side < 2**15 for side in shape):
            raise BadFile(f"has the shape {shape}, not that of one volume")
        if stored.kind not in "iuf":
            raise BadFile(f"has voxels of {header.get_value_label('datatype')}, not numbers")
        start = header.get_data_offset()
        end = start + math.prod(shape) * stored.itemsize
        if end > MAX_BYTES:
            raise BadFile(f"claims {end:,} bytes; at most {MAX_BYTES:,} are accepted")
        while whole and (chunk := stream.read(2**20)):
            content += chunk
            if len(content) > MAX_BYTES:
                raise BadFile(f"holds more than {MAX_BYTES:,} bytes")
    if whole:
        if len(content) < end:
            raise BadFile(f"is cut off at {len(content):,} of the {end:,} bytes that it claims")
        # Checks the extensions, which go to the end if no start of the voxels is given.
        between = content[:start] if start >= kind.sizeof_hdr + 4 else content
        kind.from_fileobj(BytesIO(between))
    return header, content


def _upright(values, header):
    """A view of a volume's values with axes to the right, to the front and upwards."""
    from nibabel import orientations

    turned = orientations.io_orientation(header.get_best_affine())
    return orientations.apply_orientation(values, turned)


def _volume_images(path, reading):
    header, content = _nifti(path, whole=True)  # raises an error if nibabel is missing
    from nibabel.volumeutils import apply_read_scaling

    shape, kind = header.get_data_shape(), header.get_data_dtype()
    stored = np.ndarray(shape, kind, content, header.get_data_offset(), order="F")
    slope, inter = header.get_slope_inter()

    def scaled(values):
        return np.asarray(apply_read_scaling(values, slope, inter), np.float32)

    if not np.isfinite(scaled(np.array([stored.min(), stored.max()]))).all():
        raise BadFile("has NaN or infinite voxels")
    if not reading.mask:
        low, high = _range(stored, scaled, falling=slope is not None and slope < 0)
    upright = _upright(stored, header)
    for number in _slices(upright, reading):
        values = scaled(np.moveaxis(upright, reading.axis, 0)[number])
        if reading.mask:
            values = _labels(values)
        else:
            values = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
        image = Image.fromarray(np.ascontiguousarray(np.rot90(values)))
        yield fitted(image, reading)


def _range(stored, scaled, falling):
    """The 0.5 and 99.5 percentiles of a volume, equal to those of `np.percentile`.

    Only the stored values around them are scaled: scaling all would need four times the memory of
    the volume.

    Args:
        stored: The voxels as stored in the file.
        scaled: Function from them to float32 values, increasing or, if `falling`, decreasing.
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
