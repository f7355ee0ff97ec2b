import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codi_jax import trees
from codi_jax.checkpoint import diffusers_format as df
from codi_jax.parallel.mesh import make_mesh, replicated
from codi_jax.parallel.sharding import param_shardings
from codi_jax.typing import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = {"_class_name": "UNet2DConditionModel", "sample_size": 8}


def params():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "conv_in": {"kernel": normal(3, 3, 4, 8), "bias": normal(8)},
        "time_embedding": {"linear_1": {"kernel": normal(8, 32), "bias": normal(32)}},
        "down_blocks_0": {"resnets_1": {"norm1": {"scale": normal(8), "bias": normal(8)}}},
        "token_embedding": {"embedding": normal(11, 8)},
        "mu": normal(),
    }


def template():
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, params()))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            "down_blocks_0/attentions_0/transformer_blocks_0/attn1/to_out_0/kernel",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
        ),
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        ("time_embedding/linear_2/bias", "time_embedding.linear_2.bias"),
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
    assert df.torch_name(path) == name


def test_layouts_element_by_element():
    conv = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # H, W, in, out
    torch = df.to_torch("a/kernel", conv)
    assert torch.shape == (5, 4, 2, 3)
    assert torch[4, 1, 0, 2] == conv[0, 2, 1, 4]
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert df.to_torch("a/kernel", dense)[2, 1] == dense[1, 2]
    for path, array in (("a/kernel", conv), ("a/kernel", dense), ("a/embedding", dense)):
        np.testing.assert_array_equal(df.from_torch(path, df.to_torch(path, array)), array)
    assert df.to_torch("a/embedding", dense) is dense


def test_round_trip_is_bit_for_bit(tmp_path):
    df.save_model(tmp_path, CONFIG, params())
    assert df.load_config(tmp_path) == CONFIG
    got = df.load_params(tmp_path, template())
    assert jax.tree.structure(got) == jax.tree.structure(params())
    for path, leaf in trees.flatten(got).items():
        assert np.asarray(leaf).tobytes() == trees.flatten(params())[path].tobytes(), path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", WEIGHTS]


def test_what_is_on_disk_is_what_pytorch_reads(tmp_path):
    df.save_model(tmp_path, CONFIG, params())
    tensors = load_file(tmp_path / WEIGHTS)
    assert tensors.keys() == {
        "conv_in.weight", "conv_in.bias", "time_embedding.linear_1.weight",
        "time_embedding.linear_1.bias", "down_blocks.0.resnets.1.norm1.weight",
        "down_blocks.0.resnets.1.norm1.bias", "token_embedding.weight", "mu",
    }  # fmt: skip
    np.testing.assert_array_equal(
        tensors["conv_in.weight"], np.einsum("hwio->oihw", params()["conv_in"]["kernel"])
    )
    np.testing.assert_array_equal(tensors["token_embedding.weight"].shape, (11, 8))


def test_float16_on_disk_and_its_limit(tmp_path):
    df.save_model(tmp_path, CONFIG, params(), dtype="float16")
    assert {t.dtype for t in load_file(tmp_path / WEIGHTS).values()} == {np.dtype("float16")}
    got = df.load_params(tmp_path, template())["conv_in"]["kernel"]
    want = params()["conv_in"]["kernel"].astype(np.float16).astype(np.float32)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)
    with pytest.raises(UserError, match="a/kernel holds 7e.04.*float32"):
        df.save_model(tmp_path, CONFIG, {"a": {"kernel": np.full((2, 2), 7e4)}}, dtype="float16")
    with pytest.raises(UserError, match="int8"):
        df.save_model(tmp_path, CONFIG, params(), dtype="int8")


def test_bfloat16_on_disk_is_exact_in_float32(tmp_path):
    values = np.float32([1.0, -2.5, 3.140625, 1e30]).astype(ml_dtypes.bfloat16)
    save_file({"w.bias": values}, tmp_path / WEIGHTS)
    got = df.load_params(tmp_path, {"w": {"bias": jax.ShapeDtypeStruct((4,), jnp.float32)}})
    np.testing.assert_array_equal(got["w"]["bias"], values.astype(np.float32))


