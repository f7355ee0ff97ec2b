"""The autoencoder's loss against its terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.autoencoding import AutoencoderLoss

X = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
ERROR = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
MEAN = np.random.default_rng(2).normal(size=(2, 2, 2, 4)).astype(np.float32)


def losses(loss, logvar):
    def reconstruct(params, images, key):
        return images + params, MEAN, logvar

    return loss(reconstruct, ERROR, {"images": jnp.asarray(X)}, jax.random.key(0))


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
