"""Who the subject of a file is: a folder, or the patient that a DICOM header names."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import config
import data
import train
from families import registry
from fuzz import dicom
from sources import decoding

SETTINGS = config.Settings(dataset="gallery", image_shape=(12, 12, 1), subjects="patients")


def write(folder, name, patient, random):
    pixels = random.integers(0, 4096, (12, 12)).astype(np.uint16)
    header = {} if patient is None else {"PatientID": patient}
    (folder / name).write_bytes(dicom(pixels, BitsStored=12, **header))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty patients with three files each, whose names do not tell whose they are."""
    random, place = np.random.default_rng(0), tmp_path / "study"
    place.mkdir()
    for number in range(60):
        write(place, f"{number:03d}.dcm", f"P{number % 20}", random)
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(config, "IMAGES_DIR", place)
    return place


def test_files_of_one_patient_stay_in_one_split(folder):
    images = data.load(SETTINGS)
    found = images.membership()
    assert (found.groupby("subject")["split"].nunique() == 1).all()
    for split in images.splits.values():
        numbers = split.table["file"].str[:3].astype(int)
        assert (split.table["subject"] == ("P" + (numbers % 20).astype(str))).all()
    by_file = data.load(replace(SETTINGS, subjects="files")).membership()
    assert by_file["subject"].nunique() == 60


@pytest.mark.parametrize("patient", [None, "", "  "])
def test_a_file_without_a_patient_is_named_with_what_can_be_done(folder, patient):
    write(folder, "nobody.dcm", patient, np.random.default_rng(1))
    with pytest.raises(ValueError, match=r"1 of 61 files have no PatientID.*nobody.dcm.*folders"):
        data.load(SETTINGS)


def test_new_files_without_a_patient_are_subjects_of_their_own(folder, tmp_path):
    settings = replace(SETTINGS, widths=(4,), dense_widths=(4,), latent_dim=2, batch_size=8)
    images, run = data.load(settings), tmp_path / "run"
    train.fit(registry.from_settings(settings), images, replace(settings, epochs=1), run, verbose=0)
    new = tmp_path / "new"
    new.mkdir()
    for name, patient in {"a.dcm": "P1", "b.dcm": "P1", "c.dcm": None}.items():
        write(new, name, patient, np.random.default_rng(2))
    assert data.of_folder(run, new).table["subject"].tolist() == ["P1", "P1", "c.dcm"]


def test_only_dicom_files_name_a_patient(tmp_path):
    assert decoding.patient(tmp_path / "missing.png") == ""


def test_a_named_column_takes_the_place_of_headers_without_a_patient(folder, monkeypatch, tmp_path):
    write(folder, "nobody.dcm", None, np.random.default_rng(1))
    names = sorted(path.name for path in folder.iterdir())
    owners = [f"owner {number // 4}" for number in range(len(names))]
    rows = pd.DataFrame({"file": names, "label": "seen", "owner": owners})
    rows.to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.setattr(config, "LABELS_CSV", tmp_path / "table.csv")
    images = data.load(replace(SETTINGS, labels="csv", subject_column="owner"))
    found = images.membership().set_index("file")["subject"]
    assert found[names].tolist() == owners
