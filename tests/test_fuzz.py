"""Damaged files, files with false sizes, and the test files of the readers' libraries.

Each gives the same image as its own library, or an error.
"""

import gzip
import multiprocessing
import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sources import decoding, files

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

import fuzz  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the readers warn of defects that they tolerate
LONG = os.environ.get("ATLAS_LONG") == "1"
COUNT = 300 if LONG else 30
MADE = fuzz.made(seed=0)
READINGS = [
    decoding.Reading((24, 32, 3)),
    decoding.Reading((7, 5, 1), "stretch"),
    decoding.Reading((60, 90, 3), "pad", axis=0, span=(0, 1)),
    decoding.Reading((30, 41, 1), axis=1),
]


@pytest.mark.parametrize("name", MADE)
def test_a_damaged_file_is_read_as_its_library_reads_it_or_refused(name, tmp_path):
    (tmp_path / name).write_bytes(MADE[name])
    assert fuzz.judged(tmp_path / name) == "same"
    counts, faults = fuzz.tried(name, MADE[name], COUNT, 0, tmp_path)
    assert not faults, "\n".join(faults)
    assert counts.total() == COUNT


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_a_good_file_is_the_image_that_it_always_was_in_every_shape(reading, tmp_path):
    for name, data in MADE.items():
        (tmp_path / name).write_bytes(data)
        assert fuzz.judged(tmp_path / name, reading) == "same", name


# --- volumes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", ["RAS", "LAS", "LPS", "ASR", "PIL", "SRA", "IPR"])
@pytest.mark.parametrize(
    "kind", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "f4", ">f4", "f8", "i8"]
)
def test_slices_are_bit_for_bit_those_of_the_whole_volume_scaled_and_turned(
    kind, letters, tmp_path
):
    values = np.random.default_rng(0).normal(60, 30, (11, 13, 9)).clip(0, 127).astype(kind)
    for number, (slope, inter) in enumerate([(None, 0), (0, 0), (1, 0), (0.37, -1024), (-2.5, 3)]):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(fuzz.volume(values, letters, slope=slope, inter=inter))
        for axis in range(3):
            reading = decoding.Reading((10, 12, 1), axis=axis)
            np.testing.assert_array_equal(
                decoding.read(path, reading), fuzz.of_volume(path, reading)
            )


def test_a_volume_turned_askew_is_read_along_its_nearest_axes(tmp_path):
    angle = np.diag([2, 3, 1, 1.0]) @ nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.3, 0.5, -0.4)
    )
    values = np.random.default_rng(0).normal(60, 30, (11, 13, 9)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, angle), tmp_path / "askew.nii.gz")
    assert fuzz.judged(tmp_path / "askew.nii.gz") == "same"


def test_the_range_of_a_volume_is_that_of_its_percentiles():
    random = np.random.default_rng(0)
    for size in [1, 2, 3, 100, 200, 201, 399, 400, 1000, *random.integers(1, 3000, 200)]:
        stored = random.normal(0, 100, size).astype(random.choice(["i2", "f4", "f8"]))
        slope, inter = random.normal(size=2)
        scaled = lambda values: np.asarray(values * slope + inter, np.float32)  # noqa: E731, B023
        found = decoding._range(stored, scaled, falling=slope < 0)
        np.testing.assert_array_equal(found, np.percentile(scaled(stored), (0.5, 99.5)))


@pytest.fixture
def turned(tmp_path):
    """A `.nii.gz` whose axes have to be reordered."""
    values = np.random.default_rng(0).integers(0, 200, (16, 12, 20)).astype(np.uint8)
    path = tmp_path / "turned.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, 1, 1, 1])), path)
    return path


