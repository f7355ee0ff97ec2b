"""CLIP with both towers, as transformers' ``CLIPModel`` (Radford et al. 2021, arXiv:2103.00020).

The text tower is :mod:`codi_jax.models.text_encoder`; here is the image tower, a ViT, and the
config of the pair. Parameters are named as published checkpoints name their tensors.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from codi_jax.models.clip_layers import ACTIVATIONS, CLIPEncoder, layer_norm
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig
from codi_jax.typing import Params, UserError

MODEL_TYPE = "clip"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig:
    """transformers' ``CLIPVisionConfig``; its defaults, those of ViT-B/32."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if (
            self.hidden_act not in ACTIVATIONS
            or self.hidden_size % self.num_attention_heads
            or self.image_size % self.patch_size
        ):
            raise UserError(
                f"{self}: hidden_act must be one of {', '.join(ACTIVATIONS)}, num_attention_heads "
                "divide hidden_size, and patch_size divide image_size."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Both towers; ``projection_dim`` is the width of the space that they share."""

    text: TextEncoderConfig
    vision: CLIPVisionConfig
    projection_dim: int = 512

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Build from the content of a CLIP's ``config.json``.

        Old files repeat all of transformers' generic keys in both parts: what the towers do not
        read is passed over.

        Raises:
            UserError: another model than CLIP, or a value that is not implemented.
        """
        values: dict[str, Any] = dict(config)
        found = values.get("model_type")
        if found != MODEL_TYPE:
            raise UserError(
                f"model_type={found!r} is not supported (only {MODEL_TYPE!r}): give the directory "
                "or id of a CLIP model, e.g. openai/clip-vit-large-patch14."
            )
        width = values.get("projection_dim", 512)

        def part(name: str, kind: type) -> dict[str, Any]:
            names = {field.name for field in dataclasses.fields(kind)}
            return {k: v for k, v in (values.get(name) or {}).items() if k in names}

        text = {**part("text_config", TextEncoderConfig), "projection_dim": width}
        architectures = {"architectures": ["CLIPTextModelWithProjection"]}
        return cls(
            text=TextEncoderConfig.from_config(text | architectures),
            vision=CLIPVisionConfig(**part("vision_config", CLIPVisionConfig)),
            projection_dim=width,
        )


class _Embeddings(nn.Module):
    config: CLIPVisionConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch tokens features"]:
        c = self.config
        patch = (c.patch_size, c.patch_size)
        project = partial(nn.Conv, c.hidden_size, patch, patch, "VALID", use_bias=False)
        x = project(dtype=self.dtype, name="patch_embedding")(pixels).reshape(
            len(pixels), -1, c.hidden_size
        )
        token = self.param("class_embedding", nn.initializers.normal(0.02), (c.hidden_size,))
        token = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, c.hidden_size))
        x = jnp.concatenate([token, x], axis=1)
        positions = (c.image_size // c.patch_size) ** 2 + 1
        embed = nn.Embed(positions, c.hidden_size, dtype=self.dtype, name="position_embedding")
        return x + embed(jnp.arange(positions))


class _VisionModel(nn.Module):
    config: CLIPVisionConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        c, dtype = self.config, self.dtype
        x = _Embeddings(c, dtype, name="embeddings")(pixels)
        x = layer_norm(x, c, dtype, "pre_layrnorm")  # so spelt in every checkpoint
        x, _ = CLIPEncoder(c, dtype, False, name="encoder")(x)
        return layer_norm(x[:, 0], c, dtype, "post_layernorm")


class CLIPImageEncoder(nn.Module):
    """Images -> embeddings.

    Args of the call:
        pixels: float32 [B, image_size, image_size, 3], normalised by CLIP's mean and deviation.

    Returns:
        float32 [B, projection_dim], not normalised.
    """

    config: CLIPConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "batch side side 3"]
    ) -> Float[Array, "batch projection_dim"]:
        pooled = _VisionModel(self.config.vision, self.dtype, name="vision_model")(pixels)
        project = nn.Dense(
            self.config.projection_dim, use_bias=False, dtype=self.dtype, name="visual_projection"
        )
        return project(pooled).astype(jnp.float32)


def parameter_shapes(config: CLIPConfig) -> Params:
    """Names and shapes of all parameters of a ``CLIPModel``, the temperature included."""
    side, key = config.vision.image_size, jax.random.key(0)
    pixels, ids = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 2), jnp.int32)
    shapes = {
        **jax.eval_shape(CLIPTextEncoder(config.text).init, key, ids)["params"],
        **jax.eval_shape(CLIPImageEncoder(config).init, key, pixels)["params"],
    }
    return {**shapes, "logit_scale": jax.ShapeDtypeStruct((), jnp.float32)}
