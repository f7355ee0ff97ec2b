"""Which files of a Hugging Face repository are downloaded."""

import shutil

import numpy as np
import pytest

from codi_jax.checkpoint import hub
from codi_jax.checkpoint.directory import read_directory, write_architecture
from codi_jax.checkpoint.files import WEIGHTS, save_tensors
from codi_jax.typing import UserError
from tests.checkpoint.test_directory import MODELS

#: As the repository of Stable Diffusion 1.5 lists them, a few of each kind.
SD15 = [
    ".gitattributes", "README.md", "model_index.json", "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors", "v1-inference.yaml", "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json", "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json", "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors", "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin", "text_encoder/flax_model.msgpack",
    "text_encoder/model.onnx", "tokenizer/merges.txt", "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.bin.index.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors",
]  # fmt: skip
WANTED = {
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "text_encoder/model.safetensors", "tokenizer/merges.txt", "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip


def test_files_of_a_pipeline():
    wanted = hub.wanted_files("owner/name", SD15)
    assert len(wanted) == len(set(wanted))
    assert set(wanted) == WANTED


@pytest.mark.parametrize("kind", ["mix", "controlnet", "t2i"])
def test_our_own_exports_are_fetched_with_their_adapter(kind, tmp_path):
    export = tmp_path / "export"
    write_architecture(export, MODELS[kind])
    for config in export.glob("*/config.json"):
        save_tensors(config.parent / f"{WEIGHTS}.safetensors", {"a": np.zeros(1, np.float32)})
    names = [f.relative_to(export).as_posix() for f in export.rglob("*") if f.is_file()]
    wanted = hub.wanted_files("owner/my_sr", names)
    assert not [name for name in wanted if name.endswith(".py")]
    for name in wanted:
        (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(export / name, tmp_path / "snapshot" / name)
    assert hub._lacking(tmp_path / "snapshot") == ""
    read = read_directory(tmp_path / "snapshot")
    assert read.network.adapter == MODELS[kind].network.adapter
    shutil.rmtree(read.adapter_directory)
    assert f"{read.adapter_directory.name} holds no" in hub._lacking(tmp_path / "snapshot")


def test_the_variant_is_taken_only_where_there_is_no_other():
    plain = [f for f in SD15 if f != "vae/diffusion_pytorch_model.safetensors"]
    wanted = set(hub.wanted_files("owner/name", plain))
    assert wanted ^ WANTED == {
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }


def test_sharded_models():
    names = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    assert set(hub.wanted_files("owner/name", names)) == set(names[:5])
    half = [name for name in names if name not in names[2:5]]
    assert set(hub.wanted_files("owner/name", half)) == set(half)


def test_a_single_model_at_the_top():
    names = ["README.md", "config.json", "diffusion_pytorch_model.bin"]
    weights = "diffusion_pytorch_model.safetensors"
    assert set(hub.wanted_files("o/vae", [*names, weights])) == {"config.json", weights}
    with pytest.raises(UserError, match="o/vae has no safetensors beside diff.*AutoModel"):
        hub.wanted_files("o/vae", names)


def test_repositories_with_pickles_or_without_a_model():
    only_bin = [f for f in SD15 if not f.startswith("vae/") or "safetensors" not in f]
    only_bin.append("vae/diffusion_pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        hub.wanted_files("owner/name", only_bin)
    message = str(caught.value)
    assert "no safetensors beside vae/diffusion_pytorch_model.bin" in message
    assert "DiffusionPipeline.from_pretrained('owner/name', use_safetensors=False)" in message
    with pytest.raises(UserError, match="no model in diffusers' format, but a.safetensors: down"):
        hub.wanted_files("owner/name", ["a.safetensors", "README.md"])
    with pytest.raises(UserError, match=r"no model in diffusers' format\.$"):
        hub.wanted_files("owner/name", ["README.md"])
