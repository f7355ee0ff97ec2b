"""Architectures, in diffusers' config keys (the content of ``config.json``)."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NoReturn, Self

import numpy as np

from codi_jax.models.from_config import FromConfig
from codi_jax.typing import UserError

#: Implemented block types: without attention, and with it.
DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
MID_BLOCKS = ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn")
UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(FromConfig):
    """What the encoders of U-Nets and of ControlNets share; the defaults are SD 1.5's.

    ``attention_head_dim`` is, by a historical slip of diffusers that is kept, the *number* of
    heads, per level or for all. ``cross_attention_dim=None`` leaves cross-attention out: the
    transformers then attend to the image alone and the network takes no text (PyTorch diffusers
    loads it if it has no transformers).
    ``addition_embed_type="text_time"`` is SDXL: a pooled text embedding and sizes ("time ids",
    each as ``addition_time_embed_dim`` features), together
    ``projection_class_embeddings_input_dim`` numbers, are added to the time embedding.
    ``time_cond_proj_dim``: features of the guidance scale, which such a U-Net also reads.
    ``upcast_attention`` changes nothing here, where attention's logits and softmax are always
    float32; it is kept because diffusers needs it to run SD 2.1 in float16.
    """

    in_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_head_dim: int | tuple[int, ...] = 8
    transformer_layers_per_block: int | tuple[int, ...] = 1
    cross_attention_dim: int | None = 768
    use_linear_projection: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None
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
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "resnet_skip_time_act": False,
        "resnet_out_scale_factor": 1.0,
        "cross_attention_norm": None,
        "attention_type": "default",
        "reverse_transformer_layers_per_block": None,
        "mid_block_only_cross_attention": None,
        "class_embeddings_concat": False,
        "addition_embed_type_num_heads": 64,
        "time_embedding_dim": None,
        "time_embedding_act_fn": None,
        "timestep_post_act": None,
    }

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """As the base class; a list of one number for all levels is that number."""
        values = dict(config)
        for key in ("layers_per_block", "cross_attention_dim"):
            value = values.get(key)
            if isinstance(value, list | tuple):
                if len({*map(repr, value)}) != 1:
                    raise UserError(
                        f"{cls.__name__}: {key}={value}: only one number for all levels is "
                        "implemented."
                    )
                values[key] = value[0]
        return super().from_config(values)

    def __post_init__(self) -> None:
        self._check_levels("down_block_types")
        self._check_levels("attention_head_dim")
        self._check_levels("transformer_layers_per_block")
        bad = [c for c in self.block_out_channels if c % self.norm_num_groups]
        if bad:
            self._refuse(f"norm_num_groups={self.norm_num_groups} does not divide {bad} channels.")
        self._check_blocks(DOWN_BLOCKS, dict(enumerate(self.down_block_types)))
        self._check_blocks(MID_BLOCKS, {len(self.block_out_channels) - 1: self.mid_block_type})
        kind, dims = self.addition_embed_type, (self.addition_time_embed_dim or 0, self.added_dim)
        if kind not in (None, "text_time") or (kind and not 0 < dims[0] < dims[1]):
            self._refuse(
                f"addition_embed_type={kind!r} with addition_time_embed_dim={dims[0]} and "
                f"projection_class_embeddings_input_dim={dims[1]}; only None, or 'text_time' with "
                "both dimensions, the second larger, is implemented."
            )

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"{type(self).__name__}: {what}")

    def _check_levels(self, key: str) -> None:
        """One item per level, or one number for all."""
        value, levels = getattr(self, key), len(self.block_out_channels)
        if isinstance(value, int):
            return
        if len(value) != levels:
            self._refuse(f"{len(value)} {key} for {levels} block_out_channels; give {levels}.")
        if not key.endswith("types") and not all(isinstance(item, int) for item in value):
            self._refuse(f"{key}={value}; give whole numbers.")

    def _check_blocks(self, known: tuple[str, ...], kinds: dict[int, str]) -> None:
        """Types of blocks, by level, are known, and their heads divide their width."""
        for level, kind in kinds.items():
            if kind not in known:
                self._refuse(f"block type {kind!r} is not implemented; choose from {known}.")
            width, heads = self.block_out_channels[level], self.heads(level)
            if kind == known[1] and (heads < 1 or width % heads):
                self._refuse(
                    f"attention_head_dim={self.attention_head_dim} (a number of heads) does not "
                    f"divide the {width} channels of level {level}."
                )

    @property
    def added_dim(self) -> int:
        """Width of what SDXL adds to the time embedding, before its projection; else 0."""
        return self.projection_class_embeddings_input_dim or 0

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled text embedding that SDXL's U-Nets read beside six sizes; else 0."""
        return self.added_dim - 6 * (self.addition_time_embed_dim or 0)

    @property
    def downsampling(self) -> int:
        """Latent heights and widths must be multiples of this."""
        return 2 ** (len(self.block_out_channels) - 1)

    def heads(self, level: int) -> int:
        """Attention heads at a level (0 is the finest)."""
        heads = self.attention_head_dim
        return heads if isinstance(heads, int) else heads[level]

    def transformer_layers(self, level: int) -> int:
        """Transformer blocks per attention layer at a level; the mid block has the last's."""
        layers = self.transformer_layers_per_block
        return layers if isinstance(layers, int) else layers[level]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(EncoderConfig):
    """diffusers' ``UNet2DConditionModel``; the defaults are Stable Diffusion 1.5's.

    ``sample_size``: latents' side that it was trained at, which diffusers' pipelines and ours make
    where no size is given. The network itself takes any.
    """

    sample_size: int | tuple[int, int] | None = None
    out_channels: int = 4
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_levels("up_block_types")
        self._check_blocks(UP_BLOCKS, dict(enumerate(reversed(self.up_block_types))))

    def to_config(self) -> dict[str, object]:
        """As diffusers has it, which takes "no text" per level only."""
        config = super().to_config()
        if self.cross_attention_dim is None:
            config["cross_attention_dim"] = [None] * len(self.block_out_channels)
        return config

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder alone: what an adapter copies."""
        names = [field.name for field in dataclasses.fields(EncoderConfig)]
        return EncoderConfig(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(FromConfig):
    """diffusers' ``AutoencoderKL``; the defaults are Stable Diffusion's.

    ``latents = (z - shift_factor) * scaling_factor`` are what the diffusion model sees.
    ``force_upcast`` changes nothing here; it is kept because it tells diffusers whether these
    weights overflow in float16.
    """

    CLASS: ClassVar[str] = "AutoencoderKL"

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
    force_upcast: bool = True

    FIXED = {
        "act_fn": "silu",
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
        bad = [c for c in self.block_out_channels if c % self.norm_num_groups]
        if bad:
            raise UserError(
                f"AutoencoderConfig: norm_num_groups={self.norm_num_groups} does not divide {bad} "
                "channels."
            )

    @property
    def reach(self) -> None:
        """Its group norms see the whole picture; compare ``AutoencoderDCConfig.reach``."""

    @property
    def downsampling(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)

    def unit_sized(self, mean: np.float32, deviation: np.float32) -> Self:
        """With the shift and scale that give latents of these moments mean 0 and deviation 1."""
        scale, shift = float(1.0 / deviation), float(mean)
        return dataclasses.replace(self, scaling_factor=scale, shift_factor=shift)
