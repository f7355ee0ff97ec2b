"""Files that are no whole model, or no safetensors."""

import pytest

from codi_jax.checkpoint.single_file import convert_single_file, open_single_file
from codi_jax.typing import UserError
from tests.checkpoint import ldm_files
from tests.checkpoint.test_single_file import UNET, VAE


def without(prefix):
    return lambda shapes: {k: v for k, v in shapes.items() if not k.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(VAE), "no whole Stable Diffusion.*this file holds.*model.diffusion_model"),
        (without("cond_stage"), "no whole Stable Diffusion"),
        (without(f"{UNET}middle_block.1.proj_in.weight"), "lacks the tensor .*proj_in.weight"),
        (without(f"{VAE}post_quant_conv.w"), "lacks the tensor first_stage.*quant_conv.weight"),
        (lambda s: s | {"edm_mean": (4,)}, "1 tensors that are no part of.*XL: edm_mean"),
        (lambda s: s | {f"{UNET}label_emb.0.0.weight": (4, 4)}, "no part of.*label_emb"),
        (lambda s: s | {f"{UNET}input_blocks.0.0.weight": (64, 5, 3, 3)}, "U-Net of 5 input"),
        (lambda s: s | {f"{UNET}input_blocks.1.0.out_layers.3.weight": (20, 1)}, "multiples of 8"),
        (lambda s: {"unet.conv_in.weight": (1,)}, "this file holds unet.conv_in. Give"),
        (lambda s: s | {"scaled_fp8": (0,)}, "scaled float8 weights .scaled_fp8.*in float16"),
        (without("cond_stage_model.transformer.text_model.emb"), "lacks the tensor .*embed"),
    ],
)
def test_other_models_are_refused(change, message, tmp_path):
    path = ldm_files.write_hollow(tmp_path / "sd.safetensors", change(ldm_files.tiny("sd1")))
    with pytest.raises(UserError, match=message):
        convert_single_file(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_safetensors(tmp_path):
    for suffix in ("ckpt", "bin", "pt"):
        with pytest.raises(UserError, match=rf"model.{suffix}: such files can run code") as caught:
            open_single_file(tmp_path / f"model.{suffix}")
        assert f"'{tmp_path / 'model.safetensors'}')\"" in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        open_single_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"PK" * 20)
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        open_single_file(tmp_path / "model.safetensors")
