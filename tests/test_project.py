"""The project as a whole: one lock file, one direction of imports, notebooks and documentation."""

import ast
import dataclasses
import graphlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

import config

ROOT = Path(__file__).parent.parent
# Layers of the project, lowest first: a module may import from lower layers and from its own
# folder.
FLOORS = [
    ("config", "nn"),
    ("storage",),
    ("sources", "model"),
    ("data", "families"),
    ("analysis",),
    ("train",),
    ("evaluate", "archive", "export"),
    ("apply", "sweep", "prior", "audit", "anomaly", "explore"),
]
PLACES = [place for floor in FLOORS for place in floor]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for place in PLACES
    for path in (*ROOT.glob(f"{place}.py"), *(ROOT / place).glob("[!_]*.py"))
}
PAGES = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = [ROOT / "run.ipynb", *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def imported(path):
    """Names of our modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & set(MODULES)


def pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return {re.split(r"==", line)[0].lower() for line in lines if line}


def test_every_module_has_its_floor():
    files = {path.stem for path in ROOT.glob("*.py")} - {"conftest", "setup"}
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert files | rooms == set(PLACES) and not files & rooms
    for room in rooms:
        (only,) = ast.parse((ROOT / room / "__init__.py").read_text()).body
        assert isinstance(only.value, ast.Constant)  # a docstring, and no import


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    def floor(module):
        (level,) = [number for number, each in enumerate(FLOORS) if module.split(".")[0] in each]
        return level

    ours = imported(MODULES[name])
    below = {each for each in ours if floor(each) < floor(name)}
    own = {each for each in ours if each.split(".")[0] == name.split(".")[0]}
    assert ours == below | own
    if name.split(".")[-1] in ("losses", "metrics", "latent", "directions", "plots"):
        assert not ours & {"config", "model"}


def test_no_imports_go_round_in_a_circle():
    known = {name: imported(path) for name, path in MODULES.items()}
    tuple(graphlib.TopologicalSorter(known).static_order())


def can_be_imported(path):
    """Whether the libraries that a file imports first are there; those of an extra may not be."""
    first = [each for each in ast.parse(path.read_text()).body if isinstance(each, ast.ImportFrom)]
    return all(importlib.util.find_spec(each.module.split(".")[0]) for each in first)


def test_importing_everything_prints_nothing_and_writes_nothing(tmp_path):
    names = [name for name, path in MODULES.items() if can_be_imported(path)]
    assert len(names) > len(MODULES) - 8  # the modules of a page, without Bokeh
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(names)}"
    environment = os.environ | {
        "RUNS_DIR": str(tmp_path / "runs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout == "" and not list(tmp_path.iterdir())


COMMANDS = {
    ("train.py", "--help"): "Fields and their defaults",
    ("train.py", "digit"): "did you mean digits",
    ("train.py", "digits", "--set", "betta=2"): "there is no setting 'betta'; allowed: beta",
    ("train.py", "digits", "--set", "beta=-1"): "beta = -1 is not valid",
    ("train.py", "digits", "--model", "vae"): "did you mean 'VAE'",
    ("evaluate.py", "--help"): "RUN",
    ("apply.py", "--help"): "--generate",
    ("export.py", "--help"): "saved_model",
    ("sweep.py", "--help"): "--over",
    ("prior.py", "--help"): "--kind",
    ("anomaly.py", "--help"): "--alarm",
    ("explore.py", "--help"): "--port",
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_and_misspelt_words_are_answered_without_tensorflow(words):
    code = (
        f"import runpy, sys; sys.argv = {list(words)!r}; sys.modules['tensorflow'] = None; "
        f"runpy.run_path({words[0]!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert COMMANDS[words] in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_installing_it_says_how_to_use_it():
    done = subprocess.run(
        [sys.executable, "setup.py", "egg_info"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode and "python train.py digits" in done.stderr


def test_the_lock_pins_every_dependency_to_one_version():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+( ; .+)?$", line) for line in lines if line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[A-Za-z0-9._-]+", each)[0].lower() for each in project["dependencies"]}
    assert wanted <= pinned()


def test_every_place_names_the_same_versions_of_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = (int(each) for each in re.findall(r"3\.(\d+)", project["requires-python"]))
    versions = [f"3.{minor}" for minor in range(first, end)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["readme-commands"]["strategy"]["matrix"]["python"] == versions
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {first}) <= sys.version_info[:2] <= (3, {end - 1})" in makefile
    assert " ".join(f"python{each}" for each in versions) in makefile
    words = f"{', '.join(versions[:-1])} or {versions[-1]}"
    for name in ("Makefile", "README.md", "docs/installation.md"):
        assert f"Python {words}" in (ROOT / name).read_text(), name


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License")


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


def test_every_make_target_that_the_documentation_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.M):
            assert re.search(rf"^{target}:", makefile, re.M), f"{page.name}: make {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text()) <= 9000


def prose(page):
    """The text of a Markdown file, or of a notebook's Markdown cells, without blocks of code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        told = ["".join(each["source"]) for each in cells if each["cell_type"] == "markdown"]
        text = "\n\n".join(told)
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(page):
    """The anchors `#...` of a Markdown file, by GitHub's rule."""
    seen, found = Counter(), set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.M):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link shows its text
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda page: page.stem)
def test_every_link_picture_and_anchor_of_the_documentation_exists(page):
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert place.resolve().is_relative_to(ROOT.resolve()), target
        assert not anchor or anchor in anchors(place), target


