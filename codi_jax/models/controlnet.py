"""What ControlNet (Zhang & Agrawala 2023) adds to its copy of the U-Net's encoder.

Named as in diffusers' ``ControlNetModel``.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from codi_jax.models.configs import ControlNetConfig
from codi_jax.models.resnet import conv3x3
from codi_jax.models.unet import Features
from codi_jax.typing import UserError

_zero_conv = partial(
    nn.Conv, kernel_init=nn.initializers.zeros_init(), bias_init=nn.initializers.zeros_init()
)


class _Pyramid(nn.Module):
    """Convolutions that bring the image down to the latents' size."""

    config: ControlNetConfig
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hint: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch latent_height latent_width features"]:
        widths = self.config.conditioning_embedding_out_channels
        conv = partial(conv3x3, dtype=self.dtype)
        x = nn.silu(conv(widths[0], name="conv_in")(hint))
        for i, (narrow, wide) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            x = nn.silu(conv(narrow, name=f"blocks_{2 * i}")(x))
            x = nn.silu(conv(wide, strides=(2, 2), name=f"blocks_{2 * i + 1}")(x))
        zero = partial(_zero_conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), dtype=self.dtype)
        return zero(self.channels, name="conv_out")(x)


class HintEmbedding(nn.Module):
    """Condition image [B, H, W, conditioning_channels] in [-1, 1], RGB -> [B, h, w, channels].

    Raises:
        UserError: another number of channels.
    """

    config: ControlNetConfig
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch latent_height latent_width features"]:
        c = self.config
        if image.shape[-1] != c.conditioning_channels:
            raise UserError(
                f"this ControlNet reads condition images of {c.conditioning_channels} channels "
                f"but was given {image.shape[-1]}."
            )
        hint = (image.astype(self.dtype) + 1) / 2  # diffusers' ControlNets read [0, 1]
        if c.controlnet_conditioning_channel_order == "bgr":
            hint = hint[..., ::-1]
        pyramid = _Pyramid(c, self.channels, self.dtype, name="controlnet_cond_embedding")
        return pyramid(hint)


class ZeroConvs(nn.Module):
    """One zero-initialised 1x1 convolution per feature (Zhang & Agrawala 2023, equation 2).

    ``pool``: each is averaged over the picture, [B, 1, 1, C] (diffusers'
    ``global_pool_conditions``), so that the condition sets colours and style, not places.
    """

    pool: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features) -> Features:
        def zero(
            x: Float[Array, "batch height width channels"], name: str
        ) -> Float[Array, "batch out_height out_width channels"]:
            x = _zero_conv(x.shape[-1], (1, 1), dtype=self.dtype, name=name)(x)
            return x.mean((1, 2), keepdims=True) if self.pool else x

        skips = tuple(zero(x, f"controlnet_down_blocks_{i}") for i, x in enumerate(features.skips))
        return Features(skips, zero(features.mid, "controlnet_mid_block"))
