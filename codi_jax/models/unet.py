"""The U-Net of diffusers' ``UNet2DConditionModel``, in two halves: encode and decode.

The halves are two modules over *one* flat parameter dict (their names are disjoint), so a
checkpoint is one file, and a copy of the encoder is the same module with other parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Real

from codi_jax.models.attention import Transformer2D
from codi_jax.models.configs import EncoderConfig, UNetConfig
from codi_jax.models.embeddings import NO_PROMPT, Prompt, time_embedding
from codi_jax.models.norm import GroupNorm
from codi_jax.models.remat import remat_block, remat_layer
from codi_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv3x3
from codi_jax.typing import UserError


class Features(NamedTuple):
    """What the decoder reads of the encoder.

    Attributes:
        skips: the outputs of ``conv_in`` and of every layer and downsampler, finest first.
        mid: the output of the mid block.
    """

    skips: tuple[Float[Array, "batch _ _ _"], ...]
    mid: Float[Array, "batch height width channels"]


class Block(nn.Module):
    """One level of the U-Net on the way down, on the way up (with skips), or the mid block."""

    config: EncoderConfig
    level: int
    layers: int
    attention: bool
    resample: str | None = None  # "down", "up" or None
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def _resnet(self, i: int) -> ResnetBlock:
        c = self.config
        channels = c.block_out_channels[self.level]
        layer = remat_layer(ResnetBlock, self.remat)
        return layer(channels, c.norm_num_groups, c.norm_eps, self.dtype, name=f"resnets_{i}")

    def _attend(
        self,
        i: int,
        x: Float[Array, "batch height width channels"],
        text: Float[Array, "batch tokens text_channels"] | None,
    ) -> Float[Array, "batch height width channels"]:
        c = self.config
        return remat_layer(Transformer2D, self.remat)(
            heads=c.heads(self.level),
            layers=c.transformer_layers(self.level),
            groups=c.norm_num_groups,
            linear_projection=c.use_linear_projection,
            cross_attention=c.cross_attention_dim is not None,
            dtype=self.dtype,
            name=f"attentions_{i}",
        )(x, text)


class DownBlock(Block):
    """Layers, then the downsampler; returns every intermediate as a skip.

    ``residual`` is a T2I-Adapter's feature. It is added where diffusers adds it: with attention
    to the last layer's output, before the downsampler; without attention after the downsampler.
    Either way the skip sees it.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        temb: Float[Array, "batch time_embed_dim"],
        text: Float[Array, "batch tokens text_channels"] | None,
        residual: Float[Array, "_ _ _ _"] | None = None,
    ) -> tuple[
        Float[Array, "batch new_height new_width out_channels"],
        tuple[Float[Array, "batch _ _ out_channels"], ...],
    ]:
        skips = []
        for i in range(self.layers):
            x = self._resnet(i)(x, temb)
            if self.attention:
                x = self._attend(i, x, text)
            skips.append(x)
        if self.attention:
            x = skips[-1] = add_residual(x, residual)
        if self.resample:
            x = Downsample(dtype=self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        if not self.attention:
            x = skips[-1] = add_residual(x, residual)
        return x, tuple(skips)


class UpBlock(Block):
    """Layers that each take one skip (the last first), then the upsampler."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        skips: tuple[Float[Array, "batch height width _"], ...],
        temb: Float[Array, "batch time_embed_dim"],
        text: Float[Array, "batch tokens text_channels"] | None,
    ) -> Float[Array, "batch new_height new_width out_channels"]:
        for i in range(self.layers):
            x = self._resnet(i)(jnp.concatenate([x, skips[-1 - i]], axis=-1), temb)
            if self.attention:
                x = self._attend(i, x, text)
        if self.resample:
            x = Upsample(dtype=self.dtype, name="upsamplers_0")(x)
        return x


class MidBlock(Block):
    """A residual block; with attention a transformer and a second residual block follow."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        temb: Float[Array, "batch time_embed_dim"],
        text: Float[Array, "batch tokens text_channels"] | None,
    ) -> Float[Array, "batch height width channels"]:
        x = self._resnet(0)(x, temb)
        for i in range(self.layers if self.attention else 0):
            x = self._resnet(i + 1)(self._attend(i, x, text), temb)
        return x


def add_residual(
    x: Float[Array, "batch height width channels"], residual: Float[Array, "_ _ _ _"] | None
) -> Float[Array, "batch height width channels"]:
    """``x`` with an adapter's feature. Raises UserError if the shapes differ."""
    if residual is None:
        return x
    if residual.shape != x.shape:
        raise UserError(
            f"the adapter's feature is {list(residual.shape)} where the U-Net's is "
            f"{list(x.shape)}: the condition image has another size than the latents, or the "
            "adapter's downscale_factor or adapter_type belongs to another model."
        )
    return x + residual.astype(x.dtype)


