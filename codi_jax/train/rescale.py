"""A trained autoencoder gets the scale and shift that make its latents unit-sized."""

import dataclasses

import jax
import numpy as np

from codi_jax.checkpoint.parameters import AnyModel
from codi_jax.distill.autoencoding import latent_moments
from codi_jax.model import Model
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import Params


def unit_latents(model: AnyModel, params: Params, images: np.ndarray) -> AnyModel:
    """``model`` with ``params``; an autoencoder alone also gets ``scaling_factor`` and
    ``shift_factor`` from ``images`` uint8 [N, H, W, 3] (Rombach et al. 2022, appendix G).

    Where a U-Net is there the numbers stay: it was trained with them.
    """
    if isinstance(model, Model):
        return dataclasses.replace(model, params=params)
    vae = AutoencoderKL(model.vae)
    moments = jax.jit(
        lambda x: vae.apply({"params": params["vae"]}, to_signed(x), method="moments")
    )
    shift, scale = latent_moments(moments(images)[0])
    config = dataclasses.replace(model.vae, scaling_factor=scale, shift_factor=shift)
    return dataclasses.replace(model, vae=config, params=params)
