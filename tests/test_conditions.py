"""Columns of a table as conditions: known values, missing ones, and what cannot be told."""

import numpy as np
import pandas as pd
import pytest

import data
from families import registry
from sources import splits
from sources.conditions import Conditions
from spots import blobs


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "age": [20.0, 40.0, np.nan, 60.0],
            "sex": ["M", "F", "M", None],
            "ill": pd.array([True, False, None, True], dtype="boolean"),
        }
    )


def test_categories_are_one_hot_numbers_standardised_and_missing_ones_marked(table):
    known = Conditions.learn(table, ("age", "sex", "ill"))
    assert known.features == (
        *("age", "age missing"),
        *("sex=F", "sex=M", "sex missing"),
        *("ill=False", "ill=True", "ill missing"),
    )
    one = np.sqrt(1.5)  # 20 / sd of 20, 40, 60
    np.testing.assert_allclose(
        known(table),
        [
            [-one, 0, 0, 1, 0, 0, 1, 0],
            [0, 0, 1, 0, 0, 1, 0, 0],
            [0, 1, 0, 1, 0, 0, 0, 1],
            [one, 0, 0, 0, 1, 0, 1, 0],
        ],
        atol=1e-6,
    )
    assert known(table).dtype == np.float32 and known.width == 8


def test_conditions_come_back_from_json_and_hold_the_numbers_of_the_training(table):
    known = Conditions.learn(table, ("age", "sex"))
    again = Conditions.from_json(known.to_json())
    assert again == known
    new = pd.DataFrame({"age": [40.0], "sex": ["F"]})
    np.testing.assert_array_equal(again(new), [[0, 0, 1, 0, 0]])


BAD = {
    "no column 'height'": {"names": ("height",)},
    "empty has no value": {"names": ("empty",)},
    "site is always 'A'": {"names": ("site",)},
    "name has 80 different values": {"names": ("name",), "n": 80},
}


@pytest.mark.parametrize("reason", BAD)
def test_columns_that_say_nothing_are_refused(reason):
    case = BAD[reason]
    n = case.get("n", 4)
    table = pd.DataFrame({"empty": [None] * n, "site": "A", "name": [f"p{i}" for i in range(n)]})
    with pytest.raises(ValueError, match=reason):
        Conditions.learn(table, case["names"])


def test_a_new_category_is_an_error_and_a_number_out_of_range_is_said(table, capsys):
    known = Conditions.learn(table, ("age", "sex"))
    with pytest.raises(ValueError, match="sex = 'X' was not seen in training; known: F, M"):
        known(pd.DataFrame({"age": [30.0], "sex": ["X"]}))
    known(pd.DataFrame({"age": [90.0], "sex": ["F"]}))
    assert "1 values of age are outside of the 20 to 60" in capsys.readouterr().out


def test_batches_carry_the_conditions_of_their_rows_and_the_pass_holds_them(tiny):
    images, labels = blobs(40)
    split = data.from_arrays(images, labels, name="spots", label="half").train
    known = Conditions.learn(split.table.assign(half=split.table["half"].astype(str)), ("half",))
    split = splits.Split(split.images, split.table.assign(half=split.table["half"].astype(str)))
    batch = next(iter(split.batches(8, shuffle=True, conditions=known)))
    rows = [
        np.flatnonzero((split.images == each).all(axis=(1, 2, 3)))[0]
        for each in batch["images"].numpy()
    ]
    np.testing.assert_array_equal(batch["conditions"], known(split.table)[rows])
    model = registry.from_settings(tiny())
    result = model.forward(batch, training=False, step=0)
    np.testing.assert_array_equal(result.conditions, batch["conditions"])
    plain = model.forward(batch["images"], training=False, step=0)
    np.testing.assert_array_equal(result.logits, plain.logits)
    assert plain.conditions is None


def test_masks_stay_with_their_images_through_every_selection():
    images, labels = blobs(60)
    masks = (images > 128).astype(np.uint8)
    table = pd.DataFrame({"file": np.arange(60), "subject": np.arange(60), "half": labels})
    places = splits.by_hash(table["subject"], 0)
    known = splits.from_table(images, table, places, "spots", masks=masks)
    for split in known.splits.values():
        np.testing.assert_array_equal(split.masks, split.images > 128)
        some = split.only(split.table["half"] == 1)
        np.testing.assert_array_equal(some.masks, some.images > 128)
    with pytest.raises(ValueError, match="do not fit images"):
        splits.from_table(images, table, places, "spots", masks=masks[:, :6])
