"""The project as a whole: one lock, one direction of imports, tidy notebooks and pages."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# Every module may import from the layers above its own line, and from nothing else of ours.
LAYERS = [
    ("config", "randomness", "metrics", "files", "checkpoints"),
    ("losses", "networks", "plots", "phantoms", "splits"),
    ("data", "model", "latent"),
    ("semisupervised", "adversarial"),
    ("registry",),
    ("judges", "directions"),
    ("train",),
    ("evaluate",),
    ("apply", "export"),
]
MODULES = [name for layer in LAYERS for name in layer]
NOTEBOOKS = [ROOT / "run.ipynb", *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return {re.split(r"==", line)[0].lower() for line in lines if line}


def test_every_module_has_its_layer():
    assert {path.stem for path in ROOT.glob("*.py")} - {"conftest"} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    (level,) = [index for index, layer in enumerate(LAYERS) if name in layer]
    allowed = {each for layer in LAYERS[:level] for each in layer}
    if name in ("losses", "metrics", "latent", "directions", "plots"):
        allowed -= {"config", "model"}
    ours = {each for each in imported(ROOT / f"{name}.py") if each in MODULES}
    assert ours <= allowed


def test_importing_everything_prints_nothing_and_writes_nothing(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(MODULES)}"
    environment = os.environ | {
        "RUNS_DIR": str(tmp_path / "runs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout == "" and not list(tmp_path.iterdir())


def test_the_lock_pins_every_dependency_to_one_version():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+( ; .+)?$", line) for line in lines if line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[A-Za-z0-9._-]+", each)[0].lower() for each in project["dependencies"]}
    assert wanted <= pinned()


def test_conda_installs_what_the_lock_says():
    environment = yaml.safe_load((ROOT / "conda_env.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]}
    assert conda == ["python=3.11", "pip"] and "prefix" not in environment


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_small_executed_and_free_of_this_machine(path):
    text = path.read_text()
    assert len(text) < 1_000_000
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    streams = [output for cell in code for output in cell["outputs"] if "name" in output]
    assert not [each for each in streams if each["name"] == "stderr"]
    checked = [
        output
        for cell in code
        for output in cell["outputs"]
        if "NBVAL_IGNORE_OUTPUT" not in "".join(cell["source"]) and output.get("name") == "stdout"
    ]
    assert len(checked) >= 5  # a printed number beside each figure


def test_every_make_target_that_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_link_and_picture_of_the_pages_exists():
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name}: {target}"


def test_the_shipped_run_opens_and_is_small():
    import train

    run = ROOT / "readme_assets" / "digits_run"
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) <= 1_000_000
    model = train.load(run)
    assert model.sample(4).shape == (4, 32, 32, 1)
