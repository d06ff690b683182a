"""No notebook fails on any images; `python tests/any_images.py` reports on each."""

import os

import pytest

import any_images

LONG = os.environ.get("ATLAS_LONG") == "1"  # `make test-long`


@pytest.mark.slow
def test_run_ends_on_a_folder_of_colour_pictures_without_labels(tmp_path):
    chosen = any_images.colours(tmp_path)
    copy = any_images.project(chosen, tmp_path)
    assert not any_images.tried(any_images.NOTEBOOKS[0], copy, chosen).fault


@pytest.fixture(scope="module", params=any_images.SETS)
def prepared(request, tmp_path_factory):
    """A set, and a user's copy of the project."""
    folder = tmp_path_factory.mktemp(request.param)
    chosen = any_images.SETS[request.param](folder)
    return any_images.project(chosen, folder), chosen


@pytest.mark.skipif(not LONG, reason="make test-long")
@pytest.mark.parametrize("notebook", any_images.NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_ends_on_every_kind_of_images(notebook, prepared):
    assert not any_images.tried(notebook, *prepared).fault
