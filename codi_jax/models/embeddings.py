"""Embeddings of the time, and of what SDXL adds to it."""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Real

from codi_jax.models.configs import EncoderConfig
from codi_jax.typing import Cond, UserError


class Prompt(NamedTuple):
    """What a U-Net reads of the prompt: entries of the condition dict, None where absent.

    Attributes:
        text: text embeddings, with ``cross_attention_dim`` channels.
        text_embeds: the pooled text embedding, for SDXL.
        time_ids: six sizes in pixels, for SDXL: original height and width, top and left of the
            crop, target height and width.
        guidance_scale: for U-Nets that were distilled for many scales.
    """

    text: Float[Array, "batch tokens channels"] | None = None
    text_embeds: Float[Array, "batch pooled"] | None = None
    time_ids: Real[Array, "batch ids"] | None = None
    guidance_scale: Float[Array, " batch"] | None = None

    @classmethod
    def of(cls, cond: Cond) -> "Prompt":
        """The prompt in a condition dict."""
        return cls(*(cond.get(name) for name in cls._fields))


NO_PROMPT = Prompt()


def sinusoidal_embedding(
    timesteps: Real[Array, " batch"], dim: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> Float[Array, "batch {dim}"]:
    """diffusers' ``Timesteps``: sinusoidal features (Vaswani et al. 2017; DDPM).

    Args:
        timesteps: [B], any real dtype, in grid steps (0 to 999 for Stable Diffusion).
        dim: number of features, even.
        flip_sin_to_cos: cosines first, as Stable Diffusion's U-Nets have them.
        freq_shift: subtracted from the number of frequencies in the exponent's divisor.

    Returns:
        [B, dim] float32.
    """
    half = dim // 2
    exponent = -math.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angles = timesteps.astype(jnp.float32)[:, None] * jnp.exp(exponent)[None, :]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([cos, sin] if flip_sin_to_cos else [sin, cos], axis=-1)


def guidance_embedding(
    guidance_scale: Float[Array, " batch"], dim: int
) -> Float[Array, "batch {dim}"]:
    """Features [B, dim] float32 of the scale w [B], diffusers' ``get_guidance_scale_embedding``.

    There w is their pipelines' ``guidance_scale - 1``, so that 0 is no guidance; as everywhere
    here ``guidance_scale`` 1 is no guidance, and the 1 is subtracted in this function.
    """
    half = dim // 2
    exponent = -math.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / (half - 1)
    angles = 1000.0 * (guidance_scale.astype(jnp.float32) - 1.0)[:, None] * jnp.exp(exponent)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimestepEmbedding(nn.Module):
    """Two dense layers, as diffusers' class of this name: [B, dim] -> [B, time_embed_dim].

    Features of something else, [B, any], are projected and added first where they are given.
    """

    time_embed_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch dim"],
        added: Float[Array, "batch added_dim"] | None = None,
    ) -> Float[Array, "batch time_embed_dim"]:
        if added is not None:
            proj = nn.Dense(features.shape[-1], use_bias=False, dtype=self.dtype, name="cond_proj")
            features = features + proj(added)
        h = nn.Dense(self.time_embed_dim, dtype=self.dtype, name="linear_1")(features)
        return nn.Dense(self.time_embed_dim, dtype=self.dtype, name="linear_2")(nn.silu(h))


def time_embedding(
    config: EncoderConfig, t: Real[Array, " batch"], prompt: Prompt, dtype: DTypeLike
) -> Float[Array, "batch time_embed_dim"]:
    """The embedding [B, 4 C0] of ``t`` [B], for SDXL also of the prompt's vectors.

    Called inside a compact module, where it makes ``time_embedding`` and ``add_embedding``.
    """
    width = config.block_out_channels[0]
    sinusoids = partial(
        sinusoidal_embedding, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift
    )
    embed = partial(TimestepEmbedding, 4 * width, dtype=dtype)
    scale = None
    if config.time_cond_proj_dim is not None:
        if prompt.guidance_scale is None:
            raise UserError("this U-Net reads cond['guidance_scale'] [B]: give it (1 is none).")
        scale = guidance_embedding(prompt.guidance_scale, config.time_cond_proj_dim).astype(dtype)
    temb = embed(name="time_embedding")(sinusoids(t, width).astype(dtype), scale)
    if config.addition_embed_type is None:
        return temb
    pooled, ids = prompt.text_embeds, prompt.time_ids
    if pooled is None or ids is None:
        raise UserError(
            "this U-Net (SDXL) needs cond['text_embeds'] [B, P], the pooled text embedding, and "
            "cond['time_ids'] [B, 6], sizes in pixels."
        )
    assert config.addition_time_embed_dim is not None
    given = pooled.shape[-1] + ids.shape[-1] * config.addition_time_embed_dim
    if given != config.added_dim:
        raise UserError(
            f"text_embeds {list(pooled.shape)} and time_ids {list(ids.shape)} make {given} "
            f"features but this U-Net reads {config.added_dim} "
            f"({config.addition_time_embed_dim} for each time id)."
        )
    sizes = sinusoids(ids.reshape(-1), config.addition_time_embed_dim)
    added = jnp.concatenate(
        [pooled.astype(dtype), sizes.reshape(ids.shape[0], -1).astype(dtype)], axis=-1
    )
    return temb + embed(name="add_embedding")(added)
