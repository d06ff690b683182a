"""Data: disjoint, stable splits; an order that depends on the epoch only; helpful errors."""

import os
import urllib.error
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.transform import resize
from sklearn.datasets import load_digits

import config
import data
import train
from spots import blobs
from storage import runs


def rows_of(batches, count=None):
    """First pixel row of every image as bytes: enough to distinguish these images."""
    batches = batches if count is None else batches.take(count)
    return [image.tobytes() for batch in batches.as_numpy_iterator() for image in batch]


# --- splits --------------------------------------------------------------------------------------


def test_embedded_digits_have_every_digit_in_disjoint_stratified_splits():
    images = data.load(config.settings("digits"))
    assert images.embedded and images.image_shape == (32, 32, 1)
    assert [len(split) for split in images.splits.values()] == [1257, 270, 270]
    files = pd.concat([split.table["file"] for split in images.splits.values()])
    assert files.is_unique and len(files) == 1797
    for split in images.splits.values():
        shares = np.bincount(split.labels("digit"), minlength=10) / len(split)
        assert shares.min() > 0.08 and shares.max() < 0.12


def test_digits_are_announced_as_embedded(capsys):
    data.load(config.settings("digits"))
    assert "Embedded images: scikit-learn's 1,797 handwritten digits" in capsys.readouterr().out


def test_enlarged_digits_shrink_back_to_the_originals():
    images = data.load(config.settings("digits"))
    row = int(images.test.table["file"][0].split("/")[1])
    small = resize(images.test.images[0, ..., 0] / 255, (10, 10), anti_aliasing=True)
    original = np.pad(load_digits().images[row], 1)
    assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.95


def test_the_split_depends_on_its_seed_alone():
    def files(**changes):
        settings = replace(config.settings("digits"), **changes)
        return list(data.load(settings).test.table["file"])

    assert files() == files(seed=5, latent_dim=3)
    assert files() != files(split_seed=1)


def test_images_and_table_stay_aligned_through_the_split():
    images, labels = blobs(50)
    split = data.from_arrays(images, labels, name="spots")
    for part in split.splits.values():
        rows = [int(file.split("/")[1]) for file in part.table["file"]]
        np.testing.assert_array_equal(part.images, images[rows])
        np.testing.assert_array_equal(part.labels("label"), labels[rows])


def test_a_given_test_set_is_kept_whole():
    images, labels = blobs(60)
    split = data.from_arrays(images[:40], labels[:40], images[40:], labels[40:], fractions=(0.25,))
    np.testing.assert_array_equal(split.test.images, images[40:])
    assert (len(split.train), len(split.validation)) == (30, 10)


def test_membership_tells_the_digest_of_every_image():
    images, labels = blobs(40)
    members = data.from_arrays(images, labels).membership()
    assert list(members.columns) == ["file", "subject", "split", "digest"]
    assert len(members) == 40 and members["digest"].is_unique


# --- batches -------------------------------------------------------------------------------------


@pytest.fixture
def split():
    images, labels = blobs(50)
    return data.Split(images, pd.DataFrame({"label": labels}))


def test_an_epoch_shows_each_image_at_most_once_and_only_full_batches(split):
    steps = split.steps(16)
    rows = rows_of(split.batches(16, shuffle=True), steps)
    assert steps == 3 and len(rows) == len(set(rows)) == 48


def test_the_order_is_a_function_of_seed_and_epoch(split):
    steps = split.steps(16)
    both = rows_of(split.batches(16, shuffle=True, seed=1), 2 * steps)
    assert both == rows_of(split.batches(16, shuffle=True, seed=1), 2 * steps)
    assert both[48:] == rows_of(split.batches(16, shuffle=True, seed=1, first_epoch=1), steps)
    assert both[:48] != both[48:]
    assert both[:48] != rows_of(split.batches(16, shuffle=True, seed=2), steps)


def test_unshuffled_batches_are_the_whole_split_in_order(split):
    assert rows_of(split.batches(16)) == [image.tobytes() for image in split.images]


def test_labels_come_beside_their_images(split):
    for images, labels in split.batches(16, shuffle=True, labels="label").take(3):
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            (row,) = [i for i, each in enumerate(split.images) if np.array_equal(each, image)]
            assert split.table["label"][row] == label


