"""Names of tensors and files, also those of other versions, and layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from codi_jax import trees
from codi_jax.checkpoint import names
from codi_jax.checkpoint.diffusers_format import load_params
from codi_jax.typing import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "down_blocks_0/attentions_0/transformer_blocks_0/attn1/to_out_0/kernel",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
        ),
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        ("time_embedding/linear_2/bias", "time_embedding.linear_2.bias"),
        ("Mixed_6b/branch7x7dbl_5/conv/kernel", "Mixed_6b.branch7x7dbl_5.conv.weight"),
        ("Mixed_7b/branch3x3_2a/bn/running_var", "Mixed_7b.branch3x3_2a.bn.running_var"),
        ("mid_block/resnets_1/conv1/bias", "mid_block.resnets.1.conv1.bias"),
        ("mid_block/resnets_0/time_emb_proj/kernel", "mid_block.resnets.0.time_emb_proj.weight"),
        (
            "up_blocks_3/attentions_2/transformer_blocks_0/ff/net_0/proj/kernel",
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
        ),
        (
            "up_blocks_3/attentions_2/transformer_blocks_0/ff/net_2/bias",
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2.bias",
        ),
        ("down_blocks_0/downsamplers_0/conv/kernel", "down_blocks.0.downsamplers.0.conv.weight"),
        ("up_blocks_1/resnets_2/conv_shortcut/bias", "up_blocks.1.resnets.2.conv_shortcut.bias"),
        ("conv_norm_out/scale", "conv_norm_out.weight"),
        ("encoder/mid_block/attentions_0/group_norm/scale",
         "encoder.mid_block.attentions.0.group_norm.weight"),
        ("quant_conv/kernel", "quant_conv.weight"),
        ("controlnet_down_blocks_11/kernel", "controlnet_down_blocks.11.weight"),
        ("controlnet_cond_embedding/blocks_3/bias", "controlnet_cond_embedding.blocks.3.bias"),
        ("text_model/embeddings/token_embedding/embedding",
         "text_model.embeddings.token_embedding.weight"),
        ("text_model/encoder/layers_22/self_attn/q_proj/kernel",
         "text_model.encoder.layers.22.self_attn.q_proj.weight"),
        ("mu", "mu"),
    ],
)  # fmt: skip
def test_names_that_diffusers_uses(path, name):
    assert names.torch_name(path) == name


def test_layouts_element_by_element():
    conv = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # H, W, in, out
    torch = names.to_torch("a/kernel", conv)
    assert torch.shape == (5, 4, 2, 3)
    assert torch[4, 1, 0, 2] == conv[0, 2, 1, 4]
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert names.to_torch("a/kernel", dense)[2, 1] == dense[1, 2]
    for path, array in (("a/kernel", conv), ("a/kernel", dense), ("a/embedding", dense)):
        np.testing.assert_array_equal(names.from_torch(path, names.to_torch(path, array)), array)
    assert names.to_torch("a/embedding", dense) is dense


ATTENTION = "encoder/mid_block/attentions_0"


def attention_params():
    rng = np.random.default_rng(0)
    return {
        f"{ATTENTION}/{name}/{leaf}": rng.normal(size=(3, 3)[: 1 + (leaf == "kernel")]).astype("f4")
        for name in ("to_q", "to_k", "to_v", "to_out_0")
        for leaf in ("kernel", "bias")
    }


@pytest.mark.parametrize("window", [(), (1,), (1, 1)])
def test_old_names_of_the_autoencoders_attention(window, tmp_path):
    """``query`` and so on, as matrices or as convolutions of one pixel."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}
    flat = attention_params()
    tensors = {}
    for path, array in flat.items():
        *_, name, leaf = path.split("/")
        prefix = f"encoder.mid_block.attentions.0.{old[name]}"
        if leaf == "kernel":
            tensors[f"{prefix}.weight"] = np.ascontiguousarray(array.T).reshape(3, 3, *window)
        else:
            tensors[f"{prefix}.bias"] = array
    save_file(tensors, tmp_path / WEIGHTS)
    got = trees.flatten(load_params(tmp_path, trees.unflatten(flat)))
    for path, array in flat.items():
        np.testing.assert_array_equal(got[path], array)
    both = tensors | {"encoder.mid_block.attentions.0.to_q.bias": np.zeros(3, np.float32)}
    save_file(both, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="the same tensor as .*(query|to_q).bias"):
        load_params(tmp_path, trees.unflatten(flat))


def test_convolutions_pass_as_matrices_only_there(tmp_path):
    save_file({"mid_block.to_q.weight": np.zeros((3, 3, 1, 1), np.float32)}, tmp_path / WEIGHTS)
    wanted = {"mid_block": {"to_q": {"kernel": jax.ShapeDtypeStruct((3, 3), jnp.float32)}}}
    with pytest.raises(UserError, match=r"to_q.weight \[3, 3, 1, 1\] instead of \[3, 3\]"):
        load_params(tmp_path, wanted)


@pytest.mark.parametrize("ours", ["text_model/", ""])
@pytest.mark.parametrize("theirs", ["text_model.", ""])
def test_text_encoders_with_and_without_prefix(ours, theirs, tmp_path):
    scale, projection = np.float32([1, 2]), np.float32([[1, 2], [3, 4]])
    name = f"{theirs}final_layer_norm.weight"
    save_file({name: scale, "text_projection.weight": projection}, tmp_path / "model.safetensors")
    flat = {f"{ours}final_layer_norm/scale": scale, "text_projection/kernel": projection.T}
    got = trees.flatten(load_params(tmp_path, trees.unflatten(flat)))
    for path, array in flat.items():
        np.testing.assert_array_equal(got[path], array)
    save_file(
        {name: scale[:1], "text_projection.weight": projection}, tmp_path / "model.safetensors"
    )
    with pytest.raises(UserError, match=rf"\b{name} \[1\] instead of \[2\]"):
        load_params(tmp_path, trees.unflatten(flat))
