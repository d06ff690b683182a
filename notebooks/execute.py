"""Executes notebooks headless and keeps only outputs that are worth keeping.

    python notebooks/execute.py NOTEBOOK [NOTEBOOK ...] [--into DIR]

In place by default; with `--into`, the executed copies go there and the originals stay as they are.
A kernel's standard error (TensorFlow's start-up lines) and the times of cells are dropped, of a
long progress display the beginning and the end are kept, and figures are packed: what remains is
what nbval can check.
"""

import argparse
import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

KEPT_LINES = 4  # of a long display, at either end
LARGE = 80_000  # bytes of a figure, above which colours are rounded to a palette of 256


def settled(text: str) -> str:
    """What a terminal shows in the end of text with backspaces and carriage returns."""
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


def packed(png: str) -> str:
    """A picture in fewer bytes: no alpha; grey, or a palette, where that loses nothing.

    A sheet of photographs that would still be `LARGE` gets the palette of 256 that fits it best.

    Args:
        png: In base64, as a notebook stores it; returned as it is where it is not opaque.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if "A" in picture.getbands() and picture.getchannel("A").getextrema()[0] < 255:
        return png
    picture = picture.convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    if (pixels == pixels[:, :1]).all():
        picture = picture.convert("L")
    elif len(np.unique(pixels, axis=0)) <= 256:
        exact = picture.quantize(256, dither=Image.Dither.NONE)
        if np.array_equal(np.asarray(exact.convert("RGB")).reshape(-1, 3), pixels):
            picture = exact
    data = written(picture)
    if picture.mode == "RGB" and len(data) > LARGE:
        data = written(picture.quantize(256, kmeans=2, dither=Image.Dither.NONE))
    return base64.b64encode(data).decode()


def written(picture) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def cleaned(notebook):
    """The notebook without standard error, times and the noise of progress bars; figures packed."""
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
                outputs[-1].text += output.text  # one display came in many pieces
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = settled(output.text)
            elif "image/png" in output.get("data", {}):
                output.data["image/png"] = packed(output.data["image/png"])
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
