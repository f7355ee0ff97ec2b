"""The text encoders in Stable Diffusion's original layout, in transformers' terms.

1.x and SDXL hold OpenAI's CLIP ViT-L under transformers' own names. 2.x and SDXL hold an OpenCLIP
model (ViT-H, ViT-bigG; github.com/mlfoundations/open_clip) under that project's names: query, key
and value of a layer are one matrix there, and the text projection is applied from the right.
"""

import re

import numpy as np

from codi_jax.checkpoint.ldm_layout import HEAD, Part, Section
from codi_jax.models.text_encoder import LEGACY_EOS, TextEncoderConfig

_OUTER = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.*)[._](weight|bias)")


def _config(
    section: Section, token: str, position: str, fc1: str, layers: int, hidden_act: str, pooled: int
) -> dict[str, object]:
    vocab_size, hidden_size = section.shape(token)
    config = TextEncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=section.shape(fc1)[0],
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // HEAD,
        max_position_embeddings=section.shape(position)[0],
        hidden_act=hidden_act,
        projection_dim=pooled or hidden_size,
        eos_token_id=LEGACY_EOS,  # the end is the highest id, as both projects compute it
        with_projection=pooled > 0,
    )
    return config.to_config()


def clip_part(section: Section) -> Part:
    """CLIP ViT-L: the names in the file are those of ``CLIPTextModel``."""
    tensors = {name: section.source(name) for name in section.names}
    config = _config(
        section,
        token="text_model.embeddings.token_embedding.weight",
        position="text_model.embeddings.position_embedding.weight",
        fc1="text_model.encoder.layers.0.mlp.fc1.weight",
        layers=1 + section.highest(r"text_model\.encoder\.layers\.(\d+)\."),
        hidden_act="quick_gelu",
        pooled=0,
    )
    return Part(config, tensors)


def open_clip_part(section: Section, *, pooled: bool) -> Part:
    """OpenCLIP's text encoder.

    Args:
      section: its tensors.
      pooled: True for SDXL: with the projection of the pooled text, and all layers. False for
        2.x, which reads the state before the last layer: that layer and the projection are left
        out, so that the final layer norm follows the layer before.
    """
    layers = section.highest(r"transformer\.resblocks\.(\d+)\.") + pooled
    width = section.shape("token_embedding.weight")[1]
    tensors = {ours: section.source(name) for name, ours in _OUTER.items()}
    projection = section.shape("text_projection")[1] if pooled else 0
    if pooled:
        tensors["text_projection.weight"] = section.source(
            "text_projection", transform=np.transpose
        )
    else:
        section.used.add("text_projection")
    for name in section.names:
        match = _RESBLOCK.fullmatch(name)
        if not match:
            continue
        index, module, leaf = int(match[1]), match[2], match[3]
        layer = f"text_model.encoder.layers.{index}"
        if index >= layers:
            section.used.add(name)
        elif module == "attn.in_proj":
            for i, part in enumerate("qkv"):
                tensors[f"{layer}.self_attn.{part}_proj.{leaf}"] = section.source(
                    name, rows=(i * width, (i + 1) * width)
                )
        elif module in _LAYER:
            tensors[f"{layer}.{_LAYER[module]}.{leaf}"] = section.source(name)
    config = _config(
        section,
        token="token_embedding.weight",
        position="positional_embedding",
        fc1="transformer.resblocks.0.mlp.c_fc.weight",
        layers=layers,
        hidden_act="gelu",
        pooled=projection,
    )
    return Part(config, tensors)
