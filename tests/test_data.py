"""Data: disjoint splits that stay, an order that is a function of the epoch, errors that help."""

import urllib.error
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from skimage.transform import resize
from sklearn.datasets import load_digits

import config
import data
from spots import blobs


def rows_of(batches, count=None):
    """First pixel row of every image as bytes: enough to tell these images apart."""
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
    assert list(members.columns) == ["file", "subject", "split", "size", "digest"]
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
        (np.zeros((5, 4)), r"shape \(5, 4\) is no stack of images"),
        (np.zeros((2, 5, 4, 2)), r"shape \(2, 5, 4, 2\) is no stack"),
        (np.zeros((0, 5, 4)), "there are no images"),
        (np.full((2, 5, 4), 200.0), r"pixels lie in \[200, 200\], not in \[0, 1\]"),
        (np.full((2, 5, 4), -0.5), r"pixels lie in \[-0.5, -0.5\]"),
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


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels: shape \(3,\) beside 20 images"):
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
