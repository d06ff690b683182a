"""Damages good files of every format: each must be read as by its own library, or refused.

    python tests/fuzz.py [--files 300] [--seed 0] [--keep FOLDER]

`reference` is the expected image: the decoding of the same bytes by Pillow, pydicom or nibabel,
with separate code for the grey levels. A `.nii.gz` must have a correct checksum, as for gunzip.
"""

import argparse
import gzip
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom import pixels, uid
from pydicom.encaps import encapsulate

sys.path.insert(0, str(Path(__file__).parent.parent))
from sources import decoding  # noqa: E402

READING = decoding.Reading((24, 32, 1))
SECONDS, KILOBYTES = 5, 1_000_000  # limits for every file


# --- good files ----------------------------------------------------------------------------------


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pictures(random):
    colour = random.integers(0, 256, (30, 41, 3), np.uint8)
    colour[:20] = np.linspace(0, 255, 41)[:, None]
    rgb = Image.fromarray(colour)
    grey, deep = rgb.convert("L"), Image.fromarray(colour[..., 0].astype(np.uint16) * 16)
    share = Image.fromarray(colour[..., 0].astype(np.float32) / 255)
    turned = Image.Exif()
    turned[274] = 6
    return {
        "grey.png": saved(grey, "png"),
        "colour.png": saved(rgb, "png", exif=turned),
        "palette.png": saved(rgb.quantize(64), "png", transparency=3),
        "alpha.png": saved(rgb.convert("RGBA"), "png"),
        "deep.png": saved(deep, "png"),
        "colour.jpg": saved(rgb, "jpeg", exif=turned),
        "grey.jpg": saved(grey, "jpeg", progressive=True),
        "ink.jpg": saved(rgb.convert("CMYK"), "jpeg"),
        "lossy.webp": saved(rgb, "webp"),
        "lossless.webp": saved(rgb.convert("RGBA"), "webp", lossless=True),
        "colour.bmp": saved(rgb, "bmp"),
        "palette.bmp": saved(rgb.quantize(16), "bmp"),
        "grey.tiff": saved(grey, "tiff", compression="tiff_lzw"),
        "colour.tiff": saved(rgb, "tiff", compression="tiff_adobe_deflate"),
        "deep.tiff": saved(deep, "tiff"),
        "float.tiff": saved(share, "tiff"),
    }


