"""The report against values computed independently."""

import json
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import skimage.metrics
import tensorflow as tf
from PIL import Image
from scipy import ndimage, stats

import config
import data
import evaluate
import model as models
import train
from analysis import judges, latent, likelihood, samples
from families import registry
from nn import losses, metrics
from spots import blobs
from storage import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory, spots, tiny):
    place, settings = tmp_path_factory.mktemp("evaluated") / "run", tiny(epochs=3)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, place, verbose=0)
    return model, place


def test_every_number_has_value_unit_split_count_and_protocol(trained, spots):
    model, run = trained
    numbers = evaluate.report(model, spots, run, samples=64)
    others = {"ms_ssim", "inception_frechet"}  # of large images, with weights that are given
    others |= {*evaluate.IN_FEATURES, "unlabelled_frechet"}  # with a classifier, many images
    others |= {"accuracy", "calibration_error"}  # of models that know labels
    others |= {"mig", "sap", "factor_vae", "disentanglement", "completeness", "informativeness"}
    assert list(numbers) == [name for name in evaluate.PROTOCOL if name not in others]
    for each in numbers.values():
        assert np.isfinite(each["value"]) and each["protocol"]
        assert each["split"] == "test" and each["n"] == len(spots.test)
    written = json.loads((run / "metrics.json").read_text())
    assert written["metrics"] == numbers


def test_negative_elbo_is_rate_plus_distortion_and_rate_the_analytic_kl(trained, spots):
    model, _ = trained
    numbers = evaluate.report(model, spots)
    total = numbers["rate"]["value"] + numbers["distortion"]["value"]
    assert numbers["negative_elbo"]["value"] == pytest.approx(total)
    kl = losses.kl_to_standard_normal(*latent.encode(model, spots.test))
    assert numbers["rate"]["value"] == pytest.approx(np.mean(kl), rel=1e-5)


def test_distortion_is_the_likelihood_of_fixed_draws(trained, spots):
    model, _ = trained
    values = []
    for draw in range(evaluate.DRAWS):
        result = model.forward(spots.test.images, training=False, step=draw)
        probability = 1 / (1 + np.exp(-result.logits.numpy().astype(np.float64)))
        x = result.images.numpy()
        logs = x * np.log(probability) + (1 - x) * np.log1p(-probability)
        values.append(-logs.sum(axis=(1, 2, 3)))
    expected = np.mean(values, axis=0)
    number = evaluate.report(model, spots)["distortion"]
    assert number["value"] == pytest.approx(expected.mean(), rel=1e-4)
    assert number["standard_error"] == pytest.approx(stats.sem(expected, ddof=0), rel=1e-3)


def test_image_measures_are_those_of_the_reconstruction_from_the_mean(trained, spots):
    model, _ = trained
    images = spots.test.images / np.float32(255)
    made = model.reconstruct(images).numpy()
    numbers = evaluate.report(model, spots)
    for name, theirs in (
        ("mse", skimage.metrics.mean_squared_error),
        ("psnr", skimage.metrics.peak_signal_noise_ratio),
    ):
        expected = np.mean([theirs(a, b) for a, b in zip(images, made, strict=True)])
        assert numbers[name]["value"] == pytest.approx(expected, rel=1e-4)
    assert numbers["ssim"]["value"] == pytest.approx(np.mean(metrics.ssim(images, made)), rel=1e-5)


def test_a_report_is_the_same_twice_and_on_a_loaded_run(trained, spots):
    model, run = trained
    numbers = evaluate.report(model, spots)
    assert numbers == evaluate.report(model, spots) == evaluate.report(train.load(run), spots)


def test_binary_draws_differ_between_images_and_between_draws(spots, tiny):
    model = registry.from_settings(tiny(binarize="dynamic"))
    images = np.repeat(spots.test.images[:1], 40, axis=0)
    per_image = evaluate.likelihoods(model, images)["distortion"]
    assert len(np.unique(per_image)) == 40


@pytest.mark.parametrize("kind", [each for each in registry.REGISTRY if each != "Denoiser"])
def test_models_without_a_posterior_have_no_bound(kind, spots, tiny):
    numbers = evaluate.report(registry.from_settings(tiny(model=kind, classes=2)), spots)
    deterministic = kind in ("Autoencoder", "MMD-AE")
    assert ("negative_elbo" in numbers) == ("rate" in numbers) == (not deterministic)
    labelled = kind in ("SemiSupervisedVAE", "M2")
    assert ("accuracy" in numbers) == ("calibration_error" in numbers) == labelled


