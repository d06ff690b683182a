"""Executes notebooks headless and cleans their outputs.

    python notebooks/execute.py NOTEBOOK [NOTEBOOK ...] [--into DIR]

In place by default; with `--into`, the executed copies go there and the originals stay as they are.
A kernel's standard error (TensorFlow's start-up lines) and the times of cells are removed. Of a
long progress display only the beginning and the end are kept. nbval can check the rest.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

KEPT_LINES = 4  # at the beginning and at the end of a long display


def settled(text: str) -> str:
    """The final state of text with backspaces and carriage returns, as a terminal shows it."""
    lines = []
    for line in re.sub("\x1b\\[[0-9;]*m", "", text).split("\n"):
        shown, column = [], 0
        for character in line:
            if character == "\b":
                column = max(column - 1, 0)
            elif character == "\r":
                column = 0
            else:
                shown[column : column + 1] = [character]
                column += 1
        lines.append("".join(shown).rstrip())
    if len(lines) > 2 * KEPT_LINES + 4:
        lines = [*lines[:KEPT_LINES], "...", *lines[-KEPT_LINES - 1 :]]
    return "\n".join(lines)


def cleaned(notebook):
    """The notebook without standard error, times and intermediate progress bars."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                continue
            if output.output_type == "stream" and outputs and "text" in outputs[-1]:
                outputs[-1].text += output.text  # one display in several pieces
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = settled(output.text)
        cell.outputs = outputs
    return notebook


def execute(path: Path, target: Path) -> str:
    """Runs one notebook in its own folder and writes it; returns what its last cell printed."""
    notebook = nbformat.read(path, as_version=4)
    code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def tell(cell, cell_index):
        print(f"{path}: cell {code.index(cell_index) + 1} of {len(code)}", flush=True)

    folder = {"metadata": {"path": str(path.resolve().parent)}}
    client = NotebookClient(notebook, timeout=7200, resources=folder, on_cell_execute=tell)
    client.execute(stderr=subprocess.DEVNULL)  # of the kernel's process: TensorFlow's start-up
    notebook = cleaned(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    last = notebook.cells[code[-1]]
    return "".join(each.text for each in last.outputs if each.output_type == "stream")


def main():
    parser = argparse.ArgumentParser(description="Execute notebooks headless.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, metavar="DIR", help="leave the originals unchanged")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        target = arguments.into / path.name if arguments.into else path
        try:
            printed = execute(path, target)
        except CellExecutionError as error:
            sys.exit(f"{path}: {error}")
        print(f"\n{printed}Executed notebook: {target}")


if __name__ == "__main__":
    main()