def test_half_a_volume_does_not_end_a_load(turned, tmp_path):
    data = turned.read_bytes()
    (tmp_path / "half.nii.gz").write_bytes(data[: len(data) // 2])
    names = ["half.nii.gz", "turned.nii.gz"]
    images, table = files.gather(tmp_path, names, fuzz.READING, tmp_path / "cache", "skip")
    assert set(table["file"]) == {"turned.nii.gz"} and len(images) == 6
    with pytest.raises(files.BadFiles, match="half.nii.gz: is damaged .EOFError"):
        files.gather(tmp_path, names, fuzz.READING, tmp_path / "cache")


def test_slices_are_counted_from_the_header_alone(turned, tmp_path):
    data = turned.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[:1500])
    assert decoding.count(tmp_path / "cut.nii.gz", fuzz.READING) == 6
    with pytest.raises(decoding.BadFile):
        decoding.read(tmp_path / "cut.nii.gz", fuzz.READING)


def test_a_wrong_checksum_is_noticed_where_the_image_would_be_another(turned):
    data = bytearray(
        gzip.compress(gzip.decompress(turned.read_bytes()), 0)
    )  # stored without compression
    data[2000] ^= 64
    turned.write_bytes(data)
    with pytest.raises(decoding.BadFile, match="is damaged .*CRC"):
        decoding.read(turned, fuzz.READING)


def test_extensions_that_nibabel_cannot_read_are_damage_wherever_the_voxels_start(tmp_path):
    data = bytearray(fuzz.volume(np.ones((11, 13, 9), np.uint8), note=b"some words"))
    data[344:348] = b"ni1\0"  # as if the voxels were in another file
    data[108:112] = bytes(4)  # where they start
    (tmp_path / "pair.nii").write_bytes(data)
    assert fuzz.judged(tmp_path / "pair.nii") == "refused"


def test_gzip_files_of_several_parts_are_one_and_garbage_behind_them_is_damage(turned):
    content, expected = gzip.decompress(turned.read_bytes()), decoding.read(turned, fuzz.READING)
    parts = gzip.compress(content[:500]) + gzip.compress(content[500:])
    for good in (parts, parts + bytes(100)):
        turned.write_bytes(good)
        np.testing.assert_array_equal(decoding.read(turned, fuzz.READING), expected)
    turned.write_bytes(parts + b"garbage")
    with pytest.raises(decoding.BadFile, match="is damaged .BadGzipFile"):
        decoding.read(turned, fuzz.READING)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((4, 4, 4), np.complex64), "voxels of complex64, not numbers"),
        (np.ones((4, 4, 4), [(c, "u1") for c in "RGB"]), "voxels of RGB, not numbers"),
        (np.full((4, 4, 4), np.nan, np.float32), "NaN or infinite"),
        (np.full((4, 4, 4), 1e300), "NaN or infinite"),
        (np.ones((4, 4, 4, 2), np.uint8), "has the shape"),
        (np.ones((1, 1, 40_000), np.uint8), "has the shape"),
    ],
)
def test_volumes_that_hold_no_grey_slices_are_refused(values, reason, tmp_path):
    kind = nibabel.Nifti2Image if max(values.shape) > 1000 else nibabel.Nifti1Image
    nibabel.save(kind(values, np.eye(4)), tmp_path / "odd.nii")
    with pytest.raises(decoding.BadFile, match=reason):
        decoding.read(tmp_path / "odd.nii", fuzz.READING)


# --- memory --------------------------------------------------------------------------------------


def _measure(path, reading, sender):
    before, start = fuzz.peak(), time.monotonic()
    try:
        said = str(decoding.read(path, reading).shape)
    except decoding.BadFile as error:
        said = str(error)
    sender.send((said, (fuzz.peak() - before) / 1000, time.monotonic() - start))


