"""Reads the one image of a DICOM file: checked before it is decoded, shown in its own window."""

import os
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sources.accepted import MAX_BYTES, MAX_PIXELS, BadFile, NoReader


def picture(path):
    """The one image of a DICOM file: a Pillow image of mode F (grey, 0 to 255), or uint8 colour."""
    values, kind, file = _opened(path)
    from pydicom import pixels

    if values.ndim == 2 and kind in ("MONOCHROME1", "MONOCHROME2"):
        return _grey(values, file)
    if values.ndim == 2 and kind == "PALETTE COLOR":
        return _in_blocks(lambda block: _looked_up(block, file), values)
    if values.ndim == 3 and kind in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        full = 2**file.BitsStored - 1

        def colour(block):
            if kind != "RGB":
                block = pixels.convert_color_space(block, kind, "RGB")
            return _to_bytes(block, full)

        return _in_blocks(colour, values)
    raise BadFile(f"has pixels of the kind {kind}")


def stored(path):
    """The stored values of a mask, `(rows, columns)`, whatever its window or palette."""
    values, kind, _ = _opened(path)
    if values.ndim != 2:
        raise BadFile(f"is a mask in colour ({kind}); save it as grey levels")
    return values


def patient(path) -> str:
    """The PatientID in a DICOM file's header, or nothing."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip()


def _opened(path):
    """Stored values of a DICOM file's one image, what they stand for, and the file."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise NoReader("is DICOM, for which pydicom is missing: pip install pydicom") from None
    _check_size(path)
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
        raise BadFile(f"claims {columns} x {rows} pixels, more than are accepted")
    missing = _missing_decoder(file, decoder)
    if missing:
        raise NoReader(f"is {decoder.UID.name}, for which a decoder is missing: {missing}")
    if decoder.is_encapsulated:
        _check_encoded(encoded[0], (columns, rows))
    values, made = decoder.as_array(file, raw=True, allow_excess_frames=decoder.is_native)
    kind = made["photometric_interpretation"]
    if values.shape not in ((rows, columns), (rows, columns, 3)):
        raise BadFile(f"has pixels of shape {values.shape}, not those of one image")
    return values, kind, file


def _check_size(path):
    """Checks that a file is DICOM and, inflated, not larger than `MAX_BYTES`."""
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
    """The command that installs a decoder for the pixels of a DICOM file; "" if there is one."""
    if decoder.is_native:
        return ""
    # Pillow is one of the decoders; these it decodes to 8 bits, or not at all.
    deep = file.BitsStored > 8 and (
        file.SamplesPerPixel > 1 or decoder.UID.name.startswith("JPEG Extended")
    )
    if decoder.is_available and not (deep and decoder.available_plugins == ("pillow",)):
        return ""
    needed = decoder.missing_dependencies[-1].partition("requires ")[2]  # "numpy and pyjpegls>=1.2"
    packages = [word.partition(">=")[0].strip(",") for word in needed.split() if word != "and"]
    return f"pip install {' '.join(packages)}"


def _check_encoded(frame, size):
    """Checks before decoding that a JPEG frame has the size in its DICOM file's header."""
    at = 12 if frame.startswith(b"\0\0\0\x0cjP  ") else len(frame)
    while (
        at < len(frame) and frame[at + 4 : at + 8] != b"jp2c"
    ):  # boxes before the JPEG 2000 stream
        size_of_box = int.from_bytes(frame[at : at + 4], "big")
        if size_of_box < 8:
            raise BadFile("is damaged (JPEG 2000 with an empty box)")  # pydicom would loop for ever
        at += size_of_box
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            if image.size != size:
                raise BadFile(f"claims {size[0]} x {size[1]} pixels and has {image.size}")
    except UnidentifiedImageError:
        return  # another kind, or damaged: the decoder reports it


def _in_blocks(work, values):
    """Changes an array in blocks of rows, to limit the memory of intermediate values."""
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
    """Colours of the values by a DICOM file's palette, uint8."""
    from pydicom import pixels

    entries, first, bits = file.RedPaletteColorLookupTableDescriptor
    last = first + (entries or 2**16) - 1
    values = np.clip(
        values.astype(np.int32), first, last
    )  # pydicom wraps values outside of the palette
    return _to_bytes(pixels.apply_color_lut(values, file)[..., :3], 2**bits - 1)


def _grey(values, file):
    """The grey levels of a DICOM file in its window, as a Pillow image of mode F from 0 to 255.

    Without a window they range from the lowest value to the highest. Padding is ignored, because it
    is not part of the image (DICOM PS3.3 C.7.5.1.1.2).
    """
    from pydicom import pixels

    windowed = all(file.get(name) not in (None, "") for name in ("WindowCenter", "WindowWidth"))
    apply = pixels.apply_windowing if windowed else pixels.apply_voi

    def shown(block):
        # As float64, because the difference of two 16-bit numbers may have 17 bits.
        return apply(pixels.apply_modality_lut(block, file), file).astype(np.float64)

    if windowed:
        low, high = pixels.apply_windowing(np.array([-1e9, 1e9]), file)  # limits of its output
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
    """Mask of the stored values that are padding around an image."""
    one = file.get("PixelPaddingValue")
    other = file.get("PixelPaddingRangeLimit", one)
    if not (isinstance(one, int) and isinstance(other, int)):
        return np.zeros(values.shape, bool)
    return (values >= min(one, other)) & (values <= max(one, other))
