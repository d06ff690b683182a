"""One file to one image: every format, shape, depth and mask; and what is no image is named."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pictures import READING, SHAPE, gathered, ramp
from sources import decoding, files

# --- to one shape --------------------------------------------------------------------------------


def test_on_the_way_down_every_pixel_is_the_mean_of_its_area():
    large = ramp(48, 64)
    small = decoding.fitted(large, READING)[..., 0]
    expected = large.reshape(12, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(small - expected).max() <= 1.0  # Pillow rounds twice, once along each axis


@pytest.mark.parametrize("fit", decoding.FITS)
def test_another_aspect_ratio_is_cropped_stretched_or_padded(fit):
    wide = np.zeros((10, 40), np.uint8)
    wide[:, :15], wide[:, 15:25], wide[:, 25:] = 50, 200, 100  # a middle 10 wide
    image = decoding.fitted(wide, decoding.Reading((10, 10, 1), fit))[..., 0]
    assert image.shape == (10, 10)
    if fit == "crop":
        assert np.all(image == 200)
    elif fit == "stretch":
        assert image[5, 0] == 50 and image[5, 5] == 200 and image[5, 9] == 100
    else:
        assert np.all(image[:3] == 0) and np.all(image[-3:] == 0) and image[5, 5] > 150


@pytest.mark.parametrize("target", [(8, 8), (28, 28), (100, 100), (224, 224), (90, 71)])
def test_no_size_of_a_picture_falls_out_of_its_own_frame(target):
    """Pillow refuses a box that is outside because of rounding, as for 900x900 to 28."""
    thin = np.zeros((1, 1), np.uint8)
    for side in [*range(1, 2001, 7), 900, 1999, 2000]:
        box = decoding.crop_box(side, side, *target)
        assert 0 <= box[0] <= box[2] <= side and 0 <= box[1] <= box[3] <= side
    for side in (1, 57, 900, 901):
        picture = np.broadcast_to(thin, (side, side))
        assert decoding.fitted(picture, decoding.Reading((*target, 1))).shape == (*target, 1)


@pytest.mark.skipif(os.environ.get("ATLAS_LONG") != "1", reason="make test-long")
def test_every_size_to_2000_goes_to_every_size_to_256():
    random = np.random.default_rng(0)
    for target in range(8, 257):
        for side in range(1, 2001):
            width, height = (side, side) if side % 2 else (side, int(random.integers(1, 2001)))
            left, top, right, bottom = decoding.crop_box(width, height, target, target)
            assert 0 <= left <= right <= width and 0 <= top <= bottom <= height


def test_small_pictures_are_enlarged():
    assert decoding.fitted(ramp(3, 4), READING).shape == SHAPE


# --- medical files -------------------------------------------------------------------------------


def test_a_volume_gives_its_slices_scaled_between_its_percentiles(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).normal(100, 20, (16, 12, 20)).astype(np.float32)
    (tmp_path / "volumes").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volumes" / "one.nii.gz")
    reading = decoding.Reading(SHAPE, axis=2, span=(0.25, 0.75))
    images, table = gathered(tmp_path / "volumes", tmp_path, reading=reading)
    assert images.shape == (10, *SHAPE) and list(table["slice"]) == list(range(10))
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.rot90(np.clip((values[:, :, 5] - low) / (high - low), 0, 1) * 255)
    assert np.abs(images[0, ..., 0] - expected).max() <= 0.51


@pytest.mark.parametrize("content", [b"", b"no volume", b"\x1f\x8b\x08 torn"])
def test_a_broken_volume_is_named(content, tmp_path):
    pytest.importorskip("nibabel")
    folder = tmp_path / "volumes"
    folder.mkdir()
    Image.fromarray(ramp()).save(folder / "good.png")
    (folder / "broken.nii.gz").write_bytes(content)
    with pytest.raises(files.BadFiles, match="broken.nii.gz: is (empty|no NIfTI|damaged)"):
        gathered(folder, tmp_path)


@pytest.fixture
def dicom(tmp_path):
    """Writes a DICOM file of the given stored values and attributes."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def write(stored, **attributes):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.Rows, file.Columns = stored.shape
        file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 12, 11
        file.PixelRepresentation, file.PhotometricInterpretation = 0, "MONOCHROME2"
        for name, value in attributes.items():
            setattr(file, name, value)
        file.PixelData = stored.astype(np.uint16).tobytes()
        file.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        return tmp_path / "image.dcm"

    return write


