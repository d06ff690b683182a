"""PCA as a linear VAE: its rate and its error are those of Gaussian rate-distortion theory."""

import numpy as np
import pytest

from analysis.linear import LinearCode
from nn import losses

VARIANCES = np.array([0.04, 0.01, 0.0025, 0.0001])


@pytest.fixture(scope="module")
def gaussian():
    """Gaussian images of 2 x 2 pixels around grey, whose components have these variances."""
    random = np.random.default_rng(0)
    turned = np.linalg.qr(random.normal(size=(4, 4)))[0]
    z = random.normal(size=(6000, 4)) * np.sqrt(VARIANCES)
    return (0.5 + z @ turned).reshape(-1, 2, 2, 1)


def test_a_gaussian_is_coded_at_the_rate_and_the_error_of_reverse_water_filling(gaussian):
    training, held_out = gaussian[:3000], gaussian[3000:]
    nats = 0.5 * np.log(VARIANCES[:3] / 0.001).sum()  # the last variance is below the error
    code = LinearCode.fitted(training, held_out, nats)
    assert len(code.used) == 3
    z_mean, z_log_var = code.encode(held_out)
    z = z_mean + np.exp(0.5 * z_log_var) * np.random.default_rng(1).normal(size=z_mean.shape)
    error = np.square(code.decode(z) - held_out).sum(axis=(1, 2, 3)).mean()
    assert error == pytest.approx(3 * 0.001 + 0.0001, rel=0.1)
    np.testing.assert_allclose(z.var(axis=0), 1.0, rtol=0.1)


def test_the_rate_is_the_kl_that_a_vae_pays_and_the_one_asked_for(gaussian):
    code = LinearCode.fitted(gaussian[:3000], gaussian[3000:], 5.0)
    z_mean, z_log_var = (each.astype(np.float32) for each in code.encode(gaussian[3000:]))
    kl = losses.kl_to_standard_normal(z_mean, z_log_var)
    np.testing.assert_allclose(code.rate(gaussian[3000:]), kl, rtol=1e-3, atol=1e-3)
    assert np.mean(kl) == pytest.approx(5.0, rel=1e-3)


def test_more_nats_leave_less_error_and_too_many_are_refused(gaussian):
    training, held_out = (255 * gaussian.clip(0, 1)).astype(np.uint8), gaussian[3000:]
    errors = []
    for nats in (1.0, 4.0, 12.0):
        code = LinearCode.fitted(training[:3000], held_out, nats)
        made = code.decode(code.encode(held_out)[0])
        errors.append(np.square(made - held_out).mean())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    with pytest.raises(ValueError, match="PCA of 3000 images cannot spend 100000 nats"):
        LinearCode.fitted(training[:3000], held_out, 1e5)