def test_a_denoiser_is_measured_on_corrupted_input_and_says_so(spots, tiny):
    clean, corrupted = (
        evaluate.report(
            registry.from_settings(tiny(model="Autoencoder", corrupt=corrupt, corrupt_level=0.8)),
            spots,
        )
        for corrupt in ("none", "mask")
    )
    assert clean["mse"]["value"] != corrupted["mse"]["value"]
    assert "corrupted (mask 0.8)" in corrupted["mse"]["protocol"]


def test_without_labels_there_is_no_purity(tiny):
    images = data.from_arrays(blobs(96)[0])
    assert "knn_purity" not in evaluate.report(registry.from_settings(tiny()), images)


def test_runs_stand_side_by_side_with_a_dash_where_one_has_no_number(spots, tiny):
    reports = {
        kind: evaluate.report(registry.from_settings(tiny(model=kind)), spots)
        for kind in ("VAE", "Autoencoder")
    }
    table = evaluate.table(reports)
    assert list(table.columns) == ["unit", "VAE", "Autoencoder"]
    assert table.loc["rate", "Autoencoder"] == "-"
    assert table.loc["ssim ↑", "VAE"].startswith(f"{reports['VAE']['ssim']['value']:.4f}"[:4])


def test_large_images_are_compared_on_five_scales_too(tiny):
    pixels, _ = blobs(12, (176, 176, 1))
    images = data.from_arrays(pixels, name="large")
    model = registry.from_settings(tiny(image_shape=(176, 176, 1), widths=(2,), strides=(8,)))
    numbers = evaluate.report(model, images)
    real = images.test.images / np.float32(255)
    expected = metrics.ms_ssim(real, model.reconstruct(real)).numpy().mean()
    assert numbers["ms_ssim"]["value"] == pytest.approx(expected, rel=1e-4)


def test_samples_are_compared_in_the_features_of_a_classifier(trained, spots, tmp_path):
    model, _ = trained
    judge = judges.judge(spots, steps=4, widths=(4, 4), cache=tmp_path)
    numbers = evaluate.report(model, spots, judge=judge)
    real = judge.features(spots.test.images)
    made = judge.features(samples.drawn(model, len(spots.test)))
    precision, recall = metrics.precision_recall(real, made)
    assert (numbers["precision"]["value"], numbers["recall"]["value"]) == (precision, recall)
    assert numbers["kernel"]["value"] == pytest.approx(metrics.kernel_distance(real, made)[0])
    assert "frechet" not in numbers  # too few images for a covariance
    for name in ("precision", "kernel"):
        assert f"accuracy is {judge.accuracy:.3f}" in numbers[name]["protocol"]


def test_copies_have_nearer_training_images_than_held_out_ones():
    training, _ = blobs(200)
    held_out, fresh = (blobs(100, seed=seed)[0].astype(np.float32) / 255 for seed in (1, 2))
    copies = training[:100].astype(np.float32) / 255
    assert samples.nearer_to_training(copies, held_out, training) == 1.0
    assert samples.nearer_to_training(fresh, held_out, training) == pytest.approx(0.5, abs=0.1)
    assert samples.nearer_to_training(1 - copies, held_out, training) == 0.0


def test_blur_alone_does_not_pass_for_copying_beside_images_as_blurred():
    training, held_out, fresh = np.random.default_rng(0).random((3, 100, 12, 12, 1), np.float32)
    training = (255 * training).astype(np.uint8)
    foggy, redrawn = (ndimage.gaussian_filter(each, (0, 2, 2, 0)) for each in (fresh, held_out))
    assert samples.nearer_to_training(foggy, held_out, training) > 0.9
    assert samples.nearer_to_training(foggy, redrawn, training) == pytest.approx(0.5, abs=0.1)


def test_the_report_compares_samples_with_held_out_images_and_with_these_redrawn(trained, spots):
    model, _ = trained
    numbers = evaluate.report(model, spots)
    made = samples.drawn(model, len(spots.test))
    real = spots.test.images / np.float32(255)
    for name, others in (("real", real), ("redrawn", model.reconstruct(real))):
        share = samples.nearer_to_training(made, others, spots.train.images)
        assert numbers[f"nearer_than_{name}"]["value"] == pytest.approx(share)
    assert numbers["nearer_than_real"]["value"] != numbers["nearer_than_redrawn"]["value"]


def test_large_images_are_averaged_before_they_are_compared():
    images = np.arange(64 * 48, dtype=np.float32).reshape(1, 64, 48, 1) / 4096
    expected = images.reshape(1, 32, 2, 24, 2, 1).mean((2, 4))
    np.testing.assert_allclose(samples.small(images), expected, rtol=1e-5)