def test_batches_are_uint8_with_a_static_shape(split):
    spec = split.batches(16, shuffle=True).element_spec
    assert spec.dtype == "uint8" and spec.shape == (16, 12, 12, 1)


def test_a_missing_label_is_minus_one_and_a_missing_column_is_named():
    images, _ = blobs(3)
    split = data.Split(images, pd.DataFrame({"digit": [1.0, np.nan, 2.0]}))
    assert split.labels("digit").tolist() == [1, -1, 2]
    with pytest.raises(ValueError, match="no column 'didgit'; it has: digit"):
        split.labels("didgit")


def test_a_batch_larger_than_the_split_is_refused_with_its_largest_size(split):
    with pytest.raises(ValueError, match="batch_size = 64.*50 or less"):
        split.batches(64, shuffle=True)


# --- bad arrays ----------------------------------------------------------------------------------


def test_images_without_a_channel_axis_get_one():
    assert data.as_uint8(np.zeros((3, 5, 4), np.uint8)).shape == (3, 5, 4, 1)


def test_floats_in_0_1_keep_their_values_to_a_grey_level():
    images = np.random.default_rng(0).uniform(size=(3, 5, 4, 1))
    assert np.abs(data.as_uint8(images) / 255 - images).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 4)), r"shape \(5, 4\) is not a stack of images"),
        (np.zeros((2, 5, 4, 2)), r"shape \(2, 5, 4, 2\) is not a stack"),
        (np.zeros((0, 5, 4)), "the array has no images"),
        (np.full((2, 5, 4), 200.0), r"pixels are in \[200, 200\], not in \[0, 1\]"),
        (np.full((2, 5, 4), -0.5), r"pixels are in \[-0.5, -0.5\]"),
        (np.zeros((2, 5, 4), np.int32), "dtype int32; give uint8"),
        (
            np.array([[[0.0]], [[np.nan]], [[np.inf]]]),
            "NaN or infinite pixels in 2 images.*index 1",
        ),
    ],
)
def test_a_bad_array_is_refused_with_what_is_wrong_and_what_to_do(images, message):
    with pytest.raises(ValueError, match="images: .*" + message):
        data.from_arrays(images)


def test_labels_that_do_not_begin_at_zero_keep_their_names():
    pixels, labels = np.zeros((40, 4, 4), np.uint8), np.tile([1, 2], 20)
    images = data.from_arrays(pixels, labels)
    assert images.classes == ("1", "2")
    assert set(images.train.labels("label")) == {0, 1}
    labels[:8] = -1
    assert set(data.from_arrays(pixels, labels).train.labels("label")) == {-1, 0, 1}
    named = data.from_arrays(pixels, np.tile([0, 2], 20), classes=("a", "b", "c"))
    assert named.classes == ("a", "b", "c") and set(named.train.labels("label")) == {0, 2}
    with pytest.raises(ValueError, match="2 is not one of 2 classes"):
        data.from_arrays(pixels, np.tile([1, 2], 20), classes=("a", "b"))
    with pytest.raises(ValueError, match="labels: dtype float64; give whole numbers"):
        data.from_arrays(pixels, np.tile([0.5, 2], 20))


def test_a_batch_that_few_unlabelled_images_cannot_fill_is_refused_by_its_own_name():
    pixels = np.zeros((40, 4, 4), np.uint8)
    labels = np.where(np.arange(40) < 36, np.arange(40) % 2, -1)
    split = data.Split(pixels[..., None], pd.DataFrame({"label": labels}))
    with pytest.raises(ValueError, match=r"batch_size = 16, 8 of them.*needs 8.*there are 4") as no:
        split.mixed_batches(16, "label")
    most = int(str(no.value).rsplit("batch_size to ", 1)[1].split()[0])
    split.mixed_batches(most, "label")
    with pytest.raises(ValueError):
        split.mixed_batches(most + 1, "label")


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels: shape \(3,\) for 20 images"):
        data.from_arrays(blobs(20)[0], np.zeros(3, int))


def test_an_image_shape_that_the_source_does_not_have_is_refused(mnist_file):
    settings = replace(config.settings("mnist"), image_shape=(32, 32, 1))
    with pytest.raises(ValueError, match=r"image_shape = \(32, 32, 1\).*\(28, 28, 1\)"):
        data.load(settings)


