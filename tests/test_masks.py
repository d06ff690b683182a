"""Masks of lesions beside images: they stay with them, and bad ones are refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import config
import data
import fuzz
from sources import phantoms
from spots import blobs

SETTINGS = config.Settings(
    dataset="gallery", image_shape=(12, 12, 1), subjects="folders", split_seed=3
)


@pytest.fixture
def lesions(tmp_path, monkeypatch):
    """40 subjects with three images each, the third with a lesion; its folder and `data.load`."""
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(config, "IMAGES_DIR", tmp_path / "images")
    monkeypatch.setattr(config, "MASKS_DIR", tmp_path / "masks")
    for row, image in enumerate(blobs(120, (24, 24, 1))[0]):
        name = f"S{row // 3:02d}/{row % 3}.png"
        save(tmp_path / "images" / name, image[..., 0])
        if row % 3 == 2:
            save(tmp_path / "masks" / name, 255 * (image[..., 0] > 128).astype(np.uint8))
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_every_image_has_its_mask_and_its_number_of_lesion_pixels(lesions):
    images = data.load(SETTINGS)
    for split in images.splits.values():
        assert split.masks.shape == (*split.images.shape[:3], 1)
        third = split.table["file"].str.endswith("2.png").to_numpy()
        assert (split.table["lesion_pixels"] > 0).tolist() == third.tolist()
        counted = np.count_nonzero(split.masks, axis=(1, 2, 3))
        np.testing.assert_array_equal(split.table["lesion_pixels"], counted)
        # A mask reduced by nearest neighbour lies where its blob is bright.
        inside = split.images[third][split.masks[third] > 0]
        assert inside.mean() > 150 > 60 > split.images[third][split.masks[third] == 0].mean()
        subjects = split.table["file"].str.split("/").str[0]
        assert (subjects == split.table["subject"]).all()
    assert images.paths["MASKS_DIR"] == lesions / "masks"


def test_without_lesions_only_the_training_images_change(lesions):
    whole, healthy = data.load(SETTINGS), data.load(replace(SETTINGS, lesion_free=True))
    assert len(healthy.train) == 2 * len(whole.train) // 3 and not healthy.train.masks.any()
    for name in ("validation", "test"):
        np.testing.assert_array_equal(healthy.splits[name].masks, whole.splits[name].masks)
    assert "without a lesion" in healthy.note


def test_masks_inside_of_the_folder_of_images_are_no_images(lesions, monkeypatch):
    (lesions / "masks").rename(lesions / "images" / "masks")
    monkeypatch.setattr(config, "MASKS_DIR", lesions / "images" / "masks")
    images = data.load(SETTINGS)
    assert sum(map(len, images.splits.values())) == 120
    assert images.train.masks.any()


def test_masks_of_another_ending_belong_to_their_image(lesions):
    for mask in (lesions / "masks").rglob("*.png"):
        mask.rename(mask.with_suffix(".bmp").with_name(mask.stem + ".png"))
    path = lesions / "masks" / "S00" / "2.png"
    Image.open(path).save(path.with_suffix(".tiff"))
    path.unlink()
    images = data.load(SETTINGS)
    ill = sum((split.table["lesion_pixels"] > 0).sum() for split in images.splits.values())
    assert ill == 40


def test_the_mask_of_a_volume_lies_on_the_slices_of_its_image(tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    for name in ("cache", "images", "masks"):
        monkeypatch.setattr(config, f"{name.upper()}_DIR", tmp_path / name)
        (tmp_path / name).mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        volume = random.uniform(20, 60, (24, 24, 10)).astype(np.float32)
        lesion = np.zeros(volume.shape, np.uint8)
        if number % 2:
            across, down = random.integers(4, 16, 2)
            lesion[across : across + 6, down : down + 4, 5:] = 1  # the slices from the fifth on
            volume[lesion > 0] = 200.0
        image = nibabel.Nifti1Image(volume, np.eye(4))
        nibabel.save(image, tmp_path / "images" / f"S{number:02d}.nii.gz")
        if number % 2:
            nibabel.save(
                nibabel.Nifti1Image(lesion, np.eye(4)), tmp_path / "masks" / f"S{number:02d}.nii"
            )
    images = data.load(replace(SETTINGS, image_shape=(24, 24, 1), subjects="files"))
    for split in images.splits.values():
        odd = split.table["file"].str.contains(r"[13579]\.nii").to_numpy()  # contrast is by volume
        np.testing.assert_array_equal(split.images[odd] > 150, split.masks[odd] > 0)
        ill = split.table["lesion_pixels"].to_numpy() > 0
        assert not ill[~odd].any() and ill[odd].any() and not ill[odd].all()


@pytest.mark.parametrize("stored", [{}, {"WindowCenter": 100, "WindowWidth": 20}])
def test_a_dicom_mask_is_what_is_not_0_whatever_its_window(tmp_path, monkeypatch, stored):
    pytest.importorskip("pydicom")
    for name in ("cache", "images", "masks"):
        monkeypatch.setattr(config, f"{name.upper()}_DIR", tmp_path / name)
        (tmp_path / name).mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        picture = random.integers(200, 600, (24, 24)).astype(np.uint16)
        if number % 2:
            lesion = np.zeros((24, 24), np.uint8)
            lesion[8:14, number // 2 : number // 2 + 5] = 1
            picture[lesion > 0] = 4000
            path = tmp_path / "masks" / f"S{number:02d}.dcm"
            path.write_bytes(fuzz.dicom(lesion, **stored))
        path = tmp_path / "images" / f"S{number:02d}.dcm"
        path.write_bytes(fuzz.dicom(picture, BitsStored=12))
    images = data.load(replace(SETTINGS, image_shape=(24, 24, 1), subjects="files"))
    for split in images.splits.values():
        odd = split.table["file"].str.contains(r"[13579]\.dcm").to_numpy()  # contrast is by file
        np.testing.assert_array_equal(split.images[odd] > 200, split.masks[odd] > 0)
        assert split.table["lesion_pixels"].tolist() == [30 * each for each in odd.tolist()]


def test_masks_that_cannot_be_meant_are_refused_with_what_is_wrong(lesions):
    mask = lesions / "masks" / "S00" / "2.png"
    whole = np.asarray(Image.open(mask))
    save(mask, whole[:20])
    with pytest.raises(ValueError, match="S00/2.png has 24 x 20 pixels and its image 24 x 24"):
        data.load(SETTINGS)
    save(mask, whole)
    save(lesions / "masks" / "S00" / "9.png", whole)
    with pytest.raises(ValueError, match="1 masks have no image of their name .*: S00/9.png"):
        data.load(SETTINGS)
    (lesions / "masks" / "S00" / "9.png").unlink()
    for path in (lesions / "masks").rglob("*.png"):
        save(path, 0 * whole)
    with pytest.raises(ValueError, match="all 40 masks in .* are empty"):
        data.load(SETTINGS)
    for path in (lesions / "masks").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="MASKS_DIR: there are no masks"):
        data.load(SETTINGS)


def test_missing_masks_are_refused_where_a_setting_needs_them(lesions, monkeypatch):
    monkeypatch.setattr(config, "MASKS_DIR", lesions / "nowhere")
    with pytest.raises(FileNotFoundError, match="MASKS_DIR: there is no folder"):
        data.load(SETTINGS)
    monkeypatch.setattr(config, "MASKS_DIR", None)
    assert data.load(SETTINGS).train.masks is None
    with pytest.raises(ValueError, match="lesion_free = True, but images has no masks"):
        data.load(replace(SETTINGS, lesion_free=True))


def test_grey_levels_are_normalized_by_subject(lesions):
    for path in (lesions / "images" / "S01").glob("*.png"):
        save(path, np.asarray(Image.open(path)) // 3)
    plain = data.load(SETTINGS)
    images = data.load(replace(SETTINGS, normalize="subject"))
    tops = {"plain": [], "normalized": []}
    for name, each in (("plain", plain), ("normalized", images)):
        for split in each.splits.values():
            for subject in split.table["subject"].unique():
                own = split.images[(split.table["subject"] == subject).to_numpy()]
                tops[name].append(own.max())
    assert min(tops["plain"]) < 90 and min(tops["normalized"]) > 165
    assert images.train.digests is None and "grey levels by subject" in images.note
    assert "grey levels by image" in data.load(replace(SETTINGS, normalize="image")).note


def test_a_table_may_give_the_split(lesions, monkeypatch):
    files = [f"S{row // 3:02d}/{row % 3}.png" for row in range(120)]
    table = pd.DataFrame({"file": files, "subject": [each[:3] for each in files], "label": 1})
    table["part"] = np.where(table["subject"] < "S20", "train", "test")
    table.loc[table["subject"] == "S39", "part"] = "validation"
    table.to_csv(lesions / "table.csv", index=False)
    monkeypatch.setattr(config, "LABELS_CSV", lesions / "table.csv")
    settings = replace(SETTINGS, labels="csv", split_column="part")
    assert [len(each) for each in data.load(settings).splits.values()] == [60, 3, 57]
    with pytest.raises(ValueError, match="split_column = 'place' needs"):
        data.load(replace(settings, split_column="place"))
    table["part"] = "here"
    table.to_csv(lesions / "table.csv", index=False)
    with pytest.raises(ValueError, match="column part has 'here'; give train, validation, test"):
        data.load(settings)


# --- phantoms ------------------------------------------------------------------------------------


def test_lesions_of_the_template_change_what_their_masks_say_and_push_the_rest():
    plain, _ = phantoms.brains(48, 30, 6, seed=2)
    images, masks, table = phantoms.brains_with_lesions(48, 30, 6, seed=2)
    ill = masks.any(axis=(1, 2, 3))
    has = (table["lesion_size"] > 0).to_numpy()
    assert 0.1 < has.mean() < 0.6 and not (ill & ~has).any()
    np.testing.assert_array_equal(images[~has], plain[~has])
    away = (images.astype(float) - plain)[..., 0]
    inside = masks[..., 0] > 0
    for row in np.flatnonzero(masks.sum(axis=(1, 2, 3)) > 20):
        sign = np.sign(table["lesion_grey"][row])
        assert sign * away[row][inside[row]].mean() > 0.03 * 255
        assert np.abs(away[row][~inside[row]]).mean() > 0.0  # the mass effect
    again = phantoms.brains_with_lesions(48, 30, 6, seed=2, share=0.0)
    np.testing.assert_array_equal(again[0], plain)
    assert not again[1].any()


def test_the_chest_phantom_has_the_masks_of_its_hernias():
    images = data.chest_phantom(32, subjects=40)
    table = pd.concat([split.table for split in images.splits.values()])
    healthy = table["Hernia"] == 0
    assert (table.loc[healthy, "lesion_pixels"] == 0).all()
    large = table["hernia_size"] > 0.15
    assert (table.loc[large, "lesion_pixels"] > 5).all()