class UNetEncoder(nn.Module):
    """``conv_in``, time embedding, down blocks and mid block.

    Args of the call:
        x: [B, h, w, in_channels], h and w multiples of ``config.downsampling``.
        t: [B], time in grid steps.
        prompt: empty where the config has no text.
        hint: added to ``conv_in``'s output (ControlNet's condition), [B, h, w, C0].
        residuals: added inside the down blocks (a T2I-Adapter's features), one per level and
            perhaps one more for the mid block; shapes as the U-Net's features there.

    Returns:
        The features, and the time embedding [B, 4 C0] which the decoder also reads.
    """

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        t: Real[Array, " batch"],
        prompt: Prompt = NO_PROMPT,
        hint: Float[Array, "batch height width features"] | None = None,
        residuals: Sequence[Float[Array, "_ _ _ _"]] = (),
    ) -> tuple[Features, Float[Array, "batch time_embed_dim"]]:
        c = self.config
        self._check(x, prompt.text)
        down, mid = (remat_block(block, self.remat) for block in (DownBlock, MidBlock))
        temb = time_embedding(c, t, prompt, self.dtype)
        x = conv3x3(c.block_out_channels[0], dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        if hint is not None:
            x = x + hint
        text = None if prompt.text is None else prompt.text.astype(self.dtype)
        skips: tuple[Array, ...] = (x,)
        last = len(c.block_out_channels) - 1
        added = dict(enumerate(residuals))
        for level, kind in enumerate(c.down_block_types):
            x, new = down(
                config=c,
                level=level,
                layers=c.layers_per_block,
                attention=kind.startswith("CrossAttn"),
                resample="down" if level < last else None,
                dtype=self.dtype,
                remat=self.remat,
                name=f"down_blocks_{level}",
            )(x, temb, text, added.get(level))
            skips += new
        x = mid(
            config=c,
            level=last,
            layers=1,
            attention=c.mid_block_type == "UNetMidBlock2DCrossAttn",
            dtype=self.dtype,
            remat=self.remat,
            name="mid_block",
        )(x, temb, text)
        return Features(skips, add_residual(x, added.get(last + 1))), temb

    def _check(
        self,
        x: Float[Array, "batch height width channels"],
        text: Float[Array, "batch tokens text_channels"] | None,
    ) -> None:
        c = self.config
        if x.shape[-1] != c.in_channels:
            raise UserError(
                f"the U-Net reads {c.in_channels} channels but was given {x.shape[-1]}: "
                "its autoencoder belongs to another model."
            )
        if x.shape[1] % c.downsampling or x.shape[2] % c.downsampling:
            raise UserError(
                f"latents of {x.shape[1]}x{x.shape[2]} are no multiple of {c.downsampling}; "
                "pad the image first."
            )
        if (text is None) != (c.cross_attention_dim is None):
            wants = "needs" if c.cross_attention_dim else "takes no"
            raise UserError(f"this U-Net {wants} text embeddings.")
        if text is not None and text.shape[-1] != c.cross_attention_dim:
            raise UserError(
                f"text embeddings of {text.shape[-1]} features, but this U-Net reads "
                f"{c.cross_attention_dim}: the text encoder belongs to another model."
            )


class UNetDecoder(nn.Module):
    """Up blocks and output convolution: features -> [B, h, w, out_channels] float32."""

    config: UNetConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        features: Features,
        temb: Float[Array, "batch time_embed_dim"],
        text: Float[Array, "batch tokens text_channels"] | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        c = self.config
        up = remat_block(UpBlock, self.remat)
        x, skips = features.mid, features.skips
        if text is not None:
            text = text.astype(self.dtype)
        levels = len(c.block_out_channels)
        for i, kind in enumerate(c.up_block_types):
            layers = c.layers_per_block + 1
            x = up(
                config=c,
                level=levels - 1 - i,
                layers=layers,
                attention=kind.startswith("CrossAttn"),
                resample="up" if i < levels - 1 else None,
                dtype=self.dtype,
                remat=self.remat,
                name=f"up_blocks_{i}",
            )(x, skips[-layers:], temb, text)
            skips = skips[:-layers]
        norm = GroupNorm(
            c.norm_num_groups, epsilon=c.norm_eps, dtype=self.dtype, name="conv_norm_out"
        )
        x = nn.silu(norm(x))
        # The output feeds sums with z_t of very different size: keep it in float32.
        x = conv3x3(c.out_channels, dtype=self.dtype, name="conv_out")(x)
        return x.astype(jnp.float32)
