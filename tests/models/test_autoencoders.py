"""Either autoencoder by its config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.autoencoder_dc import AutoencoderDC
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.autoencoders import (
    CLASSES,
    InParts,
    autoencoder_config,
    init_autoencoder,
    make_autoencoder,
)
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.typing import UserError
from configs import autoencoder
from tests.smallest import VAE

DC = autoencoder.get_config("tiny").model.vae.to_dict()
KL = autoencoder_config(VAE)


def test_the_class_is_named_or_stable_diffusions() -> None:
    assert CLASSES == ("AutoencoderKL", "AutoencoderDC")
    assert isinstance(KL, AutoencoderConfig)
    assert autoencoder_config({**VAE, "_class_name": "AutoencoderKL"}) == KL
    assert isinstance(autoencoder_config(DC), AutoencoderDCConfig)
    with pytest.raises(UserError, match=r"_class_name is 'VQModel'; choose one of AutoencoderKL"):
        autoencoder_config({"_class_name": "VQModel"})


def test_networks_are_of_the_configs_class() -> None:
    for config, kind in ((KL, AutoencoderKL), (autoencoder_config(DC), AutoencoderDC)):
        network = make_autoencoder(config, np.float16)
        assert isinstance(network, kind)
        assert network.config == config and network.dtype == np.float16


@pytest.mark.parametrize("config", [KL, autoencoder_config(DC)], ids=["kl", "dc"])
def test_latents_are_as_large_as_the_config_says(config: AutoencoderConfig) -> None:
    f = config.downsampling
    vae = make_autoencoder(config)
    params = jax.eval_shape(lambda key: init_autoencoder(config, key), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 3 * f, 2 * f, 3), np.float32)
    encode, decode = (
        lambda p, x, m=method: vae.apply({"params": p}, x, method=m)
        for method in ("encode", "decode")
    )
    latents = jax.eval_shape(encode, params, images)
    assert latents.shape == (2, 3, 2, config.latent_channels)
    assert jax.eval_shape(decode, params, latents).shape == images.shape


@pytest.mark.parametrize("quantised", [True, False])
def test_a_new_posterior_is_narrow(quantised: bool) -> None:
    """Else its noise would bury the mean, and training would first have to shrink it."""
    options = {**VAE, "use_quant_conv": quantised, "use_post_quant_conv": quantised}
    config = autoencoder_config(options)
    params = jax.jit(lambda key: init_autoencoder(config, key))(jax.random.key(0))
    last = params["quant_conv"] if quantised else params["encoder"]["conv_out"]
    mean, log_variance = np.split(np.asarray(last["bias"]), 2)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(log_variance, -8)


@pytest.mark.parametrize("config", [KL, autoencoder_config(DC)], ids=["kl", "dc"])
def test_parts_of_a_batch_are_as_the_whole(config: AutoencoderConfig, random_params) -> None:
    f = config.downsampling
    vae = make_autoencoder(config)
    params = {"params": random_params(lambda key: init_autoencoder(config, key))}
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 4 * f, 4 * f, 3))
    images = jnp.asarray(pixels, jnp.float32)
    parted = InParts(vae, 2)
    assert parted.config == config
    z = vae.apply(params, images, method="encode")
    np.testing.assert_allclose(parted.apply(params, images, method="encode"), z, atol=1e-5)
    whole = vae.apply(params, z, method="decode")
    np.testing.assert_allclose(parted.apply(params, z, method="decode"), whole, atol=1e-5)

    def kept(network: InParts | object) -> int:
        """Bytes that the gradient of a decoded picture finds when it begins."""
        decode = lambda z: network.apply(params, z, method="decode").sum()  # noqa: E731
        held = jax.eval_shape(lambda z: jax.vjp(decode, z)[1], z)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))

    assert kept(parted) < 0.9 * kept(vae)  # parameters are among them
