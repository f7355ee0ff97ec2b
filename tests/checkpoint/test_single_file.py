"""Small single files of every family, with data, to directories and back."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codi_jax.checkpoint import single_file
from codi_jax.checkpoint.diffusers_format import load_config, load_params
from codi_jax.checkpoint.single_file import Reading, convert_single_file, open_single_file
from codi_jax.typing import UserError
from tests.checkpoint import ldm_files

UNET, VAE = "model.diffusion_model.", "first_stage_model."


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Holding a file against our networks takes its time, and has tests of its own."""
    monkeypatch.setattr(single_file, "check_fits", lambda *_: None)


def write(path, shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("sd1", np.float16), ("sd2", np.float32), ("sdxl", ml_dtypes.bfloat16)],
)
def test_conversion_keeps_every_value_and_its_dtype(family, dtype, tmp_path):
    path = tmp_path / "sd.safetensors"
    tensors = write(path, ldm_files.tiny(family), dtype)
    note = convert_single_file(
        path, tmp_path / "new" / "out", reading=Reading(prediction_type=ldm_files.TYPE[family])
    )
    assert "tokenizer" in note and "averag" not in note
    out = tmp_path / "new" / "out"
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    parts = [p.name for p in out.iterdir() if p.is_dir() and p.name != "scheduler"]
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == f"StableDiffusion{'XL' if family == 'sdxl' else ''}Pipeline"
    written = {}
    for part in parts:
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        written[part] = load_file(out / part / f"{stem}.safetensors")
        assert {t.dtype for t in written[part].values()} == {np.dtype(dtype)}
        assert index[part][1] in str(load_config(out / part))
    # Nothing is lost: the values are those of the file, but for what belongs to no part.
    kept = sum(int(t.size) for part in written.values() for t in part.values())
    dropped = [
        name
        for name in tensors
        if name in ldm_files.TABLES
        or name.endswith(("logit_scale", "position_ids", "sigmas"))
        or (family == "sd2" and ("resblocks.23." in name or name.endswith("text_projection")))
    ]
    assert kept == sum(t.size for name, t in tensors.items() if name not in dropped)


def test_our_networks_load_what_was_written(tmp_path):
    write(tmp_path / "sd.safetensors", ldm_files.tiny("sd1"))
    convert_single_file(tmp_path / "sd.safetensors", tmp_path / "out")
    for part in ("unet", "vae", "text_encoder"):
        load_params(
            tmp_path / "out" / part, ldm_files.templates(part, load_config(tmp_path / "out" / part))
        )


def test_each_kind_of_source(tmp_path):
    path = tmp_path / "sd.safetensors"
    tensors = write(path, ldm_files.tiny("sdxl"))
    convert_single_file(path, tmp_path / "out")
    unet = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    vae = load_file(tmp_path / "out/vae/diffusion_pytorch_model.safetensors")
    text = load_file(tmp_path / "out/text_encoder/model.safetensors")
    text_2 = load_file(tmp_path / "out/text_encoder_2/model.safetensors")
    bigg = "conditioner.embedders.1.model."
    resblock, layer = f"{bigg}transformer.resblocks.1.", "text_model.encoder.layers.1."
    name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    pairs = [
        (unet["conv_in.weight"], tensors[f"{UNET}input_blocks.0.0.weight"]),
        (unet["add_embedding.linear_2.bias"], tensors[f"{UNET}label_emb.0.2.bias"]),
        (
            unet["down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k.weight"],
            tensors[f"{UNET}input_blocks.5.1.transformer_blocks.1.attn2.to_k.weight"],
        ),
        (
            unet["up_blocks.0.upsamplers.0.conv.weight"],
            tensors[f"{UNET}output_blocks.2.2.conv.weight"],
        ),
        (
            unet["up_blocks.1.resnets.2.conv_shortcut.weight"],
            tensors[f"{UNET}output_blocks.5.0.skip_connection.weight"],
        ),
        (
            unet["mid_block.resnets.1.time_emb_proj.bias"],
            tensors[f"{UNET}middle_block.2.emb_layers.1.bias"],
        ),
        (
            vae["decoder.up_blocks.0.resnets.1.conv2.weight"],
            tensors[f"{VAE}decoder.up.1.block.1.conv2.weight"],
        ),
        (
            vae["encoder.mid_block.attentions.0.to_out.0.weight"],
            tensors[f"{VAE}encoder.mid.attn_1.proj_out.weight"][:, :, 0, 0],
        ),
        (
            vae["decoder.mid_block.attentions.0.to_k.bias"],
            tensors[f"{VAE}decoder.mid.attn_1.k.bias"],
        ),
        (text[name], tensors[f"conditioner.embedders.0.transformer.{name}"]),
        (text_2["text_projection.weight"], tensors[f"{bigg}text_projection"].T),
        (
            text_2[f"{layer}self_attn.k_proj.weight"],
            tensors[f"{resblock}attn.in_proj_weight"][64:128],
        ),
        (text_2[f"{layer}self_attn.v_proj.bias"], tensors[f"{resblock}attn.in_proj_bias"][128:]),
        (text_2[f"{layer}mlp.fc2.weight"], tensors[f"{resblock}mlp.c_proj.weight"]),
    ]
    for got, want in pairs:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("names", ["to_q to_k to_v to_out.0", "query key value proj_attn"])