STORED = np.linspace(0, 4095, 12 * 16).reshape(12, 16)


def test_a_dicom_file_without_a_window_shows_all_that_it_holds(dicom):
    read = decoding.read(dicom(STORED), READING)[0, ..., 0]
    assert np.abs(read - STORED / 4095 * 255).max() <= 1


def test_a_dicom_window_is_applied_after_the_rescale(dicom):
    path = dicom(
        STORED, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2000
    )
    read = decoding.read(path, READING)[0, ..., 0]
    hounsfield = STORED.astype(np.uint16) * 2.0 - 1000
    expected = np.clip((hounsfield - 999.5) / 1999 + 0.5, 0, 1) * 255  # DICOM PS3.3 C.11.2.1.2
    assert np.abs(read - expected).max() <= 1


def test_monochrome1_is_inverted(dicom):
    read = decoding.read(dicom(STORED, PhotometricInterpretation="MONOCHROME1"), READING)[0, ..., 0]
    assert np.abs(read - (255 - STORED / 4095 * 255)).max() <= 1


def test_what_is_no_dicom_is_named(tmp_path):
    pytest.importorskip("pydicom")
    (tmp_path / "image.dcm").write_bytes(b"not DICOM at all" * 20)
    with pytest.raises(decoding.BadFile, match="cannot be read as DICOM"):
        decoding.read(tmp_path / "image.dcm", READING)


@pytest.mark.parametrize(("ending", "package"), [("dcm", "pydicom"), ("nii", "nibabel")])
def test_a_missing_reader_gives_the_line_to_type(ending, package, tmp_path, monkeypatch):
    for name in [each for each in sys.modules if each.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)  # as where it was never there
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"image.{ending}").write_bytes(b"something")
    with pytest.raises(decoding.BadFile, match=f"pip install {package}"):
        decoding.read(tmp_path / f"image.{ending}", READING)


@pytest.mark.parametrize(("ending", "package"), [("dcm", "pydicom"), ("nii", "nibabel")])
def test_a_reader_that_was_missing_is_asked_again_once_it_is_installed(
    ending, package, tmp_path, monkeypatch
):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"image.{ending}").write_bytes(b"something")
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, package, None)
        with pytest.raises(files.BadFiles, match=f"pip install {package}"):
            gathered(tmp_path / "images", tmp_path)
    pytest.importorskip(package)
    with pytest.raises(files.BadFiles, match="is no NIfTI volume|cannot be read as DICOM"):
        gathered(tmp_path / "images", tmp_path)


# --- DICOM of other kinds ------------------------------------------------------------------------


@pytest.fixture
def shown(tmp_path):
    """Writes a DICOM file and reads it as colour."""
    fuzz = pytest.importorskip("fuzz", exc_type=ImportError)

    def show(values, *syntax, **attributes):
        path = tmp_path / "shown.dcm"
        path.write_bytes(fuzz.dicom(values, *syntax, **attributes))
        size = len(values), attributes.get("Columns", values.shape[1])
        return decoding.read(path, decoding.Reading((*size, 3)))[0].astype(int)

    return show


def test_a_palette_s_colours_are_shown_and_not_its_numbers(shown):
    red, green, blue = tables = np.random.default_rng(0).integers(0, 65536, (3, 50)).astype("u2")
    names = [f"{name}PaletteColorLookupTable" for name in ("Red", "Green", "Blue")]
    palette = {f"{name}Data": row.tobytes() for name, row in zip(names, tables, strict=True)}
    palette |= {f"{name}Descriptor": [50, 100, 16] for name in names}
    numbers = np.array([[90, 100, 120], [149, 150, 400]], np.uint16)
    image = shown(numbers, PhotometricInterpretation="PALETTE COLOR", **palette)
    where = np.array(
        [[0, 0, 20], [49, 49, 49]]
    )  # what lies beyond the palette has its first or last
    expected = np.stack([red[where], green[where], blue[where]], axis=-1) / 65535 * 255
    assert np.abs(image - expected).max() <= 0.51


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colours_of_any_depth_are_scaled_by_it(bits, shown):
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 6, 3)).astype("u2")
    assert np.abs(shown(values, BitsStored=bits) - values / (2**bits - 1) * 255).max() <= 0.51


