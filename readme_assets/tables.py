"""Tables of results as Markdown."""

import pandas as pd


def markdown(table, first="metric"):
    """A table of words as lines of Markdown; `first` heads the column of its index."""
    cells = [[first, *table.columns], ["---"] * (len(table.columns) + 1)]
    cells += [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def over_seeds(rows, by="model"):
    """Mean ± standard deviation over seeds of every number, in words, one line for each `by`.

    Args:
        rows: Table with the columns `by`, `seed` and numbers.
    """
    groups = rows.drop(columns="seed").groupby(by, sort=False)
    middle, spread = groups.mean(), groups.std()
    words = {
        name: [_words(*pair) for pair in zip(middle[name], spread[name], strict=True)]
        for name in middle
    }
    return pd.DataFrame(words, index=middle.index)


def _words(value, error):
    if pd.isna(value):
        return "-"
    return f"{value:.4g}" + (f" ± {error:.2g}" if error > 0 else "")
