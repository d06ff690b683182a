"""Maps of what is abnormal: closed forms of the scores, and the command from images to alarms."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

import anomaly
import config
import data
import train
from analysis import alarms, detection
from analysis import anomaly as scores
from families import densities, registry
from sources import heads, phantoms
from spots import blobs


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((5, 16, 14, 1)).astype(np.float32)


# --- scores --------------------------------------------------------------------------------------


def test_residuals_are_differences(pictures):
    made = np.full_like(pictures, 0.5)
    away = pictures[..., 0] - 0.5
    np.testing.assert_allclose(scores.residual(pictures, made), away)
    np.testing.assert_allclose(scores.residual(pictures, made, "absolute"), np.abs(away))
    np.testing.assert_allclose(scores.residual(pictures, made, "squared"), away**2, rtol=1e-5)


def test_surprise_is_a_difference_in_the_standard_deviations_that_were_expected(pictures):
    expected = np.concatenate([np.full_like(pictures, 0.5), np.full_like(pictures, 0.1)], axis=-1)
    found = scores.surprise(pictures, expected)
    away = (pictures[..., 0] - 0.5) / 0.1
    np.testing.assert_allclose(found, away, atol=1e-5)
    size = scores.surprise(pictures, expected, "absolute")
    np.testing.assert_allclose(size, np.abs(away), atol=1e-5)


def test_the_ssim_map_is_that_of_scikit_image(pictures):
    made = np.clip(pictures + 0.1, 0, 1)
    found = scores.ssim_residual(pictures, made)
    assert found.shape == (5, 16, 14)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(
        pictures[0, ..., 0], made[0, ..., 0], data_range=1.0, full=True, **options
    )
    np.testing.assert_allclose(found[0, 5:-5, 5:-5], 1 - full[5:-5, 5:-5], atol=1e-4)
    np.testing.assert_allclose(scores.ssim_residual(pictures, pictures), 0.0, atol=1e-5)


def test_the_gradient_of_a_gaussian_is_its_distance(pictures):
    def bound(images):
        return tf.reduce_sum(tf.square(images - 0.3), (1, 2, 3)) / (2 * 0.1**2)

    found = scores.gradient(bound, pictures)
    np.testing.assert_allclose(found, np.abs(pictures[..., 0] - 0.3) / 0.01, rtol=1e-4)


def test_restoration_goes_to_what_is_likely_and_is_held_by_the_total_variation(pictures):
    def bound(images):
        return tf.reduce_sum(tf.square(images - 0.3), (1, 2, 3)) / 2

    free = scores.restored(bound, pictures, steps=60, rate=0.2, weight=0.0)
    np.testing.assert_allclose(free, 0.3, atol=1e-4)
    # The change is 0.3 - image; with a weight it must vary less from pixel to pixel.
    held = scores.restored(bound, pictures, steps=200, rate=0.02, weight=0.05)

    def varied(made):
        change = (made - pictures)[..., 0]
        return np.abs(np.diff(change, axis=1)).sum() + np.abs(np.diff(change, axis=2)).sum()

    assert varied(held) < 0.9 * varied(free)
    same = scores.restored(bound, np.full((1, 8, 8, 1), 0.3, np.float32))
    np.testing.assert_allclose(same, 0.3, atol=1e-5)


def test_the_bound_is_the_models_own(tiny):
    model = registry.from_settings(tiny(reconstruction="gaussian"))
    images = tf.constant(blobs(4)[0] / np.float32(255))
    z_mean, z_log_var = model.encode(images)
    made = model.logits_of(z_mean, False)
    kl = 0.5 * tf.reduce_sum(z_mean**2 + tf.exp(z_log_var) - z_log_var - 1, -1)
    expected = model.distortion(images, made) + kl
    np.testing.assert_allclose(scores.bound_of(model)(images), expected, rtol=1e-5)


def test_noise_is_averaged_and_does_not_depend_on_the_batch(pictures):
    noise = scores.coarse_noise(0.2, draws=3)
    found = scores.denoised(lambda x: x, pictures, noise)
    np.testing.assert_allclose(scores.denoised(lambda x: x, pictures[2:3], noise)[0], found[2])
    assert 0.01 < np.abs(found - pictures).mean() < 0.3
    np.testing.assert_allclose(scores.denoised(lambda x: x, pictures), pictures)


def test_z_scores_are_standard_where_images_are_usual():
    random = np.random.default_rng(1)
    spread = np.linspace(0.5, 3.0, 30).reshape(5, 6)
    usual = scores.Usual.of(2.0 + spread * random.normal(size=(4000, 5, 6)))
    z = usual.z(2.0 + spread * random.normal(size=(4000, 5, 6)))
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.1)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.1)
    with pytest.raises(ValueError, match="1 healthy maps do not show"):
        scores.Usual.of(np.zeros((1, 5, 6)))


def test_the_latent_distance_is_that_of_mahalanobis():
    random = np.random.default_rng(2)
    healthy = random.normal(size=(20_000, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, 0.0]
    z = np.array([[0.0, 1.0, 0.0], [0.0, 5.0, 0.0], [1.0, 1.0, 1.0]])
    expected = [0.0, 2.0, np.sqrt(1 + 4)]
    np.testing.assert_allclose(scores.latent_distance(z, healthy), expected, atol=0.05)


def test_density_under_a_prior_is_that_of_the_prior():
    z = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    found = scores.unlikeliness(z, densities.Normal(4))
    np.testing.assert_allclose(found, 0.5 * (z**2).sum(1) + 2 * np.log(2 * np.pi), rtol=1e-5)


def test_what_lies_between_two_clusters_is_unfamiliar():
    """Two Gaussians at ±3: their whole has variance 10, and the closed form is known."""
    mixture = densities.Mixture([0.5, 0.5], [[-3.0], [3.0]], np.ones((2, 1, 1)))
    z = np.array([[0.0], [3.0], [-3.0], [6.0]], np.float32)
    both = stats.norm.pdf(z[:, 0], -3.0) / 2 + stats.norm.pdf(z[:, 0], 3.0) / 2
    expected = stats.norm.logpdf(z[:, 0], 0.0, np.sqrt(10.0)) - np.log(both)
    found = scores.unfamiliarity(z, mixture)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[0] > 2.0 > 0.0 > found[1] and found[1] == pytest.approx(found[2], abs=1e-4)


def test_flowing_back_needs_a_latent_map(tiny, pictures):
    with pytest.raises(ValueError, match="needs a model with a latent_map"):
        scores.flowed(registry.from_settings(tiny()), None, pictures)


def test_flowing_back_decodes_what_the_flow_makes_of_the_latents(tiny, pictures):
    images = pictures[:, :12, :12]
    model = registry.from_settings(tiny(latent_map=(6, 6, 2)))

    class Halved:
        def varied(self, z, share, seed):
            assert (share, seed) == (0.25, 3)
            return 0.5 * z

    found = scores.flowed(model, Halved(), images, share=0.25, seed=3)
    expected = model.decode(0.5 * model.encode(images)[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_baselines_are_what_they_are_called():
    images = blobs(40, (16, 16, 1))[0]
    pixels = images / np.float32(255)
    base = scores.Baselines(images)
    found = {name: score(pixels) for name, score in base.scores().items()}
    np.testing.assert_allclose(found["brightness"], pixels[..., 0])
    np.testing.assert_allclose(found["mean image"], (pixels - pixels.mean(0))[..., 0], atol=1e-6)
    flat = np.full((1, 16, 16, 1), 0.4, np.float32)
    np.testing.assert_allclose(base.scores()["local contrast"](flat), 0.0, atol=1e-6)
    # 40 images lie in 39 dimensions, of which 32 are kept.
    left = found["PCA-32"]
    assert np.square(left).sum() < 0.05 * np.square(found["mean image"]).sum()


def test_the_score_of_an_image_is_the_mean_of_its_highest_pixels():
    maps = np.zeros((2, 20, 20))
    maps[0, 3, :4] = [8.0, 4.0, 2.0, 2.0]
    np.testing.assert_allclose(scores.of_images(maps, share=0.01), [4.0, 0.0])
    assert len(scores.of_images(np.zeros((1, 64, 64)))) == 1


# --- heads ---------------------------------------------------------------------------------------


def test_the_head_is_the_largest_object_without_holes():
    image = np.zeros((1, 40, 40, 1), np.uint8)
    rows, columns = np.mgrid[:40, :40]
    away = np.hypot(rows - 20, columns - 18)
    image[0, (away < 12) & (away > 4), 0] = 200  # a ring
    image[0, 1:4, 35:38, 0] = 255  # and a bright corner
    (found,) = heads.heads(image)
    np.testing.assert_array_equal(found, away < 12)
    (inner,) = heads.inside(found[None], 5)
    assert not inner[away > 7.5].any() and inner[away < 6.0].all()
    assert not heads.heads(np.zeros((1, 8, 8, 1), np.uint8)).any()


def test_normalized_images_do_not_depend_on_the_scanners_scale():
    images, _ = phantoms.brains(48, 2, 4, seed=0)
    subjects = np.repeat(["a", "b"], 4)
    half = images.copy()
    half[4:] //= 2
    one, other = heads.normalized(images, subjects), heads.normalized(half, subjects)
    np.testing.assert_allclose(one.astype(int), other, atol=4)
    for subject in "ab":
        own = one[subjects == subject]
        inside = heads.heads(own, level=0.0)
        assert np.percentile(own[..., 0][inside], 98) == pytest.approx(heads.WHITE, abs=3)
        assert (
            own[..., 0][~ndimage.binary_dilation(inside, np.ones((1, 3, 3)))] == 0
        ).mean() > 0.99


def test_standardized_tissue_has_one_median_and_spread_whatever_the_scanner_and_the_lesion():
    images, _ = phantoms.brains(64, 2, 4, seed=0)
    subjects = np.repeat(["a", "b"], 4)
    other = images.copy()
    other[4:] = np.where(images[4:] > 0, images[4:] * 0.5, 0).astype(np.uint8)
    made = heads.standardized(images, subjects)
    np.testing.assert_allclose(made.astype(int), heads.standardized(other, subjects), atol=6)
    found = np.concatenate([heads.heads(images[:4]), heads.heads(images[4:])])
    tissue = heads.inside(found, 5)
    assert not made[~found].any() and made[found].min() >= 1
    for image, region in zip(made[..., 0], tissue, strict=True):
        assert np.median(image[region]) == pytest.approx(heads.MIDDLE, abs=1)
        away = np.abs(image[region] - float(heads.MIDDLE))
        assert 1.4826 * np.median(away) == pytest.approx(heads.STEP, abs=2)
    ill = images.copy()
    ill[:, 30:36, 20:26] = 255
    assert np.abs(heads.standardized(ill, subjects)[:, :20].astype(int) - made[:, :20]).mean() < 5


def test_a_flat_image_is_not_stretched_to_noise():
    rows, columns = np.mgrid[:32, :32]
    disc = (np.hypot(rows - 16, columns - 16) < 12)[None, ..., None]
    noise = np.random.default_rng(0).integers(-1, 2, (1, 32, 32, 1))
    made = heads.standardized(((100 + noise) * disc).astype(np.uint8), ["a"])
    assert np.abs(made[disc].astype(int) - heads.MIDDLE).max() <= 5
    assert not heads.standardized(np.zeros((1, 8, 8, 1), np.uint8), ["a"]).any()


# --- the command ---------------------------------------------------------------------------------

SMALL = replace(
    config.EXPERIMENTS["brain-lesions"],
    image_shape=(32, 32, 1),
    widths=(8, 16),
    epochs=6,
    batch_size=16,
    learning_rate=5e-3,
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Of the noise and of the bootstrap: the commands are tested here, and not their precision."""
    monkeypatch.setattr(anomaly, "DRAWS", 1)
    monkeypatch.setattr(detection, "DRAWS", 50)


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """A trained run on small phantom brains."""
    run = tmp_path_factory.mktemp("brains") / "run"
    train.fit(registry.from_settings(SMALL), data.load(SMALL), SMALL, run, verbose=0)
    return run


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes images and masks into folders, by subject."""
    monkeypatch.setattr(config, "CACHE_DIR", tmp_path / "cache")

    def write(split, change=lambda image: image, name="new"):
        for row, (image, mask) in enumerate(zip(split.images, split.masks, strict=True)):
            file = split.table["file"][row]
            for folder, pixels in (("images", change(image)), ("masks", 255 * mask)):
                if folder == "masks" and not mask.any():
                    continue
                path = tmp_path / name / folder / f"{file}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[..., 0].astype(np.uint8)).save(path)
        return tmp_path / name / "images", tmp_path / name / "masks"

    return write


def test_a_run_is_looked_at_with_baselines_alarms_and_pictures(brains, tmp_path, capsys):
    out = tmp_path / "out"
    anomaly.main([str(brains), "--out", str(out)])
    images, subjects = (pd.read_csv(out / f"{name}.csv") for name in ("images", "subjects"))
    known = data.images_of(brains)
    assert len(images) == len(known.test) and "lesion_pixels" in images
    assert len(subjects) == known.test.table["subject"].nunique()
    table = pd.read_csv(out / "measures.csv")
    others = table["score"][1:].str.partition(",")[0]
    assert list(others) == ["brightness", "local contrast", "mean image", "PCA-32"]
    assert table["pixel_ap"].between(0, 1).all() and (table["dice"] <= table["best_dice"]).all()
    told = json.loads((out / "alarm.json").read_text())
    assert told["calibration"]["what"] == "healthy subjects" and not told["refused"]
    alarmed = subjects["score"] > told["threshold"]
    np.testing.assert_array_equal(subjects["alarm"], alarmed)
    assert (subjects["p"] < told["rate"]).sum() == alarmed.sum()
    assert len(list((out / "overlays").glob("*.png"))) == len(images)
    for figure in ("most_abnormal.png", "alarm.png", "false_alarms.csv"):
        assert (out / figure).is_file()
    printed = capsys.readouterr().out
    assert "beat" in printed and "on validation subjects that choose" in printed


def test_maps_may_be_in_standard_deviations_of_healthy_ones_that_do_not_calibrate(
    brains, tmp_path, capsys
):
    out = tmp_path / "out"
    anomaly.main([str(brains), "--score", "absolute", "--z", "--alarm", "0.05", "--out", str(out)])
    assert "Score: absolute z." in capsys.readouterr().out
    table = pd.read_csv(out / "measures.csv")
    assert table["score"][0] == "absolute z" and table["pixel_ap"][0] > table["pixel_ap"][1:].min()
    # Of healthy images most pixels lie within two standard deviations.
    known = data.images_of(brains)
    looked = anomaly.Looked.of(known.test, None)
    choosing = anomaly.divided(anomaly.Looked.of(known.validation, None), 0.05)[0]
    score = anomaly.scores_of(train.load(brains), brains)["absolute"]
    healthy = choosing.only(np.flatnonzero(~choosing.ill))
    maps = anomaly.Maps(tmp_path / "maps", "mark")
    usual = scores.Usual.of(maps("absolute", score, healthy))
    z = usual.z(maps("absolute", score, looked.only(np.flatnonzero(~looked.ill))))
    assert abs(z.mean()) < 0.2 and (np.abs(z) < 2).mean() > 0.9


def test_a_second_call_reads_its_maps_and_mends_torn_ones(brains, tmp_path, monkeypatch):
    words = [str(brains), "--score", "signed", "--out", str(tmp_path / "out")]
    asked, own = [], anomaly.scores_of

    def counted(*arguments):
        return {
            name: lambda images, score=score: asked.append(len(images)) or score(images)
            for name, score in own(*arguments).items()
        }

    def called():
        asked.clear()
        anomaly.main(words)
        return list(asked), pd.read_csv(tmp_path / "out" / "images.csv")

    monkeypatch.setattr(anomaly, "scores_of", counted)
    first, table = called()
    again, same = called()
    assert first and not again
    for part in (tmp_path / "out" / "maps").glob("*.npy"):
        part.write_bytes(part.read_bytes()[:100])
    mended, restored = called()
    assert mended == first
    for each in (same, restored):
        pd.testing.assert_frame_equal(each, table)


def test_a_folder_with_masks_is_measured_and_shifted_ones_get_no_alarm(
    brains, written, tmp_path, capsys
):
    split = data.images_of(brains).test
    folder, masks = written(split)
    words = ["--score", "signed", "--masks", str(masks)]
    anomaly.main([str(brains), str(folder), *words, "--out", str(tmp_path / "a")])
    own = [str(brains), "--score", "signed", "--out", str(tmp_path / "b")]
    anomaly.main(own)
    one, other = (pd.read_csv(tmp_path / name / "measures.csv") for name in "ab")
    assert one["pixel_ap"][0] == pytest.approx(other["pixel_ap"][0], abs=1e-3)
    capsys.readouterr()
    inverted, _ = written(split, lambda image: 255 - image, "inverted")
    words = ["--score", "signed", "--out", str(tmp_path / "c")]
    anomaly.main([str(brains), str(inverted), *words])
    assert "No alarms. These images are unlike the training images: " in capsys.readouterr().out
    assert "alarm" not in pd.read_csv(tmp_path / "c" / "subjects.csv")


def test_too_few_subjects_to_calibrate_are_told_with_what_can_be_done(
    brains, tmp_path, monkeypatch
):
    with pytest.raises(SystemExit, match="validation subjects can calibrate, and 999 are needed"):
        anomaly.main([str(brains), "--alarm", "0.001", "--out", str(tmp_path)])
    monkeypatch.setattr(alarms, "FEWEST", 999)  # maps alone compare nothing
    anomaly.main([str(brains), "--alarm", "0", "--score", "signed", "--out", str(tmp_path)])
    assert "alarm" not in pd.read_csv(tmp_path / "subjects.csv")


def test_one_new_subject_is_enough_to_be_looked_at(brains, written, tmp_path):
    split = data.images_of(brains).test
    rows = (split.table["subject"] == split.table["subject"][0]).to_numpy()
    folder, _ = written(split.only(rows))
    words = ["--score", "signed", "--out", str(tmp_path / "out")]
    anomaly.main([str(brains), str(folder), *words])
    assert len(pd.read_csv(tmp_path / "out" / "images.csv")) == rows.sum()


def test_a_margin_that_leaves_no_pixel_is_refused(brains, tmp_path):
    with pytest.raises(SystemExit, match="no pixel is left .* give a smaller --margin"):
        anomaly.main([str(brains), "--margin", "99", "--alarm", "0", "--out", str(tmp_path)])


def test_a_score_that_a_run_does_not_have_is_refused(brains, tmp_path):
    with pytest.raises(SystemExit, match="cannot be scored so; it has signed, absolute, squared"):
        anomaly.main([str(brains), "--score", "gradient", "--out", str(tmp_path)])


def test_healthy_subjects_calibrate_and_the_others_choose(brains):
    looked = anomaly.Looked.of(data.images_of(brains).validation, None)
    choosing, calibrating, what = anomaly.divided(looked, 0.05)
    assert what == "healthy subjects" and not calibrating.ill.any()
    assert not set(choosing.subjects) & set(calibrating.subjects)
    # With a lesion in everyone, half of the subjects give their lesion-free images.
    sick = looked.split.masks.copy()
    first = looked.split.table.groupby("subject").head(1).index
    sick[first] = 1
    table = looked.split.table.assign(lesion_pixels=sick.reshape(len(sick), -1).sum(axis=1))
    everyone = looked._replace(split=replace(looked.split, masks=sick, table=table))
    choosing, calibrating, what = anomaly.divided(everyone, 0.05)
    assert "lesion-free images alone" in what and not calibrating.ill.any()
    assert not set(choosing.subjects) & set(calibrating.subjects)


def test_a_vae_has_scores_of_its_bound(run):
    found = anomaly.scores_of(train.load(run), run)
    assert set(found) == {"signed", "absolute", "squared", "ssim", "gradient", "restoration"}
    images = blobs(3)[0] / np.float32(255)
    for score in found.values():
        assert score(images).shape == (3, 12, 12)


def test_images_that_changed_since_the_training_are_refused(brains, tmp_path):
    run = shutil.copytree(brains, tmp_path / "run")
    split = pd.read_csv(run / "split.csv", dtype=str)
    split.assign(digest="0").to_csv(run / "split.csv", index=False)
    with pytest.raises(SystemExit, match="are not those that it was trained on"):
        anomaly.main([str(run), "--out", str(tmp_path / "out")])
