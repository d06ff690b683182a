"""The audit of a run: its page, its numbers, and what it says when images are missing."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import audit
import evaluate
from analysis import samples
from spots import blobs
from storage import checkpoints


def rows_of(run):
    return json.loads((run / "metrics.json").read_text())["metrics"]


def test_an_audit_writes_a_page_tables_and_its_rows(of_folder, capsys):
    run, _ = of_folder
    audit.main([str(run), "--samples", "300", "--prior", "normal"])
    said = capsys.readouterr().out
    assert "Prior normal: not flagged" in said and "is found to be copied" in said
    folder = run / "audit"
    page = (folder / "index.html").read_text()
    for name in ("most_copied-normal.png", "crowds-normal.png"):
        assert (folder / name).is_file() and f'src="{name}"' in page
    table = pd.read_csv(folder / "tests-normal.csv")
    assert len(table) == 7 and table["p"].between(0, 1).all()
    subjects = pd.read_csv(folder / "subjects-normal.csv")
    split = pd.read_csv(run / "split.csv")
    assert set(subjects["subject"]) == set(split.loc[split["split"] == "train", "subject"])
    rows = rows_of(run)
    assert set(rows) == {"copied_subjects", "sample_membership", "reconstruction_membership"}
    for each in rows.values():
        assert each["protocol"].startswith("audit.py") and each["n"] == len(split)


def test_its_rows_stay_when_the_run_is_measured_until_the_weights_change(of_folder):
    run, _ = of_folder
    audit.main([str(run), "--samples", "300"])
    audited = {name: each for name, each in rows_of(run).items() if "weights" in each}
    assert len(audited) == 3
    evaluate.main([str(run)])
    assert "ssim" in rows_of(run) and audited.items() <= rows_of(run).items()
    weights = run / checkpoints.WEIGHTS
    audited = {name: each | {"weights": "of others"} for name, each in audited.items()}
    evaluate.add(audited, run)
    evaluate.main([str(run)])
    assert weights.is_file() and not any("weights" in each for each in rows_of(run).values())


def test_a_model_that_copies_three_images_is_flagged_and_they_are_named(
    of_folder, monkeypatch, capsys
):
    run, place = of_folder
    split = pd.read_csv(run / "split.csv", dtype=str)
    copied = split.loc[split["split"] == "train", "file"].iloc[[4, 20, 50]]

    def drawn(model, count, prior=None):
        fresh = blobs(600, seed=9)[0]
        again = [np.asarray(Image.open(place / name))[..., None] for name in copied]
        return np.concatenate([fresh, np.repeat(again, 60, axis=0)]) / np.float32(255)

    monkeypatch.setattr(samples, "drawn", drawn)
    audit.main([str(run)])
    said = capsys.readouterr().out
    assert "FLAGGED" in said
    (table,) = (run / "audit").glob("subjects-*.csv")
    found = pd.read_csv(table, dtype={"subject": str})
    first = split.set_index("subject").loc[found["subject"][:3], "file"]
    assert set(first) == set(copied) and (found["q"][:3] < 0.001).all()
    copied_rows = [each for name, each in rows_of(run).items() if name.startswith("copied")]
    assert copied_rows[0]["value"] >= 3


def test_with_few_subjects_it_says_what_p_can_be_reached(of_folder, monkeypatch, capsys):
    run, _ = of_folder
    split = pd.read_csv(run / "split.csv", dtype=str)
    split["split"] = np.where(split.index < 4, "train", np.where(split.index < 7, "test", "none"))
    few = split[split["split"] != "none"]
    few.to_csv(run / "split.csv", index=False)
    audit.main([str(run), "--samples", "300"])
    said = capsys.readouterr().out
    assert "undecided" in said and "no p can be lower than 0.029" in said  # 1 in 35


def test_images_are_known_by_their_pixels_wherever_they_lie_now(of_folder, capsys):
    run, place = of_folder
    split = pd.read_csv(run / "split.csv", dtype=str)
    train_files = split.loc[split["split"] == "train", "file"]
    (place / train_files.iloc[0]).rename(place / "renamed.png")
    (place / train_files.iloc[1]).unlink()
    Image.fromarray(np.full((12, 12), 9, np.uint8)).save(place / "new.png")
    audit.main([str(run), "--samples", "300"])
    said = capsys.readouterr().out
    assert f"1 of {len(train_files)} training images are missing" in said
    assert "1 images are not of this run and are left out" in said


def test_without_the_images_it_says_what_the_digests_still_tell(of_folder):
    run, place = of_folder
    split = pd.read_csv(run / "split.csv", dtype=str)
    first = split["split"].eq("train").idxmax()
    split.loc[split["split"].eq("train")[::-1].idxmax(), "digest"] = split.loc[first, "digest"]
    split.loc[split["split"].eq("test").idxmax(), "digest"] = split.loc[first, "digest"]
    split.to_csv(run / "split.csv", index=False)
    place.rename(place.parent / "away")
    count = split["split"].eq("train").sum()
    with pytest.raises(
        SystemExit,
        match=rf"records {count} training images of {count} subjects; 1 are identical.* 1 are also "
        "held out.*put them back",
    ):
        audit.main([str(run)])


def test_other_images_in_their_place_are_refused(of_folder):
    run, place = of_folder
    for number, image in enumerate(blobs(160, seed=8)[0]):
        Image.fromarray(image[..., 0]).save(place / f"{number:03d}.png")
    with pytest.raises(SystemExit, match=r"none of its \d+ training images is found.*split.csv"):
        audit.main([str(run)])


def test_too_few_samples_and_unknown_priors_are_refused(of_folder):
    run, _ = of_folder
    with pytest.raises(SystemExit, match="20 samples; an audit needs at least 200"):
        audit.main([str(run), "--samples", "20"])
    with pytest.raises(SystemExit, match="has no prior 'flow'.*prior.py"):
        audit.main([str(run), "--prior", "flow"])
    (run / "metrics.json").write_text("{")
    with pytest.raises(SystemExit, match="metrics.json is damaged; delete it"):
        audit.main([str(run), "--samples", "300"])
