"""T2I-Adapter (Mou et al. 2023): a small pyramid of the condition image alone.

Its features are added inside the U-Net's encoder. Named as in diffusers' ``T2IAdapter``.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from codi_jax.models.adapters.base import Adapter, Host
from codi_jax.models.configs import UNetConfig
from codi_jax.models.from_config import FromConfig
from codi_jax.models.resnet import conv1x1, conv3x3, pixel_unshuffle
from codi_jax.typing import Cond, Params, Settings, UserError

TYPES = ("full_adapter", "full_adapter_xl", "light_adapter")


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig(FromConfig):
    """diffusers' ``T2IAdapter``; the defaults are Stable Diffusion's.

    ``adapter_type``: ``full_adapter``, each feature half as large as the one before;
    ``full_adapter_xl`` for SDXL, where only the third is; ``light_adapter``, with narrow blocks
    and one feature more than ``channels``.
    """

    in_channels: int = 3
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    num_res_blocks: int = 2
    downscale_factor: int = 8
    adapter_type: str = "full_adapter"

    def __post_init__(self) -> None:
        if self.adapter_type not in TYPES:
            raise UserError(
                f"T2IAdapterConfig: adapter_type={self.adapter_type!r}; choose one of {TYPES}."
            )
        if self.adapter_type == "full_adapter_xl" and len({*self.channels[2:]}) > 1:
            raise UserError(
                f"T2IAdapterConfig: channels={self.channels} of a full_adapter_xl must be equal "
                "from the third on."
            )
        if self.light and any(c % 4 for c in self.channels):
            raise UserError(
                f"T2IAdapterConfig: channels={self.channels} of a light_adapter must be "
                "multiples of 4."
            )

    @property
    def light(self) -> bool:
        """Whether the blocks are narrow."""
        return self.adapter_type == "light_adapter"

    @property
    def blocks(self) -> tuple[tuple[int, bool], ...]:
        """(channels, whether it halves the size) of each feature, finest first."""
        if self.adapter_type == "full_adapter_xl":
            return tuple((width, i == 2) for i, width in enumerate(self.channels))
        widths = (*self.channels, self.channels[-1]) if self.light else self.channels
        return tuple((width, i > 0) for i, width in enumerate(widths))

    @property
    def downsampling(self) -> int:
        """Heights and widths of the condition image must be multiples of this."""
        return self.downscale_factor * 2 ** sum(half for _, half in self.blocks)


class _Resnet(nn.Module):
    """Two convolutions with a ReLU between, without norms; the second is 1x1 unless ``light``."""

    light: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        second = conv3x3 if self.light else conv1x1
        h = nn.relu(conv3x3(x.shape[-1], dtype=self.dtype, name="block1")(x))
        return x + second(x.shape[-1], dtype=self.dtype, name="block2")(h)


class _Block(nn.Module):
    """One level: halve, change the width, residual blocks; ``light`` ones at a quarter of it."""

    channels: int
    half: bool
    config: T2IAdapterConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width out_channels"]:
        light = self.config.light
        if self.half:
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
        inner = self.channels // 4 if light else self.channels
        if light or x.shape[-1] != inner:
            x = conv1x1(inner, dtype=self.dtype, name="in_conv")(x)
        for i in range(self.config.num_res_blocks):
            x = _Resnet(light, self.dtype, name=f"resnets_{i}")(x)
        if light:
            zero = nn.initializers.zeros_init()
            x = conv1x1(self.channels, kernel_init=zero, dtype=self.dtype, name="out_conv")(x)
        return x


class _Pyramid(nn.Module):
    """The levels, each on the output of the one before.

    A new adapter's features are exactly zero, so that the adapted model starts as the prior,
    and still it learns. A full adapter's blocks add to what they are given, so no zero
    convolution at their end would silence them; but as all biases start at zero, zero goes
    through them as zero. Hence ``conv_in`` starts at zero: its gradient comes through the
    blocks' identities, and from the second step on all others see a signal. A light adapter's
    blocks end in a plain convolution, which starts at zero as ControlNet's do; as each block
    reads the one before, they wake up one step after another.
    """

    config: T2IAdapterConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        c = self.config
        if not c.light:
            zero = nn.initializers.zeros_init()
            x = conv3x3(c.channels[0], kernel_init=zero, dtype=self.dtype, name="conv_in")(x)
        features = []
        for i, (channels, half) in enumerate(c.blocks):
            x = _Block(channels, half, c, self.dtype, name=f"body_{i}")(x)
            features.append(x)
        return tuple(features)


class T2IAdapter(nn.Module):
    """Condition image [B, H, W, in_channels] in [-1, 1] -> features, finest first.

    Feature i is [B, H / f, W / f, channels], f being ``downscale_factor`` times two for each
    block up to i that halves.

    Raises:
        UserError: another number of channels, or a size that is no multiple of
            ``config.downsampling``.
    """

    config: T2IAdapterConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        c = self.config
        _, h, w, channels = image.shape
        if channels != c.in_channels or h % c.downsampling or w % c.downsampling:
            raise UserError(
                f"the condition image is {h}x{w} with {channels} channels; this T2I-Adapter "
                f"reads multiples of {c.downsampling} with {c.in_channels} channels."
            )
        x = (image.astype(self.dtype) + 1) / 2  # diffusers' adapters read [0, 1]
        return _Pyramid(c, self.dtype, name="adapter")(pixel_unshuffle(x, c.downscale_factor))


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2I(Adapter[tuple[Float[Array, "batch _ _ _"], ...]]):
    """All its features are a function of the image alone, computed once."""

    config: T2IAdapterConfig = dataclasses.field(default_factory=T2IAdapterConfig)

    kind: ClassVar[str] = "t2i"
    class_name: ClassVar[str | None] = "T2IAdapter"
    reads: ClassVar[str] = "image"
    pipeline: ClassVar[str | None] = "StableDiffusionAdapterPipeline"

    @classmethod
    def new(
        cls, unet: UNetConfig, downsampling: int, *, image_channels: int, extra_latents: int
    ) -> Self:
        """See the base class."""
        # Without attention in the first level its feature comes after the downsampler, as in SDXL.
        late = unet.down_block_types[0] == "DownBlock2D"
        return cls(
            config=T2IAdapterConfig(
                in_channels=image_channels,
                channels=unet.block_out_channels,
                downscale_factor=2 * downsampling if late else downsampling,
                adapter_type="full_adapter_xl" if late else "full_adapter",
            )
        )

    @classmethod
    def from_config(cls, config: Settings, unet: UNetConfig, directory: Path) -> Self:
        """See the base class."""
        return cls(config=T2IAdapterConfig.from_config(dict(config)))

    def to_config(self, unet: UNetConfig) -> dict[str, object]:
        """See the base class."""
        return self.config.to_config()

    def fitted(self, unet: UNetConfig) -> Self:
        """See the base class."""
        widths = unet.block_out_channels
        given = tuple(width for width, _ in self.config.blocks)
        # One feature more than the U-Net has levels is added to the mid block.
        expected = (*widths, widths[-1]) if len(given) > len(widths) else widths
        self._check_fit("channels", given, expected)
        return self

    def init(self, host: Host, key: Key[Array, ""], unet: Params) -> Params:
        """See the base class: its features start at zero."""
        side = self.config.downsampling
        image = jax.ShapeDtypeStruct((1, side, side, self.config.in_channels), jnp.float32)
        return T2IAdapter(self.config, host.dtype).lazy_init(key, image)["params"]

    def condition(
        self, host: Host, params: Params, cond: Cond
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """All its features, finest first."""
        return T2IAdapter(self.config, host.dtype).apply({"params": params}, self._needed(cond))

    def residuals(
        self, own: tuple[Float[Array, "batch _ _ _"], ...]
    ) -> Sequence[Float[Array, "batch _ _ _"]]:
        """See the base class."""
        return own
