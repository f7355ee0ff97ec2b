"""Time embeddings, as diffusers' ``Timesteps`` and ``TimestepEmbedding``."""

import math

import flax.linen as nn
import jax.numpy as jnp

from codi_jax.typing import Array


def sinusoidal_embedding(
    timesteps: Array, dim: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> Array:
    """Sinusoidal features of the time (Vaswani et al. 2017; DDPM).

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


class TimestepEmbedding(nn.Module):
    """Two dense layers on the sinusoidal features: [B, dim] -> [B, time_embed_dim]."""

    time_embed_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Array) -> Array:
        h = nn.Dense(self.time_embed_dim, dtype=self.dtype, name="linear_1")(features)
        return nn.Dense(self.time_embed_dim, dtype=self.dtype, name="linear_2")(nn.silu(h))
