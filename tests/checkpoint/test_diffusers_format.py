import json
import tracemalloc

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


def write_shards(directory, tensors, index, pattern):
    """Two shards and their index, named as diffusers and transformers name them."""
    directory.mkdir()
    names = sorted(tensors)
    weight_map = {name: pattern.format(1 + (i > 2)) for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        save_file(part, directory / file)
    df.save_json(directory / index, {"metadata": {}, "weight_map": weight_map})


def as_float16(tree):
    return jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), tree)


@pytest.mark.parametrize(
    ("index", "pattern"),
    [
        (
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16-0000{}-of-00002.safetensors",
        ),
        (
            "diffusion_pytorch_model.safetensors.fp16.index.json",
            "diffusion_pytorch_model-0000{}-of-00002.fp16.safetensors",
        ),
        ("model.fp16.safetensors.index.json", "model.fp16-0000{}-of-00002.safetensors"),
    ],
)
def test_sharded_variants(index, pattern, tmp_path):
    df.save_model(tmp_path, CONFIG, params(), dtype="float16")
    write_shards(tmp_path / "shards", load_file(tmp_path / WEIGHTS), index, pattern)
    got = df.load_params(tmp_path / "shards", template())
    assert trees.tree_hash(got) == trees.tree_hash(as_float16(params()))


def test_the_plain_file_goes_before_its_variants(tmp_path):
    def add(name, value):
        save_file({"mu": np.array(value, np.float32)}, tmp_path / name)

    def load():
        return float(df.load_params(tmp_path, {"mu": jax.ShapeDtypeStruct((), jnp.float32)})["mu"])

    add("diffusion_pytorch_model.non_ema.safetensors", 5)
    with pytest.raises(UserError, match="holds no diffusion_pytorch_model.safetensors"):
        load()
    for value, name in enumerate(("model.fp16.safetensors", "model.safetensors"), 1):
        add(name, value)
        assert load() == value
    add("diffusion_pytorch_model.fp16.safetensors", 3)
    assert load() == 3
    add("diffusion_pytorch_model-00001-of-00001.safetensors", 4)
    assert load() == 3  # without an index nothing says that the shards are all there
    weight_map = {"mu": "diffusion_pytorch_model-00001-of-00001.safetensors"}
    df.save_json(tmp_path / f"{WEIGHTS}.index.json", {"weight_map": weight_map})
    assert load() == 4
    add(WEIGHTS, 6)
    assert load() == 6


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/secret.safetensors", "a/b.safetensors"]
)
def test_an_index_cannot_lead_out_of_its_directory(name, tmp_path):
    save_file({"mu": np.array(1, np.float32)}, tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    df.save_json(tmp_path / "model" / f"{WEIGHTS}.index.json", {"weight_map": {"mu": name}})
    with pytest.raises(UserError, match=f"names '{name}', which is not a file beside it"):
        df.load_params(tmp_path / "model", {"mu": jax.ShapeDtypeStruct((), jnp.float32)})


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
def test_any_stored_dtype_becomes_the_templates(stored, wanted, tmp_path):
    kernel = (
        np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(ml_dtypes.finfo(stored).dtype)
    )
    save_file({"conv.weight": kernel}, tmp_path / WEIGHTS)
    shape = jax.ShapeDtypeStruct((3, 3, 4, 5), wanted)
    got = df.load_params(tmp_path, {"conv": {"kernel": shape}})["conv"]["kernel"]
    assert got.dtype == wanted
    want = np.einsum("oihw->hwio", kernel.astype(np.float32)).astype(ml_dtypes.finfo(wanted).dtype)
    np.testing.assert_array_equal(np.asarray(got), want)


def test_little_memory_beside_the_result(tmp_path, monkeypatch):
    """While a tensor is made, the host holds it as stored and one copy, and no earlier one."""
    tensors = {f"l_{i}": {"kernel": np.ones((1024, 1024), np.float32)} for i in range(8)}
    size = 4 * 1024 * 1024
    df.save_model(tmp_path, CONFIG, tensors)
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tensors))
    # The result may share numpy's memory on a CPU: one number stands for each of its arrays.
    zero = jnp.zeros(())
    monkeypatch.setattr(df, "_put", lambda array, place: zero)
    tracemalloc.start()
    df.load_params(tmp_path, shapes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size < peak < 2.5 * size


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

    monkeypatch.setattr("codi_jax.checkpoint.files.save_file", fail)
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
        df.check_class(CONFIG, ("AutoencoderKL",), tmp_path)
    with pytest.raises(UserError, match="without _class_name"):
        df.check_class({}, ("AutoencoderKL",), tmp_path)
