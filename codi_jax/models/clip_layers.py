"""The transformer of CLIP, which its text encoder and its image encoder share.

Radford et al. 2021 (arXiv:2103.00020): pre-norm layers, causal for texts. Parameters are named as
published checkpoints name their tensors (``encoder.layers.0`` is ``encoder/layers_0``).
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Hidden = Float[Array, "batch tokens features"]


def _quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The sigmoid approximation of GELU (Hendrycks & Gimpel 2016) with which CLIP was trained."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": _quick_gelu,
    "gelu": partial(nn.gelu, approximate=False),
}


@runtime_checkable
class LayersConfig(Protocol):
    """What the layers of a CLIP transformer, of text or of images, read of its config."""

    @property
    def intermediate_size(self) -> int:
        """Width inside the two dense layers."""

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""

    @property
    def num_attention_heads(self) -> int:
        """Heads of each attention."""

    @property
    def hidden_act(self) -> str:
        """A name out of :data:`ACTIVATIONS`."""

    @property
    def layer_norm_eps(self) -> float:
        """What is added to the variance."""


def layer_norm(
    x: Float[Array, "*shape"], config: LayersConfig, dtype: DTypeLike, name: str
) -> Float[Array, "*shape"]:
    """In float32 whatever ``dtype``, the variance in two passes: E[x^2] - E[x]^2 cancels."""
    norm = nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False, name=name)
    return norm(x.astype(jnp.float32)).astype(dtype)


class _SelfAttention(nn.Module):
    """With biases; ``models.attention`` has neither, and other names."""

    config: LayersConfig
    dtype: DTypeLike
    causal: bool

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        heads = self.config.num_attention_heads

        def project(name: str) -> Float[Array, "batch tokens heads head_dim"]:
            h = nn.Dense(x.shape[-1], dtype=self.dtype, name=name)(x)
            return h.reshape(*x.shape[:2], heads, -1)

        q, k, v = project("q_proj"), project("k_proj"), project("v_proj")
        h = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="out_proj")(h.reshape(x.shape))


class _MLP(nn.Module):
    config: LayersConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        h = nn.Dense(self.config.intermediate_size, dtype=self.dtype, name="fc1")(x)
        h = ACTIVATIONS[self.config.hidden_act](h)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(h)


class _Layer(nn.Module):
    config: LayersConfig
    dtype: DTypeLike
    causal: bool

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        norm = partial(layer_norm, config=self.config, dtype=self.dtype)
        h = norm(x, name="layer_norm1")
        x = x + _SelfAttention(self.config, self.dtype, self.causal, name="self_attn")(h)
        return x + _MLP(self.config, self.dtype, name="mlp")(norm(x, name="layer_norm2"))


class CLIPEncoder(nn.Module):
    """The layers of a CLIP transformer; causal for texts, not for images."""

    config: LayersConfig
    dtype: DTypeLike
    causal: bool

    @nn.compact
    def __call__(self, x: Hidden) -> tuple[Hidden, Hidden]:
        """The states after the last layer, and before it."""
        before = x
        for i in range(self.config.num_hidden_layers):
            before, x = x, _Layer(self.config, self.dtype, self.causal, name=f"layers_{i}")(x)
        return x, before