# --- MNIST ---------------------------------------------------------------------------------------


@pytest.fixture
def mnist_file(tmp_path, monkeypatch):
    """A small file in the layout of Keras' mnist.npz, and MNIST_PATH pointing at it."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (120, 28, 28), np.uint8),
        "y_train": np.arange(120, dtype=np.uint8) % 10,
        "x_test": random.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": np.arange(20, dtype=np.uint8) % 10,
    }
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays)
    monkeypatch.setattr(config, "MNIST_PATH", path)
    return path


def test_mnist_is_read_from_its_path_with_its_own_test_set(mnist_file):
    images = data.load(config.settings("mnist"))
    assert [len(split) for split in images.splits.values()] == [110, 10, 20]
    np.testing.assert_array_equal(images.test.images[..., 0], np.load(mnist_file)["x_test"])
    assert not images.embedded


def test_mnist_is_found_in_keras_cache(mnist_file, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    mnist_file.rename(tmp_path / "datasets" / "mnist.npz")
    monkeypatch.setattr(config, "MNIST_PATH", None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert len(data.load(config.settings("mnist")).test) == 20


def test_a_wrong_mnist_path_names_setting_path_and_the_embedded_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "MNIST_PATH", tmp_path / "nowhere.npz")
    with pytest.raises(FileNotFoundError, match='MNIST_PATH.*nowhere.npz.*EXPERIMENT = "digits"'):
        data.load(config.settings("mnist"))


def test_mnist_neither_on_disk_nor_downloadable_says_so_at_once(tmp_path, monkeypatch):
    def offline(*_):
        raise Exception("URL fetch failure on https://...: None -- [Errno -2] Name unknown")

    monkeypatch.setattr(config, "MNIST_PATH", None)
    monkeypatch.setattr(config, "EMBEDDED", False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    with pytest.raises(FileNotFoundError, match="MNIST_PATH.*URL fetch failure.*digits"):
        data.load(config.settings("mnist"))


def test_embedded_mode_never_downloads(tmp_path, monkeypatch):
    def forbidden(*_):
        raise urllib.error.URLError("a download was tried")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", forbidden)
    with pytest.raises(FileNotFoundError, match="ATLAS_EMBEDDED=1 forbids"):
        data.load(config.settings("mnist"))


def test_an_npz_that_is_not_mnist_names_what_it_lacks(tmp_path, monkeypatch):
    np.savez(tmp_path / "other.npz", x_train=np.zeros(1))
    monkeypatch.setattr(config, "MNIST_PATH", tmp_path / "other.npz")
    with pytest.raises(ValueError, match="lacks x_test, y_test, y_train"):
        data.load(config.settings("mnist"))


# --- OASIS ---------------------------------------------------------------------------------------


def write_pictures(folder, names, shape=(24, 24), seed=0):
    random = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Points a setting of `config` at a folder, and the cache at a temporary one."""
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")

    def point(name, path):
        monkeypatch.setattr(config, name, path)

    return point


OASIS = config.Settings(dataset="brain", image_shape=(12, 12, 1))
OASIS_NAMES = [
    f"keras_png_slices_{split}/case_{case:03d}_slice_{number}.nii.png"
    for split, cases in (("train", (1, 2, 3)), ("validate", (4,)), ("test", (5, 6)))
    for case in cases
    for number in (0, 7)
]


@pytest.mark.parametrize("level", ["", "slices", "keras_png_slices_data/slices"])
def test_oasis_is_found_at_every_level_with_the_split_it_comes_with(level, tmp_path, paths):
    write_pictures(tmp_path / "oasis" / level, OASIS_NAMES)
    paths("OASIS_DIR", tmp_path / "oasis")
    images = data.load(OASIS)
    assert {name: sorted(set(split.table["subject"])) for name, split in images.splits.items()} == {
        "train": ["001", "002", "003"],
        "validation": ["004"],
        "test": ["005", "006"],
    }
    assert sorted(images.test.table["slice"]) == [0, 0, 7, 7]
    assert images.image_shape == (12, 12, 1) and not images.embedded


