"""A single file whose tensors are not those that our networks read."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from codi_jax.checkpoint.single_file import open_single_file
from codi_jax.typing import UserError
from tests.checkpoint import ldm_files

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
pytestmark = pytest.mark.usefixtures("unchecked")  # which makes it much quicker


def without(end):
    return lambda tensors: {n: v for n, v in tensors.items() if not n.endswith(end)}


def extra(name, value):
    return lambda tensors: {**tensors, name: value}


CASES = [
    (without("output_blocks.5.0.in_layers.2.bias"), "unet do not fit.*1 missing: up_blocks.1"),
    (without("decoder.up.0.block.1.conv2.weight"), "vae do not fit.*1 missing: decoder.up_b"),
    (without("layers.1.mlp.fc1.bias"), "text_encoder do not fit.*1 missing: text_model.enc"),
    (
        extra(f"{TEXT}encoder.layers.0.mlp.gate.bias", np.zeros(4, np.float16)),
        "1 not in the model: .*mlp.gate.bias",
    ),
    (
        extra(f"{UNET}out.0.bias", np.zeros(65, np.float16)),
        r"of another shape: model.*out.0.bias \[65\] instead of \[64\]",
    ),
    (extra(f"{UNET}out.0.bias", np.zeros(64, np.int8)), "stores .*out.0.bias as I8.*float16"),
    (extra(f"{UNET}out.0.bias", np.zeros(64, np.complex64)), "out.0.bias as C64"),
    (extra(f"{UNET}out.0.bias", np.zeros(64, bool)), "out.0.bias as BOOL"),
]


@pytest.mark.parametrize(("change", "message"), CASES, ids=range(len(CASES)))
def test_what_does_not_fit(change, message, tmp_path):
    path = tmp_path / "sd.safetensors"
    tensors = {n: np.zeros(s, np.float16) for n, s in ldm_files.tiny("sd1").items()}
    save_file(change(tensors), path)
    with pytest.raises(UserError, match=message):
        open_single_file(path)


def test_a_text_encoder_of_another_model(tmp_path):
    shapes = ldm_files.tiny("sd1")
    text = ldm_files.clip(ldm_files.Text(128, 1, 50, 8))
    rest = {name: shape for name, shape in shapes.items() if not name.startswith(TEXT)}
    other = {f"{TEXT}{name.removeprefix('text_model.')}": shape for name, shape in text.items()}
    path = ldm_files.write_hollow(tmp_path / "sd.safetensors", {**rest, **other})
    with pytest.raises(UserError, match="texts of 64 features.*gives 128.*two models"):
        open_single_file(path)