def test_luminance_and_chroma_become_colours(shown):
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    stored = np.asarray(Image.fromarray(colour).convert("YCbCr"))
    for kind in ("YBR_FULL", "RGB"):
        image = shown(stored if kind != "RGB" else colour, PhotometricInterpretation=kind)
        assert np.abs(image - colour).max() <= 2


def test_colours_of_a_kind_that_is_not_converted_are_refused(shown):
    with pytest.raises(decoding.BadFile, match="of the kind YBR_ICT"):
        shown(np.zeros((4, 5, 3), np.uint8), PhotometricInterpretation="YBR_ICT")


@pytest.mark.filterwarnings("ignore:The number of bytes")
@pytest.mark.parametrize("said", [None, 3])
def test_several_frames_are_refused_whether_they_are_said_or_not(said, shown, tmp_path):
    attributes = {"NumberOfFrames": said} if said else {}
    with pytest.raises(decoding.BadFile, match=r"shape \(3, 4, 5\), not those of one image"):
        shown(np.zeros((12, 5), np.uint8), Rows=4, **attributes)


@pytest.mark.parametrize(
    ("kind", "bits", "packages"),
    [
        ("JPEGLSLossless", 8, "numpy pyjpegls"),
        ("JPEGLosslessSV1", 8, "pylibjpeg pylibjpeg-libjpeg"),
        ("JPEGExtended12Bit", 16, "pylibjpeg pylibjpeg-libjpeg"),
        ("HTJ2K", 8, "pylibjpeg pylibjpeg-openjpeg"),
    ],
)
def test_a_kind_without_a_decoder_gives_the_line_to_type(kind, bits, packages, shown):
    uid = pytest.importorskip("pydicom").uid
    syntax = getattr(uid, kind)
    if (
        kind != "JPEGExtended12Bit"
        and __import__("pydicom").pixels.get_decoder(syntax).is_available
    ):
        pytest.skip("the decoder is installed")
    with pytest.raises(
        decoding.NoReader, match=f"is (JPEG|High).*missing: pip install {packages}$"
    ):
        shown(np.zeros((4, 5), f"u{bits // 8}"), syntax, b"\xff\xd8 something")


