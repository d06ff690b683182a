"""Models that are told conditions: what they are told, what they hide, and what changes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from scipy.spatial.distance import cdist

import apply
import data
import evaluate
import export
import train
from families import densities, priors, registry
from nn import losses
from nn.averages import reduced
from sources.conditions import Conditions
from spots import blobs
from storage import runs


@pytest.fixture
def made(tiny, spots):
    def make(**changes):
        settings = tiny(**{"model": "ConditionalVAE", "conditions": ("half",), **changes})
        model = registry.from_settings(settings, registry.conditions_of(settings, spots))
        train.compile_model(model, settings, 10)
        return model

    return make


def batch_of(spots, model, count=16):
    some = spots.train.only(np.arange(count))
    return {"images": some.images, "conditions": model.conditions(some.table)}


@pytest.mark.parametrize("told_in", ["input", "stages"])
@pytest.mark.parametrize("latent_map", [(), (6, 6, 2)])
def test_both_networks_are_told_and_without_conditions_all_are_missing(
    made, tiny, spots, told_in, latent_map
):
    model = made(told_in=told_in, latent_map=latent_map)
    random = np.random.default_rng(0)
    for network in (model.encoder, model.decoder):  # what tells starts at 0
        network.set_weights([random.normal(0, 0.3, each.shape) for each in network.get_weights()])
    batch = batch_of(spots, model)
    images, known = batch["images"], batch["conditions"]
    other = known[:, [1, 0, 2]]  # the other half
    assert np.abs(model.encode(images, known)[0] - model.encode(images, other)[0]).max() > 1e-3
    z = model.encode(images, known)[0]
    assert np.abs(model.decode(z, known) - model.decode(z, other)).max() > 1e-3
    missing = np.tile(model.conditions.missing, (len(images), 1))
    for one, other in zip(model.encode(images), model.encode(images, missing), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model.decode(z), model.decode(z, missing))
    assert model.latent_dim == z.shape[1] and model.latent_map == latent_map
    assert model.precision == "float32" and made(precision="bfloat16").precision == "bfloat16"
    settings = tiny(model="ConditionalVAE", told_in=told_in, latent_map=latent_map)
    count = model.count_params()
    assert count <= registry.count_weights(settings, told=3) <= 1.25 * count + 2000


def test_each_condition_is_hidden_by_its_share_in_training_and_never_outside(tiny):
    images, labels = blobs(400)
    table = {"age": np.linspace(20, 80, 400), "half": labels}
    every = data.from_arrays(images, labels, name="spots", label="half")
    splits = {
        name: dataclasses.replace(split, table=split.table.assign(age=table["age"][: len(split)]))
        for name, split in every.splits.items()
    }
    every = dataclasses.replace(every, **splits)
    settings = tiny(model="ConditionalVAE", conditions=("age", "half"), hidden_share=0.3)
    model = registry.from_settings(settings, registry.conditions_of(settings, every))
    known = tf.constant(model.conditions(every.train.table))
    told = model.told(known, True, 5).numpy()
    absent = told[:, [1, 4]] == 1.0  # "age missing", "half missing"
    np.testing.assert_allclose(absent.mean(axis=0), 0.3, atol=0.09)
    assert abs(np.corrcoef(absent.T)[0, 1]) < 0.15
    for column, places in ((0, [0]), (1, [2, 3])):
        np.testing.assert_array_equal(told[absent[:, column]][:, places], 0.0)
        kept = ~absent[:, column]
        np.testing.assert_array_equal(told[kept][:, places], known.numpy()[kept][:, places])
    np.testing.assert_array_equal(model.told(known, False, 5), known)
    assert np.any(model.told(known, True, 6) != told)


def test_independent_samples_have_no_hsic_and_functions_of_each_other_have_much():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 3)).astype(np.float32)
    other = random.normal(size=(300, 2)).astype(np.float32)
    assert float(losses.hsic(x, x)) == pytest.approx(1.0, abs=1e-4)
    assert float(losses.hsic(x, other)) < 0.03
    assert float(losses.hsic(x, np.square(x[:, :1]))) > 0.1  # no correlation sees it
    assert float(losses.hsic(x, np.ones((300, 1), np.float32))) == pytest.approx(0.0, abs=1e-4)

    def centred(a):  # by the matrices of the paper
        squares = cdist(a, a, "sqeuclidean")
        h = np.eye(len(a)) - 1.0 / len(a)
        return h @ np.exp(-squares / squares.mean()) @ h

    one, two = centred(x), centred(other)
    expected = np.trace(one @ two) / np.sqrt(np.trace(one @ one) * np.trace(two @ two))
    assert float(losses.hsic(x, other)) == pytest.approx(expected, rel=1e-3)


def test_the_leak_is_a_term_of_the_loss_with_its_weight(made, spots):
    plain, model = made(), made(leak_weight=50.0)
    batch = batch_of(spots, model)
    result = model.forward(batch, training=False, step=0)
    terms = model.objective(result)
    expected = 50.0 * losses.hsic(result.z, batch["conditions"])
    assert float(terms["leak"]) == pytest.approx(float(expected), rel=1e-4)
    assert "leak" not in plain.objective(plain.forward(batch, False, 0))
    assert "leak" not in model.objective(model.forward(batch["images"], False, 0))


def test_a_change_costs_the_grey_levels_by_which_other_conditions_change_an_image(made, spots):
    model = made(change_weight=3.0)
    random = np.random.default_rng(0)
    model.decoder.set_weights(
        [random.normal(0, 0.3, each.shape) for each in model.decoder.get_weights()]
    )
    batch = batch_of(spots, model)
    result = model.forward(batch, training=False, step=0)
    known = batch["conditions"]
    before = np.concatenate([known[-1:], known[:-1]])  # of the image before
    change = np.abs(model.decode(result.z, before) - model.decode(result.z, known))
    found = model.objective(result)["change"].numpy()
    np.testing.assert_allclose(found, 3.0 * change.sum(axis=(1, 2, 3)), rtol=1e-4)
    assert found.min() == 0.0 < found.max()  # pairs of like conditions change nothing
    assert "change" not in made().objective(result)


@pytest.mark.slow
def test_a_latent_that_pays_for_its_leak_holds_less_of_the_condition(tiny, spots, tmp_path):
    leaks = {}
    for weight in (0.0, 300.0):
        settings = tiny(
            model="ConditionalVAE",
            conditions=("half",),
            leak_weight=weight,
            epochs=30,
            learning_rate=5e-3,
        )
        model = registry.from_settings(settings, registry.conditions_of(settings, spots))
        train.fit(model, spots, settings, tmp_path / f"{weight:g}", verbose=0)
        known = model.conditions(spots.test.table)
        z = model.encode(spots.test.images, known)[0]
        leaks[weight] = float(losses.hsic(z, known))
    assert leaks[300.0] < 0.5 * leaks[0.0]


def test_the_bound_of_several_draws_is_told_the_conditions_in_every_draw(made, spots):
    model = made(model="ConditionalIWAE", k=3)
    random = np.random.default_rng(0)
    for network in (model.encoder, model.decoder):
        network.set_weights([random.normal(0, 0.3, each.shape) for each in network.get_weights()])
    batch = batch_of(spots, model)
    result = model.forward(batch, training=False, step=0)
    key = model.key("importance", False, 0)
    weights = model.log_weights(result, 4, key).numpy()
    z_mean, z_log_var = (np.tile(each, (4, 1)) for each in (result.z_mean, result.z_log_var))
    z = model.draw(z_mean, z_log_var, key)
    told = np.tile(batch["conditions"], (4, 1))
    made_ = model.decode(z, told)
    logits = tf.math.log(made_) - tf.math.log1p(-made_)
    ratio = losses.log_normal(z, 0.0, 0.0) - losses.log_normal(z, z_mean, z_log_var)
    expected = tf.reduce_sum(ratio, axis=1) - losses.bernoulli_nll(
        np.tile(result.targets, (4, 1, 1, 1)), logits
    )
    np.testing.assert_allclose(weights.ravel(), expected, rtol=1e-3, atol=0.05)
    assert np.isfinite(float(reduced(model.objective(result))[1]))


def test_a_run_keeps_its_conditions_and_every_tool_opens_it(tiny, spots, tmp_path):
    settings = tiny(model="ConditionalVAE", conditions=("half",))
    model = registry.from_settings(settings, registry.conditions_of(settings, spots))
    train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    again = train.load(tmp_path / "run")
    assert again.conditions == model.conditions
    known = model.conditions(spots.test.table)
    for told in (None, known):
        z = model.encode(spots.test.images, told)[0]
        np.testing.assert_array_equal(again.encode(spots.test.images, told)[0], z)
        np.testing.assert_array_equal(again.decode(z, told), model.decode(z, told))
    numbers = evaluate.report(again, spots)
    assert np.isfinite(numbers["negative_elbo"]["value"])
    networks = again.endpoints()
    z = again.encode(spots.test.images, known)[0]
    made = networks["decoder"]([z, tf.constant(known)])
    np.testing.assert_allclose(made, again.decode(z, known), atol=1e-5)
    (tmp_path / "run" / "conditions.json").write_text("[{}]")
    with pytest.raises(ValueError, match="conditions.json cannot be read"):
        train.load(tmp_path / "run")


def test_a_told_model_makes_the_class_asked_for_from_any_prior(tiny, spots, tmp_path, capsys):
    aged = {
        name: dataclasses.replace(split, table=split.table.assign(age=np.arange(len(split)) % 50))
        for name, split in spots.splits.items()
    }
    spots, run = dataclasses.replace(spots, **aged), tmp_path / "run"
    settings = tiny(model="ConditionalVAE", conditions=("half", "age"))
    model = registry.from_settings(settings, registry.conditions_of(settings, spots))
    train.fit(model, spots, settings, run, verbose=0)
    normal = priors.of_run(run, "normal", {"half": 1}, model)
    z = densities.Normal(model.latent_dim).sample(4, 3)
    told = model.conditions.partly(pd.DataFrame({"half": [1] * 4}))
    np.testing.assert_array_equal(model.sample(4, 3, normal), model.decode(z, told))
    assert np.abs(model.sample(4, 3, normal) - model.decode(z)).max() > 1e-4
    words = ["--generate", "4", "--prior", "normal", "--condition", "half=1"]
    apply.main([str(run), *words, "--seed", "3", "--to", str(tmp_path / "made")])
    assert "4 images of N(0, I) written" in capsys.readouterr().out
    names = sorted((tmp_path / "made").glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(name)) for name in names]) / 255.0
    np.testing.assert_allclose(pixels, model.decode(z, told)[..., 0], atol=0.51 / 255)

    own = priors.of_run(run, None, {"half": 1}, model)  # fitted without conditions
    drawn = own.prior.sample(4, 3)
    np.testing.assert_array_equal(model.sample(4, 3, own), model.decode(drawn, told))
    known = {"columns": ("half",), "categories": ("half",)}
    fitted = priors.fit("flow", model, spots.train, steps=2, **known)
    runs.save_prior(run, "flow-half", *fitted.parts())
    both = {"half": 1, "age": 30}
    flow = priors.of_run(run, "flow-half", both, model, guidance=2.0)
    z = flow.prior.sample(4, 3, {"half": 1}, guidance=2.0)
    np.testing.assert_array_equal(flow.sample(4, 3), z)
    told = model.conditions(pd.DataFrame({name: [value] * 4 for name, value in both.items()}))
    np.testing.assert_array_equal(model.sample(4, 3, flow), model.decode(z, told))
    only = priors.of_run(run, "flow-half", {"age": 30}, model)  # the decoder's alone
    np.testing.assert_array_equal(only.sample(4, 3), only.prior.sample(4, 3))

    with pytest.raises(ValueError, match="guidance = 2 needs a condition that the prior was"):
        priors.of_run(run, "flow-half", {"age": 30}, model, guidance=2.0)
    with pytest.raises(ValueError, match="condition: sex is none of half, age"):
        priors.of_run(run, None, {"sex": 1}, model)
    with pytest.raises(ValueError, match="the prior normal was fitted without conditions"):
        priors.of_run(run, "normal", {"half": 1})  # nothing decodes it


@pytest.mark.parametrize("asked", [{}, {"half": 1}])
def test_an_exported_decoder_comes_with_a_row_of_its_conditions(made, tmp_path, asked):
    model = made()
    prior = priors.Asked(densities.Normal(model.latent_dim), asked) if asked else None
    written = export.export(model, tmp_path / "exported", ["keras"], prior)
    known = model.conditions.partly(pd.DataFrame({"half": [asked.get("half")]}, dtype=object))
    for name in ("encoder", "decoder"):
        row = written[name]["conditions"]
        assert tuple(row) == model.conditions.features
        np.testing.assert_array_equal(list(row.values()), known[0])


def test_a_prior_for_a_condition_is_fitted_and_decoded_under_it(tiny, spots, tmp_path):
    settings = tiny(model="ConditionalVAE", conditions=("half",))
    model = registry.from_settings(settings, registry.conditions_of(settings, spots))
    train.fit(model, spots, settings, tmp_path / "run", verbose=0)
    z, _ = priors.draws(model, spots.train, columns=("half", "subject"))
    z_mean, z_log_var = model.encode(spots.train.images, model.conditions(spots.train.table))
    noise = np.random.default_rng(0)
    noise.permutation(len(spots.train))  # as for the choice of the rows
    expected = z_mean + np.exp(0.5 * z_log_var) * noise.normal(size=z.shape)
    np.testing.assert_allclose(z, expected, atol=1e-4)
    other, _ = priors.draws(model, spots.train)
    assert np.abs(z - other).max() > 1e-3  # nothing is told

    prior = priors.fit(
        "mixture", model, spots.train, columns=("half",), categories=("half",), components=1
    )
    asked = priors.Asked(prior, condition={"half": 1})
    images = model.sample(5, 3, asked)
    told = model.conditions(pd.DataFrame({"half": [1] * 5}))
    drawn = prior.sample(5, 3, {"half": 1})
    np.testing.assert_array_equal(images, model.decode(drawn, told))
    assert np.abs(images - model.decode(drawn)).max() > 1e-4


def test_columns_that_a_table_lacks_count_as_missing():
    table = pd.DataFrame({"sex": ["F", "M"], "age": [30.0, 50.0]})
    known = Conditions.learn(table, ("sex", "age"))
    np.testing.assert_array_equal(
        known.partly(table[["age"]]),
        known(pd.DataFrame({"sex": [None, None], "age": [30.0, 50.0]})),
    )


def test_what_is_no_number_and_what_is_written_with_a_point_are_told_apart():
    table = pd.DataFrame({"age": [30.0, 50.0], "site": ["01", "None"], "grade": [1, 2]})
    known = Conditions.learn(table, ("age", "site", "grade"), ("grade",))
    with pytest.raises(ValueError, match="age = 'old' is no number; in training it was 30 to 50"):
        known(table.assign(age="old"))
    text = pd.DataFrame({"age": ["30", "50"], "site": ["01", "None"], "grade": ["1.0", "2.0"]})
    np.testing.assert_array_equal(known(text), known(table))


def test_conditions_that_cannot_be_are_refused_before_training(tiny, spots):
    settings = tiny(model="ConditionalVAE")
    with pytest.raises(ValueError, match="needs conditions, columns of the images' table.*half"):
        registry.conditions_of(settings, spots)
    settings = tiny(model="ConditionalVAE", conditions=("age",))
    with pytest.raises(ValueError, match="there is no column 'age'"):
        registry.conditions_of(settings, spots)
    with pytest.raises(ValueError, match="build it with conditions=registry.conditions_of"):
        registry.from_settings(settings)
    with pytest.raises(ValueError, match="conditions = .*is not used by VAE"):
        registry.require_fit(tiny(conditions=("half",)))