def rows_of(name):
    """Rows of all tables of a file of docs/ as lists of cells, without the headings."""
    lines = [line for line in prose(ROOT / "docs" / name).splitlines() if line.startswith("|")]
    cells = [[each.strip() for each in line.strip("|").split(" | ")] for line in lines]
    ruled = [number for number, line in enumerate(lines) if set(line) <= set("|-: ")]
    headings = {number for each in ruled for number in (each - 1, each)}
    return [each for number, each in enumerate(cells) if number not in headings]


def test_every_file_of_the_architecture_exists():
    named = [row[0].strip("`") for row in rows_of("architecture.md")]
    files = [name for name in named if re.search(r"\.py$|\.ipynb$|/$", name)]
    assert len(files) > 30
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert set(MODULES) <= {name.removesuffix(".py").replace("/", ".") for name in files}


def test_the_layers_of_the_architecture_are_those_of_the_floors():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = text.split("## Layers of imports")[1].split("```")[1].split("\n")[1:-1]
    assert [set(line.split(", ")) for line in drawn] == [set(each) for each in FLOORS[::-1]]


def test_the_defaults_of_the_documentation_are_those_of_the_settings():
    defaults = {each.name: repr(each.default) for each in dataclasses.fields(config.Settings)}
    defaults["seed"] = "0"  # unless ATLAS_SEED sets another
    named = {}
    for name in ("images.md", "models.md", "training.md"):
        rows = [row for row in rows_of(name) if len(row) == 3]
        named |= {row[0].strip("`"): row[1] for row in rows if row[0].strip("`") in defaults}
    assert len(named) > 60
    for name, told in named.items():
        assert told.strip("`").replace('"', "'") == defaults[name], name


def test_the_shipped_run_opens_and_is_small():
    import train

    run = ROOT / "readme_assets" / "digits_run"
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) <= 1_000_000
    model = train.load(run)
    assert model.sample(4).shape == (4, 32, 32, 1)


