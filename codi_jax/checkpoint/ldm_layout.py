"""Stable Diffusion's original layout, in diffusers' terms: names, and configs from the shapes.

The layout is that of CompVis' latent-diffusion (Rombach et al. 2022, arXiv:2112.10752) and of
Stability AI's repositories: one file with

=========================== ==========================================================
model.diffusion_model.      the U-Net: flat lists of blocks, ``input_blocks.<n>.<0, 1>``
model_ema.                  its running average, if kept: names without dots
first_stage_model.          the autoencoder
cond_stage_model.           the text encoder: CLIP ViT-L (1.x) or OpenCLIP ViT-H (2.x)
conditioner.embedders.0, .1 the text encoders of SDXL: CLIP ViT-L, OpenCLIP ViT-bigG
=========================== ==========================================================
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.checkpoint.names import OLD_ATTENTION
from codi_jax.typing import UserError

#: Channels of an attention head in the text encoders, and in the U-Nets since 2.0.
HEAD = 64
#: Heads at every level of the U-Net in 1.x. The weights' shapes do not tell either of the two.
_HEADS = 8
#: On a tensor that was read.
Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a tensor of diffusers' format comes from.

    Attributes:
        name: the tensor in the file.
        rows: (first, end) of its first axis, if only these.
        transform: on the array that was read.
    """

    name: str
    rows: tuple[int, int] | None = None
    transform: Transform | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """One model: the content of its ``config.json``, and ``{diffusers tensor name: source}``."""

    config: dict[str, Any]
    tensors: dict[str, Source]


@dataclasses.dataclass
class Section:
    """The tensors of one model in the file.

    Attributes:
        file: for messages.
        prefix: of the names in the file, for messages.
        names: ``{name within the model: name in the file}``.
        shapes: by name in the file.
        used: names within the model that have become part of something.
    """

    file: Path
    prefix: str
    names: dict[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    used: set[str] = dataclasses.field(default_factory=set)

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises UserError if the file lacks the tensor."""
        full = self.names.get(name, f"{self.prefix}{name}")
        if full not in self.shapes:
            raise UserError(
                f"{self.file} lacks the tensor {full}: it is incomplete or no Stable Diffusion "
                "checkpoint. Get the file again."
            )
        return self.shapes[full]

    def source(
        self, name: str, rows: tuple[int, int] | None = None, transform: Transform | None = None
    ) -> Source:
        """Where a tensor comes from, which is then counted as used; see :class:`Source`."""
        self.shape(name)
        self.used.add(name)
        return Source(self.names[name], rows, transform)

    def highest(self, pattern: str) -> int:
        """Of the numbers that the pattern's group matches at the start of a name; -1 if none."""
        matches = (re.match(pattern, name) for name in self.names)
        return max((int(match[1]) for match in matches if match), default=-1)


_UNET_MODULES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET_MODULES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _unet_module(module: str, layers: int) -> str | None:
    """``input_blocks.4.1.proj_in`` -> ``down_blocks.1.attentions.0.proj_in``; None if unknown."""
    if module in _UNET_MODULES:
        return _UNET_MODULES[module]
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.*)", module)
    if match:
        down = match[1] == "input_blocks"
        # Each level is so many pairs of resnet and attention; down, the sampler is a block too.
        level, i = divmod(int(match[2]) - down, layers + 1)
        where, slot, rest = f"{'down' if down else 'up'}_blocks.{level}", int(match[3]), match[4]
        if down and slot == 0 and rest == "op":
            return f"{where}.downsamplers.0.conv"
        if not down and slot in (1, 2) and rest == "conv":
            return f"{where}.upsamplers.0.conv"
    else:
        match = re.fullmatch(r"middle_block\.([012])\.(.*)", module)
        if not match:
            return None
        where, slot, rest = "mid_block", int(match[1]) % 2, match[2]
        i = int(match[1]) // 2
    if slot == 0:
        return f"{where}.resnets.{i}.{_RESNET_MODULES[rest]}" if rest in _RESNET_MODULES else None
    return f"{where}.attentions.{i}.{rest}" if slot == 1 else None