def test_the_template_decides_the_dtype_and_the_caller_the_sharding(tmp_path):
    df.save_model(tmp_path, CONFIG, params())
    mesh = make_mesh(2, 4)
    shardings = param_shardings(mesh, template())
    half = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16), template())
    got = trees.flatten(df.load_params(tmp_path, half, sharding=shardings))
    for path, leaf in got.items():
        want = trees.flatten(params())[path].astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(np.asarray(leaf), want)
        assert leaf.sharding == trees.flatten(shardings)[path]
    assert got["conv_in/kernel"].addressable_shards[0].data.shape == (3, 3, 4, 2)
    everywhere = df.load_params(tmp_path, template(), sharding=replicated(mesh))
    assert len(everywhere["mu"].devices()) == 8


def test_sharded_fp16_and_transformers_file_names(tmp_path):
    df.save_model(tmp_path / "whole", CONFIG, params())
    tensors = load_file(tmp_path / "whole" / WEIGHTS)
    names = sorted(tensors)
    parts = {"p-1.safetensors": names[:3], "p-2.safetensors": names[3:]}
    shards = tmp_path / "shards"
    shards.mkdir()
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, shards / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    df.save_json(shards / f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": weight_map})
    (tmp_path / "half").mkdir()
    save_file(tensors, tmp_path / "half" / "diffusion_pytorch_model.fp16.safetensors")
    (tmp_path / "text").mkdir()
    # The constant that old transformers stored is no parameter.
    ids = {"text_model.embeddings.position_ids": np.arange(77)[None]}
    save_file(tensors | ids, tmp_path / "text" / "model.safetensors")
    want = trees.tree_hash(params())
    for name in ("shards", "half", "text"):
        assert trees.tree_hash(df.load_params(tmp_path / name, template())) == want, name
    (shards / "p-2.safetensors").unlink()
    with pytest.raises(UserError, match="p-2.safetensors, which is absent"):
        df.load_params(shards, template())


@pytest.mark.parametrize("kept", [0, 5, 200, 0.9])
def test_a_truncated_file_is_named(tmp_path, kept):
    df.save_model(tmp_path, CONFIG, params())
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    with pytest.raises(UserError, match=f"{WEIGHTS} is truncated"):
        df.load_params(tmp_path, template())


def test_missing_extra_and_wrong_shapes_are_one_message(tmp_path):
    tree = params()
    tree["conv_in"]["kernel"] = np.zeros((1, 1, 4, 8), np.float32)
    tree["conv_out"] = {"bias": tree.pop("mu")}
    df.save_model(tmp_path, CONFIG, tree)
    with pytest.raises(UserError) as caught:
        df.load_params(tmp_path, template())
    message = str(caught.value)
    assert "1 missing: mu;" in message
    assert "1 not in the model: conv_out.bias;" in message
    assert "conv_in.weight [8, 4, 1, 1] instead of [8, 4, 3, 3]" in message


def test_pickles_and_empty_directories_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no diffusion_pytorch_model.safetensors"):
        df.load_params(tmp_path, template())
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="diffusion_pytorch_model.bin.*can run code"):
        df.load_params(tmp_path, template())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    df.save_model(tmp_path, CONFIG, params())
    before = (tmp_path / WEIGHTS).read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(df, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        df.save_model(tmp_path, CONFIG, {"mu": np.zeros(3, np.float32)})
    assert (tmp_path / WEIGHTS).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", WEIGHTS]


def test_json_and_class_errors(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist"):
        df.load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(UserError, match="cannot be read as JSON"):
        df.load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="holds a list"):
        df.load_config(tmp_path)
    df.check_class(CONFIG, "UNet2DConditionModel", tmp_path)
    with pytest.raises(UserError, match="describes a UNet2DConditionModel, not a AutoencoderKL"):
        df.check_class(CONFIG, "AutoencoderKL", tmp_path)
    with pytest.raises(UserError, match="without _class_name"):
        df.check_class({}, "AutoencoderKL", tmp_path)
