"""The autoencoder's loss against the computation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.loss import Networks, StepContext
from tests.distill.toy import PARAMS


def test_loss_equals_the_computation_by_hand() -> None:
    rng = np.random.default_rng(0)
    x, x_hat = rng.uniform(-1, 1, (2, 3, 4, 5, 3)).astype(np.float32)
    mean, logvar = rng.normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
    seen = []

    def reconstruct(params, images, key):
        seen.append((params, images, key))
        return jnp.asarray(x_hat), jnp.asarray(mean), jnp.asarray(logvar)

    loss = AutoencoderLoss(kl_weight=0.1, edge_weight=0.5)
    context = StepContext(jax.random.key(3), jnp.zeros((), jnp.int32))
    batch = {"images": jnp.asarray(x)}
    result = loss(Networks(reconstruct=reconstruct), PARAMS, {}, batch, context)
    ((params, images, key),) = seen
    assert params is PARAMS and key is context.key
    np.testing.assert_array_equal(images, x)
    error = np.float64(x_hat) - x
    down, across = error[:, 1:] - error[:, :-1], error[:, :, 1:] - error[:, :, :-1]
    pixel = np.abs(error).mean((1, 2, 3))
    edge = np.abs(down).mean((1, 2, 3)) + np.abs(across).mean((1, 2, 3))
    # KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - log v) / 2.
    kl = (np.float64(mean) ** 2 + np.exp(logvar) - 1 - logvar).mean((1, 2, 3)) / 2
    expected = {"loss": pixel + 0.5 * edge + 0.1 * kl, "pixel": pixel, "edge": edge, "kl": kl}
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-4, err_msg=name)


X = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
ERROR = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
MEAN = jnp.asarray(np.random.default_rng(2).normal(size=(2, 2, 2, 4)), jnp.float32)


def losses(loss, logvar):
    def reconstruct(params, images, key):
        return images + params["error"], MEAN, logvar

    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    networks = Networks(reconstruct=reconstruct)
    params = {"error": jnp.asarray(ERROR)}
    return loss(networks, params, {}, {"images": jnp.asarray(X)}, context)


@pytest.mark.parametrize(("pixel", "power"), [("l1", 1), ("l2", 2)])
def test_without_a_posterior_there_is_no_kl(pixel, power):
    found = losses(AutoencoderLoss(pixel=pixel, edge_weight=0.5), None)
    assert set(found) == {"loss", "pixel", "edge"}
    wanted = (np.abs(ERROR) ** power).mean((1, 2, 3))
    np.testing.assert_allclose(found["pixel"], wanted, rtol=1e-5)
    edge = sum(np.abs(np.diff(ERROR, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    np.testing.assert_allclose(found["edge"], edge, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], wanted + 0.5 * edge, rtol=1e-5)


def test_with_one_there_is():
    logvar = jnp.full(MEAN.shape, np.log(0.25), jnp.float32)
    found = losses(AutoencoderLoss(kl_weight=0.1, edge_weight=0.0), logvar)
    kl = 0.5 * (MEAN**2 + 0.25 - 1 - np.log(0.25)).mean((1, 2, 3))
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], found["pixel"] + 0.1 * kl, rtol=1e-5)
