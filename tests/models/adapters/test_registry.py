"""What adapters are called, how they are saved, and that nobody else knows them by name."""

import ast
import dataclasses
from pathlib import Path

import pytest

import codi_jax
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.registry import ADAPTERS, BY_CLASS_NAME, FOLDERS, KINDS, adapter_class
from codi_jax.typing import UserError
from tests.models.tiny_unets import TEXT


def test_names_of_the_adapters():
    assert KINDS == ("none", "mix", "controlnet", "t2i")
    assert {name: kind.kind for name, kind in BY_CLASS_NAME.items()} == {
        "CoDiMixAdapter": "mix",
        "ControlNetModel": "controlnet",
        "T2IAdapter": "t2i",
    }
    assert FOLDERS == ("adapter", "controlnet")
    assert [adapter_class(kind) for kind in KINDS] == [*ADAPTERS]
    with pytest.raises(UserError, match="adapter='lora' is unknown; choose one of .*'t2i'"):
        adapter_class("lora")


@pytest.mark.parametrize("kind", BY_CLASS_NAME.values(), ids=lambda kind: kind.kind)
def test_an_adapter_survives_its_config(kind, tmp_path):
    made = kind.new(TEXT, 4, image_channels=5, extra_latents=2).fitted(TEXT)
    again = kind.from_config(made.to_config(TEXT), TEXT, tmp_path)
    assert again == made


def test_who_reads_the_guidance_scale():
    reads = dataclasses.replace(TEXT, time_cond_proj_dim=4)
    for kind in KINDS:
        model = AdaptedUNet(unet=TEXT).with_adapter(kind, 2)
        later = dataclasses.replace(model, unet=reads).adapter  # must not refuse
        assert later.reads_guidance_scale == (kind == "mix")


def comparisons(source):
    """Lines that compare something with an adapter's kind, or look it up in a dict."""
    names = {"mix", "controlnet", "t2i"}
    lines = []
    for node in ast.walk(ast.parse(source)):
        parts = ast.walk(node) if isinstance(node, ast.Compare | ast.Dict) else ()
        if any(isinstance(part, ast.Constant) and part.value in names for part in parts):
            lines.append(node.lineno)
    return lines


def test_only_the_adapters_know_their_names():
    root = Path(codi_jax.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if comparisons(path.read_text(encoding="utf-8"))
    }
    assert {path for path in found if not path.startswith("models/adapters/")} == set()
    assert comparisons('if a == "mix":\n    pass\nb = {"t2i": 1}') == [1, 3]
