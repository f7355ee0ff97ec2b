"""The text encoders in Stable Diffusion's original layout, in transformers' terms.

1.x and SDXL were published with OpenAI's CLIP ViT-L under transformers' names, with
``text_model.`` before each or, as transformers 5 and some merges write it, without. 2.x and SDXL
were published with an OpenCLIP model (ViT-H, ViT-bigG; github.com/mlfoundations/open_clip) under
that project's names: query, key and value of a layer are one matrix there, and the text
projection is applied from the right. Other tools save either encoder under either project's
names, or under some of both, so a tensor is read by what it is called, whatever the family.
"""

import re

import numpy as np

from codi_jax.checkpoint.ldm_families import Text
from codi_jax.checkpoint.ldm_layout import HEAD, Part, Section
from codi_jax.models.text_encoder import LEGACY_EOS, TextEncoderConfig
from codi_jax.typing import UserError

_WRAPPERS = re.compile(r"^(model\.|transformer\.)*(text_model\.)?")
_TOKEN = "embeddings.token_embedding.weight"
_POSITION = "embeddings.position_embedding.weight"
#: OpenCLIP's names -> transformers', outside the layers and in them.
_OUTER = {
    "positional_embedding": _POSITION,
    "token_embedding.weight": _TOKEN,
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_MODULES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER = re.compile(r"(?:resblocks|encoder\.layers)\.(\d+)\.(.*)[._](weight|bias)")
_PROJECTIONS = ("text_projection", "text_projection.weight")


def text_part(section: Section, kind: Text, text_layers: int | None = None) -> tuple[Part, str]:
    """A text encoder, and for people which of its layers are read.

    Args:
      section: its tensors.
      kind: what the family knows of it.
      text_layers: read so many layers and no more, if the user says so.

    Raises:
      UserError: a tensor is absent or there twice; not so many layers.
    """
    names = _canonical(section)
    found = 1 + max((int(m[1]) for m in map(_LAYER.fullmatch, names) if m), default=-1)
    layers, note = _count_layers(section, kind, found, text_layers)
    width = section.shape(names.get(_TOKEN, "token_embedding.weight"))[1]
    tensors = {}
    for name, stored in names.items():
        match = _LAYER.fullmatch(name)
        if name in _PROJECTIONS:
            transform = np.transpose if name == "text_projection" else None
            source = section.source(stored, transform=transform)
            if kind.projection:
                tensors["text_projection.weight"] = source
        elif match is None:
            tensors[f"text_model.{name}"] = section.source(stored)
        elif int(match[1]) >= layers:
            section.used.add(stored)
        else:
            module, leaf = match[2], match[3]
            layer = f"text_model.encoder.layers.{match[1]}"
            if module == "self_attn.in_proj":
                for i, part in enumerate("qkv"):
                    tensors[f"{layer}.self_attn.{part}_proj.{leaf}"] = section.source(
                        stored, rows=(i * width, (i + 1) * width)
                    )
            else:
                tensors[f"{layer}.{_MODULES.get(module, module)}.{leaf}"] = section.source(stored)
    config = _config(section, names, kind, layers)
    return Part(config, tensors), note


def _canonical(section: Section) -> dict[str, str]:
    """``{name: name in the section}``: without wrappers, in transformers' words where they differ.

    Query, key and value in one, and OpenCLIP's projection, stay what they are.
    """
    names: dict[str, str] = {}
    for stored in section.names:
        name = _WRAPPERS.sub("", stored)
        name = _OUTER.get(name, name)
        match = _LAYER.fullmatch(name)
        if match:
            module = re.sub(r"^attn\.", "self_attn.", match[2])
            name = f"encoder.layers.{match[1]}.{module}.{match[3]}"
        if name in names:
            raise UserError(
                f"{section.file} holds one tensor of the text encoder twice, as "
                f"{section.prefix}{names[name]} and {section.prefix}{stored}: remove one of them."
            )
        names[name] = stored
    return names


def _count_layers(
    section: Section, kind: Text, found: int, text_layers: int | None
) -> tuple[int, str]:
    if text_layers is not None:
        if not 0 < text_layers <= found:
            raise UserError(
                f"--text_layers={text_layers}: the text encoder in {section.file} has {found}."
            )
        return text_layers, f"{text_layers} of {found} layers, as you said"
    if kind.layers and found > kind.layers + 1:
        raise UserError(
            f"{section.file}: the text encoder has {found} layers, and Stable Diffusion 2.x reads "
            f"{kind.layers} of {kind.layers + 1}: say with --text_layers how many are read."
        )
    layers = min(found, kind.layers or found)
    note = f"{layers} of {found} layers"
    if layers < kind.layers:
        note += f", where Stable Diffusion 2.x was trained with {kind.layers}"
    return layers, f"{note} (--text_layers to choose)"


def _config(section: Section, names: dict[str, str], kind: Text, layers: int) -> dict[str, object]:
    def shape(name: str) -> tuple[int, ...]:
        return section.shape(names.get(name, name))

    vocab_size, width = shape(_TOKEN)
    fc1 = next(
        (n for n in names if re.fullmatch(r"encoder\.layers\.0\.mlp\.(fc1|c_fc)\.weight", n)),
        "encoder.layers.0.mlp.fc1.weight",
    )
    projection = width
    if kind.projection:
        # [in, out] under OpenCLIP's name, [out, in] under transformers'.
        if "text_projection" in names:
            projection = shape("text_projection")[1]
        else:
            projection = shape("text_projection.weight")[0]
    config = TextEncoderConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=shape(fc1)[0],
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        max_position_embeddings=shape(_POSITION)[0],
        hidden_act=kind.hidden_act,
        projection_dim=projection,
        eos_token_id=LEGACY_EOS,  # the end is the highest id, as both projects compute it
        with_projection=kind.projection,
    )
    return config.to_config()