@pytest.mark.parametrize("linear", [True, False])
def test_other_names_of_the_autoencoders_attention(names, linear, tmp_path):
    path = tmp_path / "sd.safetensors"
    tensors = write(path, ldm_files.tiny("sd1"))
    convert_single_file(path, tmp_path / "one")
    new = dict(
        zip(("q", "k", "v", "proj_out", "norm"), (*names.split(), "group_norm"), strict=True)
    )
    other = {}
    for name, array in tensors.items():
        before, attention, after = name.partition("mid.attn_1.")
        if attention:
            module, leaf = after.rsplit(".", 1)
            name = f"{before}{attention}{new[module]}.{leaf}"
            array = np.squeeze(array) if linear else array
        other[name] = array
    save_file(other, path)
    convert_single_file(path, tmp_path / "two")
    file = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    attention = f"{VAE}encoder.mid.attn_1."
    save_file({**other, f"{attention}q.bias": tensors[f"{attention}q.bias"]}, path)
    with pytest.raises(UserError, match="twice, under an old and a new name"):
        open_single_file(path)


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2], ids=["e4m3", "e5m2"]
)
def test_float8_becomes_float16_exactly(dtype, tmp_path):
    path = tmp_path / "sd.safetensors"
    tensors = write(path, ldm_files.tiny("sdxl"), dtype)
    convert_single_file(path, tmp_path / "out")
    unet = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    text_2 = load_file(tmp_path / "out/text_encoder_2/model.safetensors")
    resblock = "conditioner.embedders.1.model.transformer.resblocks.1."
    for got, want in (
        (unet["conv_in.weight"], tensors[f"{UNET}input_blocks.0.0.weight"]),
        (
            text_2["text_model.encoder.layers.1.self_attn.k_proj.weight"],
            tensors[f"{resblock}attn.in_proj_weight"][64:128],
        ),
    ):
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize(
    ("family", "said", "pipeline"),
    [("sd1", "sd1", "StableDiffusionPipeline"), ("sdxl", "sdxl", "StableDiffusionXLPipeline")],
)
def test_the_family_can_be_said(family, said, pipeline, tmp_path):
    path = tmp_path / "sd.safetensors"
    write(path, ldm_files.tiny(family))
    note = convert_single_file(path, tmp_path / "out", reading=Reading(family=said))
    assert "family: Stable Diffusion" in note and "--family" in note
    assert json.loads((tmp_path / "out/model_index.json").read_text())["_class_name"] == pipeline
    with pytest.raises(UserError, match="--family='sd3' is unknown: choose one of sd1"):
        open_single_file(path, Reading(family="sd3"))
    other = {"sd1": "sdxl", "sdxl": "sd1"}[family]
    with pytest.raises(UserError, match="is no whole Stable Diffusion"):
        open_single_file(path, Reading(family=other))


