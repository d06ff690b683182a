"""Tables of results as Markdown. As a script: the table of some runs and its protocol.

    python readme_assets/tables.py RUN [RUN ...] --title TITLE --to FILE.md

Reads `metrics.json` of each run as `evaluate.py` wrote it.
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pandas as pd

import evaluate


def markdown(table, first="metric"):
    """A table of strings as lines of Markdown; `first` is the heading of its index."""
    cells = [[first, *table.columns], ["---"] * (len(table.columns) + 1)]
    cells += [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def over_seeds(rows, by="model"):
    """Mean ± standard deviation over seeds of every number, as text, a row for each `by`.

    Args:
        rows: Table with the columns `by`, `seed` and numbers.
    """
    groups = rows.drop(columns="seed").select_dtypes("number").groupby(rows[by], sort=False)
    middle, spread = groups.mean(), groups.std()
    words = {
        name: [_words(*pair) for pair in zip(middle[name], spread[name], strict=True)]
        for name in middle
    }
    return pd.DataFrame(words, index=middle.index)


def _words(value, error):
    if pd.isna(value):
        return "-"
    if not error > 0:  # one seed, or the same in all
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))  # down to the error's second digit
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def of_runs(runs, title, path):
    """Writes a table of runs, and below it how each number was measured."""
    written = {run.name: json.loads((run / "metrics.json").read_text()) for run in runs}
    table = evaluate.table({name: each["metrics"] for name, each in written.items()})
    first = written[runs[0].name]
    count = next(iter(first["metrics"].values()))["n"]
    protocols = {
        name: each["protocol"] for one in written.values() for name, each in one["metrics"].items()
    }
    text = [
        f"# {title}",
        "",
        *markdown(table),
        "",
        f"{first['images']}. Numbers are means over {count:,} images ± their standard error.",
        "",
        *(f"- `{name}`: {each}" for name, each in protocols.items()),
        "",
    ]
    path.write_text("\n".join(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--title", required=True)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    of_runs(arguments.runs, arguments.title, arguments.to)


if __name__ == "__main__":
    main()
