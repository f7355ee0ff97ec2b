"""From diffusers' format back to the original layout, by the rules of diffusers' own scripts.

``scripts/convert_diffusers_to_original_stable_diffusion.py`` and ``..._sdxl.py`` of its repository
are no part of the package, so their rules are written down here, with what they leave as it is:
``text_projection.weight``.
"""

import re

import numpy as np

_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def _unet_name(name, names, period):
    module, leaf = name.rsplit(".", 1)
    if module in _UNET:
        return f"{_UNET[module]}.{leaf}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", module)
    if match is None:
        kind, number, rest = re.fullmatch(r"mid_block\.(\w+)\.(\d)\.(.*)", module).groups()
        slot = 1 if kind == "attentions" else 2 * int(number)
        rest = _RESNET[rest] if kind == "resnets" else rest
        return f"middle_block.{slot}.{rest}.{leaf}"
    way, level, kind, number, rest = match.groups()
    level, number = int(level), int(number)
    if kind == "downsamplers":
        return f"input_blocks.{period * (level + 1)}.0.op.{leaf}"
    if kind == "upsamplers":
        slot = 2 if any(n.startswith(f"up_blocks.{level}.attentions") for n in names) else 1
        return f"output_blocks.{period * level + period - 1}.{slot}.conv.{leaf}"
    block = period * level + number
    where = f"input_blocks.{block + 1}" if way == "down" else f"output_blocks.{block}"
    return f"{where}.0.{_RESNET[rest]}.{leaf}" if kind == "resnets" else f"{where}.1.{rest}.{leaf}"


def _vae_name(name, levels):
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = name.replace("mid_block.resnets.0", "mid.block_1")
    name = name.replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
    name = name.replace("to_out.0", "proj_out")
    name = re.sub(r"attn_1\.to_([qkv])", r"attn_1.\1", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    for i in range(levels):
        name = name.replace(f"up_blocks.{i}.resnets.", f"up.{levels - 1 - i}.block.")
        name = name.replace(f"up_blocks.{i}.upsamplers.0", f"up.{levels - 1 - i}.upsample")
    return name


_OPEN_CLIP = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    ".self_attn": ".attn",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}


def _open_clip(tensors):
    result, attention = {}, {}
    for name, array in tensors.items():
        for theirs, original in _OPEN_CLIP.items():
            name = name.replace(theirs, original)
        match = re.fullmatch(r"(.*\.attn)\.([qkv])_proj\.(weight|bias)", name)
        if match:
            attention.setdefault(f"{match[1]}.in_proj_{match[3]}", {})[match[2]] = array
        else:
            result[name] = array
    return result | {n: np.concatenate([a[i] for i in "qkv"]) for n, a in attention.items()}


def to_original(parts, family, *, layers=2, levels=2):
    """``{part: {diffusers name: tensor}}`` -> the tensors of a single file."""
    unet, xl = parts["unet"], family == "sdxl"
    result = {
        f"model.diffusion_model.{_unet_name(name, unet, layers + 1)}": array
        for name, array in unet.items()
    }
    for name, array in parts["vae"].items():
        new = _vae_name(name, levels)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", new):
            array = array.reshape(*array.shape, 1, 1)
        result[f"first_stage_model.{new}"] = array
    text = parts["text_encoder"]
    if family == "sd2":
        return result | {f"cond_stage_model.model.{n}": a for n, a in _open_clip(text).items()}
    prefix = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
    result |= {f"{prefix}{name}": array for name, array in text.items()}
    if xl:
        second = _open_clip(parts["text_encoder_2"])
        result |= {f"conditioner.embedders.1.model.{name}": array for name, array in second.items()}
    return result