def test_the_report_can_show_how_far_it_is(trained, spots, capsys):
    evaluate.report(trained[0], spots, samples=64, progress=True)
    shown = capsys.readouterr().out
    for name in ("bound", "reconstructions", "likelihood"):
        assert name in shown


def test_the_command_line_prints_the_table_and_writes_the_metrics(tmp_path, capsys, monkeypatch):
    judge = partial(judges.judge, steps=4, widths=(4, 4), cache=tmp_path)
    monkeypatch.setattr(judges, "judge", judge)
    words = ["digits", "--epochs", "1", "--set", "widths=(4, 4)", "--out", str(tmp_path / "run")]
    train.main(words)
    evaluate.main([str(tmp_path / "run"), "--judge"])
    shown = capsys.readouterr().out
    assert "negative_elbo ↓" in shown and "frechet ↓" in shown
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "dynamically binarised" in written["metrics"]["negative_elbo"]["protocol"]
    assert "not FID" in written["metrics"]["frechet"]["protocol"]


def test_images_without_a_label_do_not_count_as_wrong(spots, tiny, tmp_path):
    settings = tiny(model="SemiSupervisedVAE", classes=2, epochs=1)
    model = registry.from_settings(settings)
    train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    whole = evaluate.report(model, spots)
    test = spots.test.table.assign(half=spots.test.table["half"].astype("Int32"))
    hidden = np.arange(len(test)) % 2 == 0
    test.loc[hidden, "half"] = None
    fewer = evaluate.report(model, replace(spots, test=replace(spots.test, table=test)))
    labels = spots.test.labels("half")
    right = model.classify(spots.test.images).numpy().argmax(-1) == labels
    assert whole["accuracy"]["value"] == pytest.approx(right.mean())
    assert fewer["accuracy"]["value"] == pytest.approx(right[~hidden].mean())
    assert fewer["accuracy"]["n"] == (~hidden).sum() and fewer["ssim"]["n"] == len(test)


def test_flat_images_are_measured_and_the_file_is_json(trained, spots, tmp_path, tiny):
    black = data.from_arrays(np.zeros((96, 12, 12, 1), np.uint8), name="black")
    model = registry.from_settings(tiny())
    model.logits_of = lambda z, training, told=None: tf.fill((tf.shape(z)[0], 12, 12, 1), -1e9)
    numbers = evaluate.report(model, black, tmp_path)
    assert numbers["psnr"]["value"] == np.inf and np.isnan(numbers["sample_sharpness"]["value"])
    assert "not finite here" in numbers["psnr"]["protocol"]
    assert "inf" in evaluate.table({"black": numbers}).loc["psnr ↑", "black"]

    def forbidden(word):
        raise AssertionError(word)

    text = (tmp_path / "metrics.json").read_text()
    written = json.loads(text, parse_constant=forbidden)["metrics"]
    assert written["psnr"]["value"] is None and written["mse"]["value"] == 0.0


def test_an_error_bar_that_is_not_known_is_left_out_of_the_table():
    row = {"value": 1.5, "standard_error": float("nan"), "unit": "", "better": ""}
    assert evaluate.table({"run": {"kernel": row}}).loc["kernel", "run"] == "1.5000"


def test_what_is_not_a_run_ends_with_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="evaluate.py: .*not a run folder"):
        evaluate.main([str(tmp_path)])


def test_images_that_changed_since_training_are_counted(trained):
    _, run = trained
    images, labels = blobs()
    assert runs.changed(run, data.from_arrays(images, labels, name="spots")) == ""
    other = images.copy()
    other[:3] = 255 - other[:3]
    assert runs.changed(run, data.from_arrays(other, labels, name="spots")) == (
        "3 with other pixels"
    )
    fewer = runs.changed(run, data.from_arrays(images[:-4], labels[:-4], name="spots"))
    assert fewer.startswith("4 gone")


def test_slices_of_a_volume_are_compared_one_by_one(tmp_path, tiny, spots):
    """A volume's rows share one file name."""
    table = spots.train.table.assign(file=[f"{row // 4}.nii" for row in range(len(spots.train))])
    volumes = replace(spots, train=replace(spots.train, table=table))
    settings = tiny(epochs=1)
    train.fit(registry.from_settings(settings), volumes, settings, tmp_path / "run", verbose=0)
    assert runs.changed(tmp_path / "run", volumes) == ""
    pixels = spots.train.images.copy()
    pixels[5] = 255 - pixels[5]
    other = replace(volumes, train=replace(volumes.train, images=pixels))
    assert runs.changed(tmp_path / "run", other) == "1 with other pixels"