# Rows of docs/when_things_go_wrong.md, and their tests.
FAULTS = {
    "a path is wrong": "missing_or_empty_folder_names_setting_path_and_layout",
    "a file is truncated": "a_bad_file_is_named_with_its_reason_and_what_to_do",
    "a file claims": "what_claims_too_much_takes_neither_memory_nor_time",
    "a bit of a": "a_wrong_checksum_is_noticed_where_the_image_would_be_another",
    "a reader of files": "whatever_a_reader_raises_is_a_bad_file_with_one_short_line",
    "a name is a folder": "what_is_no_file_is_refused_and_not_waited_for",
    "a DICOM file has": "files_that_pydicom_is_tested_with_are_read_as_it_reads_them_or_refused",
    "pictures are grey": "every_mode_of_the_same_grey_picture_gives_the_same_image",
    "pictures have 12": "one_range_holds_for_all_deep_pictures_of_a_folder",
    "a folder is a link": "links_are_entered_once_and_loops_end",
    "there are images of formats": "images_of_kinds_that_are_not_read_are_counted",
    "a name is no UTF-8": "a_name_that_is_no_text_is_a_bad_file_like_others",
    "the reader or decoder": "a_reader_that_was_missing_is_asked_again_once_it_is_installed",
    "pictures differ": "any_folder_is_read_whatever_the_sizes",
    "the size is no multiple": "images_of_any_size_come_back_in_their_own",
    "an array has NaN": "a_bad_array_is_refused_with_what_is_wrong_and_what_to_do",
    "the batch is larger": "a_batch_larger_than_the_training_split_is_refused_before_training",
    "a setting is impossible": "an_impossible_value_names_field_value_and_what_is_allowed",
    "a path's variable": "a_misspelt_path_is_asked_about_before_stand_ins_are_taken",
    "a model would have": "models_beyond_all_memory_are_refused_at_once",
    "a table and its folder": "rows_without_a_file_and_files_without_a_row_are_counted",
    "a table's rows": "rows_that_contradict_each_other_are_refused_and_repeats_are_not",
    "a label is the text": "only_what_is_empty_is_no_label",
    "masks have another size": "masks_that_cannot_be_meant_are_refused_with_what_is_wrong",
    "images have no label": "images_without_a_label_do_not_count_as_wrong",
    "a finding is empty": "an_empty_finding_is_no_label_and_not_no_finding",
    "MNIST is neither": "mnist_neither_on_disk_nor_downloadable_says_so_at_once",
    "the loss stops": "a_loss_that_stops_being_finite_stops_at_its_step",
    "training is killed": "kill_9_at_any_moment_changes_nothing",
    "training is interrupted": "ctrl_c_saves_and_says_how_to_go_on",
    "a checkpoint was damaged": "no_damaged_checkpoint_is_read_and_none_blocks_the_other",
    "the disk is full": "a_full_disk_is_told_and_harms_no_file",
    "a process was killed": "what_dead_processes_left_is_taken_away",
    "decoded images": "a_flipped_byte_of_a_decoded_image_is_found_and_mended",
    "the run's folder": "a_folder_that_cannot_be_written_is_told_before_training",
    "the processor does not": "bfloat16_that_is_emulated_is_told_before_training",
    "the folder holds a run": "a_folder_that_holds_a_run_is_not_overwritten",
    "the images or settings": "a_run_goes_on_only_with_its_own_settings_and_images",
    "a latent is too large": "a_latent_too_large_for_a_covariance_gets_no_prior_of_its_own",
    "a run is evaluated": "a_run_is_measured_on_the_images_that_it_was_trained_on",
    "a run's images changed": "numbers_of_other_images_never_replace_those_of_a_run",
    "a run has no": "a_run_that_does_not_know_its_images_is_named_with_what_can_be_done",
    "a run is audited": "without_the_images_it_says_what_the_digests_still_tell",
    "too few held-out": "too_few_subjects_are_refused_with_their_number",
    "too few subjects calibrate": "too_few_subjects_to_calibrate_are_told_with_what_can_be_done",
    "images for an alarm": "a_folder_with_masks_is_measured_and_shifted_ones_get_no_alarm",
    "no checkpoint is whole": "a_run_without_a_whole_checkpoint_says_so",
    "a weights file was damaged": "damaged_weights_are_not_loaded",
    "weights are of another": "weights_of_another_size_are_refused_with_both_sizes",
    "one of several workers": "a_killed_worker_ends_the_other_and_both_resume_to_the_same_weights",
    "a sweep is killed": "a_sweep_whose_driver_is_killed_finishes_the_rest_alone",
    "encoding an archive": "one_that_was_ended_does_only_what_is_missing",
    "a run is opened": "every_model_gives_equal_reconstructions_in_a_fresh_process",
    "a run that is explored": "a_damaged_run_opens_and_says_what_is_wrong",
    "a direction's name": "a_direction_cannot_write_outside_of_the_folder",
    "a model file has code": "a_model_file_with_code_in_it_is_not_opened",
}


def test_everything_that_the_documentation_says_of_faults_has_its_test():
    rows = [row[0] for row in rows_of("when_things_go_wrong.md")]
    assert len(rows) == len(FAULTS)
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for row, (beginning, name) in zip(rows, FAULTS.items(), strict=True):
        assert row.startswith(beginning)
        assert re.search(rf"^def test_\w*{name}\(", tests, re.MULTILINE), name
