"""ControlNet (Zhang & Agrawala 2023): a copy of the U-Net's encoder that also reads an image.

Named as in diffusers' ``ControlNetModel``.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from codi_jax.models.adapters.base import Adapter, Host, Inputs
from codi_jax.models.adapters.encoder_copy import encoder_of, true_copy
from codi_jax.models.configs import EncoderConfig, FromConfig, UNetConfig
from codi_jax.models.remat import remat_pyramid
from codi_jax.models.resnet import conv3x3
from codi_jax.models.unet import Features, UNetEncoder
from codi_jax.typing import Cond, Params, Settings, UserError

#: What a ControlNet and its U-Net must agree on: inputs, and the shapes of the features.
SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")

_zero_conv = partial(
    nn.Conv, kernel_init=nn.initializers.zeros_init(), bias_init=nn.initializers.zeros_init()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig(FromConfig):
    """diffusers' ``ControlNetModel``: an encoder, and what embeds the condition image.

    ``encoder=None`` means the encoder of the U-Net that it is used with.
    """

    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    controlnet_conditioning_channel_order: str = "rgb"
    global_pool_conditions: bool = False
    encoder: EncoderConfig | None = None

    def __post_init__(self) -> None:
        if self.controlnet_conditioning_channel_order not in ("rgb", "bgr"):
            raise UserError(
                "ControlNetConfig: controlnet_conditioning_channel_order="
                f"{self.controlnet_conditioning_channel_order!r}; choose 'rgb' or 'bgr'."
            )

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """As the base class; the encoder's keys may be left out together."""
        own = {field.name for field in dataclasses.fields(cls)} - {"encoder"}
        encoder = EncoderConfig.from_config({k: v for k, v in config.items() if k not in own})
        values = super().from_config({k: v for k, v in config.items() if k in own})
        return dataclasses.replace(
            values, encoder=encoder if "block_out_channels" in config else None
        )

    def to_config(self) -> dict[str, object]:
        """As diffusers has it: the keys of the encoder beside the others."""
        own = super().to_config()
        del own["encoder"]
        encoder = self.encoder.to_config() if self.encoder else {}
        encoder.pop("time_cond_proj_dim", None)  # diffusers' ControlNets do not know the key
        return {**encoder, **own}

    @property
    def downsampling(self) -> int:
        """Pixels of the condition image per latent, along each side."""
        return 2 ** (len(self.conditioning_embedding_out_channels) - 1)


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
    remat: str = "none"

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
        pyramid = remat_pyramid(_Pyramid, self.remat)
        return pyramid(c, self.channels, self.dtype, name="controlnet_cond_embedding")(hint)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNet(Adapter[Float[Array, "batch height width channels"]]):
    """Its encoder reads z_t, t, the prompt and the embedded image, and runs in every step.

    What it gives is added to the U-Net's features. In diffusers, a ControlNet reads no guidance
    scale.
    """

    config: ControlNetConfig = dataclasses.field(default_factory=ControlNetConfig)

    kind: ClassVar[str] = "controlnet"
    class_name: ClassVar[str | None] = "ControlNetModel"
    folder: ClassVar[str] = "controlnet"
    reads: ClassVar[str] = "image"
    pipeline: ClassVar[str | None] = "StableDiffusionControlNetPipeline"

    @classmethod
    def new(
        cls, unet: UNetConfig, downsampling: int, *, image_channels: int, extra_latents: int
    ) -> Self:
        """See the base class."""
        levels = downsampling.bit_length()  # of the pyramid: one more than it halves
        hint = ControlNetConfig().conditioning_embedding_out_channels[-levels:]
        return cls(
            config=ControlNetConfig(
                conditioning_channels=image_channels, conditioning_embedding_out_channels=hint
            )
        )

    @classmethod
    def from_config(cls, config: Settings, unet: UNetConfig, directory: Path) -> Self:
        """See the base class."""
        return cls(config=ControlNetConfig.from_config(dict(config)))

    def to_config(self, unet: UNetConfig) -> dict[str, object]:
        """See the base class."""
        return self.config.to_config()

    def fitted(self, unet: UNetConfig) -> Self:
        """See the base class; from here on the config describes the whole of it."""
        encoder = self._encoder_config(unet)
        for key in SHARED:
            self._check_fit(key, getattr(encoder, key), getattr(unet, key))
        config = dataclasses.replace(self.config, encoder=encoder)
        return dataclasses.replace(self, config=config)

    def init(self, host: Host, key: Key[Array, ""], unet: Params) -> Params:
        """See the base class: zero convolutions make it change nothing yet."""
        z_t, t, prompt = host.example()
        encoder = UNetEncoder(self._encoder_config(host.config), host.dtype)
        if self._starts_as_copy(host):
            params = _copy(host, unet)
        else:
            params = encoder.lazy_init(key, z_t, t, prompt)["params"]
        c = self.config
        height, width = (side * c.downsampling for side in z_t.shape[1:3])
        image = jax.ShapeDtypeStruct((1, height, width, c.conditioning_channels), jnp.float32)
        head = self._embedding(host).lazy_init(key, image)["params"]
        features, _ = jax.eval_shape(encoder.apply, {"params": params}, z_t, t, prompt)
        return {**params, **head, **self._zero_convs(host).lazy_init(key, features)["params"]}

    def copy_encoder(self, host: Host, params: Params, unet: Params) -> Params:
        """See the base class."""
        if not self._starts_as_copy(host):
            raise UserError(
                "this ControlNet's encoder differs from the U-Net's and cannot start as its "
                "copy: load its weights, or leave the encoder's keys out of its config."
            )
        return {**params, **_copy(host, unet)}

    def _starts_as_copy(self, host: Host) -> bool:
        return self._encoder_config(host.config) == _copied(host.config)

    def condition(
        self, host: Host, params: Params, cond: Cond
    ) -> Float[Array, "batch height width channels"]:
        """The embedded image."""
        return self._embedding(host).apply({"params": params}, self._needed(cond))

    def adapt(
        self,
        host: Host,
        params: Params,
        features: Features,
        own: Float[Array, "batch height width channels"],
        inputs: Inputs,
    ) -> Features:
        """See the base class."""
        z_t, t, prompt = inputs
        if own.shape[:3] != z_t.shape[:3]:
            raise UserError(
                f"the embedded condition image is {list(own.shape[:3])} but z_t is "
                f"{list(z_t.shape[:3])} (batch, height, width): this ControlNet needs images "
                f"{self.config.downsampling} times as large as the latents."
            )
        variables = {"params": params}
        encoder = host.encoder(self._encoder_config(host.config))
        control, _ = encoder.apply(variables, z_t, t, prompt, own)
        return jax.tree.map(jnp.add, features, self._zero_convs(host).apply(variables, control))

    def _encoder_config(self, unet: UNetConfig) -> EncoderConfig:
        return self.config.encoder or _copied(unet)

    def _embedding(self, host: Host) -> HintEmbedding:
        channels = host.config.block_out_channels[0]
        return HintEmbedding(self.config, channels, host.dtype, host.remat)

    def _zero_convs(self, host: Host) -> ZeroConvs:
        return ZeroConvs(self.config.global_pool_conditions, host.dtype)


def _copied(unet: UNetConfig) -> EncoderConfig:
    """The encoder of a ControlNet that starts as a copy of the U-Net's."""
    return dataclasses.replace(unet.encoder, time_cond_proj_dim=None)


def _copy(host: Host, unet: Params) -> Params:
    copied = encoder_of(host.config, unet)
    time = copied["time_embedding"]
    copied["time_embedding"] = {k: v for k, v in time.items() if k != "cond_proj"}
    return true_copy(copied)
