"""Image files: all formats give the same array, and bad files are named with the reason."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import READING, SHAPE, gathered, ramp
from sources import decoding, files
from storage import disk

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """A folder of four small pictures."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(4):
        Image.fromarray(ramp(seed=number)).save(path / f"{number}.png")
    return path


# --- good files ----------------------------------------------------------------------------------


def test_pictures_come_back_as_they_are_in_the_order_of_their_names(folder, tmp_path):
    images, table = gathered(folder, tmp_path)
    expected = np.stack([ramp(seed=number) for number in range(4)])[..., None]
    np.testing.assert_array_equal(images, expected)
    assert list(table["file"]) == ["0.png", "1.png", "2.png", "3.png"]
    assert list(table["digest"]) == [files.digest(image) for image in expected]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_every_mode_of_the_same_grey_picture_gives_the_same_image(mode, tmp_path):
    grey = ramp() if mode != "1" else (ramp() > 127).astype(np.uint8) * 255
    image = Image.fromarray(grey)
    made = image.convert("RGB").convert("RGBA") if mode == "RGBA" else image.convert(mode)
    if mode in ("RGBA", "LA"):
        made.putalpha(40)  # dropped, not painted onto black
    made.save(tmp_path / "image.png")
    np.testing.assert_array_equal(decoding.read(tmp_path / "image.png", READING)[0, ..., 0], grey)


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp", "jpg"])
def test_every_picture_format_is_read(ending, tmp_path):
    smooth = np.linspace(0, 255, 12 * 16).reshape(12, 16).astype(np.uint8)
    lossless = (
        {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    )
    Image.fromarray(smooth).save(tmp_path / f"image.{ending}", **lossless)
    read = decoding.read(tmp_path / f"image.{ending}", READING)[0, ..., 0]
    assert np.abs(read.astype(int) - smooth).max() <= (4 if ending == "jpg" else 0)


def test_one_range_holds_for_all_deep_pictures_of_a_folder(tmp_path):
    """32767 and 32768 are one grey level apart, not the double of each other."""
    place, pixels = tmp_path / "deep", np.full((12, 16), 1000, np.uint16)
    place.mkdir()
    for name, high in {"a": 32767, "b": 32768}.items():
        pixels[0, 0] = high
        Image.fromarray(pixels).save(place / f"{name}.png")
    Image.fromarray(ramp()).save(place / "plain.png")
    names = files.listed(place)
    assert files.bits_of(place, names, tmp_path / "cache") == 16
    assert files.bits_of(place, ["plain.png"], tmp_path / "cache") == 0
    reading = decoding.Reading(SHAPE, bits=16)
    images, _ = files.gather(place, names, reading, tmp_path / "cache")
    np.testing.assert_array_equal(images[0, 1:], images[1, 1:])
    assert (images[0, 0, 0, 0], images[1, 0, 0, 0]) == (127, 128)
    assert images[0, 5, 5, 0] == round(1000 / 65535 * 255)
    with pytest.raises(decoding.BadFile, match="pixel of 32768, beyond the 12 bits"):
        decoding.read(place / "b.png", decoding.Reading(SHAPE, bits=12))


def test_the_range_of_a_folder_is_found_once_and_again_where_a_file_changed(tmp_path, monkeypatch):
    place, cache = tmp_path / "deep", tmp_path / "cache"
    place.mkdir()
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(place / "a.png")
    assert files.bits_of(place, ["a.png"], cache) == 12
    looked, bits = [], decoding.bits_of
    monkeypatch.setattr(decoding, "bits_of", lambda path: looked.append(path.name) or bits(path))
    assert files.bits_of(place, ["a.png"], cache) == 12 and not looked
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(place / "b.png")
    assert files.bits_of(place, ["a.png", "b.png"], cache) == 16 and looked == ["b.png"]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_pictures_are_scaled_by_their_true_range(bits, tmp_path):
    deep = np.linspace(0, 2**bits - 1, 12 * 16).reshape(12, 16).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    read = decoding.read(tmp_path / "deep.png", READING)[0, ..., 0]
    assert np.abs(read - deep / (2**bits - 1) * 255).max() <= 0.51


def test_float_pictures_in_0_1_are_read(tmp_path):
    values = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    Image.fromarray(values).save(tmp_path / "float.tiff")
    read = decoding.read(tmp_path / "float.tiff", READING)[0, ..., 0]
    assert np.abs(read / 255 - values).max() <= 0.51 / 255


def test_colour_is_kept_or_made_grey_as_the_shape_asks(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    kept = decoding.read(tmp_path / "colour.png", decoding.Reading((12, 16, 3)))[0]
    np.testing.assert_array_equal(kept, colour)
    grey = decoding.read(tmp_path / "colour.png", READING)[0, ..., 0]
    assert np.abs(grey - colour @ [0.299, 0.587, 0.114]).max() <= 1
    Image.fromarray(ramp()).save(tmp_path / "grey.png")
    tripled = decoding.read(tmp_path / "grey.png", decoding.Reading((12, 16, 3)))[0]
    np.testing.assert_array_equal(tripled, ramp()[..., None].repeat(3, axis=2))


def test_the_camera_s_rotation_is_undone_or_the_file_refused(tmp_path):
    tag = Image.Exif()
    tag[274] = 6  # the top of the scene is at the right
    Image.fromarray(ramp(16, 12)).save(tmp_path / "turned.png", exif=tag)
    read = decoding.read(tmp_path / "turned.png", READING)[0, ..., 0]
    np.testing.assert_array_equal(read, np.rot90(ramp(16, 12), -1))
    Image.fromarray(ramp(16, 12)).save(tmp_path / "turned.tiff", exif=tag)  # Pillow misreads it
    with pytest.raises(decoding.BadFile, match="rotated by its orientation tag"):
        decoding.read(tmp_path / "turned.tiff", READING)


# --- bad files -----------------------------------------------------------------------------------


def png_that_claims(width, height):
    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def truncated():
    from io import BytesIO

    whole = BytesIO()
    Image.fromarray(ramp(60, 60)).save(whole, "png")
    return whole.getvalue()[:900]


BAD = {
    "empty.png": (lambda: b"", "is empty"),
    "truncated.png": (truncated, "is damaged"),
    "page.png": (
        lambda: b"<!DOCTYPE html><html>not found</html>",
        "no PNG.*begins with b'<!DOCTYPE",
    ),
    "noise.jpg": (lambda: bytes(range(256)), "is no PNG, JPEG"),
    "bomb.png": (lambda: png_that_claims(30_000, 30_000), "claims .*pixels"),
    "big.png": (lambda: png_that_claims(9_000, 9_000), "claims 9000 x 9000 pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_its_reason_and_what_to_do(name, folder, tmp_path):
    make, reason = BAD[name]
    (folder / name).write_bytes(make())
    with pytest.raises(
        files.BadFiles, match=f"1 of 5 files cannot be used:\n  {name}: .*{reason}"
    ) as e:
        gathered(folder, tmp_path)
    assert 'on_bad_file="skip"' in str(e.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_costs_neither_time_nor_memory(folder, tmp_path):
    import resource

    (folder / "bomb.png").write_bytes(png_that_claims(30_000, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(files.BadFiles):
        gathered(folder, tmp_path)
    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_gif_in_disguise_is_refused(folder, tmp_path):
    Image.fromarray(ramp()).save(folder / "film.gif")
    (folder / "film.gif").rename(folder / "film.png")
    with pytest.raises(files.BadFiles, match="film.png: is no PNG"):
        gathered(folder, tmp_path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((12, 16), np.nan, np.float32), "NaN or infinite"),
        (np.full((12, 16), 300.5, np.float32), "fractional pixels up to 300.5"),
        (np.full((12, 16), -1.0, np.float32), "negative pixels"),
    ],
)
def test_pixels_that_are_no_grey_levels_are_refused(values, reason, tmp_path):
    Image.fromarray(values).save(tmp_path / "float.tiff")
    with pytest.raises(decoding.BadFile, match=reason):
        decoding.read(tmp_path / "float.tiff", READING)


def test_bad_files_are_all_named_up_to_ten_and_then_counted(folder, tmp_path):
    for number in range(13):
        (folder / f"bad{number:02d}.png").write_bytes(b"")
    with pytest.raises(
        files.BadFiles, match="(?s)13 of 17 files.*bad00.*bad09.*and 3 more"
    ) as caught:
        gathered(folder, tmp_path)
    assert "bad10" not in str(caught.value)


def test_bad_files_are_left_out_and_counted_where_that_is_asked_for(folder, tmp_path, capsys):
    (folder / "1.png").write_bytes(b"")
    images, table = gathered(folder, tmp_path, on_bad_file="skip")
    assert list(table["file"]) == ["0.png", "2.png", "3.png"]
    np.testing.assert_array_equal(images[1, ..., 0], ramp(seed=2))
    assert "left out 1 of 4 files" in capsys.readouterr().out


def test_nothing_but_bad_files_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_bytes(b"")
    with pytest.raises(files.BadFiles, match="none of 1 files"):
        gathered(tmp_path / "images", tmp_path, on_bad_file="skip")


def test_a_name_without_a_file_is_named(folder, tmp_path):
    with pytest.raises(files.BadFiles, match="gone.png: does not exist"):
        files.gather(folder, ["0.png", "gone.png"], READING, tmp_path / "cache")


# --- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded."""
    seen, read = [], decoding.read
    monkeypatch.setattr(
        decoding, "read", lambda path, reading: seen.append(path.name) or read(path, reading)
    )
    return seen


def test_no_file_is_decoded_twice(folder, tmp_path, decoded):
    first, _ = gathered(folder, tmp_path)
    again, table = gathered(folder, tmp_path)
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(first, again)
    assert len(table) == 4


def test_only_new_and_changed_files_are_decoded(folder, tmp_path, decoded):
    gathered(folder, tmp_path)
    decoded.clear()
    Image.fromarray(ramp(seed=9)).save(folder / "15.png")
    Image.fromarray(ramp(seed=8)).resize((16, 12)).save(folder / "2.png")
    os.utime(folder / "2.png", (1, 1))
    images, table = gathered(folder, tmp_path)
    assert sorted(decoded) == ["15.png", "2.png"]
    seeds = {"0.png": 0, "1.png": 1, "15.png": 9, "2.png": 8, "3.png": 3}
    for image, name in zip(images, table["file"], strict=True):
        np.testing.assert_array_equal(image[..., 0], ramp(seed=seeds[name]))


def test_a_bad_file_is_remembered_and_a_repaired_one_read(folder, tmp_path, decoded):
    (folder / "1.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(files.BadFiles):
            gathered(folder, tmp_path)
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "3.png"]
    Image.fromarray(ramp(seed=1)).save(folder / "1.png")
    images, _ = gathered(folder, tmp_path)
    assert decoded[4:] == ["1.png"]
    np.testing.assert_array_equal(images[1, ..., 0], ramp(seed=1))


def test_another_shape_has_a_cache_of_its_own(folder, tmp_path):
    small, _ = gathered(folder, tmp_path, reading=decoding.Reading((6, 8, 1)))
    large, _ = gathered(folder, tmp_path)
    assert small.shape == (4, 6, 8, 1) and large.shape == (4, *SHAPE)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


@pytest.mark.parametrize("damage", ["index", "array", "missing"])
def test_a_damaged_cache_is_made_anew(damage, folder, tmp_path):
    gathered(folder, tmp_path)
    (index,) = set((tmp_path / "cache").glob("*.json")) - set(
        (tmp_path / "cache").glob("*.bits.json")
    )
    array = index.with_name(json.loads(index.read_text())["array"])
    if damage == "index":
        index.write_text(index.read_text()[:50])
    elif damage == "array":
        array.write_bytes(array.read_bytes()[:200])
    else:
        array.unlink()
    images, _ = gathered(folder, tmp_path)
    np.testing.assert_array_equal(images[3, ..., 0], ramp(seed=3))


def _gather_slowly(folder, cache):
    read = decoding.read
    decoding.read = lambda path, reading: time.sleep(0.2) or read(path, reading)
    files.gather(folder, files.listed(folder), READING, cache)


def test_a_kill_while_writing_leaves_a_cache_that_works(folder, tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=_gather_slowly, args=(folder, tmp_path / "cache")
    )
    process.start()
    until = time.monotonic() + 30
    while not list((tmp_path / "cache").glob("*.part")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    images, _ = gathered(folder, tmp_path)
    np.testing.assert_array_equal(images[3, ..., 0], ramp(seed=3))
    assert not list((tmp_path / "cache").glob("*.part"))


def test_two_processes_at_once_do_not_harm_each_other(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_gather_slowly, args=(folder, tmp_path / "cache")) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    images, _ = gathered(folder, tmp_path)
    np.testing.assert_array_equal(images[3, ..., 0], ramp(seed=3))


def test_what_does_not_fit_in_memory_stays_on_disk_and_reads_the_same(folder, tmp_path):
    held, _ = gathered(folder, tmp_path)
    rows, _ = gathered(folder, tmp_path, in_memory=0)
    assert isinstance(held, np.ndarray) and isinstance(rows, files.Rows)
    assert rows.shape == held.shape and len(rows) == 4 and rows.nbytes == held.nbytes
    np.testing.assert_array_equal(rows[[2, 0, 3]], held[[2, 0, 3]])
    np.testing.assert_array_equal(rows[1], held[1])
    np.testing.assert_array_equal(rows[1:3], held[1:3])
    np.testing.assert_array_equal(np.stack(list(rows)), held)
    np.testing.assert_array_equal(rows.only([3, 1])[:], held[[3, 1]])


# --- caches that are damaged, disks that are full ------------------------------------------------


@pytest.mark.parametrize("damage", ["index", "list", "entry", "empty", "cut"])
def test_a_damaged_cache_is_told_and_made_anew(damage, folder, tmp_path, capsys):
    before, _ = gathered(folder, tmp_path)
    (index,) = (tmp_path / "cache").glob("*[!s].json")
    (array,) = (tmp_path / "cache").glob("*.npy")
    if damage == "index":
        index.write_text(index.read_text()[:-20])
    elif damage == "list":
        index.write_text("[]")
    elif damage == "entry":
        known = json.loads(index.read_text())
        known["files"]["0.png"] = {"first": 0}
        index.write_text(json.dumps(known))
    else:
        array.write_bytes(array.read_bytes()[: 0 if damage == "empty" else 200])
    capsys.readouterr()
    images, _ = gathered(folder, tmp_path)
    np.testing.assert_array_equal(images, before)
    assert "is damaged; the files are decoded again" in capsys.readouterr().out


def test_a_flipped_byte_of_a_decoded_image_is_found_and_mended(folder, tmp_path, capsys, decoded):
    before, _ = gathered(folder, tmp_path)
    (array,) = (tmp_path / "cache").glob("*.npy")
    content = bytearray(array.read_bytes())
    content[-5] ^= 64  # in the last image
    array.write_bytes(content)
    decoded.clear()
    images, _ = gathered(folder, tmp_path)
    np.testing.assert_array_equal(images, before)
    assert decoded == ["3.png"]
    assert "1 decoded files were damaged" in capsys.readouterr().out


def test_what_dead_processes_left_is_taken_away(folder, tmp_path):
    cache, dead = tmp_path / "cache", 2**22 + 1  # Linux gives no process this number
    cache.mkdir()
    left = [cache / f"saving-{dead}.x.json", cache / f"abc-{dead}.part"]
    living = [cache / f"saving-{os.getppid()}.x.json", cache / f"abc-{os.getppid()}.part"]
    for path in left + living:
        path.write_text("half")
    gathered(folder, tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in living)


def test_too_little_room_for_decoded_images_is_told_and_leaves_nothing(
    folder, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="decoded images need .* MB are free; .*CACHE_DIR"):
        gathered(folder, tmp_path)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_full_disk_does_not_kill_the_process(folder, tmp_path):
    """Pages of a memory map beyond the free disk space end the process with SIGBUS."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    code = (
        f"from sources import decoding, files; here = {str(folder)!r}; "
        f"files.gather(here, files.listed(here), decoding.Reading((256, 256, 3)), "
        f"{str(small / 'cache')!r})"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1 and "decoded images need" in done.stderr
        assert not list((small / "cache").glob("*.part"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*history\.csv"):
        with disk.replacing(tmp_path / "history.csv") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["/tmp/ESC", "../../../ESC", "", ".hidden", "a/b", "a\nb", "-rf", "NUL", "x" * 300, "\ud800"],
)
def test_no_text_names_a_file_elsewhere(text, tmp_path):
    name = disk.file_name(text)
    assert Path(name).name == name and not name.startswith((".", "-")) and len(name.encode()) < 120
    (tmp_path / name).write_text("")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_two_texts_never_share_a_name():
    assert disk.file_names(["Hernia", "beta=4.0-seed=1"]) == ["Hernia", "beta=4.0-seed=1"]
    names = disk.file_names(["a b", "a_b", "A_b", "a/b"])
    assert len({name.casefold() for name in names}) == 4


def test_links_are_entered_once_and_loops_end(folder, tmp_path):
    (folder / "again").symlink_to(folder, target_is_directory=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(ramp()).save(elsewhere / "far.png")
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert files.listed(folder) == ["0.png", "1.png", "2.png", "3.png", "linked/far.png"]


def test_folders_that_cannot_be_entered_are_named(folder, monkeypatch):
    (folder / "closed").mkdir()
    scan = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(files.BadFiles, match="1 folders cannot be read:\n.*closed: Permission"):
        files.listed(folder)


def test_images_of_kinds_that_are_not_read_are_counted(folder, capsys):
    for name in ("a.gif", "b.GIF", "c.heic", "notes.txt"):
        (folder / name).write_bytes(b"x")
    assert len(files.listed(folder)) == 4
    assert "of formats that are not read: 2 .gif, 1 .heic" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_no_text_is_a_bad_file_like_others(folder, tmp_path, capsys):
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.png")).write_bytes(b"x")
    with pytest.raises(files.BadFiles, match="1 of 5 files.*\n.*udcff.png.*not UTF-8; rename it"):
        gathered(folder, tmp_path)
    images, _ = gathered(folder, tmp_path, on_bad_file="skip")
    assert len(images) == 4 and "left out 1 of 5" in capsys.readouterr().out


# --- no file ends a load -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (KeyError("gone\nmore"), decoding.BadFile, r"is damaged \(KeyError: 'gone.*more'\)"),
        (EOFError(), decoding.BadFile, r"is damaged \(EOFError\)"),
        (
            RuntimeError("a\x00\udcff\n b" + "c" * 900),
            decoding.BadFile,
            r"\(RuntimeError: a bc{170,}\)",
        ),
        (OSError("image file is truncated"), decoding.BadFile, "is damaged .OSError: image file"),
        (OSError(22, "Invalid argument"), decoding.BadFile, "is damaged"),
        (OSError(5, "Input/output error"), decoding.NoReader, "cannot be read .Input/output error"),
        (MemoryError(), decoding.NoReader, "needs more memory than is free"),
        (RecursionError("too deep"), decoding.BadFile, "is damaged .RecursionError"),
    ],
)
def test_whatever_a_reader_raises_is_a_bad_file_with_one_short_line(
    error, kind, reason, folder, monkeypatch
):
    def fail(path, bits):
        raise error

    monkeypatch.setattr(decoding, "_picture", fail)
    with pytest.raises(decoding.BadFile, match=reason) as caught:
        decoding.read(folder / "0.png", READING)
    assert type(caught.value) is kind and len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    import socket

    place = tmp_path / "odd"
    (place / "folder.png").mkdir(parents=True)
    os.mkfifo(place / "pipe.png")
    os.mkfifo(place / "pipe.nii.gz")
    (place / "nowhere.png").symlink_to(place / "gone")
    (place / "round.png").symlink_to(place / "round.png")
    (place / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(place)  # a socket's path may not be long
        listening.bind("socket.dcm")
        names = sorted(path.name for path in place.iterdir())
        start = time.monotonic()
        with pytest.raises(files.BadFiles) as caught:
            files.gather(place, names, READING, tmp_path / "cache")
        assert {decoding.bits_of(place / name) for name in names} == {0}
    assert time.monotonic() - start < 5
    for reason in (
        "device.png: is a pipe, a socket or a device",
        "folder.png: is a folder",
        "nowhere.png: does not exist",
        "pipe.png: is a pipe, a socket or a device",
        "pipe.nii.gz: is a pipe, a socket or a device",
        "round.png: cannot be read (Too many levels of symbolic links",
        "socket.dcm: is a pipe, a socket or a device",
    ):
        assert reason in str(caught.value)


def test_a_file_that_may_not_be_opened_is_named_and_not_remembered(folder, tmp_path, monkeypatch):
    def closed(path, *mode, **rest):
        if str(path).endswith("1.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *mode, **rest)

    with monkeypatch.context() as without:  # root may open everything
        without.setattr(decoding, "open", closed, raising=False)
        with pytest.raises(files.BadFiles, match="1.png: cannot be read .Permission denied"):
            gathered(folder, tmp_path)
    images, _ = gathered(folder, tmp_path)
    assert len(images) == 4
