"""Embedded images: reproducible, with correct factors."""

import numpy as np
import pytest

from sources import phantoms


@pytest.fixture(scope="module")
def factors():
    return phantoms.chest_factors(subjects=200, images=2, seed=1)


def test_the_same_seed_gives_the_same_patients_and_pictures(factors):
    again = phantoms.chest_factors(subjects=200, images=2, seed=1)
    assert factors.equals(again) and not factors.equals(phantoms.chest_factors(200, 2, seed=2))
    pictures = phantoms.render_chests(factors.head(6), 48)
    np.testing.assert_array_equal(pictures, phantoms.render_chests(factors.head(6), 48))
    assert pictures.shape == (6, 48, 48, 1) and pictures.dtype == np.uint8


def test_a_picture_does_not_depend_on_those_beside_it(factors):
    together = phantoms.render_chests(factors.head(5), 48)
    np.testing.assert_array_equal(phantoms.render_chests(factors.iloc[[3]], 48)[0], together[3])


def test_images_of_a_subject_share_the_patient_and_not_the_picture(factors):
    patient = ["age", "heart", "sex", "Hernia", "hernia_size", "lungs", "bones"]
    assert (factors.groupby("subject")[patient].nunique() == 1).all(axis=None)
    assert (factors.groupby("subject")[["x", "exposure", "noise_seed"]].nunique() == 2).all(
        axis=None
    )


def test_hernias_are_as_common_and_as_large_as_stated(factors):
    many = phantoms.chest_factors(subjects=4000, images=1)
    assert many["Hernia"].mean() == pytest.approx(phantoms.HERNIA_SHARE, abs=0.03)
    sizes = many.loc[many["Hernia"], "hernia_size"]
    low, high = phantoms.HERNIA_SIZES
    assert low <= sizes.min() < 1.1 * low and 0.98 * high < sizes.max() <= high
    assert (many.loc[~many["Hernia"], "hernia_size"] == 0).all()


def test_a_twin_differs_in_the_hernia_alone(factors):
    large = factors[factors["hernia_size"] > 0.2].head(8)
    images = phantoms.render_chests(large, 64)
    twins, masks = phantoms.hernia_twins(large, 64)
    for image, twin, mask, (_, row) in zip(images, twins, masks, large.iterrows(), strict=True):
        rows, columns = np.nonzero(mask[..., 0])
        assert 0.5 < (columns.max() - columns.min() + 1) / 64 / row["hernia_size"] < 1.4
        assert rows.min() > 64 * 0.35 and rows.max() < 64 * 0.85  # behind the heart
        away = np.abs(image.astype(int) - twin)[~mask]
        assert away.max() <= 255 * phantoms.MASK_THRESHOLD + 1


def test_an_image_without_a_hernia_is_its_own_twin(factors):
    healthy = factors[~factors["Hernia"]].head(4)
    twins, masks = phantoms.hernia_twins(healthy, 48)
    np.testing.assert_array_equal(twins, phantoms.render_chests(healthy, 48))
    assert not masks.any()


def test_a_larger_hernia_changes_more(factors):
    healthy = factors[~factors["Hernia"]].head(10)
    changed = [
        phantoms.hernia_twins(healthy.assign(hernia_size=size), 64)[1].sum()
        for size in (0.03, 0.1, 0.2, 0.28)
    ]
    assert changed == sorted(changed) and changed[0] > 0


def test_factors_are_independent_unless_confounding_is_asked_for():
    def correlations(confound):
        table = phantoms.chest_factors(subjects=6000, images=1, confound=confound)
        return [np.corrcoef(table["Hernia"], table[name])[0, 1] for name in ("age", "heart")]

    assert np.abs(correlations(0.0)).max() < 0.05
    np.testing.assert_allclose(correlations(0.8), 0.8, atol=0.08)


def test_age_can_be_the_cause_of_large_hearts_and_of_hernias():
    table = phantoms.chest_factors(subjects=8000, images=1, aging=0.8)
    numbers = table[["age", "heart", "Hernia"]].to_numpy(float)
    old_large, old_ill, large_ill = np.corrcoef(numbers.T)[[0, 0, 1], [1, 2, 2]]
    assert abs(old_large - 0.8) < 0.02
    assert abs(table["Hernia"].mean() - phantoms.HERNIA_SHARE) < 0.02
    assert large_ill > 0.4  # through the age alone: given it, nothing is left
    left = large_ill - old_large * old_ill
    assert abs(left) < 0.03


def test_brain_slices_carry_subject_and_level_and_fill_the_middle():
    images, table = phantoms.brains(size=48, subjects=6, slices=4)
    assert images.shape == (24, 48, 48, 1) and len(table) == 24
    assert table["file"].is_unique and table["subject"].nunique() == 6
    assert images[:, :4].max() < 40 and images[:, 20:28, 15:33].mean() > 80
    again, _ = phantoms.brains(size=48, subjects=6, slices=4)
    np.testing.assert_array_equal(images, again)


def test_brains_differ_between_subjects_more_than_by_noise():
    images, table = phantoms.brains(size=48, subjects=5, slices=1)
    differences = np.abs(images[1:].astype(int) - images[:-1])
    assert differences[:, 12:36, 12:36].mean() > 8


def test_photos_are_eighty_crops_and_no_photo_stands_in_two_splits():
    images, table = phantoms.photos(32, 40)
    assert images.shape == (80, 32, 40, 3)
    assert (table.groupby("subject")["split"].nunique() == 1).all()
    assert table["split"].value_counts().to_dict() == {"train": 60, "validation": 10, "test": 10}
    assert images.std(axis=(1, 2, 3)).min() > 3