def test_padding_does_not_take_part_in_the_contrast(shown):
    values = np.array([[-2000, -2000, 100, 200, 300]], np.int16)
    expected = [0, 0, 0, 127.5, 255]
    padded = shown(values, PixelPaddingValue=-2000)
    np.testing.assert_allclose(padded[0, :, 0], expected, atol=0.51)
    values[0, 1] = -1990
    ranged = shown(values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
    np.testing.assert_allclose(ranged[0, :, 0], expected, atol=0.51)
    assert not shown(np.full((2, 3), 7, np.uint8), PixelPaddingValue=7).any()


def test_signed_values_of_the_whole_range_do_not_wrap(shown):
    values = np.array([[-32768, 0, 32767]], np.int16)
    np.testing.assert_allclose(shown(values)[0, :, 0], [0, 127.5, 255], atol=0.51)


def test_an_empty_window_is_none(shown):
    values = np.array([[0, 50, 100]], np.uint8)
    image = shown(values, WindowCenter=None, WindowWidth=None)
    np.testing.assert_allclose(image[0, :, 0], [0, 127.5, 255], atol=0.51)


def test_a_window_holds_after_a_slope_that_falls(shown):
    values = np.array([[0, 128, 255]], np.uint8)
    given = {"RescaleSlope": -1, "RescaleIntercept": 255, "WindowCenter": 128, "WindowWidth": 256}
    np.testing.assert_allclose(shown(values, **given)[0, :, 0], [255, 127, 0], atol=1)


def test_pixels_that_are_fractions_are_shown_and_nan_is_refused(shown, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    shown(np.zeros((1, 3), np.uint32))
    file = pydicom.dcmread(tmp_path / "shown.dcm")
    del file.PixelData, file.BitsStored, file.HighBit, file.PixelRepresentation
    for values, expected in (([0.5, 1.0, 1.5], [0, 127.5, 255]), ([0, np.nan, 1], None)):
        file.FloatPixelData = np.array(values, np.float32).tobytes()
        file.save_as(tmp_path / "fractions.dcm")
        if expected:
            image = decoding.read(tmp_path / "fractions.dcm", decoding.Reading((1, 3, 1)))[
                0, 0, :, 0
            ]
            np.testing.assert_allclose(image, expected, atol=0.51)
    with pytest.raises(decoding.BadFile, match="NaN or infinite"):
        decoding.read(tmp_path / "fractions.dcm", READING)


def test_single_bits_are_black_and_white(shown):
    values = np.packbits(np.eye(8, dtype=np.uint8), axis=1, bitorder="little")
    image = shown(values, BitsAllocated=1, BitsStored=1, Columns=8)[..., 0]
    assert image.max() == 255 and (image > 127).sum() == 8


def test_a_jpeg_of_another_size_than_its_dicom_file_says_is_refused(shown, tmp_path):
    uid = pytest.importorskip("pydicom").uid
    Image.fromarray(ramp(9, 10)).save(tmp_path / "frame.jpg")
    frame = (tmp_path / "frame.jpg").read_bytes()
    with pytest.raises(decoding.BadFile, match="claims 9 x 10 pixels and has .10, 9."):
        shown(np.zeros((10, 9), np.uint8), uid.JPEGBaseline8Bit, frame)


def test_a_damaged_jpeg_2000_does_not_keep_its_reader_forever(shown):
    uid = pytest.importorskip("pydicom").uid
    frame = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200)
    with pytest.raises(decoding.BadFile, match="empty box"):
        shown(np.zeros((10, 9), np.uint8), uid.JPEG2000Lossless, frame)


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", decoding.FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_in_three_channels_is_that_grey_in_every_size(channels, fit):
    for target in [(5, 6), (30, 40), (33, 71)]:
        reading = decoding.Reading((*target, channels), fit)
        grey = Image.fromarray(ramp(30, 40))
        tripled = decoding.fitted(grey.convert("RGB"), reading)
        np.testing.assert_array_equal(tripled, decoding.fitted(grey, reading))
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert levels.convert("RGB").convert("L").tobytes() == levels.tobytes()


def test_counts_beyond_24_bits_are_scaled_by_their_true_range(tmp_path):
    values = np.full((12, 16), 2**25 - 1, np.int32)  # as float32 this is 2**25
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    reading = decoding.Reading(SHAPE, bits=decoding.bits_of(tmp_path / "deep.tiff"))
    assert (decoding.read(tmp_path / "deep.tiff", reading) == 255).all()


# --- masks ---------------------------------------------------------------------------------------


def test_a_mask_keeps_its_labels_and_falls_where_its_image_does(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:40] = 3
    Image.fromarray(labels).save(tmp_path / "mask.png")
    Image.fromarray(np.where(labels, 255, 0).astype(np.uint8)).save(tmp_path / "image.png")
    for fit in decoding.FITS:
        reading = decoding.Reading((16, 16, 1), fit)
        image = decoding.read(tmp_path / "image.png", reading)[0]
        mask = decoding.read(tmp_path / "mask.png", replace(reading, mask=True))[0]
        assert set(np.unique(mask)) == {0, 3}
        assert np.mean((mask > 0) == (image > 127)) > 0.95


def test_a_mask_is_whole_numbers_in_one_channel(tmp_path):
    reading = decoding.Reading((4, 4, 1), mask=True)
    palette = Image.fromarray(np.full((4, 4), 2, np.uint8), mode="P")
    palette.putpalette([9, 9, 9, 50, 60, 70, 200, 210, 220])
    palette.save(tmp_path / "palette.png")
    assert (decoding.read(tmp_path / "palette.png", reading) == 2).all()
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    for name, reason in {"deep": "not whole numbers from 0 to 255", "colour": "in colour"}.items():
        with pytest.raises(decoding.BadFile, match=reason):
            decoding.read(tmp_path / f"{name}.png", reading)


def test_masks_of_a_volume_are_its_labels(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    labels = np.zeros((10, 12, 20), np.int16)
    labels[2:6, 3:8, 8:12] = 7
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "mask.nii.gz")
    read = decoding.read(tmp_path / "mask.nii.gz", decoding.Reading((12, 10, 1), mask=True))
    expected = np.stack([np.rot90(labels[..., k]) for k in range(7, 13)])[..., None]
    np.testing.assert_array_equal(read, expected)
