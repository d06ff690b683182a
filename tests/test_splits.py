"""Splitting rules: subjects stay together, splits are stable, rare labels are in every part."""

import numpy as np
import pandas as pd
import pytest

from sources import files, splits
from spots import blobs

SUBJECTS = np.array([f"S{number:03d}" for number in range(300)]).repeat(3)


def test_a_subject_stays_in_one_split_whatever_the_rule():
    rare = np.arange(len(SUBJECTS)) % 50 == 0
    for places in (splits.by_hash(SUBJECTS), splits.by_group(SUBJECTS, rare)):
        assert set(places) == set(splits.NAMES)
        assert splits.shared(SUBJECTS, places) == []


def test_a_hashed_split_stays_when_subjects_come_and_go():
    places = dict(zip(SUBJECTS, splits.by_hash(SUBJECTS), strict=True))
    more = np.concatenate([SUBJECTS[30:], [f"new{number}" for number in range(100)]])
    for subject, place in zip(more, splits.by_hash(more), strict=True):
        assert places.get(subject, place) == place


def test_a_hashed_split_has_its_shares_and_depends_on_the_seed():
    many = np.array([f"{number}" for number in range(20_000)])
    places = splits.by_hash(many, shares=(0.1, 0.2))
    assert np.mean(places == "validation") == pytest.approx(0.1, abs=0.01)
    assert np.mean(places == "test") == pytest.approx(0.2, abs=0.01)
    assert np.mean(places == splits.by_hash(many, seed=1, shares=(0.1, 0.2))) < 0.7


def test_a_rare_label_reaches_every_part():
    random = np.random.default_rng(0)
    subjects = np.array([f"S{number}" for number in range(1500)])
    rare = np.zeros(1500, bool)
    rare[random.choice(1500, 30, replace=False)] = True
    places = splits.by_group(subjects, rare)
    counts = [rare[places == name].sum() for name in splits.NAMES]
    assert counts == [18, 6, 6]


@pytest.mark.parametrize("n", [30, 50, 60, 200])
def test_parts_with_fewer_rows_than_classes_are_drawn_without_them(n):
    classes = np.arange(n) % 10
    first, second = splits.two_parts(np.arange(n), classes, 0.15)
    assert len(second) == np.ceil(0.15 * n) and sorted([*first, *second]) == list(range(n))
    assert (len(set(classes[second])) == 10) == (n == 200)


def test_a_subject_in_two_splits_is_refused_by_name():
    images, _ = blobs(4)
    table = pd.DataFrame({"file": list("abcd"), "subject": ["s", "t", "s", "u"]})
    with pytest.raises(ValueError, match="1 subjects are in more than one split, 's'"):
        splits.from_table(images, table, ["train", "train", "test", "validation"], "four")


def test_images_on_disk_are_divided_like_images_in_memory(tmp_path):
    images, _ = blobs(40)
    on_disk = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, images.shape)
    on_disk[:] = images
    table = pd.DataFrame({"file": range(40), "subject": range(40)})
    places = splits.by_hash(table["subject"])
    held = splits.from_table(images, table, places, "held")
    lying = splits.from_table(files.Rows(on_disk, np.arange(40)), table, places, "lying")
    for one, other in zip(held.splits.values(), lying.splits.values(), strict=True):
        assert isinstance(other.images, files.Rows)
        np.testing.assert_array_equal(one.images, other.images[:])
        batch = next(iter(other.batches(4, shuffle=True)))
        np.testing.assert_array_equal(batch, next(iter(one.batches(4, shuffle=True))))
    pd.testing.assert_frame_equal(held.membership(), lying.membership())


# --- augmentation --------------------------------------------------------------------------------


def numbered(n=20):
    """Images whose pixels encode their position, and whose level encodes their row."""
    images = np.zeros((n, 6, 5, 1), np.uint8)
    images[..., 0] = np.arange(30).reshape(6, 5) + 7 * np.arange(n)[:, None, None]
    return splits.Split(images, pd.DataFrame({"row": np.arange(n)}))


def epoch(split, **options):
    batches = split.batches(10, shuffle=True, labels="row", **options)
    return [
        (image, row)
        for images, rows in batches.take(2)
        for image, row in zip(images.numpy(), rows.numpy(), strict=True)
    ]


def test_augmentation_is_a_function_of_seed_epoch_and_image():
    split, options = numbered(), {"shift": 2, "flip": "sideways", "seed": 3}
    first = epoch(split, **options)
    for (one, row), (other, same) in zip(first, epoch(split, **options), strict=True):
        assert row == same
        np.testing.assert_array_equal(one, other)
    later = dict((row, image) for image, row in epoch(split, first_epoch=1, **options))
    assert any(np.any(later[row] != image) for image, row in first)


def test_a_shift_moves_within_its_bounds_and_repeats_the_edge():
    split, moves = numbered(), set()
    for number in range(20):
        for image, row in epoch(split, shift=2, first_epoch=number):
            original = split.images[row][..., 0]
            padded = np.pad(original, 2, mode="edge")
            fits = [
                (down, across)
                for down in range(5)
                for across in range(5)
                if np.array_equal(padded[down : down + 6, across : across + 5], image[..., 0])
            ]
            assert len(fits) >= 1
            moves.update(fits)
    assert len(moves) == 25


def test_augmented_images_are_those_of_the_epoch():
    split, options = numbered(), {"shift": 2, "flip": "sideways", "seed": 3}
    images = split.augmented(4, **options)
    for image, row in epoch(split, first_epoch=4, **options):
        np.testing.assert_array_equal(image, images[row])


@pytest.mark.parametrize(("flip", "axis"), [("sideways", 1), ("upright", 0)])
def test_a_flip_mirrors_about_half_of_the_images(flip, axis):
    split, mirrored = numbered(), []
    for number in range(10):
        for image, row in epoch(split, flip=flip, first_epoch=number):
            original = split.images[row]
            same = np.array_equal(image, original)
            assert same or np.array_equal(image, np.flip(original, axis))
            mirrored.append(not same)
    assert 0.35 < np.mean(mirrored) < 0.65


def test_without_augmentation_images_pass_unchanged():
    split = numbered()
    for image, row in epoch(split):
        np.testing.assert_array_equal(image, split.images[row])


def test_no_batches_wait_for_a_tuner_when_they_end():
    split = numbered()
    split.table["few"] = np.where(split.table["row"] < 5, 0, np.nan)
    split.table["all"] = 0
    mixed = [split.mixed_batches(10, labels)[0] for labels in ("few", "all")]
    for batches in (split.batches(10), split.batches(10, shuffle=True), *mixed):
        assert batches.options().autotune.enabled is False