# --- where a run's images lie --------------------------------------------------------------------


def test_a_run_is_measured_on_the_images_that_it_was_trained_on(of_folder, monkeypatch, capsys):
    run, place = of_folder
    evaluate.main([str(run)])
    written = json.loads((run / "metrics.json").read_text())
    assert "160 images of mine" in written["images"]
    monkeypatch.setattr(config, "IMAGES_DIR", place.parent / "elsewhere")
    evaluate.main([str(run)])
    told = capsys.readouterr().out
    assert f"was trained on {place}; IMAGES_DIR = {place.parent / 'elsewhere'} is not used" in told
    moved = place.rename(place.parent / "elsewhere")
    evaluate.main([str(run)])
    assert f"{place}, which {run} was trained on, is missing; using IMAGES_DIR = {moved}" in (
        capsys.readouterr().out
    )


def test_numbers_of_other_images_never_replace_those_of_a_run(of_folder, tmp_path, capsys):
    run, place = of_folder
    evaluate.main([str(run)])
    before = (run / "metrics.json").read_bytes()
    Image.fromarray(np.full((12, 12), 9, np.uint8)).save(place / "000.png")
    with pytest.raises(SystemExit, match="1 with other pixels.*--to FILE"):
        evaluate.main([str(run)])
    evaluate.main([str(run), "--to", str(tmp_path / "other.json")])
    assert (run / "metrics.json").read_bytes() == before
    assert "ssim" in json.loads((tmp_path / "other.json").read_text())["metrics"]
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--images", str(place)])
    assert "--images needs --to FILE" in capsys.readouterr().err


def test_training_images_are_measured_only_into_another_file(
    run, spots, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate.data, "images_of", lambda run: spots)
    monkeypatch.setattr(evaluate.runs, "changed", lambda run, images: "")
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--split", "train"])
    assert "--split train needs --to FILE" in capsys.readouterr().err
    evaluate.main([str(run), "--split", "train", "--to", str(tmp_path / "train.json")])
    ssim = json.loads((tmp_path / "train.json").read_text())["metrics"]["ssim"]
    assert ssim["split"] == "train" and ssim["n"] == len(spots.train)


@pytest.mark.parametrize("damage", ["gone", "empty", "no digests"])
def test_a_run_that_does_not_know_its_images_is_named_with_what_can_be_done(
    damage, of_folder, tmp_path
):
    run, _ = of_folder
    if damage == "gone":
        (run / "split.csv").unlink()
    elif damage == "empty":
        (run / "split.csv").write_text("")
    else:
        pd.read_csv(run / "split.csv").drop(columns="digest").to_csv(run / "split.csv", index=False)
    with pytest.raises(SystemExit, match="split.csv (is missing|cannot be read|lacks digest)"):
        evaluate.main([str(run)])
    place = runs.origin_of(run).paths["IMAGES_DIR"]
    evaluate.main([str(run), "--images", str(place), "--to", str(tmp_path / "numbers.json")])
    assert (tmp_path / "numbers.json").exists()


def test_numbers_that_cannot_be_written_are_shown_first(of_folder, capsys):
    run, _ = of_folder
    (run / "metrics.json").mkdir()
    (run / "metrics.json" / "x").write_text("")
    with pytest.raises(SystemExit, match="could not be written.*metrics.json"):
        evaluate.main([str(run)])
    assert "negative_elbo" in capsys.readouterr().out


def test_names_with_line_breaks_do_not_make_other_images(tmp_path, tiny, spots):
    rows = range(len(spots.train))
    files = [f"a{row}\r{row}.png" if row % 2 else f"b\n{row}.png" for row in rows]
    strange = replace(spots, train=replace(spots.train, table=spots.train.table.assign(file=files)))
    settings = tiny(epochs=1)
    train.fit(registry.from_settings(settings), strange, settings, tmp_path / "run", verbose=0)
    assert runs.changed(tmp_path / "run", strange) == ""
    train.fit(registry.from_settings(settings), strange, settings, tmp_path / "run", 0, resume=True)


def test_a_run_is_resumed_with_its_own_images(of_folder, monkeypatch, capsys):
    run, _ = of_folder
    train.main(["--resume", str(run)])  # the training is finished, but the images are compared
    assert f"Done: {run}" in capsys.readouterr().out


def test_a_run_that_does_not_say_where_its_images_lay_says_so(of_folder, capsys):
    run, _ = of_folder
    known = json.loads((run / "settings.json").read_text())
    del known["images"]
    (run / "settings.json").write_text(json.dumps(known))
    with pytest.raises(SystemExit, match="the images are not those of the training"):
        evaluate.main([str(run)])
    assert "does not record its images' paths; using the embedded images" in (
        capsys.readouterr().out
    )


