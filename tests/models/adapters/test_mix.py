"""CoDi's adapter: equation 10, and what it reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.mix import Mix
from codi_jax.models.embeddings import Prompt
from codi_jax.models.unet import UNetDecoder, UNetEncoder
from codi_jax.typing import UserError
from tests.models.tiny_unets import COND, PLAIN, TEXT, T, Z, network, normal, predict, with_mu

# They share small compiled operations with the tests of all adapters.
pytestmark = pytest.mark.xdist_group("adapters")


@pytest.fixture(scope="module")
def params(random_params):
    """Random everywhere: unlike after init, the adapter's encoder is not the U-Net's."""
    return random_params(network("mix").init)


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_equation_10_by_hand(params, mu):
    tree = with_mu(params, mu)

    def encode(p, *args):
        z, t, text = map(jnp.asarray, args)
        return UNetEncoder(TEXT).apply({"params": p}, z, t, Prompt(text))

    def decode(p, *args):
        return UNetDecoder(TEXT).apply({"params": p}, *jax.tree.map(jnp.asarray, args))

    adapter = {k: v for k, v in tree["adapter"].items() if k != "mu"}
    h_eta, _ = encode(adapter, COND["latents"], jnp.zeros_like(T), COND["text"])
    assert len(h_eta.skips) == 4  # conv_in, one layer, the downsampler, one layer
    for t in (T, jnp.array([0, 500], jnp.int32)):  # the same h_eta at every t
        h_theta, temb = encode(tree["unet"], Z, t, COND["text"])
        mixed = jax.tree.map(
            lambda a, b: jnp.asarray((1 - mu) * np.asarray(a) + mu * np.asarray(b)), h_theta, h_eta
        )
        expected = decode(tree["unet"], mixed, temb, COND["text"])
        ours = predict(network("mix"), tree, Z, t, COND)
        np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_at_mu_1_only_the_condition_is_seen(params):
    tree = with_mu(params, 1)
    ours = predict(network("mix"), tree, Z, T, COND)
    np.testing.assert_allclose(predict(network("mix"), tree, 3 - Z, T, COND), ours, atol=1e-6)
    other = {**COND, "latents": COND["latents"] + 1}
    assert np.abs(predict(network("mix"), tree, Z, T, other) - ours).max() > 1e-3


def test_further_channels_of_the_condition_start_silent_and_learn():
    """The copied encoder reads them with zero weights, so it is the U-Net's encoder still."""
    model = AdaptedUNet(unet=PLAIN).with_adapter("mix", 2, extra_latents=3)
    params = model.init(jax.random.key(0))
    kernel = params["adapter"]["conv_in"]["kernel"]
    assert kernel.shape[2] == model.adapter.in_channels(PLAIN) == 7
    np.testing.assert_array_equal(kernel[:, :, :4], params["unet"]["conv_in"]["kernel"])
    latents = jnp.asarray(normal(2, 4, 6, 7, seed=3))
    own = model.condition(params, {"latents": latents})
    plain = network("mix", PLAIN)
    same = plain.condition({"adapter": params["unet"]}, {"latents": latents[..., :4]})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), own, same)

    def total(adapter):
        skips = model.condition({"adapter": adapter}, {"latents": latents}).skips
        return sum((skip**2).sum() for skip in skips)

    gradient = jax.grad(total)(params["adapter"])["conv_in"]["kernel"]
    assert (abs(gradient[:, :, 4:]) > 0).all()


def test_an_adapter_of_fewer_channels_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: .*U-Net of fewer channels"):
        Mix.from_config({"in_channels": 3}, TEXT, tmp_path)
