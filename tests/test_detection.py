"""Measures of lesions against scikit-learn, and against values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from analysis import detection
from analysis.detection import Counts


@pytest.fixture
def pixels():
    """Maps of 12 images of 4 subjects that are higher in lesions, with ties."""
    random = np.random.default_rng(0)
    masks = (random.random((12, 6, 5, 1)) < 0.1).astype(np.uint8)
    masks[:3] = 0
    maps = np.round(random.normal(size=(12, 6, 5)) + 1.5 * masks[..., 0], 1)
    return maps, masks, np.repeat(["a", "b", "c", "d"], 3)


def test_average_precision_and_dice_are_those_of_scikit_learn(pixels):
    maps, masks, subjects = pixels
    counts, truth = Counts.of(maps, masks, subjects), masks.ravel() > 0
    expected = average_precision_score(truth, maps.ravel())
    assert detection.average_precision(counts) == pytest.approx(expected, rel=1e-12)
    for threshold in (-0.5, 0.7, 2.0):
        marked = maps.ravel() >= threshold
        assert detection.dice(counts, threshold) == pytest.approx(f1_score(truth, marked))
    assert detection.dice(counts, 99.0) == 0.0


def test_the_best_dice_is_the_best_over_all_thresholds(pixels):
    maps, masks, subjects = pixels
    counts = Counts.of(maps, masks, subjects)
    value, threshold = detection.best_dice(counts)
    all_of_them = [f1_score(masks.ravel() > 0, maps.ravel() >= each) for each in np.unique(maps)]
    assert value == pytest.approx(max(all_of_them[1:]))
    assert detection.dice(counts, threshold) == pytest.approx(value)


def test_bins_change_average_precision_by_less_than_a_thousandth():
    random = np.random.default_rng(1)
    masks = random.random((40, 20, 20)) < 0.02
    maps = random.normal(size=masks.shape) + 2.0 * masks
    counts = Counts.of(maps, masks, np.arange(40))
    assert len(counts.edges) < maps.size / 2
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert abs(detection.average_precision(counts) - expected) < 1e-3


def test_a_subject_that_counts_twice_is_the_same_as_its_images_twice(pixels):
    maps, masks, subjects = pixels
    twice = np.r_[0:12, 3:6]
    counts = Counts.of(maps, masks, subjects)
    weighted = detection.average_precision(counts, np.array([1, 2, 1, 1]))
    again = Counts.of(maps[twice], masks[twice], subjects[twice])
    assert weighted == pytest.approx(detection.average_precision(again))


def test_a_lesion_where_pixels_were_left_out_is_missed():
    maps, masks = np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    masks[0, 0, :2] = 1
    maps[0, 0, 0] = 1.0  # one of the two is found, and nothing else is marked
    counts = Counts.of(maps, masks, ["a"])
    # Precision 1 at recall 1/2, then 2/16 when everything is marked.
    assert detection.average_precision(counts) == pytest.approx(0.5 + 0.5 * 2 / 16)
    assert detection.best_dice(counts)[0] == pytest.approx(2 / 3)


def test_masks_without_a_lesion_cannot_be_measured(pixels):
    maps, masks, subjects = pixels
    with pytest.raises(ValueError, match="no pixel of 12 masks has a lesion"):
        Counts.of(maps, 0 * masks, subjects)


def test_slices_and_subjects_are_ranked_as_scikit_learn_does(pixels):
    maps, masks, subjects = pixels
    scores = maps.max(axis=(1, 2))
    found = detection.measured(maps, scores, masks, subjects, threshold=1.0)
    ill = masks.any(axis=(1, 2, 3))
    assert found["slice_auroc"].value == pytest.approx(roc_auc_score(ill, scores))
    by_subject = scores.reshape(4, 3).max(axis=1)
    expected = roc_auc_score(ill.reshape(4, 3).any(axis=1), by_subject)
    assert found["subject_auroc"].value == pytest.approx(expected)
    assert found["pixel_ap"].low <= found["pixel_ap"].value <= found["pixel_ap"].high
    assert found["dice"].value <= found["best_dice"].value
    assert np.isnan(detection.auroc(scores, np.ones(12)))
    times = np.random.default_rng(3).integers(0, 3, (5, 12))
    for value, draw in zip(detection.aurocs(scores, ill, times), times, strict=True):
        rows = np.repeat(np.arange(12), draw)
        assert value == pytest.approx(roc_auc_score(ill[rows], scores[rows]))
    assert np.isnan(detection.aurocs(scores, ill, ill[None].astype(int))[0])


def test_intervals_cover_the_truth_of_new_subjects():
    """Of subjects that differ: the interval over subjects, not over pixels."""
    covered = 0
    random = np.random.default_rng(2)

    def drawn(subjects):
        strength = random.normal(1.5, 0.7, subjects)[:, None, None]  # how visible its lesion is
        masks = np.zeros((subjects, 8, 8))
        masks[:, :2, :4] = 1
        return random.normal(size=masks.shape) + strength * masks, masks

    maps, masks = drawn(3000)
    truth = detection.average_precision(Counts.of(maps, masks, np.arange(3000)))
    for _ in range(30):
        maps, masks = drawn(25)
        found = detection.measured(maps, maps.max(axis=(1, 2)), masks, np.arange(25))["pixel_ap"]
        covered += found.low <= truth <= found.high
    assert covered >= 25


def test_draws_without_an_ill_subject_do_not_count_against_a_score():
    masks = np.zeros((30, 4, 4, 1), np.uint8)
    masks[:2, :2] = 1  # in 13 % of the draws neither subject comes
    found = detection.measured(masks[..., 0] * 1.0, masks[:, 0, 0, 0], masks, np.arange(30), 1.0)
    for name in ("pixel_ap", "best_dice", "dice"):
        assert found[name] == detection.Measure(1.0, 1.0, 1.0), name
    noise = np.random.default_rng(0).random((30, 4, 4))
    assert detection.difference(masks[..., 0] * 1.0, noise, masks, np.arange(30)).low > 0.5


def test_maps_that_are_the_same_everywhere_find_nothing(pixels):
    _, masks, subjects = pixels
    flat = np.full(masks.shape[:3], 0.5)
    found = detection.measured(flat, flat[:, 0, 0], masks, subjects, 0.5)
    assert found["best_dice"].value == found["dice"].value == 0.0
    assert found["pixel_ap"].value == pytest.approx((masks > 0).mean())


def test_a_score_beats_another_only_if_the_whole_interval_is_above_zero(pixels):
    maps, masks, subjects = pixels
    same = detection.difference(maps, maps, masks, subjects)
    assert tuple(same) == (0.0, 0.0, 0.0)
    perfect = detection.difference(masks[..., 0].astype(float), maps, masks, subjects)
    assert perfect.low > 0.0