# --- likelihood ----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Linear(models.VAE):
    """A VAE whose likelihood has a closed form: a Gaussian around the decoder's output."""

    def distortion(self, targets, logits):
        return losses.gaussian_nll(targets, logits, self.log_sigma)


def linear_vae(latent_dim=3, side=4, off=0.0):
    """Weights drawn at random, the exact posterior as its encoder, its mean moved by `off`."""
    random = np.random.default_rng(0)
    pixels, sigma = side * side, 0.5
    weights = random.normal(size=(latent_dim, pixels)) / 2.0
    middle = random.normal(size=pixels) / 4.0
    covariance = np.linalg.inv(np.eye(latent_dim) + weights @ weights.T / sigma**2)
    # The exact posterior has correlated axes; latents along its own axes have none.
    _, turn = np.linalg.eigh(covariance)
    weights = turn.T @ weights
    variances = np.diag(turn.T @ covariance @ turn)

    inputs = keras.Input((side, side, 1))
    flat = keras.layers.Flatten()(inputs)
    z_mean = keras.layers.Dense(latent_dim, name="z_mean")(flat)
    z_log_var = keras.layers.Dense(latent_dim, name="z_log_var")(flat)
    encoder = keras.Model(inputs, [z_mean, z_log_var])
    gain = weights.T * variances / sigma**2
    encoder.get_layer("z_mean").set_weights([gain, off - middle @ gain])
    encoder.get_layer("z_log_var").set_weights([0.0 * gain, np.log(variances)])
    z = keras.Input((latent_dim,))
    drawn = keras.layers.Dense(pixels, name="pixels")(z)
    decoder = keras.Model(z, keras.layers.Reshape((side, side, 1))(drawn))
    decoder.get_layer("pixels").set_weights([weights, middle])
    model = Linear(encoder, decoder, reconstruction="gaussian", sigma=sigma)
    truth = stats.multivariate_normal(middle, weights.T @ weights + sigma**2 * np.eye(pixels))
    images = np.clip(truth.rvs(400, random_state=1), -1, 1).reshape(-1, side, side, 1)
    return model, images.astype(np.float32), truth.logpdf(images.reshape(400, -1))


def test_the_likelihood_of_a_linear_vae_is_its_closed_form():
    model, images, truth = linear_vae()
    found, negative_elbo = likelihood.log_likelihood(model, images, samples=64)
    # With the exact posterior every weight is the likelihood itself.
    np.testing.assert_allclose(found, truth, atol=2e-3)
    np.testing.assert_allclose(-negative_elbo, truth, atol=2e-3)


def test_importance_samples_make_up_for_a_posterior_that_is_off():
    model, images, truth = linear_vae(off=0.3)
    found = {count: likelihood.log_likelihood(model, images, count) for count in (64, 2000)}
    assert abs(np.mean(found[2000][0] - truth)) < 0.05
    assert np.mean(truth + found[2000][1]) > 0.1  # the bound alone is lower
    gap, error = likelihood.importance_gap(model, images, 2000, count=200)
    assert gap == pytest.approx(np.mean(truth + found[2000][1]), abs=0.05) and error < 0.05


def test_the_report_has_the_likelihood_where_it_is_asked_for(run, spots):
    model = train.load(run)
    assert "nll" not in evaluate.report(model, spots)
    numbers = evaluate.report(model, spots, samples=64)
    assert numbers["nll"]["value"] < numbers["negative_elbo"]["value"]
    assert "64 samples for each of" in numbers["nll"]["protocol"]
    assert numbers["nll"]["standard_error"] > 0


@pytest.mark.parametrize("kind", ["MMD-AE", "M2", "Autoencoder"])
def test_a_model_without_such_a_bound_is_refused_by_name(kind, spots, tiny):
    model = registry.from_settings(tiny(model=kind, classes=2))
    with pytest.raises(ValueError, match=f"the likelihood of a {type(model).__name__}"):
        likelihood.log_likelihood(model, spots.test.images, 64)


def test_where_the_true_factors_are_known_their_scores_are_reported(trained, spots):
    model, _ = trained
    table = spots.test.table.assign(
        up=np.arange(len(spots.test)), down=spots.test.images.mean((1, 2, 3))
    )
    known = replace(spots, test=replace(spots.test, table=table), factors=("up", "down"))
    numbers = evaluate.report(model, known)
    assert 0 <= numbers["mig"]["value"] <= 1 and numbers["informativeness"]["better"] == "higher"
    assert "mig" not in evaluate.report(model, spots)