def test_an_oasis_run_is_resumed(tmp_path, paths, monkeypatch):
    """Its subjects are called 001, 002, ..., which are not numbers."""
    write_pictures(tmp_path / "oasis", OASIS_NAMES)
    paths("OASIS_DIR", tmp_path / "oasis")
    settings = replace(OASIS, widths=(4,), batch_size=2, epochs=1)
    words = [f"--set={name}={getattr(settings, name)!r}" for name in ("widths", "batch_size")]
    words += ["--set=image_shape=12", "--set=kernel_sizes=3", "--set=dense_widths=()"]
    train.main(["brain", *words, "--epochs", "1", "--out", str(tmp_path / "run")])
    train.main(["--resume", str(tmp_path / "run")])
    assert runs.changed(tmp_path / "run", data.images_of(tmp_path / "run")) == ""


def test_an_oasis_subject_in_two_splits_is_refused(tmp_path, paths):
    write_pictures(tmp_path, [*OASIS_NAMES, "keras_png_slices_test/case_001_slice_3.nii.png"])
    paths("OASIS_DIR", tmp_path)
    with pytest.raises(ValueError, match="OASIS: 1 subjects are in more than one split, '001'"):
        data.load(OASIS)


def test_oasis_files_with_strange_names_are_counted(tmp_path, paths, capsys):
    write_pictures(tmp_path, [*OASIS_NAMES, "keras_png_slices_train/thumbnail.png"])
    paths("OASIS_DIR", tmp_path)
    assert len(data.load(OASIS).train) == 6
    assert "skipped 1 files without a name like case_001_slice_0.nii.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "dataset"),
    [("OASIS_DIR", "brain"), ("CHEST_DIR", "chest"), ("IMAGES_DIR", "gallery")],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_or_empty_folder_names_setting_path_and_layout(
    setting, dataset, empty, tmp_path, paths
):
    folder = tmp_path / "nowhere"
    if empty:
        folder.mkdir()
    paths(setting, folder)
    with pytest.raises(FileNotFoundError, match=f"{setting}: .*nowhere.*") as caught:
        data.load(config.Settings(dataset=dataset, image_shape=(12, 12, 1)))
    assert any(word in str(caught.value) for word in ("case_001", "Data_Entry", ".png"))


# --- NIH chest X-rays ----------------------------------------------------------------------------

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def nih_rows(rows):
    lines = [
        f"{name},{findings},0,{patient},{age},{sex},{view},1024,1024,0.1,0.1,\n"
        for name, findings, patient, age, sex, view in rows
    ]
    return HEADER + "".join(lines)


@pytest.fixture
def nih(tmp_path, paths):
    """A small set in NIH's layout: 60 patients, every sixth with a hernia."""
    rows = [
        (
            f"{patient:08d}_{number:03d}.png",
            "Hernia|Effusion" if patient % 6 == 0 else "No Finding",
            patient,
            f"{40 + patient:03d}Y" if patient % 2 else 40 + patient,
            "FM"[patient % 2],
            "PA" if number == 0 else "AP",
        )
        for patient in range(60)
        for number in range(2)
    ]
    rows[5] = (*rows[5][:1], "pleural_thickening|MASS", *rows[5][2:3], 414, *rows[5][4:])
    rows[7] = (*rows[7][:1], "", *rows[7][2:])
    write_pictures(tmp_path / "nih" / "images_001" / "images", [row[0] for row in rows[:60]])
    write_pictures(tmp_path / "nih" / "images_002" / "images", [row[0] for row in rows[60:]])
    (tmp_path / "nih" / "Data_Entry_2017_v2020.csv").write_text(nih_rows(rows))
    paths("CHEST_DIR", tmp_path / "nih")
    return tmp_path / "nih"


CHEST = config.Settings(dataset="chest", image_shape=(12, 12, 1))


def whole_table(images):
    table = pd.concat([split.table for split in images.splits.values()])
    return table.assign(name=table["file"].str.split("/").str[-1]).set_index("name")


def test_nih_has_a_boolean_column_for_each_finding_whatever_its_case(nih):
    table = whole_table(data.load(CHEST))
    assert len(table) == 120 and set(data.FINDINGS) <= set(table.columns)
    both = table.loc["00000006_000.png"]
    assert both["Hernia"] and both["Effusion"] and not both["No Finding"]
    odd = table.loc["00000002_001.png"]
    assert odd["Pleural_Thickening"] and odd["Mass"] and pd.isna(odd["age"])
    assert table["Hernia"].sum() == 20


