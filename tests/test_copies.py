"""Tests for copies: right under no copying whatever the samples look like, and they find copies."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

import data
from analysis import copies, latent
from sources import splits
from spots import blobs


def patients(random, count=60, images=4, axes=6, spread=0.4):
    """Features of subjects whose images are alike, and the subject of each image."""
    centres = random.normal(size=(count, 1, axes))
    images = centres + spread * random.normal(size=(count, images, axes))
    return images.reshape(-1, axes), np.repeat(np.arange(count), images.shape[1])


def exchanged(real, subjects, trained, made):
    """`copies.exchange` of the subjects by their crowding."""
    values = copies.by_subject(copies.crowding(real, subjects, made), subjects)
    of_subject = pd.Series(trained).groupby(subjects).any()
    return copies.exchange(values[of_subject], values[~of_subject])


def test_an_exchange_is_the_area_under_the_curve_with_delongs_interval():
    random = np.random.default_rng(0)
    low, high = random.normal(size=40), random.normal(0.5, 1, 30)
    found = copies.exchange(low, high)
    truth = np.r_[np.ones(40), np.zeros(30)]
    assert found.auc == pytest.approx(roc_auc_score(truth, -np.r_[low, high]))
    nearer = low[:, None] < high
    variance = nearer.mean(1).var(ddof=1) / 40 + nearer.mean(0).var(ddof=1) / 30
    assert found.high - found.auc == pytest.approx(1.96 * variance**0.5)
    assert copies.exchange(high, low).auc == pytest.approx(1 - found.auc)


def test_its_p_counts_all_exchanges_of_subjects():
    training, held_out = [0.1, 0.3, 0.2, 0.75], [0.9, 0.4, 0.8]
    values = np.array(training + held_out)

    def pairs(rows):
        others = np.setdiff1d(np.arange(7), rows)
        return (values[list(rows)][:, None] < values[others]).sum()

    drawn = [pairs(rows) for rows in itertools.combinations(range(7), 4)]
    found = copies.exchange(training, held_out)
    assert found.p == pytest.approx(np.mean(np.array(drawn) >= pairs(range(4))))
    assert found.least == pytest.approx(1 / 35)


def test_crowding_compares_the_nearest_samples_with_the_nearest_images_of_others():
    random = np.random.default_rng(0)
    real, subjects = patients(random, 12, 3)
    subjects[:6] = 0  # a subject of many images
    made = random.normal(size=(50, 6))
    found = copies.crowding(real, subjects, made, neighbours=5)
    for row, point in enumerate(real):
        others = np.linalg.norm(real[subjects != subjects[row]] - point, axis=1)
        samples = np.linalg.norm(made - point, axis=1)
        expected = np.log(np.sort(samples)[4] / np.sort(others)[4])
        assert found[row] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_p_is_uniform_if_nothing_is_copied_though_samples_are_poor_and_slices_alike():
    # Two halves of the same subjects, one of them posing as the training set.
    random = np.random.default_rng(1)
    by_subject, by_image = [], []
    for _ in range(60):
        real, subjects = patients(random)
        trained = np.isin(subjects, random.permutation(60)[:30])
        fog = 0.5 * random.normal(size=(400, 6)) + 0.3
        by_subject.append(exchanged(real, subjects, trained, fog).p)
        scores = copies.crowding(real, subjects, fog)
        by_image.append(copies.exchange(scores[trained], scores[~trained]).p)
    assert stats.kstest(by_subject, "uniform").pvalue > 0.05
    assert stats.kstest(by_image, "uniform").pvalue < 0.01  # why whole subjects are exchanged


def test_copied_subjects_are_found_and_named_and_hardly_others():
    random = np.random.default_rng(2)
    real, subjects = patients(random, 200, 2)
    trained = subjects < 140
    copied = [3, 50, 77]
    sources = real[np.isin(subjects, copied)]
    made = np.r_[
        0.8 * random.normal(size=(1500, 6)),
        sources[random.integers(0, len(sources), 120)] + 0.05 * random.normal(size=(120, 6)),
    ]
    scores = copies.crowding(real, subjects, made)
    found = copies.extremes(scores, subjects, trained)
    listed = found["subject"][found["q"] < copies.RATE]
    assert set(listed[:3]) == set(copied)
    near = np.linalg.norm(real - real[np.isin(subjects, copied)][:, None], axis=2).min(0)
    others = set(listed) - set(copied)  # at most one that lies next to a copied subject
    assert len(others) <= 1 and all(near[np.isin(subjects, list(others))] < np.median(near))
    assert set(found["subject"]) == set(range(140))  # training subjects alone, each once
    assert found["p"].is_monotonic_increasing and (found["z"][:3] < -4).all()
    row = found.iloc[0]
    assert subjects[int(row["image"])] == row["subject"]


@pytest.mark.parametrize("width", (1.0, 0.3))  # 0.3: fog, around which some images lie
def test_subjects_are_rarely_told_to_be_copied_if_none_is(width):
    random, found = np.random.default_rng(3), []
    for _ in range(40):
        real, subjects = patients(random, 80, random.integers(1, 5))
        trained = np.isin(subjects, random.permutation(80)[:50])
        scores = copies.crowding(real, subjects, width * random.normal(size=(400, 6)))
        found.append((copies.extremes(scores, subjects, trained)["q"] < copies.RATE).any())
    assert np.mean(found) < 0.05


def test_many_images_do_not_make_a_subject_more_extreme():
    random, places = np.random.default_rng(4), []
    subjects = np.r_[np.arange(400), np.repeat(400, 8)]  # one of them has eight images
    for _ in range(300):
        places.append(copies.by_subject(random.normal(size=408), subjects)[400])
    assert stats.kstest(places, "uniform").pvalue > 0.01


def test_one_cell_of_the_three_sample_test_is_mann_and_whitneys():
    random = np.random.default_rng(5)
    training = random.normal(size=(100, 2))
    made, reconstructed = random.normal(size=(60, 2)), 1.4 * random.normal(size=(39, 2))
    c_t, p = copies.three_sample(made, reconstructed, training, np.arange(39))
    away = [
        np.linalg.norm(each[:, None] - training, axis=2).min(1) for each in (made, reconstructed)
    ]
    options = {"alternative": "less", "method": "asymptotic", "use_continuity": False}
    assert p == pytest.approx(stats.mannwhitneyu(*away, **options).pvalue, rel=1e-4)
    assert c_t == pytest.approx(stats.norm.ppf(p), rel=1e-4) and c_t < 0


@pytest.mark.parametrize("images", (1, 8))
def test_the_three_sample_test_has_variance_one_if_samples_are_like_reconstructions(images):
    random, found = np.random.default_rng(6), []
    for _ in range(80):
        training = random.normal(size=(100, 4))
        reconstructed, subjects = patients(random, 160 // images, images, 4)
        made = patients(random, 300, 1, 4)[0]
        found.append(copies.three_sample(made, reconstructed, training, subjects))
    values, p = np.transpose(found)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    if images > 1:
        assert 0.8 < values.std() < 1.25


def test_cells_find_copies_in_one_place_and_poor_samples_in_another():
    random = np.random.default_rng(7)
    middles = np.array([[-4.0, 0.0], [4.0, 0.0]])

    def drawn(count, noise=0.0):
        points = middles[random.integers(0, 2, count)] + random.normal(size=(count, 2))
        return points + noise * random.normal(size=(count, 2))

    training, held_out = drawn(400), drawn(400)
    left = training[training[:, 0] < 0]
    copied = left[random.integers(0, len(left), 400)] + 0.01 * random.normal(size=(400, 2))
    poor = np.array([4.0, 0.0]) + 8.0 * random.normal(size=(400, 2))
    made = np.r_[copied, poor]
    in_cells = copies.three_sample(made, held_out, training, np.arange(400))
    together = copies.three_sample(made, held_out, training, np.r_[0, np.arange(399)])
    assert in_cells[1] < 0.01 < 0.1 < together[1]  # with one cell the poor ones hide the copies


# --- images --------------------------------------------------------------------------------------


class Decoder:
    """Stands in for a model: its reconstructions are the images, blurred to their mean."""

    def reconstruct(self, images):
        return 0.5 * copies.as_float(images)


@pytest.fixture(scope="module")
def known():
    images, _ = blobs(300, seed=3)
    return copies.Known.of_images(data.from_arrays(images, name="blobs"))


def test_an_audit_finds_images_that_are_copied_in_both_spaces(known):
    fresh = blobs(1000, seed=4)[0] / np.float32(255)
    rows = np.flatnonzero(known.trained)[[5, 30, 100]]
    copied = np.repeat(known.images[rows] / np.float32(255), 40, axis=0)
    audit = copies.Audit(Decoder(), known)
    clean, guilty = audit.samples(fresh), audit.samples(np.concatenate([fresh, copied]))
    assert set(clean) == set(guilty) == {"pixels", "features"}
    for name, found in guilty.items():
        assert set(known.subjects[rows]) <= set(found.copied["subject"][: found.count])
        assert clean[name].count == 0 and found.copied["q"][0] < 0.001
        assert clean[name].samples.p > 0.01
        nearest, _ = latent.nearest(audit.real[name][rows], found.made)
        near = np.r_[fresh, copied][nearest]
        np.testing.assert_array_equal(near, known.images[rows] / np.float32(255))
    with pytest.raises(ValueError, match="30 samples; an audit needs at least 200"):
        audit.samples(fresh[:30])


def test_an_audit_compares_reconstructions_of_whole_subjects(known):
    audit = copies.Audit(Decoder(), known)
    told = audit.reconstructions
    errors = ((0.5 * known.images / 255.0) ** 2).mean(axis=(1, 2, 3))
    expected = copies.exchange(errors[known.trained], errors[~known.trained])
    assert told.auc == pytest.approx(expected.auc, abs=0.001)
    assert told.p == pytest.approx(expected.p, abs=0.001)


def test_identical_images_count_once_and_a_held_out_copy_is_a_training_image():
    images, _ = blobs(40, seed=5)
    images[1] = images[0]  # twice in training,
    images[30] = images[2]  # and once on both sides
    table = pd.DataFrame({"file": [f"{row}.png" for row in range(40)], "subject": range(40)})
    places = np.repeat(["train", "validation", "test"], [25, 10, 5])
    known = copies.Known.of_images(splits.from_table(images, table, places, "twice"))
    assert len(known.images) == 38 and known.trained.sum() == 24
    assert "30" not in known.subjects and "2" in known.subjects[known.trained]
    (note,) = known.notes
    assert note == (
        "2 images are identical to others and count once; 1 of them are training and held-out "
        "images at once"
    )
    np.testing.assert_array_equal(known.images[0], images[0])


def test_of_more_images_than_fit_memory_whole_subjects_are_drawn(spots, monkeypatch):
    table = spots.train.table.assign(subject=np.arange(len(spots.train)) // 3)
    train = replace(spots.train, table=table)
    parts, trained = (
        [train, spots.test],
        [np.ones(len(train), bool), np.zeros(len(spots.test), bool)],
    )
    whole = copies.Known.of(parts, trained)
    monkeypatch.setattr(copies, "MOST_PIXELS", 40 * 144)
    some = copies.Known.of(parts, trained)
    assert 30 <= len(some.images) <= 40 and 0 < some.trained.sum() < len(some.images)
    for subject in set(some.subjects):
        assert (some.subjects == subject).sum() == (whole.subjects == subject).sum()
    left = len(set(whole.subjects)) - len(set(some.subjects))
    assert some.notes[-1] == f"{left} subjects are left out, drawn at random: too many images"
    names = {image.tobytes(): subject for image, subject in zip(*whole[:2], strict=True)}
    assert [names[image.tobytes()] for image in some.images] == list(some.subjects)


def test_too_few_subjects_are_refused_with_their_number(spots):
    one = spots.test.only(np.arange(4))
    one.table["subject"] = "anna"
    with pytest.raises(ValueError, match="there is 1 held-out subject; .*at least 2 of each"):
        copies.Known.of([spots.train, one], [np.ones(len(spots.train), bool), np.zeros(4, bool)])
    with pytest.raises(ValueError, match="there are 0 held-out subjects"):
        copies.Known.of([spots.train], [np.ones(len(spots.train), bool)])
