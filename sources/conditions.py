"""Columns of a table as numbers for a network: conditions of the images."""

import json
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd

YES_OR_NO = ("False", "True")
MOST_VALUES = 64  # most values of a category


@dataclass(frozen=True)
class Column:
    """How one column is converted to numbers.

    Attributes:
        name: Name of the column.
        values: Values of a category, as text, in order; empty for a number.
        mean, sd: Mean and standard deviation of a number, on the training split.
        low, high: Its range there.
    """

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    sd: float = 1.0
    low: float = 0.0
    high: float = 0.0


@keras.saving.register_keras_serializable("latent_atlas")
@dataclass(frozen=True)
class Conditions:
    """Columns of a table as float32: categories one-hot, numbers standardised, missing ones marked.

    Every column has an additional number, which is 1 if its value is missing; the others are then
    0. Made by `learn` on the training split, and applied to any table.

    Attributes:
        columns: A `Column` for each.
    """

    columns: tuple[Column, ...]

    @classmethod
    def learn(cls, table, names, categories=()) -> "Conditions":
        """The conditions by the columns of the training split.

        Args:
            table: Table of the training split.
            names: Names of its columns; numeric ones become numbers, others (text, booleans)
                categories.
            categories: Columns of numbers that are categories, such as class labels.

        Raises:
            ValueError: if a column is not there, has no value, one alone, or too many to be a
                category.
        """
        return cls(tuple(_learnt(table, name, name in categories) for name in names))

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [each.name for each in self.columns]

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each number: `age`, `age missing`, `sex=F`, `sex=M`, `sex missing`, ..."""
        found = []
        for each in self.columns:
            found += [f"{each.name}={value}" for value in each.values] or [each.name]
            found.append(f"{each.name} missing")
        return tuple(found)

    @property
    def width(self) -> int:
        """Number of values per row."""
        return len(self.features)

    @property
    def missing(self) -> np.ndarray:
        """The values of a row in which every column is missing; float32 `(width,)`."""
        sizes = [len(each.values) or 1 for each in self.columns]
        return np.concatenate([[0.0] * size + [1.0] for size in sizes]).astype(np.float32)

    @property
    def owners(self) -> np.ndarray:
        """Number of the column that each value belongs to, `(width,)`."""
        sizes = [len(each.values) or 1 for each in self.columns]
        return np.repeat(np.arange(len(sizes)), np.array(sizes, int) + 1)

    def __call__(self, table) -> np.ndarray:
        """The conditions of every row; float32 `(n, width)`.

        A number outside of the range of the training split is used as it is, and reported in a
        printed line.

        Raises:
            ValueError: if a column is not there, or has a value that training has not seen.
        """
        made = []
        for each in self.columns:
            column = _of(table, each.name)
            missing = column.isna().to_numpy()
            made.append(_one_hot(each, column) if each.values else _standardised(each, column))
            made[-1][missing] = 0.0
            made.append(missing[:, None])
        return np.concatenate(made, axis=1).astype(np.float32)

    def partly(self, table) -> np.ndarray:
        """As for a call, but columns that the table lacks count as missing."""
        return self(table.reindex(columns=self.names))

    def get_config(self):
        return {"columns": self.to_json()}

    @classmethod
    def from_config(cls, config):
        return cls.from_json(config["columns"])

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps([asdict(each) for each in self.columns], indent=1)

    @classmethod
    def from_json(cls, text) -> "Conditions":
        rows = [each | {"values": tuple(each["values"])} for each in json.loads(text)]
        return cls(tuple(Column(**row) for row in rows))


def repeated(condition, n) -> pd.DataFrame:
    """A table of n equal rows, from a dictionary of columns to values."""
    return pd.DataFrame({name: [value] * n for name, value in condition.items()})


def _of(table, name):
    if name not in table:
        raise ValueError(
            f"conditions: there is no column {name!r}; the table has {', '.join(table)}"
        )
    return table[name]


def _learnt(table, name, category):
    known = _of(table, name).dropna()
    if known.empty:
        raise ValueError(f"conditions: {name} has no value in the training split")
    if known.nunique() < 2:
        raise ValueError(
            f"conditions: {name} is always {known.iloc[0]!r} in the training split; leave it out"
        )
    if _is_number(known) and not category:
        numbers = known.astype(float)
        return Column(name, (), *(float(f(numbers)) for f in (np.mean, np.std, np.min, np.max)))
    values = sorted(_text(known).unique())
    if len(values) > MOST_VALUES:
        raise ValueError(
            f"conditions: {name} has {len(values)} different values; a category has {MOST_VALUES} "
            "at most"
        )
    return Column(name, tuple(values))


def _is_number(column):
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _text(known):
    """Categories as text; whole numbers have no point, though a column with a gap holds floats."""
    if pd.api.types.is_float_dtype(known) and (known == known.round()).all():
        known = known.astype("Int64")
    return known.astype(str)


def _one_hot(each, column):
    text = _text(column.dropna()).reindex(column.index)
    if each.values == YES_OR_NO:
        text = text.replace(dict(zip("01", YES_OR_NO, strict=True)))
    # A column of numbers with a gap is written with points: 1.0.
    text = text.where(text.isin(each.values), text.str.removesuffix(".0"))
    new = sorted(set(text.dropna()) - set(each.values))
    if new:
        raise ValueError(
            f"conditions: {each.name} = {new[0]!r} was not seen in training; known: "
            f"{', '.join(each.values)}"
        )
    return np.stack([(text == value).to_numpy(float) for value in each.values], axis=1)


def _standardised(each, column):
    found = pd.to_numeric(column, errors="coerce")
    wrong = column[found.isna() & column.notna()]
    if len(wrong):
        raise ValueError(
            f"conditions: {each.name} = {wrong.iloc[0]!r} is no number; in training it was "
            f"{each.low:g} to {each.high:g}"
        )
    numbers = found.to_numpy(float, na_value=np.nan)
    outside = (numbers < each.low) | (numbers > each.high)
    if outside.any():
        print(
            f"conditions: {outside.sum()} values of {each.name} are outside of the {each.low:g} to "
            f"{each.high:g} of the training"
        )
    return ((numbers - each.mean) / each.sd)[:, None]
