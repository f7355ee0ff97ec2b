"""The architecture of diffusers' ``AutoencoderDC``, in its config keys."""

import dataclasses
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from codi_jax.models.configs import FromConfig
from codi_jax.typing import UserError

BLOCKS = ("ResBlock",)
NORMS = ("rms_norm",)
ACTIVATIONS = ("silu", "relu")
DOWNSAMPLERS = ("pixel_unshuffle", "conv", "Conv")
UPSAMPLERS = ("pixel_shuffle", "interpolate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderDCConfig(FromConfig):
    """diffusers' ``AutoencoderDC`` (Chen et al. 2024) of residual blocks.

    ``latents = z * scaling_factor`` are what the diffusion model sees; there is no shift. Where the
    first of ``layers_per_block`` is 0, the finest level is one convolution that halves (or doubles)
    the sides, and its width is not used. ``attention_head_dim`` and ``*_qkv_multiscales`` belong to
    blocks that are not implemented; they are kept because diffusers writes them.
    """

    CLASS: ClassVar[str] = "AutoencoderDC"

    in_channels: int = 3
    latent_channels: int = 32
    attention_head_dim: int = 32
    encoder_block_types: str | tuple[str, ...] = "ResBlock"
    decoder_block_types: str | tuple[str, ...] = "ResBlock"
    encoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    decoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    encoder_layers_per_block: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
    decoder_layers_per_block: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    encoder_qkv_multiscales: tuple[tuple[int, ...], ...] | None = None
    decoder_qkv_multiscales: tuple[tuple[int, ...], ...] | None = None
    upsample_block_type: str = "pixel_shuffle"
    downsample_block_type: str = "pixel_unshuffle"
    decoder_norm_types: str | tuple[str, ...] = "rms_norm"
    decoder_act_fns: str | tuple[str, ...] = "silu"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_conv_act_fn: str = "relu"
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        levels = len(self.encoder_block_out_channels)
        for half in ("encoder", "decoder"):
            key = f"{half}_qkv_multiscales"
            value = getattr(self, key) or ((),) * levels
            object.__setattr__(self, key, tuple(tuple(item) for item in value))
            self._check_levels(half, levels)
        self._check_choices("encoder_block_types", BLOCKS)
        self._check_choices("decoder_block_types", BLOCKS)
        self._check_choices("decoder_norm_types", NORMS)
        self._check_choices("decoder_act_fns", ACTIVATIONS)
        self._check_choices("decoder_conv_act_fn", ACTIVATIONS)
        self._check_choices("downsample_block_type", DOWNSAMPLERS)
        self._check_choices("upsample_block_type", UPSAMPLERS)
        self._check_widths()

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"AutoencoderDC: {what}")

    def _check_levels(self, half: str, levels: int) -> None:
        """As many widths and numbers of layers as levels, and no empty level between others."""
        for key in ("block_out_channels", "layers_per_block"):
            found = len(getattr(self, f"{half}_{key}"))
            if found != levels:
                self._refuse(f"{found} {half}_{key} for {levels} levels; give {levels}.")
        layers = getattr(self, f"{half}_layers_per_block")
        if 0 in layers[1:-1] or (levels == 1 and layers[0] == 0):
            self._refuse(
                f"{half}_layers_per_block={layers}: only the first level of several, or the last, "
                "can be without layers."
            )

    def _check_choices(self, key: str, known: tuple[str, ...]) -> None:
        value = getattr(self, key)
        values = (value,) if isinstance(value, str) else value
        bad = [item for item in values if item not in known]
        if bad:
            self._refuse(f"{key}={value!r}: {bad[0]!r} is not implemented; choose from {known}.")
        levels = len(self.encoder_block_out_channels)
        if not isinstance(value, str) and len(value) != levels:
            self._refuse(f"{len(value)} {key} for {levels} levels; give {levels}, or one word.")

    def _check_widths(self) -> None:
        """What the shuffles and the shortcuts around them divide must be divisible."""
        first = self.entry_width("encoder")
        if self.encoder_layers_per_block[0] == 0 and self.unshuffles and first % 4:
            self._refuse(f"encoder_block_out_channels: {first} is no multiple of 4.")
        for half, widths in (
            ("encoder", self.encoder_block_out_channels),
            ("decoder", self.decoder_block_out_channels),
        ):
            skipped = int(getattr(self, f"{half}_layers_per_block")[0] == 0)
            for fine, coarse in zip(widths[skipped:], widths[skipped + 1 :], strict=False):
                whole = 4 * fine % coarse == 0
                if half == "encoder" and self.unshuffles:
                    whole &= coarse % 4 == 0
                if not whole:
                    self._refuse(
                        f"{half}_block_out_channels={widths}: the shortcut between {fine} and "
                        f"{coarse} channels needs 4 * {fine} to be a multiple of {coarse}, and "
                        "pixel_unshuffle a multiple of 4."
                    )
        for shortcut, width in (
            (self.encoder_out_shortcut, self.encoder_block_out_channels[-1]),
            (self.decoder_in_shortcut, self.decoder_block_out_channels[-1]),
        ):
            if shortcut and width % self.latent_channels:
                self._refuse(
                    f"latent_channels={self.latent_channels} does not divide the {width} channels "
                    "of the last level, which the shortcut there needs: set encoder_out_shortcut "
                    "and decoder_in_shortcut to False, or another width."
                )

    @property
    def unshuffles(self) -> bool:
        """Whether sides are halved by pixel unshuffling, and not by a stride."""
        return self.downsample_block_type == "pixel_unshuffle"

    def entry_width(self, half: str) -> int:
        """Channels of the finest features of "encoder" or "decoder"."""
        widths = getattr(self, f"{half}_block_out_channels")
        return widths[0] if getattr(self, f"{half}_layers_per_block")[0] else widths[1]

    def activation(self, level: int) -> str:
        """The decoder's activation at a level (0 is the finest)."""
        value = self.decoder_act_fns
        return value if isinstance(value, str) else value[level]

    @property
    def downsampling(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.encoder_block_out_channels) - 1)

    @property
    def reach(self) -> int:
        """Latents beyond which nothing changes a latent, or the pixels of one.

        A convolution at level i looks ``2**i`` pixels far, and a block has two.
        """
        levels = len(self.encoder_block_out_channels)
        layers = zip(self.encoder_layers_per_block, self.decoder_layers_per_block, strict=True)
        pixels = sum(2 * max(pair) * 2**level for level, pair in enumerate(layers))
        pixels += sum(2**level for level in range(levels)) + 2 ** (levels - 1)  # between, and ends
        return -(-pixels // self.downsampling)

    def unit_sized(self, mean: np.float32, deviation: np.float32) -> Self:
        """With the scale that gives latents of this mean and deviation a mean square of 1."""
        scale = float((mean**2 + deviation**2) ** -0.5)
        return dataclasses.replace(self, scaling_factor=scale)

    def to_config(self) -> dict[str, object]:
        """The config dict, JSON-ready, keys as in diffusers."""
        config: dict[str, Any] = dict(super().to_config())
        for name in ("encoder_qkv_multiscales", "decoder_qkv_multiscales"):
            config[name] = [list(level) for level in config[name]]
        return config
