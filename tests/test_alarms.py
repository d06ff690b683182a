"""Alarms hold their rate for new subjects, and images of another kind are refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import alarms
from analysis.alarms import Alarm
from sources import phantoms


def test_the_threshold_is_the_score_of_the_right_rank():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))
    assert Alarm.of(scores, 0.05).threshold == 19.0  # of 19 the highest
    assert Alarm.of(scores, 0.1).threshold == 18.0
    assert Alarm.of(np.arange(1.0, 40.0), 0.05).threshold == 38.0
    assert list(Alarm.of(scores, 0.1)([17.9, 18.0, 18.1])) == [False, False, True]


def test_too_few_subjects_for_a_rate_are_refused_and_told():
    assert alarms.fewest(0.05) == 19 and alarms.fewest(0.1) == 9 and alarms.fewest(0.01) == 99
    with pytest.raises(ValueError, match="18 healthy calibration subjects are too few.* 19 are"):
        Alarm.of(np.arange(18.0), 0.05)
    with pytest.raises(ValueError, match="1 healthy calibration subjects .*at least 50.0%"):
        Alarm.of([1.0], 0.05)
    with pytest.raises(ValueError, match="28 .*at least 3.5%"):
        Alarm.of(np.arange(28.0), 0.03)
    Alarm.of(np.arange(28.0), 0.035)


@pytest.mark.parametrize("n", [19, 25, 60])
def test_the_rate_holds_whatever_the_scores_are(n):
    random = np.random.default_rng(n)
    rates = []
    for _ in range(1500):
        known, new = random.standard_cauchy(n), random.standard_cauchy(20)
        rates.append(Alarm.of(known, 0.05)(new).mean())
    assert np.mean(rates) < 0.05 + 3 * np.std(rates) / 1500**0.5
    assert np.mean(rates) > 0.05 - 1 / n


def test_numbers_of_false_alarms_lie_in_their_interval():
    random, inside = np.random.default_rng(1), []
    for _ in range(400):
        alarm = Alarm.of(random.normal(size=40), 0.05)
        low, high = 0, 8
        inside.append(low <= alarm(random.normal(size=50)).sum() <= high)
    known = Alarm.of(np.arange(40.0), 0.05)
    assert known.interval(50) == (0, 8)
    assert np.mean(inside) >= 0.93
    draws = random.binomial(50, random.beta(2, 39, 200_000))  # 39 of 41 places are below
    assert stats.betabinom(50, 2, 39).mean() == pytest.approx(draws.mean(), rel=0.02)
    assert known.interval(50)[1] == pytest.approx(np.quantile(draws, 0.975), abs=1)


def test_rates_are_told_by_group_with_exact_intervals():
    table = pd.DataFrame({"sex": ["F", "M"] * 20, "age": np.arange(40)})
    told = alarms.by_group(table, np.arange(40) < 4).set_index("group")
    assert list(told.index) == ["all", "sex F", "sex M", "age up to 19.5", "age above 19.5"]
    assert told.loc["age up to 19.5", "alarms"] == 4 and told.loc["sex F", "alarms"] == 2
    # Of none in 20 the upper end of Clopper and Pearson is 1 - 0.025^(1/20).
    assert told.loc["age above 19.5", "high"] == pytest.approx(1 - 0.025**0.05)


# --- images of another kind ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds():
    """Numbers of 60 phantom subjects, and a function for images of others."""
    images, table = phantoms.brains(48, 60, 3, seed=1)
    pixels = images / 255.0
    kind = alarms.Kind(pixels.mean(axis=0))
    mean = pixels.mean(axis=0)[None, ..., 0]

    def of(pixels, subjects):
        return kind(pixels, np.abs(pixels[..., 0] - mean), subjects)

    return of, pixels, table["subject"].to_numpy()


def test_subjects_of_the_same_kind_are_accepted(kinds):
    of, pixels, subjects = kinds
    numbers = of(pixels, subjects)
    random, refused = np.random.default_rng(0), 0
    for _ in range(100):
        order = random.permutation(60)
        refused += bool(alarms.unlike(numbers.iloc[order[:35]], numbers.iloc[order[35:]]))
        refused += bool(alarms.unlike(numbers.iloc[order[:35]], numbers.iloc[order[35:36]]))
    assert refused <= 10  # of 200


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: 1.0 - pixels,
        lambda pixels: pixels**3.0,
        lambda pixels: np.roll(pixels, 20, axis=1),
        lambda pixels: np.repeat(np.repeat(pixels[:, 12:36, 12:36], 2, axis=1), 2, axis=2),
        lambda pixels: np.full_like(pixels, 0.5),
    ],
    ids=["inverted", "contrast", "shifted", "enlarged", "flat"],
)
def test_shifted_images_are_refused_with_the_reason(change, count, kinds):
    of, pixels, subjects = kinds
    known = of(pixels[: 40 * 3], subjects[: 40 * 3])
    rows = slice(40 * 3, (40 + count) * 3)
    reason = alarms.unlike(known, of(change(pixels[rows]), subjects[rows]))
    assert "in images of the training images' kind, p = " in reason


def test_a_few_known_subjects_are_not_compared_with_more_certainty_than_they_give():
    random, n = np.random.default_rng(0), 8
    below = []
    for _ in range(200):
        ours, theirs = random.normal(size=n), random.normal(size=5)
        spread = ours.std(ddof=1) * np.sqrt(1 / n + 1 / 5)
        own = 2 * stats.t.sf(abs(theirs.mean() - ours.mean()) / spread, n - 1)
        found = alarms._two_sample(ours, theirs)
        assert found >= own - 1e-9
        below.append(found < 0.02)
    assert np.mean(below) < 0.05


@pytest.mark.parametrize(("n", "other", "refused"), [(8, 1, False), (8, 20, True), (40, 2, False)])
def test_a_number_that_never_varied_is_compared_by_how_many_differ(n, other, refused):
    names = list(alarms.Kind.NAMES)
    random = np.random.default_rng(0)
    known, new = (
        pd.DataFrame(random.normal(size=(size, len(names))), columns=names) for size in (n, 20)
    )
    known["area"], new["area"] = 1.0, 1.0
    new.loc[: other - 1, "area"] = 0.999
    assert bool(alarms.unlike(known, new)) == refused


def test_a_chest_is_no_brain(kinds):
    of, pixels, subjects = kinds
    chests, table = phantoms.chests(48, 10, 1)
    assert alarms.unlike(of(pixels, subjects), of(chests / 255.0, table["subject"]))


def test_seven_known_subjects_are_too_few_to_compare_with(kinds):
    of, pixels, subjects = kinds
    numbers = of(pixels[:21], subjects[:21])
    with pytest.raises(ValueError, match="7 subjects do not show"):
        alarms.unlike(numbers, numbers)
