"""The scale and the shift that make the latents of a trained autoencoder unit-sized."""

import dataclasses

import jax
import numpy as np
from jaxtyping import UInt8

from codi_jax.checkpoint.parameters import AnyModel
from codi_jax.model import Model
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import Params


def unit_latents(
    model: AnyModel, params: Params, images: UInt8[np.ndarray, "batch height width 3"]
) -> AnyModel:
    """The trained model, whose latents have mean 0 and deviation 1 if it is an autoencoder alone.

    ``scaling_factor`` and, where the autoencoder's class has one, ``shift_factor`` are measured
    (Rombach et al. 2022, appendix G). A model with a U-Net keeps them, because the U-Net was
    trained with them.

    Args:
        model: the model, without parameters.
        params: its parameters.
        images: uint8 [N, H, W, 3], to measure the latents of.
    """
    if isinstance(model, Model):
        return dataclasses.replace(model, params=params)
    vae = make_autoencoder(model.vae)
    encode = jax.jit(
        lambda x: vae.apply({"params": params["vae"]}, to_signed(x), method="encode_unscaled")
    )
    z = np.asarray(encode(images))
    config = model.vae.unit_sized(z.mean(), z.std())
    return dataclasses.replace(model, vae=config, params=params)
