"""A copy of the U-Net's encoder, which ``mix`` and ``controlnet`` start from."""

import jax
import jax.numpy as jnp

from codi_jax.models.configs import UNetConfig
from codi_jax.typing import Params, PyTree


def encoder_names(unet: UNetConfig) -> tuple[str, ...]:
    """Top-level names of the encoder's parameters, in the U-Net and in its copy."""
    levels = range(len(unet.block_out_channels))
    added = ("add_embedding",) if unet.addition_embed_type else ()
    blocks = (f"down_blocks_{i}" for i in levels)
    return ("conv_in", "time_embedding", *added, "mid_block", *blocks)


def encoder_of(config: UNetConfig, unet: Params) -> dict[str, PyTree]:
    """The encoder's part of a U-Net's parameters."""
    return {name: unet[name] for name in encoder_names(config)}


def true_copy(params: Params) -> Params:
    """Equal arrays in buffers of their own: a step donates its buffers, and can't do so twice."""
    return jax.tree.map(jnp.copy, dict(params))
