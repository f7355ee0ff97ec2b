"""Text encoders under the names of either project, or of both, with more or fewer layers."""

import re
from pathlib import Path

import numpy as np
import pytest

from codi_jax.checkpoint.ldm_families import FAMILIES, read_sections
from codi_jax.checkpoint.ldm_text_encoders import text_part
from codi_jax.typing import UserError
from tests.checkpoint import ldm_files

PREFIX = "cond_stage_model."


def drawn(family):
    """The text encoders of a small file."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in ldm_files.tiny(family).items()
        if name.startswith((PREFIX, "conditioner."))
    }


def imported(tensors, family="sd2", part="text_encoder", **options):
    """The part's tensors, and what is said of its layers."""
    shapes = {name: array.shape for name, array in tensors.items()}
    kind = FAMILIES[family]
    section = read_sections(Path("x"), shapes, kind, averaged=False)[part]
    found, note = text_part(section, kind.text_encoders[part], **options)
    assert section.used == {*section.names}, "all is known"
    read = {}
    for name, source in found.tensors.items():
        array = tensors[source.name][slice(*source.rows) if source.rows else ...]
        read[name] = array if source.transform is None else source.transform(array)
    assert found.config["num_hidden_layers"] == 1 + max(layers_of(read))
    return read, note


def equal(found, want):
    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array)


def layers_of(tensors):
    return {int(name.split(".")[3]) for name in tensors if ".layers." in name}


def without_layers(tensors, first):
    return {
        name: array
        for name, array in tensors.items()
        if not any(f"resblocks.{i}." in name for i in range(first, 24))
    }


def renamed(text, *, prefix):
    """OpenCLIP's tensors under transformers' names."""
    result = {}
    for name, array in text.items():
        name = name.removeprefix("model.").replace("transformer.resblocks", "encoder.layers")
        for old, new in (
            ("token_embedding", "embeddings.token_embedding"),
            ("positional_embedding", "embeddings.position_embedding.weight"),
            ("ln_final", "final_layer_norm"),
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("c_fc", "fc1"),
            ("c_proj", "fc2"),
            (".attn.", ".self_attn."),
        ):
            name = name.replace(old, new)
        if "in_proj" in name:
            for key, piece in zip("qkv", np.split(array, 3), strict=True):
                result[prefix + name.replace("in_proj_", f"{key}_proj.")] = piece
        elif name == "text_projection":
            result[f"{prefix}text_projection.weight"] = array.T
        elif name != "logit_scale":
            result[prefix + name] = array
    return result


SD2 = drawn("sd2")


@pytest.mark.parametrize(
    ("stored", "read", "said"),
    [(24, 23, "23 of 24 layers"), (23, 23, "23 of 23"), (22, 22, "22 of 22.*trained with 23")],
)
def test_the_layers_of_sd2(stored, read, said):
    text, note = imported(without_layers(SD2, stored))
    assert layers_of(text) == set(range(read))
    assert re.search(said, note)


def test_the_user_says_how_many_layers():
    text, note = imported(SD2, text_layers=20)
    assert layers_of(text) == set(range(20)) and "20 of 24 layers, as you said" in note
    with pytest.raises(UserError, match="--text_layers=25: the text encoder .* has 24"):
        imported(SD2, text_layers=25)
    more = {n.replace("resblocks.23", "resblocks.24"): v for n, v in SD2.items()}
    with pytest.raises(UserError, match="has 25 layers.*--text_layers"):
        imported({**SD2, **more})
    assert layers_of(imported({**SD2, **more}, text_layers=23)[0]) == set(range(23))


@pytest.mark.parametrize("prefix", ["transformer.text_model.", "transformer.", "model.", ""])
@pytest.mark.parametrize("stored", [22, 24])
def test_sd2_under_the_names_of_transformers(prefix, stored):
    tensors = without_layers(SD2, stored)
    want, _ = imported(tensors)
    text = {name.removeprefix(PREFIX): array for name, array in tensors.items()}
    found, _ = imported(renamed(text, prefix=PREFIX + prefix))
    assert layers_of(found) == set(range(min(stored, 23)))
    equal(found, want)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("change", [("text_model.", ""), ("transformer.text_model.", "")])
def test_clip_with_and_without_its_prefix(family, change):
    tensors = drawn(family)
    want, _ = imported(tensors, family)
    other = {n if "embedders.1" in n else n.replace(*change): v for n, v in tensors.items()}
    assert other.keys() != tensors.keys()
    equal(imported(other, family)[0], want)


def test_the_projection_of_sdxl_under_either_name():
    tensors = drawn("sdxl")
    want, _ = imported(tensors, "sdxl", "text_encoder_2")
    name = "conditioner.embedders.1.model.text_projection"
    np.testing.assert_array_equal(want["text_projection.weight"], tensors[name].T)
    tensors[f"{name}.weight"] = tensors.pop(name).T
    equal(imported(tensors, "sdxl", "text_encoder_2")[0], want)
    del tensors[f"{name}.weight"]
    with pytest.raises(UserError, match="lacks the tensor .*text_projection.weight"):
        imported(tensors, "sdxl", "text_encoder_2")


def test_what_is_there_twice():
    tensors = drawn("sd1")
    name = f"{PREFIX}transformer.text_model.encoder.layers.1.mlp.fc1.bias"
    tensors[name.replace("text_model.", "")] = tensors[name]
    with pytest.raises(UserError, match="one tensor of the text encoder twice.*remove one"):
        imported(tensors, "sd1")