def dicom(values, syntax=uid.ExplicitVRLittleEndian, frame=None, **attributes):
    """The bytes of a DICOM file of an array; `frame`: its encoded pixels."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = values.shape[:2]
    file.SamplesPerPixel, file.PlanarConfiguration = 1 if values.ndim == 2 else 3, 0
    file.BitsAllocated = file.BitsStored = 8 * values.dtype.itemsize
    file.PixelRepresentation = int(values.dtype.kind == "i")
    file.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    for name, value in attributes.items():
        setattr(file, name, value)
    file.HighBit = file.BitsStored - 1
    file.PixelData = encapsulate([frame]) if frame else values.tobytes()
    file["PixelData"].VR = "OB" if frame or file.BitsAllocated == 8 else "OW"
    if syntax == uid.RLELossless:
        file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        file.compress(uid.RLELossless, generate_instance_uid=False)
    stream = BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def palette(random, bits):
    colours = random.integers(0, 2**bits, (3, 200)).astype(f"u{bits // 8}")
    names = [f"{name}PaletteColorLookupTable" for name in ("Red", "Green", "Blue")]
    return (
        {"PhotometricInterpretation": "PALETTE COLOR"}
        | {f"{name}Descriptor": [200, 10, bits] for name in names}
        | {f"{name}Data": row.tobytes() for name, row in zip(names, colours, strict=True)}
    )


def dicoms(random):
    grey = random.integers(0, 4096, (30, 40)).astype(np.uint16)
    grey[:20] = np.linspace(0, 4095, 40)
    byte, colour = (grey >> 4).astype(np.uint8), random.integers(0, 256, (30, 40, 3), np.uint8)
    signed = grey.astype(np.int16) - 2000
    smooth = Image.fromarray(np.stack([byte] * 2 + [byte // 2], axis=-1))
    jpeg, jpeg2000 = saved(smooth, "jpeg"), saved(smooth.convert("L"), "jpeg2000")
    window = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "WindowCenter": 900,
        "WindowWidth": 2000,
    }
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = (np.arange(4096) ** 2 // 300).astype(np.uint16).tobytes()
    return {
        "grey.dcm": dicom(grey, BitsStored=12),
        "window.dcm": dicom(grey, uid.ImplicitVRLittleEndian, BitsStored=12, **window),
        "sigmoid.dcm": dicom(grey, VOILUTFunction="SIGMOID", WindowCenter=2000, WindowWidth=900),
        "signed.dcm": dicom(signed, PixelPaddingValue=-2000),
        "inverted.dcm": dicom(byte, PhotometricInterpretation="MONOCHROME1"),
        "table.dcm": dicom(grey, VOILUTSequence=[lut]),
        "colour.dcm": dicom(colour),
        "colour16.dcm": dicom(colour.astype(np.uint16) * 16, BitsStored=12),
        "ybr.dcm": dicom(colour, PhotometricInterpretation="YBR_FULL"),
        "palette.dcm": dicom(byte, **palette(random, 8)),
        "palette16.dcm": dicom(grey, **palette(random, 16)),
        "deflated.dcm": dicom(grey, uid.DeflatedExplicitVRLittleEndian),
        "rle.dcm": dicom(grey, uid.RLELossless),
        "jpeg.dcm": dicom(
            colour, uid.JPEGBaseline8Bit, jpeg, PhotometricInterpretation="YBR_FULL_422"
        ),
        "jpeg2000.dcm": dicom(byte, uid.JPEG2000Lossless, jpeg2000),
    }


def volume(values, letters="RAS", kind=nibabel.Nifti1Image, slope=None, inter=0.0, note=b""):
    """The bytes of a NIfTI file whose axes point where `letters` say."""
    turn = nibabel.orientations.axcodes2ornt(letters)
    affine = nibabel.orientations.inv_ornt_aff(turn, values.shape) @ np.diag([2, 2, 3, 1.0])
    image = kind(values, affine, dtype=values.dtype)
    if note:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", note))
    data = bytearray(image.to_bytes())
    if slope is not None:  # nibabel chooses its own slope
        header = kind.header_class(bytes(data[: kind.header_class.sizeof_hdr]))
        header["scl_slope"], header["scl_inter"] = slope, inter
        data[: len(header.binaryblock)] = header.binaryblock
    return bytes(data)


def volumes(random):
    values = random.normal(100, 40, (11, 13, 9))
    return {
        "float": volume(values.astype(np.float32)),
        "scaled": volume(values.astype(np.int16), "LPS", slope=-0.37, inter=20.0),
        "byte": volume(values.clip(0, 255).astype(np.uint8), "ASR", note=b"some words" * 9),
        "double": volume(values, "PIL", nibabel.Nifti2Image),
        "int": volume(values.astype(np.int32), "LAS", slope=3.0),
    }


def made(seed):
    """Name and bytes of every good file."""
    random = np.random.default_rng(seed)
    some = volumes(random)
    packed = {f"{name}.nii.gz": gzip.compress(data, mtime=0) for name, data in some.items()}
    plain = {f"{name}.nii": data for name, data in some.items()}
    return pictures(random) | dicoms(random) | plain | packed


# --- damage --------------------------------------------------------------------------------------


def damaged(data, random):
    """A copy of some bytes with one damage of a random kind."""
    data = bytearray(data)
    start, size = int(random.integers(len(data))), int(random.integers(1, len(data) // 4 + 2))
    kind = random.integers(6)
    if kind == 0:
        data[start] ^= 1 << int(random.integers(8))
    elif kind == 1:
        for at in random.integers(len(data), size=8):
            data[at] ^= 1 << int(random.integers(8))
    elif kind == 2:
        del data[start:]
    elif kind == 3:
        data[start : start + size] = bytes(len(data[start : start + size]))
    elif kind == 4:
        data[start:start] = data[start : start + size]
    else:
        for at in random.integers(min(600, len(data)), size=4):
            data[at] = int(random.integers(256))
    return bytes(data)


# --- what is right -------------------------------------------------------------------------------


def reference(path, reading=READING):
    """The image by a file's own library; raises the library's errors."""
    kind = decoding.suffix(path)
    if kind in decoding.VOLUMES:
        return of_volume(path, reading)
    image = of_dicom(path) if kind in decoding.DICOM else of_picture(path)
    return decoding.fitted(image, reading)[None]


def of_picture(path):
    with Image.open(path, formats=decoding.FORMATS) as image:
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32)
        shares = image.mode == "F" and (values.max() <= 1 or (values != values.round()).any())
        full = 1.0 if shares else 2.0 ** max(8, int(values.max()).bit_length()) - 1
        return Image.fromarray(values * (255.0 / full))
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    image = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    red, green, blue = image.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else image


def of_volume(path, reading):
    data = Path(path).read_bytes()
    data = gzip.decompress(data) if decoding.suffix(path) == ".nii.gz" else data
    with tempfile.NamedTemporaryFile(suffix=".nii") as file:
        file.write(data)
        file.flush()
        image = nibabel.as_closest_canonical(nibabel.load(file.name))
        values = np.array(image.dataobj, dtype=np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    length = scaled.shape[reading.axis]
    first, last = (int(round(share * length)) for share in reading.span)
    slices = [np.take(scaled, at, reading.axis) for at in range(first, max(last, first + 1))]
    turned = [Image.fromarray(np.ascontiguousarray(np.rot90(each))) for each in slices]
    return np.stack([decoding.fitted(each, reading) for each in turned])


def of_dicom(path):
    file = pydicom.dcmread(path)
    values = file.pixel_array
    if file.PhotometricInterpretation == "PALETTE COLOR":
        return looked_up(values, file)
    if values.ndim == 3:
        full = 2**file.BitsStored - 1
        return np.round(values.clip(0, full) * (255 / full)).astype(np.uint8)
    inside = ~padding(values, file)
    values = pixels.apply_modality_lut(values, file).astype(np.float64)
    center, width = (file.get(name) for name in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None:
        shares = windowed(values, center, width, file.get("VOILUTFunction", "LINEAR"))
    else:
        if file.get("VOILUTSequence"):
            item = file.VOILUTSequence[0]
            entries, first, _ = item.LUTDescriptor
            table = item.LUTData
            table = np.frombuffer(table, "<u2") if isinstance(table, bytes) else np.array(table)
            values = table[np.clip(values - first, 0, len(table) - 1).astype(int)].astype(float)
        seen = values[inside] if inside.any() else values.max()
        gap = np.max(seen) - np.min(seen)
        shares = np.clip((values - np.min(seen)) / (gap or 1), 0, 1)
    if file.PhotometricInterpretation == "MONOCHROME1":
        shares = 1 - shares
    if np.isnan(shares).any():
        raise ValueError("NaN")
    return Image.fromarray((shares * 255).astype(np.float32))


def padding(values, file):
    one = file.get("PixelPaddingValue")
    other = file.get("PixelPaddingRangeLimit", one)
    if not isinstance(one, int) or not isinstance(other, int):
        return np.zeros(values.shape, bool)
    return (values >= min(one, other)) & (values <= max(one, other))


def windowed(values, center, width, kind):
    """Values from 0 to 1, by DICOM PS3.3 C.11.2.1."""
    center, width = (each[0] if np.ndim(each) else each for each in (center, width))
    if kind.upper() == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if kind.upper() == "LINEAR":
        center, width = center - 0.5, width - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.clip((values - center) / width + 0.5, 0, 1)
    return np.where(
        values <= center - width / 2, 0, np.where(values > center + width / 2, 1, shares)
    )


def looked_up(values, file):
    """The colours of a palette, by DICOM PS3.3 C.7.6.3.1.6."""
    entries, first, bits = file.RedPaletteColorLookupTableDescriptor
    entries = entries or 2**16
    if "SegmentedRedPaletteColorLookupTableData" in file:
        colours = pixels.apply_color_lut(values, file)[..., :3]
    else:
        where = np.clip(values.astype(np.int64) - first, 0, entries - 1)
        tables = [
            file[f"{name}PaletteColorLookupTableData"].value for name in ("Red", "Green", "Blue")
        ]
        kind = f"u{len(tables[0]) // entries}"
        colours = np.stack([np.frombuffer(each, kind)[where] for each in tables], axis=-1)
    full = 2**bits - 1
    return np.round(colours.clip(0, full) * (255 / full)).astype(np.uint8)


def judged(path, reading=READING):
    """Reads a file: `"same"` as by its library, or `"refused"`.

    Raises:
        AssertionError: for any other result, with the difference.
    """
    start = time.monotonic()
    try:
        images = decoding.read(path, reading)
    except decoding.BadFile as error:
        reason = str(error)
        assert 0 < len(reason) < 300 and reason.isprintable(), f"reason {reason!r}"
        return "refused"
    finally:
        took = time.monotonic() - start
        assert took < SECONDS, f"took {took:.1f} s"
    try:
        expected = reference(path, reading)
    except Exception as error:
        raise AssertionError(f"is read, but not by its library: {error!r}") from error
    # Rounding to grey levels may differ by one if the window is computed separately.
    most = 1 if decoding.suffix(path) in decoding.DICOM else 0
    assert images.shape == expected.shape, f"{images.shape} instead of {expected.shape}"
    off = np.abs(images.astype(int) - expected).max()
    assert off <= most, f"is silently another image, by {off} levels"
    assert decoding.count(Path(path), reading) == len(images)
    return "same"


def peak():
    """Peak memory of this process, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def tried(name, data, count, seed, place, keep=None):
    """Damages a file in `count` ways; counts of `"same"`, `"refused"`, and a list of faults."""
    random = np.random.default_rng([seed, *name.encode()])
    path, counts, faults = Path(place) / name, Counter(), []
    for number in range(count):
        path.write_bytes(damaged(data, random))
        before = peak()
        try:
            counts[judged(path)] += 1
            assert peak() - before < KILOBYTES, f"took {peak() - before} kB"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            faults.append(f"{name} number {number}: {error!r} ({last.name}, line {last.lineno})")
            if keep:
                Path(keep, f"{number}-{name}").write_bytes(path.read_bytes())
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=300, help="damaged copies of each good file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the files that were read wrongly")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    every = []
    with tempfile.TemporaryDirectory() as place:
        for name, data in made(given.seed).items():
            Path(place, name).write_bytes(data)
            assert judged(Path(place, name)) == "same", name
            counts, faults = tried(name, data, given.files, given.seed, place, given.keep)
            print(f"{name:16} {dict(counts)} {len(faults)} faults", flush=True)
            every += faults
    print("\n".join(every), f"\n{len(every)} faults; peak {peak() / 1000:.0f} MB")
    return bool(every)


if __name__ == "__main__":
    sys.exit(main())