@pytest.mark.parametrize(("channels", "pipeline"), [(8, "InstructPix2Pix"), (9, "Inpaint")])
def test_tasks_by_their_channels(channels, pipeline, tmp_path):
    path = tmp_path / "sd.safetensors"
    write(path, ldm_files.tiny("sd1", in_channels=channels))
    convert_single_file(path, tmp_path / "out")
    assert load_config(tmp_path / "out/unet")["in_channels"] == channels
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["_class_name"] == f"StableDiffusion{pipeline}Pipeline"


def test_the_running_average_goes_before_the_plain_network(tmp_path):
    path = tmp_path / "sd.safetensors"
    shapes = ldm_files.tiny("sd1")
    averages = ldm_files.averages(shapes) | {"model_ema.decay": (), "model_ema.num_updates": ()}
    tensors = write(path, shapes | averages)
    assert "running average" in convert_single_file(path, tmp_path / "out")
    unet = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    want = tensors["model_ema.diffusion_modelinput_blocks20in_layers2weight"]
    np.testing.assert_array_equal(unet["down_blocks.0.resnets.1.conv1.weight"], want)
    del averages["model_ema.diffusion_modelout2bias"]
    write(path, shapes | averages)
    with pytest.raises(UserError, match="lacks the tensor model_ema.diffusion_modelout2bias"):
        open_single_file(path)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_tokenizers_are_copied_from_where_the_user_says(family, tmp_path):
    path = tmp_path / "sd.safetensors"
    write(path, ldm_files.tiny(family))
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(UserError, match="tokenizer holds no tokenizer_config.json"):
        convert_single_file(path, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
    (tmp_path / "tokenizer/tokenizer_config.json").write_text("{}")
    if family == "sdxl":
        with pytest.raises(UserError, match="tokenizer_2/ must be beside it"):
            convert_single_file(path, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
        (tmp_path / "tokenizer_2").mkdir()
        (tmp_path / "tokenizer_2/tokenizer_config.json").write_text("{}")
    note = convert_single_file(path, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
    assert "has no tokenizer" not in note
    copied = sorted(p.parent.name for p in (tmp_path / "out").glob("*/tokenizer_config.json"))
    assert copied == ["tokenizer", "tokenizer_2"][: 1 + (family == "sdxl")]


def test_the_prediction_type(tmp_path):
    path = tmp_path / "sd.safetensors"
    write(path, ldm_files.tiny("sd2"))
    with pytest.raises(UserError, match="2.x.*prediction_type=v_prediction.*768"):
        convert_single_file(path, tmp_path / "out")
    with pytest.raises(UserError, match="'sample' is unknown: choose one of epsilon, v_prediction"):
        open_single_file(path, Reading(prediction_type="sample"))
    base = open_single_file(path, Reading(prediction_type="epsilon"))
    assert base.parts["unet"].config["sample_size"] == 64
    write(path, ldm_files.tiny("sd1"))
    assert open_single_file(path).scheduler["prediction_type"] == "epsilon"
    chosen = open_single_file(path, Reading(prediction_type="v_prediction"))
    assert chosen.scheduler["prediction_type"] == "v_prediction"
    assert not (tmp_path / "out").exists()


def test_a_directory_in_use_and_an_interruption(tmp_path, monkeypatch):
    path, out = tmp_path / "sd.safetensors", tmp_path / "out"
    write(path, ldm_files.tiny("sd1"))
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        convert_single_file(path, out)
    (out / "notes.txt").unlink()

    def fail(path, tensors):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(single_file, "save_tensors", fail)
        with pytest.raises(OSError, match="disk full"):
            convert_single_file(path, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "sd.safetensors"]
    convert_single_file(path, out)
    assert (out / "model_index.json").is_file()
