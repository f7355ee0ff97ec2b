"""The deep compression autoencoder of diffusers' ``AutoencoderDC`` (Chen et al. 2024).

Every norm is over the channels of one pixel, so a latent depends on the pixels near it and on
nothing else: tiles of a picture, with the receptive field as halo, equal the whole.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.resnet import conv3x3, pixel_unshuffle
from codi_jax.typing import Array, UserError

EPS = 1e-5
ACTIVATIONS = {"silu": nn.silu, "relu": nn.relu}


def pixel_shuffle(x: Array) -> Array:
    """[B, h, w, 4 C] -> [B, 2 h, 2 w, C], the inverse of :func:`pixel_unshuffle`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


class RMSNorm(nn.Module):
    """Over the channels of each pixel (Zhang & Sennrich 2019), with a bias; in float32."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPS)
        return (x * scale + bias).astype(self.dtype)


class ResBlock(nn.Module):
    """[B, h, w, C] -> the same: two convolutions and a norm, around which there is a shortcut."""

    activation: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        h = conv3x3(channels, dtype=self.dtype, name="conv1")(x)
        h = ACTIVATIONS[self.activation](h)
        h = conv3x3(channels, use_bias=False, dtype=self.dtype, name="conv2")(h)
        return x + RMSNorm(self.dtype, name="norm")(h)


class Down(nn.Module):
    """[B, h, w, C] -> [B, h/2, w/2, channels]; diffusers' ``DCDownBlock2d``."""

    channels: int
    unshuffle: bool
    shortcut: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.unshuffle:
            y = pixel_unshuffle(conv3x3(self.channels // 4, dtype=self.dtype, name="conv")(x))
        else:
            y = conv3x3(self.channels, strides=(2, 2), dtype=self.dtype, name="conv")(x)
        if not self.shortcut:
            return y
        x = pixel_unshuffle(x)
        return y + x.reshape(*y.shape, x.shape[-1] // self.channels).mean(-1)


class Up(nn.Module):
    """[B, h, w, C] -> [B, 2 h, 2 w, channels]; diffusers' ``DCUpBlock2d``."""

    channels: int
    interpolate: bool
    shortcut: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.interpolate:
            y = x.repeat(2, axis=1).repeat(2, axis=2)
            y = conv3x3(self.channels, dtype=self.dtype, name="conv")(y)
        else:
            y = pixel_shuffle(conv3x3(4 * self.channels, dtype=self.dtype, name="conv")(x))
        if not self.shortcut:
            return y
        return y + pixel_shuffle(x.repeat(4 * self.channels // x.shape[-1], axis=-1))


class _DownLevel(nn.Module):
    """Blocks of one resolution, then a downsampler to ``next_channels``; a PyTorch sequence."""

    layers: int
    next_channels: int | None
    unshuffle: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(self.layers):
            x = ResBlock("silu", self.dtype, name=f"{i}")(x)
        if self.layers and self.next_channels is not None:
            x = Down(self.next_channels, self.unshuffle, True, self.dtype, name=f"{self.layers}")(x)
        return x


class _UpLevel(nn.Module):
    """An upsampler to ``channels``, unless this is the coarsest level, then blocks."""

    layers: int
    channels: int | None
    interpolate: bool
    activation: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        first = 0
        if self.layers and self.channels is not None:
            x, first = Up(self.channels, self.interpolate, True, self.dtype, name="0")(x), 1
        for i in range(first, first + self.layers):
            x = ResBlock(self.activation, self.dtype, name=f"{i}")(x)
        return x


class _Encoder(nn.Module):
    config: AutoencoderDCConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        widths, layers = c.encoder_block_out_channels, c.encoder_layers_per_block
        if layers[0]:
            x = conv3x3(widths[0], dtype=self.dtype, name="conv_in")(x)
        else:
            x = Down(widths[1], c.unshuffles, False, self.dtype, name="conv_in")(x)
        for i, count in enumerate(layers):
            after = widths[i + 1] if i + 1 < len(widths) else None
            x = _DownLevel(count, after, c.unshuffles, self.dtype, name=f"down_blocks_{i}")(x)
        z = conv3x3(c.latent_channels, dtype=self.dtype, name="conv_out")(x)
        if c.encoder_out_shortcut:
            z = z + x.reshape(*z.shape, x.shape[-1] // c.latent_channels).mean(-1)
        return z


class _Decoder(nn.Module):
    config: AutoencoderDCConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Array) -> Array:
        c = self.config
        widths, layers = c.decoder_block_out_channels, c.decoder_layers_per_block
        interpolate = c.upsample_block_type == "interpolate"
        x = conv3x3(widths[-1], dtype=self.dtype, name="conv_in")(z)
        if c.decoder_in_shortcut:
            x = x + z.repeat(widths[-1] // c.latent_channels, axis=-1)
        for i in reversed(range(len(widths))):
            channels = widths[i] if i + 1 < len(widths) else None
            x = _UpLevel(
                layers[i], channels, interpolate, c.activation(i), self.dtype, name=f"up_blocks_{i}"
            )(x)
        x = ACTIVATIONS[c.decoder_conv_act_fn](RMSNorm(self.dtype, name="norm_out")(x))
        if layers[0]:
            return conv3x3(c.in_channels, dtype=self.dtype, name="conv_out")(x)
        return Up(c.in_channels, interpolate, False, self.dtype, name="conv_out")(x)


class AutoencoderDC(nn.Module):
    """Images [B, H, W, 3] in [-1, 1] <-> latents [B, H/f, W/f, latent_channels], no posterior.

    The methods are those of :class:`codi_jax.models.autoencoder.AutoencoderKL`.
    """

    config: AutoencoderDCConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Make the two halves."""
        self.encoder = _Encoder(self.config, self.dtype)
        self.decoder = _Decoder(self.config, self.dtype)

    def encode_unscaled(self, images: Array) -> Array:
        """The code as the encoder gives it, float32."""
        f = self.config.downsampling
        if images.shape[1] % f or images.shape[2] % f:
            raise UserError(
                f"images of {images.shape[1]}x{images.shape[2]} are no multiple of {f}; pad first."
            )
        return self.encoder(images.astype(self.dtype)).astype(jnp.float32)

    def encode(self, images: Array, key: Array | None = None) -> Array:
        """Latents as the diffusion model sees them; there is nothing to be drawn with ``key``."""
        del key
        return self.encode_unscaled(images) * self.config.scaling_factor

    def decode(self, latents: Array) -> Array:
        """Images [B, H, W, 3] float32, about [-1, 1] (not clipped), from scaled latents."""
        return self.decode_unscaled(latents / self.config.scaling_factor)

    def decode_unscaled(self, z: Array) -> Array:
        """Images from latents as the encoder gives them."""
        return self.decoder(z.astype(self.dtype)).astype(jnp.float32)

    def __call__(self, images: Array, key: Array) -> tuple[Array, Array, None]:
        """Reconstruction and code; None in the place of a posterior's log-variance."""
        del key
        z = self.encode_unscaled(images)
        return self.decode_unscaled(z), z, None
