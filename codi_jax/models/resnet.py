"""Residual blocks, down- and upsampling, named as diffusers names them."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from codi_jax.models.norm import GroupNorm
from codi_jax.models.winograd import convolve

conv3x3 = partial(
    nn.Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), conv_general_dilated=convolve
)
conv1x1 = partial(nn.Conv, kernel_size=(1, 1))


def pixel_unshuffle(
    x: Shaped[Array, "batch height width channels"], factor: int = 2
) -> Shaped[Array, "batch height//{factor} width//{factor} channels*{factor}**2"]:
    """Blocks of ``factor`` x ``factor`` pixels as channels, in PyTorch's order.

    Of 2 x 2 pixels, channel c of pixel (i, j) becomes 4 c + 2 i + j.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // factor, w // factor, -1)


class ResnetBlock(nn.Module):
    """diffusers' ``ResnetBlock2D``.

    ``temb``, the embedding of the time, is added between the two convolutions. Autoencoders
    have none.
    """

    out_channels: int
    groups: int = 32
    eps: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        temb: Float[Array, "batch time_embed_dim"] | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        norm = partial(GroupNorm, self.groups, epsilon=self.eps, dtype=self.dtype)
        conv = partial(conv3x3, self.out_channels, dtype=self.dtype)
        h = conv(name="conv1")(nn.silu(norm(name="norm1")(x)))
        if temb is not None:
            dense = nn.Dense(self.out_channels, dtype=self.dtype, name="time_emb_proj")
            h = h + dense(nn.silu(temb))[:, None, None, :]
        h = conv(name="conv2")(nn.silu(norm(name="norm2")(h)))
        if x.shape[-1] != self.out_channels:
            x = conv1x1(self.out_channels, dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class Downsample(nn.Module):
    """Convolution with stride 2.

    ``asymmetric`` pads on the right and below only, as Stable Diffusion's autoencoder does;
    its U-Net pads on all sides.
    """

    asymmetric: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch half_height half_width channels"]:
        padding = ((0, 1), (0, 1)) if self.asymmetric else ((1, 1), (1, 1))
        return nn.Conv(
            x.shape[-1], (3, 3), strides=(2, 2), padding=padding, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2, then a convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch 2*height 2*width channels"]:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return conv3x3(x.shape[-1], dtype=self.dtype, name="conv")(x)
