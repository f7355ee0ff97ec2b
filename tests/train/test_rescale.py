"""An autoencoder alone gets unit-sized latents; beside a U-Net it stays as it is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.run.plan import plan
from codi_jax.train.rescale import unit_latents
from configs import autoencoder, sr


def test_latents_become_unit_sized() -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    model = plan(config).model
    params = jax.jit(model.init)(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scaled = unit_latents(model, params, images)
    assert scaled.params is params
    vae = make_autoencoder(scaled.vae)
    latents = vae.apply({"params": params["vae"]}, to_signed(jnp.asarray(images)), method="encode")
    # An AutoencoderDC has a scale and no shift.
    np.testing.assert_allclose((latents**2).mean(), 1.0, atol=1e-3)


def test_beside_a_unet_nothing_changes() -> None:
    model = plan(sr.get_config("tiny")).model
    params: Any = {"vae": {}}
    images = np.zeros((1, 8, 8, 3), np.uint8)
    found = unit_latents(model, params, images)
    assert found == dataclasses.replace(model, params=params)
