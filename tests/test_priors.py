"""Priors on latents: their densities and draws are what they say, and they lie beside a run."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.mixture import GaussianMixture

import apply
import data
import evaluate
import prior as command
import train
from families import densities, flow_matching, flows, priors, registry
from nn import randomness
from sources.conditions import Conditions
from spots import blobs
from storage import checkpoints, keep, runs


@pytest.fixture(scope="module")
def z():
    """Two clusters in three axes, a quarter of the latents in the first."""
    random = np.random.default_rng(0)
    first = random.uniform(size=3000) < 0.25
    ends = np.where(first, -3.0, 3.0)[:, None] * [1.0, 1.0, 0.0]
    turned = [[1.0, 0.5, 0.0], [0.0, 0.8, 0.0], [0.3, 0.0, 0.5]]
    return (ends + random.normal(size=(3000, 3)) @ turned).astype(np.float32)


SMALL = {"steps": 200, "width": 32, "blocks": 2}
TRAINED = (flow_matching.Flow, flows.Coupling, flows.TwoStage)


@pytest.fixture(scope="module")
def trained(z):
    return {kind: kind.fitted(z, **SMALL) for kind in TRAINED}


# --- densities -----------------------------------------------------------------------------------


def test_the_density_of_a_mixture_is_scikit_learns(z):
    found = GaussianMixture(3, random_state=0).fit(z)
    prior = densities.Mixture(found.weights_, found.means_, found.covariances_)
    told = prior.log_prob(tf.constant(z[:200])).numpy()
    np.testing.assert_allclose(told, found.score_samples(z[:200]), atol=2e-4)


def test_the_gaussian_of_a_mixture_has_the_moments_of_its_draws(z):
    mixture = densities.Mixture.fitted(z, components=2)
    one, drawn = mixture.gaussian(), mixture.sample(200_000)
    np.testing.assert_allclose(one.means[0], drawn.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(one.covariances[0], np.cov(drawn.T), atol=0.06)


def test_the_density_of_a_gaussian_is_scipys(z):
    prior = densities.Gaussian.fitted(z)
    known = stats.multivariate_normal(prior.means[0], prior.covariances[0])
    told = prior.log_prob(tf.constant(z[:100])).numpy()
    np.testing.assert_allclose(told, known.logpdf(z[:100]), atol=2e-4)
    np.testing.assert_allclose(prior.covariances[0], np.cov(z.T), atol=0.05)


def test_the_normal_prior_is_the_models_own(z, tiny):
    model = registry.from_settings(tiny())
    np.testing.assert_allclose(
        densities.Normal(3).log_prob(tf.constant(z)), model.log_prior(z), rtol=1e-5
    )


def test_the_density_of_coupling_layers_is_the_change_of_volume(trained, z):
    prior, points = trained[flows.Coupling], z[:5]
    told = prior.log_prob(tf.constant(points)).numpy()
    with tf.GradientTape() as tape:
        x = tf.constant(points)
        tape.watch(x)
        noise, _ = prior.mean_network((x - prior.shift) / prior.scale)
    volumes = np.linalg.slogdet(tape.batch_jacobian(noise, x).numpy())[1]
    np.testing.assert_allclose(told, stats.norm.logpdf(noise).sum(axis=1) + volumes, atol=1e-3)


def test_the_density_of_coupling_layers_sums_to_one_over_the_plane():
    random = np.random.default_rng(1)
    z = random.normal(size=(2000, 2)).astype(np.float32) * [1.0, 0.5]
    prior = flows.Coupling.fitted(z, **SMALL)
    axis = np.linspace(-6, 6, 201, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(prior.log_prob(tf.constant(grid))).sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1.0, abs=0.02)


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [densities.Gaussian, densities.Mixture, *TRAINED])
def test_draws_have_the_means_and_covariances_of_the_latents(kind, z, trained):
    prior = trained.get(kind) or kind.fitted(z)
    drawn = prior.sample(4000, seed=1)
    assert drawn.dtype == np.float32 and drawn.shape == (4000, 3)
    np.testing.assert_allclose(drawn.mean(axis=0), z.mean(axis=0), atol=0.5)
    np.testing.assert_allclose(drawn.std(axis=0), z.std(axis=0), rtol=0.2)
    np.testing.assert_allclose(drawn, prior.sample(4000, seed=1), atol=1e-5)
    assert np.abs(drawn - prior.sample(4000, seed=2)).max() > 0.1


def test_a_mixture_finds_the_clusters_and_how_many_are_needed(z):
    prior = densities.Mixture.fitted(z)
    drawn = prior.sample(4000)
    assert max(prior.searched, key=prior.searched.get) == len(prior.weights) >= 2
    assert prior.searched[1] < prior.searched[2]
    first = drawn[:, 0] + drawn[:, 1] < 0
    assert np.mean(first) == pytest.approx(0.25, abs=0.03)


def test_a_mixture_does_not_hold_out_copies_of_what_it_is_fitted_on():
    random = np.random.default_rng(0)
    images = random.normal(size=(130, 8))
    copies = np.repeat(images, 8, axis=0) + 0.3 * random.normal(size=(1040, 8))
    one = densities.Mixture.fitted(copies, subjects=np.repeat(np.arange(130), 8))
    assert len(one.weights) <= 2
    assert len(densities.Mixture.fitted(copies).weights) >= 10
    alone = random.normal(size=(1040, 8))
    first, second = (densities.Mixture.fitted(alone, subjects=each) for each in (None, alone[:, 0]))
    np.testing.assert_array_equal(first.means, second.means)


def test_the_prior_of_a_run_is_chosen_on_other_images_and_not_on_moved_copies(tiny, spots):
    model = registry.from_settings(tiny(latent_dim=3))
    few = spots.train.only(np.arange(12))  # 96 draws, but of 12 images
    moves = {"shift": 1, "flip": "none"}
    assert priors.own(model, few, moves=moves).kind == "gaussian"
    asked = []

    def fitted(z, seed, **options):
        asked.append(options["subjects"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(densities.Mixture, "fitted", fitted)
        priors.own(model, spots.train, moves=moves)
        priors.fit("mixture", model, spots.train, moves=moves)
    for subjects in asked:
        assert len(subjects) == 8 * len(spots.train)
        assert set(subjects) == set(spots.train.table["subject"])


def test_every_row_of_a_table_of_conditions_has_a_draw_of_its_own():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"digit": [0.0, 10.0, np.nan] * 200})  # floats, as in a column with a gap
    z = random.normal(size=(600, 2)) + table["digit"].fillna(5.0).to_numpy()[:, None]
    conditions = Conditions.learn(table, ("digit",), ("digit",))
    prior = densities.Mixture.fitted(z, components=1, table=table, conditions=conditions)
    asked = pd.DataFrame({"digit": [10.0] * 40 + [0.0] * 40 + [np.nan] * 40})
    drawn = prior.sample(120, 1, asked)[:, 0]
    assert drawn[:40].mean() == pytest.approx(10.0, abs=0.6)
    assert drawn[40:80].mean() == pytest.approx(0.0, abs=0.6)
    assert 10 < (drawn[80:] > 5.0).sum() < 30  # any
    np.testing.assert_array_equal(prior.sample(9, 1, {"digit": 10}), prior.sample(9, 1, asked[:9]))


def test_a_density_that_needs_a_condition_is_no_bound_of_images(z, spots, tiny):
    table = pd.DataFrame({"side": np.where(z[:, 0] > 0, "high", "low")})
    known = {"table": table, "conditions": Conditions.learn(table, ("side",))}
    prior = flows.Coupling.fitted(z, **known, **SMALL | {"steps": 2})
    assert not prior.exact and flows.Coupling.fitted(z, **SMALL | {"steps": 2}).exact
    model = registry.from_settings(tiny())
    assert evaluate._bound_under(model, prior, spots.test.images, False) == {}


def test_a_flow_can_be_fitted_on_the_latents_of_one_subject(z):
    prior = flow_matching.Flow.fitted(z[:40], subjects=["a"] * 40, **SMALL | {"steps": 2})
    assert prior.sample(3).shape == (3, 3)


def test_numbers_that_go_with_known_ones_are_drawn_anew_in_every_batch(trained, z):
    flow, known = trained[flow_matching.Flow], np.zeros((516, 3), bool)
    known[:, 0] = True
    drawn = flow.completed(np.repeat(z[:1], 516, axis=0), known, evaluations=4)
    np.testing.assert_array_equal(drawn[:, 0], z[0, 0])
    assert np.abs(drawn[:4, 1:] - drawn[512:, 1:]).max() > 1e-2


@pytest.mark.parametrize(
    "kind", [densities.Normal, densities.Gaussian, densities.Mixture, *TRAINED]
)
def test_a_prior_comes_back_from_its_parts(kind, z, trained):
    prior = trained.get(kind) or kind.fitted(z)
    settings, arrays = prior.parts()
    again = priors.restored(json.loads(json.dumps(settings)), arrays)
    assert type(again) is kind
    np.testing.assert_allclose(again.sample(5, seed=3), prior.sample(5, seed=3), atol=1e-5)


@pytest.mark.parametrize("kind", [densities.Gaussian, densities.Mixture, *TRAINED])
def test_a_sampler_of_stock_layers_draws_from_the_same_distribution(kind, z, trained, tmp_path):
    prior = trained.get(kind) or kind.fitted(z)
    prior.sampler().save(tmp_path / "sampler.keras")
    sampler = keras.saving.load_model(tmp_path / "sampler.keras")
    assert all(type(each).__module__.startswith("keras.") for each in sampler._flatten_layers())
    random = np.random.default_rng(2)
    inputs = [
        random.uniform(size=(4000, 1)) if each.name == "choice"
        else random.normal(size=(4000, *each.shape[1:]))
        for each in sampler.inputs
    ]  # fmt: skip
    drawn = sampler(inputs if len(inputs) > 1 else inputs[0]).numpy()
    known = prior.sample(4000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), known.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(known.T), atol=0.9)
    for axis in range(3):
        assert stats.ks_2samp(drawn[:, axis], known[:, axis]).pvalue > 1e-4


@pytest.mark.parametrize("kind", TRAINED)
def test_a_sampler_of_a_trained_prior_gives_its_draws_of_the_same_noise(kind, trained):
    prior = trained[kind]
    noise = randomness.normal(randomness.key(5, 0, "draw"), (20, prior.noise_dim))
    np.testing.assert_allclose(prior.sampler()(noise), prior.sample(20, seed=5), atol=1e-4)


# --- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [densities.Mixture, flow_matching.Flow, flows.Coupling])
def test_a_condition_draws_what_the_training_data_have_of_it(kind, z):
    table = pd.DataFrame({"side": np.where(z[:, 0] + z[:, 1] < 0, "low", "high")})
    known = Conditions.learn(table, ("side",))
    sizes = SMALL if kind is not densities.Mixture else {}
    prior = kind.fitted(z, table=table, conditions=known, **sizes)
    low = prior.sample(500, condition={"side": "low"})
    assert np.mean(low[:, 0] + low[:, 1] < 0) > 0.8
    if kind is flows.Coupling:
        with pytest.raises(ValueError, match="density of this prior needs a condition"):
            prior.log_prob(tf.constant(z[:2]))
    any_side = prior.sample(2000, seed=3)  # as often as in the training data
    assert np.mean(any_side[:, 0] + any_side[:, 1] < 0) == pytest.approx(0.25, abs=0.06)
    sampler = prior.sampler({"side": "low"})
    random = np.random.default_rng(2)
    inputs = [random.uniform(size=(500, *each.shape[1:])) for each in sampler.inputs]
    inputs[0] = random.normal(size=inputs[0].shape)
    same = sampler(inputs if len(inputs) > 1 else inputs[0]).numpy()
    assert np.mean(same[:, 0] + same[:, 1] < 0) > 0.8
    again = priors.restored(*prior.parts()).sample(500, condition={"side": "low"})
    np.testing.assert_allclose(again, low, atol=1e-5)
    with pytest.raises(ValueError, match="side = middle was not seen in training|'middle' was not"):
        prior.sample(5, condition={"side": "middle"})


def test_guidance_draws_latents_that_are_farther_from_the_others(z):
    table = pd.DataFrame({"side": np.where(z[:, 0] + z[:, 1] < 0, "low", "high")})
    known = Conditions.learn(table, ("side",))
    prior = flow_matching.Flow.fitted(z, table=table, conditions=known, **SMALL)
    sides = {
        weight: prior.sample(500, condition={"side": "low"}, guidance=weight)[:, :2].sum(axis=1)
        for weight in (0.0, 1.0, 3.0)
    }
    # Without guidance the condition has no effect, and three quarters of all latents are high.
    shares = [np.mean(each < 0) for each in sides.values()]
    assert shares[0] < 0.5 < 0.8 < shares[1] <= shares[2]
    assert sides[3.0].mean() < sides[1.0].mean()


def test_a_flow_stopped_at_time_0_is_noise_and_at_1_its_draw(trained):
    prior = trained[flow_matching.Flow]
    noise = randomness.normal(randomness.key(4, 0, "draw"), (50, 3)).numpy()
    start = prior.sample(50, seed=4, until=0.0)
    np.testing.assert_allclose(start, noise * prior.scale + prior.shift, atol=1e-5)
    np.testing.assert_array_equal(prior.sample(50, seed=4, until=1.0), prior.sample(50, seed=4))


# --- what a flow can do with latents -------------------------------------------------------------


def test_variations_leave_latents_at_strength_0_and_are_draws_at_1(trained, z):
    prior, some = trained[flow_matching.Flow], z[:400]
    np.testing.assert_array_equal(prior.varied(some, 0.0), some)
    whole = prior.varied(some, 1.0, seed=4)
    np.testing.assert_allclose(whole, prior.sample(400, seed=4), atol=1e-4)
    away = [np.linalg.norm(prior.varied(some, each) - some, axis=1).mean() for each in (0.1, 0.5)]
    assert away[0] < 0.5 * away[1]
    # A little noise leaves a latent in its cluster.
    near = prior.varied(some, 0.2)
    assert np.mean(np.sign(near[:, 0] + near[:, 1]) == np.sign(some[:, 0] + some[:, 1])) > 0.95
    with pytest.raises(ValueError, match="strength = 1.5 is not valid; allowed: from 0 to 1"):
        prior.varied(some, 1.5)


def test_what_is_known_of_a_latent_stays_and_what_is_drawn_goes_with_it(trained, z):
    prior, some = trained[flow_matching.Flow], z[:400]
    known = np.zeros_like(some, bool)
    known[:, 0] = True
    made = prior.completed(some, known, seed=1)
    np.testing.assert_array_equal(made[:, 0], some[:, 0])
    # In a cluster the two axes have one sign.
    sure = np.abs(some[:, 0]) > 1.5
    assert np.mean(np.sign(made[sure, 1]) == np.sign(some[sure, 0])) > 0.9
    other = np.where(known, some, 99.0)  # the unknown numbers are not looked at
    np.testing.assert_array_equal(prior.completed(other, known, seed=1), made)
    assert np.abs(prior.completed(some, known, seed=2)[:, 1] - made[:, 1]).mean() > 0.1


def test_noise_of_latents_is_carried_back_to_them(trained, z):
    prior, some = trained[flow_matching.Flow], z[:200]
    noise = prior.noise_of(some, evaluations=128)
    np.testing.assert_allclose(prior.of_noise(noise, evaluations=128), some, atol=0.05)
    assert np.abs(noise).mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.2)


def test_a_flow_on_maps_draws_maps_like_the_latents_and_comes_back_from_its_parts():
    random = np.random.default_rng(0)
    # The upper half of each map has one sign, drawn anew for each.
    signs = np.where(random.uniform(size=(512, 1, 1, 1)) < 0.5, -1.0, 1.0)
    maps = random.normal(0.0, 0.2, (512, 4, 4, 2))
    maps[:, :2] += 2.0 * signs
    z = maps.reshape(512, -1).astype(np.float32)
    prior = flow_matching.Flow.fitted(z, steps=200, width=16, latent_map=(4, 4, 2))
    drawn = prior.sample(200, evaluations=16).reshape(200, 4, 4, 2)
    upper = drawn[:, :2].mean(axis=(1, 2, 3))
    assert np.mean(np.abs(np.abs(upper) - 2.0) < 0.7) > 0.8
    assert 0.25 < np.mean(upper > 0) < 0.75
    assert np.abs(drawn[:, 2:].mean()) < 0.2
    settings, arrays = prior.parts()
    again = priors.restored(json.loads(json.dumps(settings)), arrays)
    np.testing.assert_allclose(again.sample(5, seed=3), prior.sample(5, seed=3), atol=1e-5)
    noise = random.normal(size=(4, 32)).astype(np.float32)
    sampler = prior.sampler(evaluations=4)
    expected = prior.of_noise(noise, evaluations=4)
    np.testing.assert_allclose(sampler(noise), expected, atol=1e-4)
    assert all(type(each).__module__.startswith("keras.") for each in sampler._flatten_layers())


def test_the_flow_of_a_map_is_told_its_shape_and_precision(spots, tiny, monkeypatch):
    told = {}
    monkeypatch.setattr(
        flow_matching.Flow, "fitted", lambda z, seed, **options: told.update(options)
    )
    for changes in ({}, {"latent_map": (6, 6, 2), "precision": "bfloat16"}):
        told.clear()
        priors.fit("flow", registry.from_settings(tiny(**changes)), spots.train)
        np.testing.assert_array_equal(told.pop("subjects"), spots.train.table["subject"])
        assert told.pop("batch_size", None) == (64 if changes else None)
        assert told == changes


# --- what cannot be fitted -----------------------------------------------------------------------


def test_latents_that_no_density_fits_are_refused(z):
    still = z.copy()
    still[:, 1] = 2.0
    for kind in (densities.Gaussian, densities.Mixture, flow_matching.Flow):
        with pytest.raises(ValueError, match="axis 1 of the latent is the same for every image"):
            kind.fitted(still)
    with pytest.raises(ValueError, match="use kind gaussian, whose covariance is shrunken"):
        densities.Mixture.fitted(z[:50], components=10)
    with pytest.raises(ValueError, match="finite latents"):
        densities.Gaussian.fitted(np.where(z > 3, np.nan, z))
    with pytest.raises(ValueError, match="fitted without conditions"):
        densities.Gaussian.fitted(z).sample(3, condition={"side": "low"})
    with pytest.raises(ValueError, match="at least 2 axes"):
        flows.Coupling.fitted(z[:, :1])


def test_kinds_and_conditions_that_do_not_fit_are_named(spots, tiny):
    model = registry.from_settings(tiny())
    with pytest.raises(ValueError, match="no kind of prior 'mix'; allowed: normal, gaussian"):
        priors.fit("mix", model, spots.train)
    with pytest.raises(ValueError, match="a gaussian prior takes no conditions; kinds that do"):
        priors.fit("gaussian", model, spots.train, columns=("half",))


# --- beside a run --------------------------------------------------------------------------------


def test_a_latent_too_large_for_a_covariance_gets_no_prior_of_its_own(spots, tiny, monkeypatch):
    monkeypatch.setattr(priors, "OWN_AXES", 2)
    with pytest.raises(ValueError, match="3 numbers is too large; fit a flow.*prior.py RUN"):
        priors.own(registry.from_settings(tiny()), spots.train)


def test_a_run_gets_a_prior_and_draws_from_it(run, spots):
    model, prior = train.load(run), priors.of_run(run)
    assert runs.own_prior(run) == prior.kind
    z, _ = priors.draws(model, spots.train)
    np.testing.assert_allclose(prior.sample(4000).mean(axis=0), z.mean(axis=0), atol=0.3)
    assert np.abs(model.sample(4, prior=prior) - model.sample(4)).max() > 0
    np.testing.assert_array_equal(model.sample(4, prior=prior), model.decode(prior.sample(4)))
    assert priors.of_run(run, "normal") is None


def test_a_prior_of_other_weights_a_damaged_or_a_missing_one_is_refused(run):
    name = runs.own_prior(run)
    with pytest.raises(
        ValueError, match=f"has no prior 'flow' .there are: normal, {name}.; fit it"
    ):
        priors.of_run(run, "flow")
    arrays = runs.prior_folder(run, name) / "arrays.npz"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="is damaged .*fit it: python prior.py"):
        priors.of_run(run)
    arrays.write_bytes(whole)
    model = train.load(run)
    model.log_sigma.assign(1.0)
    checkpoints.save(model, run)
    with pytest.raises(ValueError, match="was fitted on other weights"):
        priors.of_run(run)


def test_a_report_names_numbers_under_another_prior(run, spots):
    model, own = train.load(run), priors.of_run(run)
    numbers = evaluate.report(model, spots, samples=64, others={"own": own})
    plain = evaluate.report(model, spots)
    assert plain["negative_elbo"] == numbers["negative_elbo"]
    for name in ("negative_elbo", "nll", "rate", "sample_sharpness", "nearer_than_real"):
        assert "own" in numbers[f"{name}@own"]["protocol"]
    paid = numbers["rate@own"]["value"] + numbers["distortion"]["value"]
    assert numbers["negative_elbo@own"]["value"] == pytest.approx(paid, rel=1e-5)
    made = model.sample(len(spots.test), prior=own).numpy()
    real = spots.test.images / np.float32(255)
    sharp = evaluate.metrics.sharpness(made).mean() / evaluate.metrics.sharpness(real).mean()
    assert numbers["sample_sharpness@own"]["value"] == pytest.approx(sharp, rel=1e-4)


def test_draws_are_of_the_posteriors_of_training_and_not_of_grey_images(spots, tiny):
    model = registry.from_settings(tiny(model="Autoencoder", binarize="dynamic"))
    z, rows = priors.draws(model, spots.train)
    images = spots.train.images[rows] / np.float32(255)
    binary = model.shown(images, training=False, step=0)[1]
    assert set(np.unique(binary)) == {0.0, 1.0}
    np.testing.assert_allclose(z, model.encode(binary)[0], atol=1e-5)
    assert np.abs(z - model.encode(images)[0]).max() > 0.01


def test_draws_of_a_run_that_mirrors_are_of_its_mirrored_images(spots, tiny):
    settings = tiny(model="Autoencoder", flip="sideways", shift=1)
    model, moves = registry.from_settings(settings), priors.moves(settings)
    z, rows = priors.draws(model, spots.train, seed=3, moves=moves)
    count = len(spots.train)
    np.testing.assert_array_equal(rows, np.tile(np.arange(count), priors.PASSES))
    for number in (0, priors.PASSES - 1):
        images = spots.train.augmented(number, 3, shift=1, flip="sideways")
        np.testing.assert_allclose(z[number * count :][:count], model.encode(images)[0], atol=1e-5)
    assert np.abs(z[:count] - z[-count:]).max() > 0.01
    assert len(priors.draws(model, spots.train, most=count + 5, moves=moves)[0]) == count
    assert len(priors.draws(model, spots.train, moves=priors.moves(tiny()))[0]) == count


def test_a_tenth_of_the_subjects_is_held_out_and_none_is_on_both_sides():
    subjects = np.random.default_rng(0).choice([f"s{number}" for number in range(40)], 900)
    rows, held = flows._held_out(subjects, seed=1)
    np.testing.assert_array_equal(np.sort(rows), np.arange(900))
    sides = set(subjects[rows[:held]]), set(subjects[rows[held:]])
    assert len(sides[0]) == 4 and len(sides[1]) == 36 and not sides[0] & sides[1]
    assert flows._held_out(np.arange(7), 0)[1] == 1


def test_the_bound_of_binary_images_gains_what_their_latents_do(spots, tiny):
    model = registry.from_settings(tiny(binarize="dynamic"))
    z, _ = priors.draws(model, spots.train)
    prior, normal = densities.Gaussian.fitted(z), densities.Normal(model.latent_dim)
    numbers = evaluate.report(model, spots, others={"own": prior})
    gain = numbers["negative_elbo"]["value"] - numbers["negative_elbo@own"]["value"]
    draws = [priors.draws(model, spots.test, seed=seed)[0] for seed in range(40)]
    gains = [np.mean(prior.log_prob(each) - normal.log_prob(each)) for each in draws]
    error = np.std(gains) / np.sqrt(5)  # the report has five draws of each image
    assert gain == pytest.approx(np.mean(gains), abs=4 * error + 1e-3)


def test_under_n_0_i_the_sampled_rate_is_the_analytic_one_on_average(run, spots):
    model = train.load(run)
    images = np.repeat(spots.test.images[:1], 4000, axis=0)
    result = model.forward(images, training=False, step=0)
    sampled = model.rate(result, densities.Normal(model.latent_dim).log_prob)
    assert np.mean(sampled) == pytest.approx(float(model.rate(result)[0]), rel=0.02)


def test_the_command_compares_chooses_and_tells(run, spots, monkeypatch, capsys):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    command.main([str(run), "--kind", "gaussian", "mixture", "--components", "2", "--by", "nats"])
    said = capsys.readouterr().out
    table = pd.read_csv(run / "priors" / "priors.csv").set_index("prior")
    assert {"N(0, I)", "gaussian", "mixture", "reconstructions"} == set(table.index)
    assert (run / "priors" / "priors.png").is_file()
    best = table.drop("reconstructions")["nats"].idxmax()
    assert runs.own_prior(run) == {"N(0, I)": "normal"}.get(best, best)
    assert "Test images" in said or "is best; the run draws from it" in said


def test_a_trained_prior_goes_on_where_it_was_broken_off(run, spots, tmp_path, monkeypatch):
    model = train.load(run)
    options = {"steps": 12, "width": 8, "blocks": 1}
    whole = priors.fit("flow", model, spots.train, folder=tmp_path / "whole", **options)
    end = keep.Keep.on_train_batch_end

    def ended(self, batch, logs=None):
        self.asked = int(self.trained.steps.numpy()) == 5
        end(self, batch, logs)

    with monkeypatch.context() as during:
        during.setattr(keep.Keep, "on_train_batch_end", ended)
        with pytest.raises(KeyboardInterrupt, match="the same command"):
            priors.fit("flow", model, spots.train, folder=tmp_path / "broken", **options)
    again = priors.fit("flow", model, spots.train, folder=tmp_path / "broken", **options)
    assert int(again.steps) == int(whole.steps)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_generated_images_come_from_the_prior_that_is_named(run, tmp_path, capsys):
    for name in (None, "normal"):
        words = [str(run), "--generate", "3", "--to", str(tmp_path / str(name))]
        apply.main([*words, *(["--prior", name] if name else [])])
    said = capsys.readouterr().out
    assert f"of the run's prior {runs.own_prior(run)}" in said and "images of N(0, I)" in said
    with pytest.raises(SystemExit, match="was fitted without"):
        apply.main(
            [str(run), "--generate", "3", "--condition", "half=1", "--to", str(tmp_path / "c")]
        )


def test_a_trained_prior_of_earlier_weights_is_fitted_anew(run, spots, monkeypatch, capsys):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    words = [str(run), "--kind", "flow", "--condition", "half", "--steps", "2", "--by", "nats"]
    command.main(words)
    (first,) = (run / "priors" / "flow-half").glob("training-*")
    model = train.load(run)
    model.log_sigma.assign(0.5)
    checkpoints.save(model, run)
    command.main(words)
    assert len(list((run / "priors" / "flow-half").glob("training-*"))) == 2 and first.is_dir()
    assert priors.of_run(run, "flow-half").kind == "flow"


def test_the_batch_of_a_training_is_an_option_and_another_training(run, spots, monkeypatch):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    taken, plan = [], flows.Plan
    monkeypatch.setattr(flows, "Plan", lambda *each: taken.append(each[1]) or plan(*each))
    words = [str(run), "--kind", "flow", "--condition", "half", "--steps", "2", "--by", "nats"]
    for size in ("16", "32"):
        command.main([*words, "--batch-size", size])
    assert taken == [16, 32]
    assert len(list((run / "priors" / "flow-half").glob("training-*"))) == 2
    command.main([*words, "--width", "16"])  # another network, though it has the same number
    assert len(list((run / "priors" / "flow-half").glob("training-*"))) == 3
    with pytest.raises(SystemExit):
        command.parsed([str(run), "--batch-size", "0"])


def test_a_frechet_distance_needs_labels_and_enough_images(run, spots, monkeypatch):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    with pytest.raises(SystemExit, match="needs labels and 200 validation images; spots has"):
        command.main([str(run), "--by", "frechet"])


@pytest.mark.parametrize(("n", "by"), [(96, "wasserstein"), (300, "unlabelled_frechet")])
def test_a_kind_without_a_density_is_compared_by_its_samples(run, n, by, monkeypatch):
    unlabelled = data.from_arrays(blobs(n)[0], name="spots")
    monkeypatch.setattr(command.data, "images_of", lambda run: unlabelled)
    command.main([str(run), "--kind", "gaussian", "two-stage", "--steps", "2"])
    table = pd.read_csv(run / "priors" / "priors.csv").set_index("prior")
    best = table.drop("reconstructions")[by].idxmin()
    assert runs.own_prior(run) == {"N(0, I)": "normal"}.get(best, best)


def test_a_run_does_not_lose_its_prior_to_kinds_that_were_not_compared(
    run, spots, monkeypatch, capsys
):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    with pytest.raises(
        SystemExit, match="--by nats: not every kind .*flow.* by unlabelled_frechet"
    ):
        command.main([str(run), "--kind", "flow", "--by", "nats", "--steps", "2"])
    before = runs.own_prior(run)
    assert before == "mixture"
    command.main([str(run), "--kind", "normal", "--by", "nats"])
    if runs.own_prior(run) == "normal":
        assert f"draws from it, and no longer from {before}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        (("side", "digit"), "one category as condition, and these are several columns; use kind"),
        (("age",), "one category as condition, and age is a number"),
        (("digit",), "digit = 3 has 5 latents, too few for covariances of 3 axes; use kind flow"),
    ],
)
def test_a_mixture_says_which_condition_it_cannot_have(z, condition, error):
    table = pd.DataFrame({"side": np.where(z[:, 0] > 0, "high", "low"), "age": z[:, 1]})
    table["digit"] = np.where(np.arange(len(z)) < 5, 3, 4)
    conditions = Conditions.learn(table, condition, ("digit",))
    with pytest.raises(ValueError, match=error):
        densities.Mixture.fitted(z, table=table, conditions=conditions)


def test_a_condition_that_is_asked_for_in_part_says_what_is_lacking(z):
    table = pd.DataFrame({"side": np.where(z[:, 0] > 0, "high", "low"), "age": z[:, 1]})
    conditions = Conditions.learn(table, ("side", "age"))
    prior = flows.Coupling.fitted(z, table=table, conditions=conditions, **SMALL | {"steps": 2})
    with pytest.raises(ValueError, match="condition: give age too; .* was fitted for side, age"):
        prior.sample(3, condition={"side": "low"})


@pytest.mark.parametrize(
    ("name", "advice"),
    [("flow-age-sex", "--kind flow --condition age sex"), ("two-stage", "--kind two-stage$")],
)
def test_the_advice_for_a_missing_prior_is_a_command_that_works(run, name, advice):
    with pytest.raises(ValueError, match=advice):
        priors.of_run(run, name)


def test_a_class_is_a_category_though_it_is_a_number(run, spots, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    command.main([str(run), "--kind", "mixture", "--condition", "half", "--by", "nats"])
    words = ["--generate", "3", "--prior", "mixture-half", "--condition", "half=1"]
    apply.main([str(run), *words, "--to", str(tmp_path / "one")])
    assert "3 images of the run's prior mixture-half" in capsys.readouterr().out


def test_guidance_is_an_option_of_a_flow_with_a_condition(run, spots, monkeypatch, tmp_path):
    monkeypatch.setattr(command.data, "images_of", lambda run: spots)
    words = ["--kind", "flow", "--condition", "half", "--by", "nats", "--steps", "2"]
    command.main([str(run), *words])
    asked = {"half": 1}
    more = priors.of_run(run, "flow-half", asked, guidance=3.0)
    known = more.prior.sample(5, 0, asked, guidance=3.0)
    np.testing.assert_array_equal(more.sample(5), known)
    noise = randomness.normal(randomness.key(0, 0, "draw"), (5, 3))
    np.testing.assert_allclose(more.sampler()(noise), known, atol=1e-4)
    assert priors.of_run(run, "flow-half", asked).sample(5).shape == (5, 3)
    with pytest.raises(ValueError, match="guidance = 3 needs a condition"):
        priors.of_run(run, "flow-half", guidance=3.0)
    with pytest.raises(ValueError, match="guidance = 3 needs a flow prior; the prior .* is none"):
        priors.of_run(run, guidance=3.0)
    few = priors.of_run(run, "flow-half", evaluations=4)
    np.testing.assert_array_equal(few.sample(5), few.prior.sample(5, evaluations=4))
    assert np.abs(few.sample(5) - few.prior.sample(5)).max() > 1e-4
    with pytest.raises(ValueError, match="evaluations = 0: Heun's method needs at least 2"):
        priors.of_run(run, "flow-half", evaluations=0).sample(5)
    words = ["--generate", "3", "--prior", "flow-half", "--condition", "half=1", "--guidance", "2"]
    apply.main([str(run), *words, "--to", str(tmp_path / "made")])
    assert len(list((tmp_path / "made").rglob("*.png"))) == 3
