"""An autoencoder alone gets unit-sized latents; beside a U-Net it stays as it is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from codi_jax.builder import build_pipeline

from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed
from codi_jax.train.rescale import unit_latents
from configs import autoencoder, sr


def test_latents_become_unit_sized() -> None:
    pipeline = build_pipeline(autoencoder.get_config("tiny"), jnp.float32)
    params = jax.jit(pipeline.init)(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scaled = unit_latents(pipeline, params, images)
    assert scaled.params is params
    vae = AutoencoderKL(scaled.vae)
    latents = vae.apply({"params": params["vae"]}, to_signed(jnp.asarray(images)), method="encode")
    np.testing.assert_allclose([latents.mean(), latents.std()], [0.0, 1.0], atol=1e-3)


def test_beside_a_unet_nothing_changes() -> None:
    pipeline = build_pipeline(sr.get_config("tiny"), jnp.float32)
    params: Any = {"vae": {}}
    images = np.zeros((1, 8, 8, 3), np.uint8)
    found = unit_latents(pipeline, params, images)
    assert found == dataclasses.replace(pipeline, params=params)
