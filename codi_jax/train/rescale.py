"""A trained autoencoder gets the scale that makes its latents unit-sized, and a shift if it can."""

import dataclasses

import jax
import numpy as np

from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import Params


def unit_latents(pipeline: Pipeline, params: Params, images: np.ndarray) -> Pipeline:
    """``pipeline`` with ``params``; an autoencoder alone also gets ``scaling_factor`` and, where
    its class has one, ``shift_factor`` from ``images`` uint8 [N, H, W, 3] (Rombach et al. 2022,
    appendix G).

    Where a U-Net is there the numbers stay: it was trained with them.
    """
    if pipeline.unet is not None:
        return dataclasses.replace(pipeline, params=params)
    vae = make_autoencoder(pipeline.vae)
    encode = jax.jit(
        lambda x: vae.apply({"params": params["vae"]}, to_signed(x), method="encode_unscaled")
    )
    z = np.asarray(encode(images))
    config = pipeline.vae.unit_sized(float(z.mean()), float(z.std()))
    return dataclasses.replace(pipeline, vae=config, params=params)
