"""The KL autoencoder of diffusers' ``AutoencoderKL`` (Rombach et al. 2022, section 3.1)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from codi_jax.models.attention import AutoencoderAttention
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.models.norm import GroupNorm
from codi_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv1x1, conv3x3
from codi_jax.typing import UserError

EPS = 1e-6


class _Level(nn.Module):
    """Residual blocks of one resolution, then a down- or upsampler."""

    channels: int
    layers: int
    groups: int
    resample: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width out_channels"]:
        for i in range(self.layers):
            x = ResnetBlock(self.channels, self.groups, EPS, self.dtype, name=f"resnets_{i}")(x)
        if self.resample == "down":
            x = Downsample(asymmetric=True, dtype=self.dtype, name="downsamplers_0")(x)
        if self.resample == "up":
            x = Upsample(dtype=self.dtype, name="upsamplers_0")(x)
        return x


class _Mid(nn.Module):
    groups: int
    attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        resnet = partial(ResnetBlock, x.shape[-1], self.groups, EPS, self.dtype)
        x = resnet(name="resnets_0")(x)
        if self.attention:
            x = AutoencoderAttention(self.groups, EPS, self.dtype, name="attentions_0")(x)
        return resnet(name="resnets_1")(x)


class _Encoder(nn.Module):
    config: AutoencoderConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch latent_height latent_width moments"]:
        c = self.config
        channels = c.block_out_channels
        x = conv3x3(channels[0], dtype=self.dtype, name="conv_in")(x)
        for i, width in enumerate(channels):
            resample = "down" if i < len(channels) - 1 else None
            x = _Level(
                width,
                c.layers_per_block,
                c.norm_num_groups,
                resample,
                self.dtype,
                name=f"down_blocks_{i}",
            )(x)
        x = _Mid(c.norm_num_groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        x = GroupNorm(c.norm_num_groups, epsilon=EPS, dtype=self.dtype, name="conv_norm_out")(x)
        return conv3x3(2 * c.latent_channels, dtype=self.dtype, name="conv_out")(nn.silu(x))


class _Decoder(nn.Module):
    config: AutoencoderConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, z: Float[Array, "batch latent_height latent_width channels"]
    ) -> Float[Array, "batch height width out_channels"]:
        c = self.config
        channels = c.block_out_channels[::-1]
        x = conv3x3(channels[0], dtype=self.dtype, name="conv_in")(z)
        x = _Mid(c.norm_num_groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        for i, width in enumerate(channels):
            resample = "up" if i < len(channels) - 1 else None
            x = _Level(
                width,
                c.layers_per_block + 1,
                c.norm_num_groups,
                resample,
                self.dtype,
                name=f"up_blocks_{i}",
            )(x)
        x = GroupNorm(c.norm_num_groups, epsilon=EPS, dtype=self.dtype, name="conv_norm_out")(x)
        return conv3x3(c.out_channels, dtype=self.dtype, name="conv_out")(nn.silu(x))


class AutoencoderKL(nn.Module):
    """Images [B, H, W, 3] in [-1, 1] <-> moments of latents [B, H/f, W/f, latent_channels]."""

    config: AutoencoderConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes both halves, named as diffusers names them."""
        c = self.config
        self.encoder = _Encoder(c, self.dtype)
        self.decoder = _Decoder(c, self.dtype)
        if c.use_quant_conv:
            self.quant_conv = conv1x1(2 * c.latent_channels, dtype=self.dtype)
        if c.use_post_quant_conv:
            self.post_quant_conv = conv1x1(c.latent_channels, dtype=self.dtype)

    def moments(
        self, images: Float[Array, "batch height width channels"]
    ) -> tuple[
        Float[Array, "batch latent_height latent_width latent_channels"],
        Float[Array, "batch latent_height latent_width latent_channels"],
    ]:
        """Mean and log-variance of q(z | image), float32, unscaled."""
        f = self.config.downsampling
        if images.shape[1] % f or images.shape[2] % f:
            raise UserError(
                f"images of {images.shape[1]}x{images.shape[2]} are no multiple of {f}; pad first."
            )
        h = self.encoder(images.astype(self.dtype))
        h = self.quant_conv(h) if self.config.use_quant_conv else h
        mean, logvar = jnp.split(h.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def encode_unscaled(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch latent_height latent_width latent_channels"]:
        """The mode of q(z | image), float32."""
        return self.moments(images)[0]

    def encode(
        self, images: Float[Array, "batch height width channels"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch latent_height latent_width latent_channels"]:
        """Latents as the diffusion model sees them: a sample with ``key``, else the mode."""
        mean, logvar = self.moments(images)
        if key is not None:
            mean = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        return (mean - (self.config.shift_factor or 0.0)) * self.config.scaling_factor

    def decode(
        self, latents: Float[Array, "batch latent_height latent_width channels"]
    ) -> Float[Array, "batch height width out_channels"]:
        """Images [B, H, W, 3] float32, about [-1, 1] (not clipped), from scaled latents."""
        return self.decode_unscaled(
            latents / self.config.scaling_factor + (self.config.shift_factor or 0.0)
        )

    def decode_unscaled(
        self, z: Float[Array, "batch latent_height latent_width channels"]
    ) -> Float[Array, "batch height width out_channels"]:
        """Images from latents as the encoder's moments give them."""
        z = z.astype(self.dtype)
        z = self.post_quant_conv(z) if self.config.use_post_quant_conv else z
        return self.decoder(z).astype(jnp.float32)

    def __call__(
        self, images: Float[Array, "batch height width channels"], key: Key[Array, ""]
    ) -> tuple[
        Float[Array, "batch height width out_channels"],
        Float[Array, "batch latent_height latent_width latent_channels"],
        Float[Array, "batch latent_height latent_width latent_channels"],
    ]:
        """Reconstruction from one sample of the posterior, with its mean and log-variance."""
        mean, logvar = self.moments(images)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        return self.decode_unscaled(z), mean, logvar