def measured(path, reading=fuzz.READING):
    """The message of reading, its peak memory in MB, and the seconds."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_measure, args=(path, reading, sender)
    )
    process.start()
    found = receiver.recv() if receiver.poll(60) else ("nothing in a minute", 0, 60)
    process.kill()
    process.join()
    return found


def header_of(shape, kind=np.uint8):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(kind)
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4)


def packed(start, size, bits):
    """A short beginning and then zeros, deflated; without the start if `bits` is negative."""
    deflating = zlib.compressobj(1, wbits=bits)
    parts = [deflating.compress(start)]
    parts += [deflating.compress(bytes(2**20)) for _ in range(size >> 20)]
    return b"".join(parts) + deflating.flush()


def a_deflated_dicom():
    whole = fuzz.dicom(np.zeros((8, 8), np.uint8), pydicom.uid.DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")
    plain = zlib.decompress(whole[start:], -15)
    return whole[:start] + packed(plain, 2**30, -15)


CLAIMS = {
    "claims.nii": (lambda: header_of((800, 800, 799)) + bytes(1000), "claims 511,360,352 bytes"),
    "short.nii": (
        lambda: header_of((400, 400, 400)) + bytes(999),
        "cut off at 1,351 of the 64,000",
    ),
    "claims.nii.gz": (lambda: packed(header_of((800, 800, 799)), 2**29, 31), "claims 511,360,352"),
    "more.nii.gz": (lambda: packed(header_of((8, 8, 9)), 2**30, 31), "holds more than 269,484,032"),
    "deflated.dcm": (a_deflated_dicom, "holds more than 269,484,032 bytes"),
    "rows.dcm": (
        lambda: fuzz.dicom(np.zeros((4, 4), "u2"), Rows=60_000, Columns=60_000),
        "claims 60000 x 60000 pixels",
    ),
    "frames.dcm": (
        lambda: fuzz.dicom(np.zeros((4, 4), "u2"), NumberOfFrames=2_000_000_000),
        "shape .2000000000, 4, 4.",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_claims_too_much_takes_neither_memory_nor_time(name, tmp_path):
    make, reason = CLAIMS[name]
    (tmp_path / name).write_bytes(make())
    said, megabytes, seconds = measured(tmp_path / name)
    assert reason.replace(".", "") in said.replace("(", "").replace(")", "")
    assert megabytes < 1000 and seconds < fuzz.SECONDS


@pytest.mark.skipif(not LONG, reason="make test-long")
@pytest.mark.parametrize("mode", ["rgb.png", "deep.png", "palette.png", "rgb.tiff", "float.tiff"])
def test_the_largest_picture_takes_less_than_a_gigabyte(mode, tmp_path):
    tile = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    whole = np.tile(tile, (10, 10, 1))
    if mode == "rgb.png" or mode == "rgb.tiff":
        image = Image.fromarray(whole)
    elif mode == "palette.png":
        image = Image.fromarray(whole[..., 0]).convert("P")
    else:
        image = Image.fromarray(whole[..., 0].astype("u2" if mode == "deep.png" else "f4"))
    image.save(tmp_path / mode)
    del image, whole
    said, megabytes, seconds = measured(tmp_path / mode)
    assert said == "(1, 24, 32, 1)" and megabytes < 1000 and seconds < 20


@pytest.mark.skipif(not LONG, reason="make test-long")
@pytest.mark.parametrize(("kind", "size"), [("u1", 2**28), ("i2", 2**27), ("f4", 2**26)])
def test_the_largest_volume_takes_less_than_a_gigabyte(kind, size, tmp_path):
    tile = np.random.default_rng(0).integers(0, 120, (2**18,)).astype(kind).tobytes()
    data = header_of((512, 512, size // 2**18), np.dtype(kind)) + tile * (size // 2**18)
    (tmp_path / "large.nii").write_bytes(data)
    said, megabytes, seconds = measured(tmp_path / "large.nii")
    assert said.endswith("24, 32, 1)") and megabytes < 1000 and seconds < 30


# --- files that others test with -----------------------------------------------------------------


def brought(package, *endings):
    """Files in the folder of an installed package."""
    paths = sorted(Path(package.__file__).parent.rglob("*"))
    return [path for path in paths if path.is_file() and path.name.endswith(endings)]


def alike(paths, ending, tmp_path):
    """Number of files that were read as by their library; raises for wrong images."""
    judgements = []
    for number, path in enumerate(paths):
        link = tmp_path / f"{number}{ending or decoding.suffix(path)}"
        link.symlink_to(path)
        try:
            judgements.append(fuzz.judged(link))
        except AssertionError as error:
            raise AssertionError(f"{path}: {error}") from error
    return judgements.count("same")


def test_files_that_pydicom_is_tested_with_are_read_as_it_reads_them_or_refused(tmp_path):
    paths = [path for path in brought(pydicom, "") if path.read_bytes()[128:132] == b"DICM"]
    if not paths:
        pytest.skip("this pydicom brings no files")
    assert alike(paths, ".dcm", tmp_path) > 80


def test_files_that_nibabel_is_tested_with_are_read_as_it_reads_them_or_refused(tmp_path):
    paths = brought(nibabel, ".nii", ".nii.gz", ".dcm")
    if not paths:
        pytest.skip("this nibabel brings no files")
    assert alike(paths, "", tmp_path) >= 5
