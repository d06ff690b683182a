"""The names of a run's classes: users say them, and other images are numbered by them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import apply
import config
import data
import evaluate
import train
from families import priors, registry
from spots import blobs
from storage import runs

KINDS = ("cat", "dog", "fish")
WORDS = ["gallery", "--epochs", "1", "--set", "image_shape=(12,12,1)", "--set", "widths=(4,)"]
WORDS += ["--set", "flip=none", "--set", "shift=0", "--set", "labels=folders"]


def drawn(folder, kinds, count):
    """So many pictures of each kind, as bright as its place in `KINDS`."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        level = 0.3 + 0.3 * KINDS.index(kind) if kind in KINDS else 0.5
        for number, image in enumerate(blobs(count)[0][..., 0]):
            pixels = (level * image).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of animals, a semi-supervised run and a conditional one on it, and other animals."""
    root = tmp_path_factory.mktemp("animals")
    drawn(root / "mine", KINDS, 40)
    drawn(root / "others", ("fish", "dog", "bird"), 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE_DIR", root / "cache")
        patch.setattr(config, "IMAGES_DIR", root / "mine")
        classes = ["--set", "classes=3"]
        train.main([*WORDS, *classes, "--model", "M2", "--out", str(root / "m2")])
        told = ["--model", "ConditionalVAE", "--set", "conditions=folder"]
        train.main([*WORDS, *told, "--out", str(root / "told")])
        yield root


def test_other_images_have_the_numbers_of_the_runs_classes(place, capsys):
    images = data.others_of(place / "m2", place / "others")
    assert images.classes == KINDS
    told = "bird are none of the run's classes (cat, dog, fish); these images count as unlabelled"
    assert told in capsys.readouterr().out
    codes = {"fish": 2, "dog": 1, "bird": -1}
    assert len(images.test) == 15  # all of them
    for name, label in zip(images.test.table["file"], images.test.labels("folder"), strict=True):
        assert label == codes[name.split("/")[0]]
    own = data.images_of(place / "m2")
    np.testing.assert_array_equal(images.train.images[:], own.train.images[:])
    numbers = place / "numbers.json"
    evaluate.main([str(place / "m2"), "--images", str(place / "others"), "--to", str(numbers)])
    assert '"n": 15' in numbers.read_text()


def test_one_image_can_be_measured_and_a_wrong_path_is_named(place, tmp_path):
    drawn(tmp_path / "one", ("dog",), 1)
    assert len(data.others_of(place / "m2", tmp_path / "one").test) == 1
    with pytest.raises(FileNotFoundError, match="--images: there is no .*nowhere"):
        data.others_of(place / "m2", tmp_path / "nowhere")


def test_generated_images_lie_in_folders_with_the_names(place, tmp_path):
    apply.main([str(place / "m2"), "--generate", "6", "--to", str(tmp_path / "all")])
    assert sorted(each.name for each in (tmp_path / "all").iterdir() if each.is_dir()) == [*KINDS]
    words = ["--generate", "4", "--label", "dog", "--to", str(tmp_path / "dogs")]
    apply.main([str(place / "m2"), *words])
    assert len(list((tmp_path / "dogs" / "dog").glob("*.png"))) == 4
    with pytest.raises(SystemExit, match="folder = bird is none of the classes: cat, dog, fish"):
        apply.main([str(place / "m2"), "--generate", "4", "--label", "bird"])


def test_a_condition_is_asked_for_by_name_or_number(place, tmp_path):
    for asked in ("dog", "1"):
        words = ["--generate", "3", "--prior", "normal", "--condition", f"folder = {asked}"]
        apply.main([str(place / "told"), *words, "--to", str(tmp_path / asked)])
    for number in range(3):
        one, other = (tmp_path / asked / f"{number:05d}.png" for asked in ("dog", "1"))
        assert one.read_bytes() == other.read_bytes()
    with pytest.raises(SystemExit, match="folder = bird is none of the classes"):
        apply.main([str(place / "told"), "--generate", "3", "--condition", "folder=bird"])


def test_a_direction_is_asked_for_by_name(place):
    direction, _ = apply.find(place / "told", "folder==fish")
    images = data.images_of(place / "told").train
    has = images.labels("folder") == 2
    model = train.load(place / "told")
    along = direction.project(model.encode(images.images[:])[0].numpy())
    assert along[has].mean() > along[~has].mean()


def test_known_classes_of_other_images_are_read_by_name(place, tmp_path):
    names = [f"{kind}/{number:03d}.png" for kind in ("fish", "dog") for number in range(5)]
    kinds = [name.split("/")[0] for name in names]
    pd.DataFrame({"file": names, "folder": kinds}).to_csv(tmp_path / "known.csv", index=False)
    words = ["--change", "folder=cat", "--known", str(tmp_path / "known.csv")]
    apply.main([str(place / "told"), str(place / "others"), *words, "--out", str(tmp_path / "out")])
    model, name = train.load(place / "told"), "fish/003.png"
    images, table = apply.load_images(place / "told", place / "others")
    (row,) = np.flatnonzero(table["file"] == name)
    before, after = (model.conditions(pd.DataFrame({"folder": [code]})) for code in (2, 0))
    z = model.encode(images[[row]], before)[0]
    change = (model.decode(z, after) - model.decode(z, before)).numpy()[0, ..., 0]
    expected = np.clip(images[row][..., 0] / 255 + change, 0, 1)
    made = np.asarray(Image.open(tmp_path / "out" / "changed" / name)) / 255
    np.testing.assert_allclose(made, expected, atol=0.01)


@pytest.mark.parametrize(
    ("classes", "said", "code"),
    [
        (("1", "2", "4"), 4, 2),
        (("1", "2", "4"), 2, 1),
        (("1", "2", "4"), "4.0", 2),
        (("no", "yes"), True, True),
        (("no", "yes"), 1, 1),
        (("no", "yes"), "yes", 1),
        (("01", "None"), "None", 1),
    ],
)
def test_a_name_that_is_a_number_is_the_name(place, tmp_path, classes, said, code):
    settings = runs.load_settings(place / "m2")
    images = dataclasses.replace(data.images_of(place / "m2"), classes=classes, label="grade")
    tables = {
        name: dataclasses.replace(split, table=split.table.assign(grade=0))
        for name, split in images.splits.items()
    }
    (tmp_path / "run").mkdir()
    runs.begin(tmp_path / "run", settings, dataclasses.replace(images, **tables))
    labels = runs.labels_of(tmp_path / "run")
    assert labels.coded("grade", said) == code
    assert labels.coded("age", said) == said


def test_a_number_that_is_no_name_is_refused_where_names_are_numbers(place, tmp_path):
    settings = runs.load_settings(place / "m2")
    images = dataclasses.replace(data.images_of(place / "m2"), classes=("1", "2", "4"))
    (tmp_path / "run").mkdir()
    runs.begin(tmp_path / "run", settings, images)
    with pytest.raises(ValueError, match="folder = 0 is none of the classes: 1, 2, 4"):
        runs.labels_of(tmp_path / "run").coded("folder", 0)


def test_a_model_with_classes_that_the_images_do_not_have_is_refused(place, tmp_path):
    settings = dataclasses.replace(runs.load_settings(place / "m2"), classes=10)
    model = registry.from_settings(settings)
    with pytest.raises(
        ValueError, match="labels of mine are 0 to 2, and classes = 10; set classes"
    ):
        train.fit(model, data.images_of(place / "m2"), settings, tmp_path / "run")


def test_a_run_that_is_resumed_when_it_is_over_keeps_its_weights_file_and_prior(place):
    before = (place / "told" / "model.weights.h5").read_bytes()
    train.main(["--resume", str(place / "told")])
    assert (place / "told" / "model.weights.h5").read_bytes() == before
    priors.of_run(place / "told")
