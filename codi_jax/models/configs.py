"""Architectures, in diffusers' config keys (the content of ``config.json``)."""

import dataclasses
from typing import Any, Self

from codi_jax.typing import UserError

#: Keys of diffusers' files that say nothing about the computation.
IGNORED = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size"}


class FromConfig:
    """Construction from a diffusers config dict, and back."""

    #: diffusers keys that these networks implement at one value only.
    FIXED: dict[str, Any] = {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build from the content of ``config.json``.

        Raises:
            UserError: a key is unknown, or has a value that is not implemented.
        """
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        kept: dict[str, Any] = {}
        for key, value in config.items():
            if key in names:
                kept[key] = tuple(value) if isinstance(value, list) else value
            elif key in IGNORED or (key in cls.FIXED and value == cls.FIXED[key]):
                continue
            elif key in cls.FIXED:
                raise UserError(
                    f"{cls.__name__}: {key}={value!r} is not supported (only {cls.FIXED[key]!r}); "
                    "use a checkpoint of the Stable Diffusion 1.x or 2.x family."
                )
            else:
                raise UserError(
                    f"{cls.__name__}: unknown key {key!r} (value {value!r}) in the model's config; "
                    "is this a checkpoint of another architecture?"
                )
        return cls(**kept)

    def to_config(self) -> dict[str, Any]:
        """The config dict, JSON-ready, keys as in diffusers."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(FromConfig):
    """diffusers' ``UNet2DConditionModel``; the defaults are Stable Diffusion 1.5's.

    ``attention_head_dim`` is, by a historical slip of diffusers that is kept, the *number* of
    heads, per level or for all. ``cross_attention_dim=None`` leaves cross-attention out: the
    transformers then attend to the image alone and the network takes no text.
    ``upcast_attention`` changes nothing here, where attention's logits and softmax are always
    float32; it is kept because diffusers needs it to run SD 2.1 in float16.
    """

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_head_dim: int | tuple[int, ...] = 8
    transformer_layers_per_block: int | tuple[int, ...] = 1
    cross_attention_dim: int | None = 768
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    upcast_attention: bool | None = False

    FIXED = {
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "dropout": 0.0,
        "only_cross_attention": False,
        "dual_cross_attention": False,
        "num_attention_heads": None,
        "class_embed_type": None,
        "num_class_embeds": None,
        "addition_embed_type": None,
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "resnet_skip_time_act": False,
        "resnet_out_scale_factor": 1.0,
        "time_cond_proj_dim": None,
        "cross_attention_norm": None,
        "attention_type": "default",
        "reverse_transformer_layers_per_block": None,
        "mid_block_only_cross_attention": None,
        "class_embeddings_concat": False,
        "projection_class_embeddings_input_dim": None,
        "addition_time_embed_dim": None,
        "addition_embed_type_num_heads": 64,
        "time_embedding_dim": None,
        "time_embedding_act_fn": None,
        "timestep_post_act": None,
    }

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == levels:
            raise UserError(
                f"UNetConfig: {len(self.down_block_types)} down_block_types and "
                f"{len(self.up_block_types)} up_block_types for {levels} block_out_channels; "
                "give one of each per level."
            )
        known = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
        known |= {"UNetMidBlock2D", "UNetMidBlock2DCrossAttn"}
        used = {*self.down_block_types, *self.up_block_types, self.mid_block_type}
        if used - known:
            raise UserError(
                f"UNetConfig: block types {sorted(used - known)} are not implemented; "
                f"choose from {sorted(known)}."
            )
        bad = [c for c in self.block_out_channels if c % self.norm_num_groups]
        if bad:
            raise UserError(
                f"UNetConfig: block_out_channels {bad} are no multiples of "
                f"norm_num_groups={self.norm_num_groups}."
            )

    @property
    def downsampling(self) -> int:
        """Latent heights and widths must be multiples of this."""
        return 2 ** (len(self.block_out_channels) - 1)

    def heads(self, level: int) -> int:
        """Attention heads at a level (0 is the finest)."""
        return _per_level(self.attention_head_dim, level)

    def transformer_layers(self, level: int) -> int:
        """Transformer blocks per attention layer at a level."""
        return _per_level(self.transformer_layers_per_block, level)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(FromConfig):
    """diffusers' ``AutoencoderKL``; the defaults are Stable Diffusion's.

    ``latents = (z - shift_factor) * scaling_factor`` are what the diffusion model sees.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    down_block_types: tuple[str, ...] | None = None
    up_block_types: tuple[str, ...] | None = None

    FIXED = {
        "act_fn": "silu",
        "force_upcast": True,
        "latents_mean": None,
        "latents_std": None,
    }

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for key, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            value = getattr(self, key) or (kind,) * levels
            if value != (kind,) * levels:
                raise UserError(f"AutoencoderConfig: {key}={value}; only {kind} is implemented.")
            object.__setattr__(self, key, value)

    @property
    def downsampling(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig(FromConfig):
    """What diffusers' ``ControlNetModel`` adds to the encoder that it copies."""

    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)


def _per_level(value: int | tuple[int, ...], level: int) -> int:
    return value if isinstance(value, int) else value[level]