def test_an_empty_finding_is_no_label_and_not_no_finding(nih):
    images = data.load(CHEST)
    row = whole_table(images).loc["00000003_001.png"]
    assert pd.isna(row["No Finding"]) and pd.isna(row["Hernia"])
    labels = np.concatenate([split.labels("Hernia") for split in images.splits.values()])
    assert sorted(set(labels)) == [-1, 0, 1] and (labels == -1).sum() == 1


def test_nih_ages_are_numbers_with_or_without_a_y(nih):
    table = whole_table(data.load(CHEST))
    assert table.loc["00000001_000.png", "age"] == 41 and table.loc["00000004_000.png", "age"] == 44


def test_nih_patients_are_disjoint_and_hernias_in_every_split(nih):
    images = data.load(CHEST)
    subjects = [set(split.table["subject"]) for split in images.splits.values()]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    hernias = [int((split.labels("Hernia") == 1).sum()) for split in images.splits.values()]
    assert hernias == [12, 4, 4]


def test_nih_test_list_is_kept_and_validation_comes_from_the_others(nih):
    tested = [f"{patient:08d}_{number:03d}.png" for patient in range(12) for number in range(2)]
    (nih / "test_list.txt").write_text("\n".join(tested))
    images = data.load(CHEST)
    assert sorted(name.split("/")[-1] for name in images.test.table["file"]) == tested
    assert len(images.validation) > 0
    assert "test list that comes with it" in images.note


def test_nih_selection_by_finding_and_view(nih):
    settings = replace(CHEST, findings=("Hernia",), views=("PA",))
    table = whole_table(data.load(settings))
    assert len(table) == 10 and table["Hernia"].all() and set(table["view"]) == {"PA"}
    with pytest.raises(ValueError, match=r"findings = \['Hernja'\]; allowed: Atelectasis"):
        data.load(replace(CHEST, findings=("Hernja",)))
    with pytest.raises(ValueError, match="select no image"):
        data.load(replace(CHEST, views=("LL",)))


def test_rows_without_a_file_and_files_without_a_row_are_counted(nih, capsys):
    (nih / "images_001" / "images" / "00000001_000.png").unlink()
    write_pictures(nih / "images_002" / "images", ["99999999_000.png", "99999999_001.png"])
    assert len(whole_table(data.load(CHEST))) == 119
    assert "1 rows of Data_Entry_2017_v2020.csv have no file and 2 files no row" in (
        capsys.readouterr().out
    )


def test_a_csv_that_is_not_nihs_names_what_it_lacks(tmp_path):
    (tmp_path / "other.csv").write_text("file,label\na.png,x\n")
    with pytest.raises(ValueError, match="has no column Image Index, Patient ID, Finding Labels"):
        data.nih_table(tmp_path / "other.csv")


def test_an_unknown_finding_is_refused_by_name(tmp_path):
    rows = [("a.png", "Hernia|Gremlins", 1, 50, "F", "PA")]
    (tmp_path / "table.csv").write_text(nih_rows(rows))
    with pytest.raises(ValueError, match=r"unknown findings \['gremlins'\]"):
        data.nih_table(tmp_path / "table.csv")


# --- any folder ----------------------------------------------------------------------------------

GALLERY = config.Settings(dataset="gallery", image_shape=(12, 12, 3))


@pytest.fixture
def folder(tmp_path, paths):
    """Sixty pictures of many sizes in two nested folders."""
    for number in range(60):
        kind = "cats" if number % 3 else "dogs"
        shape = (10 + number, 30 - number % 7)
        write_pictures(tmp_path / "pets" / kind, [f"{number:02d}.png"], shape, seed=number)
    paths("IMAGES_DIR", tmp_path / "pets")
    return tmp_path / "pets"


def test_any_folder_is_read_whatever_the_sizes(folder):
    images = data.load(GALLERY)
    assert sum(map(len, images.splits.values())) == 60 and images.image_shape == (12, 12, 3)
    assert images.label is None and images.name == "pets"


def test_a_file_that_is_added_moves_no_other(folder):
    before = data.load(GALLERY).membership().set_index("file")["split"]
    write_pictures(folder / "cats", [f"new{number}.png" for number in range(20)])
    after = data.load(GALLERY).membership().set_index("file")["split"]
    assert len(after) == 80 and (after[before.index] == before).all()


