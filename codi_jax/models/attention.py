"""Attention and transformer blocks, named as diffusers names them."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from codi_jax.models.attend import attend
from codi_jax.models.norm import GroupNorm
from codi_jax.models.resnet import conv1x1


class Attention(nn.Module):
    """Multi-head attention of ``x`` over ``context``, or over itself where that is None."""

    heads: int
    head_dim: int
    qkv_bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        context: Float[Array, "batch context_tokens context_channels"] | None = None,
    ) -> Float[Array, "batch tokens channels"]:
        context = x if context is None else context
        project = partial(
            nn.Dense, self.heads * self.head_dim, use_bias=self.qkv_bias, dtype=self.dtype
        )

        def split(h: Float[Array, "batch n features"]) -> Float[Array, "batch n heads head_dim"]:
            return h.reshape(*h.shape[:2], self.heads, self.head_dim)

        q = split(project(name="to_q")(x))
        k = split(project(name="to_k")(context))
        v = split(project(name="to_v")(context))
        h = attend(q, k, v)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="to_out_0")(h.reshape(*x.shape[:2], -1))


class GEGLU(nn.Module):
    """Gated GELU (Shazeer 2020), the exact GELU as in PyTorch."""

    dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch dim"]:
        h, gate = jnp.split(nn.Dense(2 * self.dim, dtype=self.dtype, name="proj")(x), 2, axis=-1)
        return h * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """GEGLU with four times the width, then a projection back."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch tokens channels"]:
        h = GEGLU(4 * x.shape[-1], dtype=self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class TransformerBlock(nn.Module):
    """diffusers' ``BasicTransformerBlock``; without text it has no cross-attention at all."""

    heads: int
    head_dim: int
    cross_attention: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        text: Float[Array, "batch text_tokens text_channels"] | None,
    ) -> Float[Array, "batch tokens channels"]:
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        attend = partial(Attention, self.heads, self.head_dim, dtype=self.dtype)
        x = x + attend(name="attn1")(norm(name="norm1")(x))
        if self.cross_attention:
            x = x + attend(name="attn2")(norm(name="norm2")(x), text)
        return x + FeedForward(dtype=self.dtype, name="ff")(norm(name="norm3")(x))


class Transformer2D(nn.Module):
    """diffusers' ``Transformer2DModel``: transformer blocks over the pixels of a feature map."""

    heads: int
    layers: int = 1
    groups: int = 32
    linear_projection: bool = False
    cross_attention: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        text: Float[Array, "batch text_tokens text_channels"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        channels = x.shape[-1]
        make = nn.Dense if self.linear_projection else conv1x1
        h = GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        # A 1x1 convolution and a dense layer act alike here; they differ in the stored shape.
        h = make(channels, dtype=self.dtype, name="proj_in")(h)
        h = h.reshape(h.shape[0], -1, channels)
        for i in range(self.layers):
            h = TransformerBlock(
                self.heads,
                channels // self.heads,
                self.cross_attention,
                dtype=self.dtype,
                name=f"transformer_blocks_{i}",
            )(h, text)
        h = make(channels, dtype=self.dtype, name="proj_out")(h.reshape(x.shape))
        return x + h


class AutoencoderAttention(nn.Module):
    """One head of self-attention with its own GroupNorm, as in autoencoders' mid blocks."""

    groups: int = 32
    eps: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        channels = x.shape[-1]
        h = GroupNorm(self.groups, epsilon=self.eps, dtype=self.dtype, name="group_norm")(x)
        # The sub-layers sit directly under this module in diffusers' naming, hence share_scope.
        attention = Attention(1, channels, qkv_bias=True, dtype=self.dtype)
        nn.share_scope(self, attention)
        return x + attention(h.reshape(h.shape[0], -1, channels)).reshape(x.shape)
