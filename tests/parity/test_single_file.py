"""The conversion of single files against diffusers' own, tensor by tensor and exactly."""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")
transformers = pytest.importorskip("transformers", reason="parity extra")

from diffusers.loaders import single_file_utils as oracle  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from codi_jax.checkpoint.single_file import (  # noqa: E402
    Reading,
    convert_single_file,
    open_single_file,
)
from codi_jax.typing import UserError  # noqa: E402
from tests.checkpoint import ldm_files  # noqa: E402


def write(path, shapes):
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    save_file(tensors, path)
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy(), err_msg=name)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def converted(request, tmp_path_factory):
    """Family, its tensors in PyTorch, and the folder that we made of them."""
    root = tmp_path_factory.mktemp(request.param)
    tensors = write(root / "sd.safetensors", ldm_files.tiny(request.param))
    convert_single_file(
        root / "sd.safetensors",
        root / "out",
        reading=Reading(prediction_type=ldm_files.TYPE[request.param]),
    )
    return request.param, tensors, root / "out"


def test_unet(converted):
    _, tensors, out = converted
    model = diffusers.UNet2DConditionModel.from_pretrained(out / "unet")
    theirs = oracle.convert_ldm_unet_checkpoint(dict(tensors), dict(model.config))
    equal(load_file(out / "unet" / "diffusion_pytorch_model.safetensors"), theirs)
    equal({name: t.numpy() for name, t in model.state_dict().items()}, theirs)


def test_autoencoder(converted):
    _, tensors, out = converted
    model = diffusers.AutoencoderKL.from_pretrained(out / "vae")
    theirs = oracle.convert_ldm_vae_checkpoint(dict(tensors), dict(model.config))
    equal(load_file(out / "vae" / "diffusion_pytorch_model.safetensors"), theirs)
    equal({name: t.numpy() for name, t in model.state_dict().items()}, theirs)


def test_text_encoders(converted):
    family, tensors, out = converted
    ours = load_file(out / "text_encoder" / "model.safetensors")
    model = transformers.CLIPTextModel.from_pretrained(out / "text_encoder")
    if family == "sd2":
        theirs = oracle.convert_open_clip_checkpoint(model, dict(tensors))
    else:
        theirs = oracle.convert_ldm_clip_checkpoint(dict(tensors))
        theirs = {n: t for n, t in theirs.items() if not n.endswith("position_ids")}
    equal(ours, theirs)
    state = {name.removeprefix("text_model."): t for name, t in model.state_dict().items()}
    equal({name.removeprefix("text_model."): t for name, t in ours.items()}, state)
    if family == "sdxl":
        ours = load_file(out / "text_encoder_2" / "model.safetensors")
        model = transformers.CLIPTextModelWithProjection.from_pretrained(out / "text_encoder_2")
        prefix = "conditioner.embedders.1.model."
        equal(ours, oracle.convert_open_clip_checkpoint(model, dict(tensors), prefix=prefix))
        equal(ours, model.state_dict())


def test_diffusers_runs_the_pipeline(converted):
    """Configurations, scheduler and index are such that diffusers loads and runs the whole."""
    family, _, out = converted
    tokenizers = ("tokenizer", "tokenizer_2")[: 1 + (family == "sdxl")]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(out, **dict.fromkeys(tokenizers))
    assert pipeline.scheduler.config.prediction_type == (ldm_files.TYPE[family] or "epsilon")
    assert pipeline.unet.config.get("upcast_attention", False) == (family == "sd2")
    width = pipeline.unet.config.cross_attention_dim
    embeds = {"prompt_embeds": torch.zeros(1, 8, width)}
    if family == "sdxl":
        embeds["pooled_prompt_embeds"] = torch.zeros(1, 64)
    size = {"height": 16, "width": 16} if family != "sdxl" else {"height": 32, "width": 32}
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        **embeds, **size, num_inference_steps=1, guidance_scale=1.0, output_type="np"
    ).images
    assert np.isfinite(images).all()


def test_running_average(tmp_path):
    shapes = ldm_files.tiny("sd1")
    tensors = write(tmp_path / "sd.safetensors", shapes | ldm_files.averages(shapes))
    convert_single_file(tmp_path / "sd.safetensors", tmp_path / "out")
    config = {"layers_per_block": 2}
    theirs = oracle.convert_ldm_unet_checkpoint(tensors, config, extract_ema=True)
    equal(load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors"), theirs)


def test_the_command_for_pickles_works(tmp_path):
    shapes = ldm_files.tiny("sd1")
    tensors = write(tmp_path / "other.safetensors", shapes)
    torch.save({"state_dict": tensors, "global_step": 7}, tmp_path / "sd.ckpt")
    with pytest.raises(UserError) as caught:
        open_single_file(tmp_path / "sd.ckpt")
    command = str(caught.value).split("\n")[1]
    command = command.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)
    equal(load_file(tmp_path / "sd.safetensors"), tensors)
    assert open_single_file(tmp_path / "sd.safetensors").parts.keys() == {
        "unet", "vae", "text_encoder",
    }  # fmt: skip