def test_nested_folders_are_labels_where_that_is_asked_for(folder):
    images = data.load(replace(GALLERY, labels="folders"))
    assert images.label == "folder" and images.classes == ("cats", "dogs")
    for split in images.splits.values():
        expected = [0 if "cats" in file else 1 for file in split.table["file"]]
        assert split.labels("folder").tolist() == expected


@pytest.fixture
def labelled(folder, tmp_path, paths):
    """A CSV for that folder: a label and an owner for all but the last ten files."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    table = pd.DataFrame(
        {"path": names, "mood": ["calm", "wild"] * 30, "owner": np.arange(60) // 4}
    )
    table = pd.concat([table[:50], pd.DataFrame({"path": ["gone.png"], "mood": ["calm"]})])
    table.to_csv(tmp_path / "labels.csv", index=False)
    paths("LABELS_CSV", tmp_path / "labels.csv")
    return replace(GALLERY, labels="csv", file_column="path", label_column="mood")


def test_labels_come_from_a_csv_and_what_does_not_match_is_counted(labelled, capsys):
    images = data.load(labelled)
    labels = np.concatenate([split.labels("mood") for split in images.splits.values()])
    assert images.classes == ("calm", "wild")
    assert np.bincount(labels + 1).tolist() == [10, 25, 25]
    assert "1 rows have no file" in (out := capsys.readouterr().out)
    assert "10 files have no row and stay without a label" in out


@pytest.mark.parametrize(
    "changes", [{"subject_column": "owner"}, {"label_column": "mood"}, {"file_column": "path"}]
)
def test_a_column_of_a_table_that_is_not_read_is_refused(labelled, changes):
    ((name, value),) = changes.items()
    settings = replace(GALLERY, labels="none", **changes)
    with pytest.raises(ValueError, match=f'{name} = {value!r} is a column .* set labels = "csv"'):
        data.load(settings)


def test_text_is_balanced_over_the_splits_and_a_column_may_be_subject_and_label(labelled, tmp_path):
    images = data.load(replace(labelled, stratify="mood"))
    table = pd.read_csv(tmp_path / "labels.csv").assign(tone="low")
    table.loc[::3, "tone"] = "high"
    table.to_csv(tmp_path / "labels.csv", index=False)
    images = data.load(replace(labelled, stratify="tone"))
    shares = [(each.table["tone"] == "high").mean() for each in images.splits.values()]
    np.testing.assert_allclose(shares, np.mean(shares), atol=0.12)
    both = data.load(replace(labelled, label_column="owner", subject_column="owner"))
    kept = both.train.table[both.train.labels("owner") >= 0]
    names = [both.classes[code] for code in kept["owner"]]
    assert names == kept["subject"].tolist()


def test_a_column_called_subject_is_the_subject(labelled, tmp_path, capsys):
    table = pd.read_csv(tmp_path / "labels.csv")
    table.rename(columns={"owner": "subject"}).assign(slice=7).to_csv(
        tmp_path / "labels.csv", index=False
    )
    images = data.load(labelled)
    subjects = [set(split.table["subject"]) for split in images.splits.values()]
    assert len(set.union(*subjects)) == 13 + 10
    assert "slice in labels.csv" in images.train.table


def test_only_what_is_empty_is_no_label(labelled, tmp_path):
    table = pd.read_csv(tmp_path / "labels.csv")
    table["mood"] = table["mood"].replace("calm", "NA")
    table.loc[0, "mood"] = ""
    table.to_csv(tmp_path / "labels.csv", index=False)
    images = data.load(labelled)
    labels = np.concatenate([split.labels("mood") for split in images.splits.values()])
    assert images.classes == ("NA", "wild") and np.bincount(labels + 1).tolist() == [11, 24, 25]


def test_rows_that_contradict_each_other_are_refused_and_repeats_are_not(labelled, tmp_path):
    table = pd.read_csv(tmp_path / "labels.csv")
    pd.concat([table, table[:5]]).to_csv(tmp_path / "labels.csv", index=False)
    data.load(labelled)
    other = table[:1].assign(mood="wild" if table["mood"][0] == "calm" else "calm")
    pd.concat([table, other]).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(ValueError, match="labels.csv: 1 files have contradictory rows"):
        data.load(labelled)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("path,mood\nb.png,d\xe9j\xe0".encode("latin-1"), "is not UTF-8"), (b"", "is empty")],
)
def test_a_table_that_cannot_be_read_is_named(content, reason, labelled, tmp_path):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"labels.csv {reason}"):
        data.load(labelled)


def test_images_of_one_owner_stay_in_one_split(labelled):
    images = data.load(replace(labelled, subject_column="owner"))
    subjects = [set(split.table["subject"]) for split in images.splits.values()]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    assert len(set.union(*subjects)) == 13 + 10  # owners, and each file without a row


def test_a_split_can_be_stratified_by_a_label(labelled):
    images = data.load(replace(labelled, stratify="mood"))
    wild = [int((split.labels("mood") == 1).sum()) for split in images.splits.values()]
    assert wild == [15, 5, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": "temper"}, "no column 'temper' for the label; it has: path, mood, owner"),
        ({"file_column": "file"}, "no column 'file' for the file"),
        ({"subject_column": "herd"}, "no column 'herd' for the subject"),
        ({"stratify": "colour"}, "stratify = 'colour' is not a column"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(changes, message, labelled):
    with pytest.raises(ValueError, match=message):
        data.load(replace(labelled, **changes))


def test_labels_from_a_csv_that_is_not_set_name_the_setting(folder, paths):
    paths("LABELS_CSV", None)
    with pytest.raises(FileNotFoundError, match='LABELS_CSV: labels="csv" needs a file'):
        data.load(replace(GALLERY, labels="csv"))


def test_a_folder_knows_where_it_lies_and_stand_ins_lie_nowhere(folder, paths):
    assert data.load(GALLERY).paths == {"IMAGES_DIR": folder}
    origin = data.Origin({"IMAGES_DIR": folder})
    paths("IMAGES_DIR", None)
    assert data.load(GALLERY, origin).name == "pets"
    photos = data.load(replace(GALLERY, image_shape=(32, 32, 3)))
    assert photos.embedded and photos.paths == {}
    assert data.from_arrays(np.zeros((40, 4, 4), np.uint8)).paths is None


def test_questions_of_classes_go_to_the_digits_where_there_are_none(folder, capsys):
    settings, images = data.load_labelled(GALLERY)
    assert images.name == settings.dataset == "digits"
    assert "pets has no labels" in capsys.readouterr().out
    settings, images = data.load_labelled(replace(GALLERY, labels="folders"))
    assert settings.dataset == "gallery" and len(images.classes) == 2


def test_one_bad_file_stops_before_training_and_is_named(folder):
    (folder / "cats" / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ValueError, match="cats/torn.png: is no PNG"):
        data.load(GALLERY)
    assert sum(map(len, data.load(replace(GALLERY, on_bad_file="skip")).splits.values())) == 60


# --- stand-ins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "shape", "name"),
    [
        ("brain", (32, 32, 1), "brain template"),
        ("chest", (32, 32, 1), "chest phantom"),
        ("gallery", (32, 32, 3), "photos"),
    ],
)
def test_without_a_path_a_stand_in_is_announced_and_never_called_by_the_real_name(
    dataset, shape, name, capsys
):
    images = data.load(config.Settings(dataset=dataset, image_shape=shape))
    announced = capsys.readouterr().out
    assert images.embedded and images.name == name
    assert announced.startswith("Embedded images: ") and announced.count("\n") == 1
    assert "OASIS" not in announced and "NIH" not in announced
    assert min(map(len, images.splits.values())) >= 10
    subjects = [set(split.table["subject"]) for split in images.splits.values()]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])


# --- real data, where they are -------------------------------------------------------------------


@pytest.mark.skipif("REAL_CHEST_DIR" not in os.environ, reason="REAL_CHEST_DIR is not set")
def test_the_real_chest_subset_has_its_known_counts(paths):
    from pathlib import Path

    paths("CHEST_DIR", Path(os.environ["REAL_CHEST_DIR"]))
    images = data.load(config.Settings(dataset="chest", image_shape=(64, 64, 1)))
    table = whole_table(images)
    counts = len(table), int(table["Hernia"].sum()), int(table["No Finding"].sum())
    assert counts == (1593, 44, 441)
    for split in (images.validation, images.test):
        assert (split.labels("Hernia") == 1).sum() >= 5