def unet_part(section: Section, pooled: int | None = None) -> Part:
    """The U-Net; ``sample_size``, which the weights do not tell, is left to the caller.

    ``pooled`` is the size of SDXL's text embedding; with it the network is conditioned on that
    and on six numbers about the picture.
    """
    samplers = [n for n in section.names if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", n)]
    blocks = [int(name.split(".")[1]) for name in samplers]
    layers = min(blocks, default=section.highest(r"input_blocks\.(\d+)\.") + 1) - 1
    tensors = {}
    for name in section.names:
        module, _, leaf = name.rpartition(".")
        found = _unet_module(module, layers)
        if found is not None and (pooled or not found.startswith("add_embedding")):
            tensors[f"{found}.{leaf}"] = section.source(name)
    config = _unet_config(section, len(blocks) + 1, layers)
    if pooled:
        width = section.shape("label_emb.0.0.weight")[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (width - pooled) // 6,
            "projection_class_embeddings_input_dim": width,
        }
    return Part(config, tensors)


def _unet_config(section: Section, levels: int, layers: int) -> dict[str, object]:
    def depth(block: str) -> int:
        return 1 + section.highest(rf"{re.escape(block)}\.1\.transformer_blocks\.(\d+)\.")

    def types(blocks: list[str], kind: str) -> list[str]:
        return [f"CrossAttn{kind}" if depth(block) else kind for block in blocks]

    down = [f"input_blocks.{1 + i * (layers + 1)}" for i in range(levels)]
    up = [f"output_blocks.{i * (layers + 1)}" for i in range(levels)]
    channels = [section.shape(f"{block}.0.out_layers.3.weight")[0] for block in down]
    linear = len(section.shape("middle_block.1.proj_in.weight")) == 2
    middle = 1 + section.highest(r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    # A last level without attention leaves its entry to the middle, which diffusers reads there.
    depths = [depth(block) or 1 for block in down[:-1]] + [middle]
    if depth(down[-1]) not in (0, middle):
        raise UserError(
            f"{section.file}: the U-Net's last level has {depth(down[-1])} transformer blocks and "
            f"its middle {middle}; only equal numbers are supported."
        )
    unit = HEAD if linear else _HEADS
    if any(c % unit for c in channels):
        raise UserError(
            f"{section.file}: the U-Net has {channels} channels, not all multiples of {unit}: "
            "no Stable Diffusion model."
        )
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": section.shape("input_blocks.0.0.weight")[1],
        "out_channels": section.shape("out.2.weight")[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": types(down, "DownBlock2D"),
        "up_block_types": types(up, "UpBlock2D"),
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else depths,
        "attention_head_dim": [c // HEAD for c in channels] if linear else _HEADS,
        "cross_attention_dim": section.shape(
            "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
        )[1],
        "use_linear_projection": linear,
    }


_VAE_MODULES = [
    (r"((?:encoder|decoder)\.conv_(?:in|out)|(?:post_)?quant_conv)", r"\1"),
    (r"(encoder|decoder)\.norm_out", r"\1.conv_norm_out"),
    (r"encoder\.down\.(\d+)\.downsample\.conv", r"encoder.down_blocks.\1.downsamplers.0.conv"),
    (r"decoder\.up\.(\d+)\.upsample\.conv", r"decoder.up_blocks.\1.upsamplers.0.conv"),
    (r"(encoder)\.down\.(\d+)\.block\.(\d+)\.(.*)", r"\1.down_blocks.\2.resnets.\3.\4"),
    (r"(decoder)\.up\.(\d+)\.block\.(\d+)\.(.*)", r"\1.up_blocks.\2.resnets.\3.\4"),
    (r"(encoder|decoder)\.mid\.block_1\.(.*)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.mid\.block_2\.(.*)", r"\1.mid_block.resnets.1.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.(.*)", r"\1.mid_block.attentions.0.\2"),
]
# diffusers' own conversion to this layout leaves diffusers' names of the attention, new or old.
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    **OLD_ATTENTION,
}


def _to_linear(array: np.ndarray) -> np.ndarray:
    """A convolution's [out, in, 1, 1] -> [out, in]."""
    return array.reshape(array.shape[:2])


def _vae_module(module: str, levels: int) -> str | None:
    for pattern, replacement in _VAE_MODULES:
        if re.fullmatch(pattern, module):
            name = re.sub(pattern, replacement, module).replace("nin_shortcut", "conv_shortcut")
            before, attention, last = name.partition("mid_block.attentions.0.")
            if attention:
                return f"{before}{attention}{_VAE_ATTENTION.get(last, last)}"
            # LDM counts the decoder's levels from the finest, diffusers in the order of use.
            return re.sub(
                r"(?<=\bup_blocks\.)\d+", lambda match: str(levels - 1 - int(match[0])), name
            )
    return None


def vae_part(section: Section, scaling_factor: float) -> Part:
    """The autoencoder; ``sample_size`` is left to the caller."""
    levels = 1 + section.highest(r"encoder\.down\.(\d+)\.")
    tensors = {}
    for name in section.names:
        module, _, leaf = name.rpartition(".")
        found = _vae_module(module, levels)
        if found is not None:
            # The attention's projections are 1x1 convolutions here; the shortcuts stay such.
            squeeze = ".attentions.0.to_" in found and len(section.shape(name)) > 2
            transform = _to_linear if squeeze else None
            if f"{found}.{leaf}" in tensors:
                raise UserError(
                    f"{section.file} holds {section.prefix}{name} twice, under an old and a new "
                    "name: remove one of them."
                )
            tensors[f"{found}.{leaf}"] = section.source(name, transform=transform)
    names = [f"encoder.down.{i}.block.0.conv2.weight" for i in range(levels)]
    config = {
        "_class_name": "AutoencoderKL",
        "in_channels": section.shape("encoder.conv_in.weight")[1],
        "out_channels": section.shape("decoder.conv_out.weight")[0],
        "latent_channels": section.shape("post_quant_conv.weight")[1],
        "block_out_channels": [section.shape(name)[0] for name in names],
        "layers_per_block": 1 + section.highest(r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": scaling_factor,
    }
    return Part(config, tensors)
