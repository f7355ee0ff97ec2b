"""A model's directory: what is written is read, with weights and without."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from codi_jax import trees
from codi_jax.checkpoint.directory import (
    COMMUNITY,
    load_directory,
    read_directory,
    save_directory,
    with_adapter,
    write_architecture,
)
from codi_jax.checkpoint.parameters import with_params
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.typing import UserError
from tests.models.tiny_unets import ADAPTERS, NO_TEXT, PLAIN, TEXT

VAE = AutoencoderConfig(
    block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=0.7
)
DC = AutoencoderDCConfig(
    encoder_block_out_channels=(4, 8),
    encoder_layers_per_block=(1, 1),
    decoder_block_out_channels=(4, 8),
    decoder_layers_per_block=(1, 1),
    encoder_qkv_multiscales=((), ()),
    decoder_qkv_multiscales=((), ()),
    latent_channels=4,
)
FOLDERS = {"none": None, "mix": "adapter", "controlnet": "controlnet", "t2i": "adapter"}


def model_with(adapter: str, unet: Any = NO_TEXT, **changes: Any) -> Model:
    task = None if adapter == "none" else "sr"
    made = Model(
        vae=VAE,
        network=AdaptedUNet(unet=unet, adapter=ADAPTERS[adapter]),
        schedule=DiscreteSchedule(),
        task=task,
        scale=4 if task else 1,
    )
    return dataclasses.replace(made, **changes)


MODELS: dict[str, AutoencoderModel] = {
    **{name: model_with(name) for name in FOLDERS},
    "text": model_with("controlnet", TEXT),
    "epsilon": model_with("mix", prediction_type="epsilon"),
    "consistency": model_with(
        "mix",
        sampler=SamplerConfig(
            solver="consistency", original_inference_steps=20, timestep_scaling=5.0
        ),
    ),
    "zero snr": model_with("none", schedule=DiscreteSchedule(rescale_betas_zero_snr=True)),
    "options": model_with("mix", task="edit", task_options={"instruction_channels": 16}),
    "scale": model_with(
        "mix", unet=dataclasses.replace(PLAIN, time_cond_proj_dim=6, sample_size=16)
    ),
    "autoencoder": AutoencoderModel(vae=VAE),
    "autoencoder dc": AutoencoderModel(vae=DC),
}


def index(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "model_index.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_an_architecture_is_read_back(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    write_architecture(tmp_path, model)
    assert not [*tmp_path.rglob("*.safetensors")]
    expected = dataclasses.replace(model, directory=tmp_path)
    if isinstance(model, Model):
        assert isinstance(expected, Model)
        folder = next((FOLDERS[kind] for kind in FOLDERS if kind == model.network.adapter.kind), "")
        unet = dataclasses.replace(model.network.unet, sample_size=None)
        read = read_directory(tmp_path)
        assert isinstance(read, Model)
        found = dataclasses.replace(read.network.unet, sample_size=None)
        assert found == unet and read.network.adapter == model.network.adapter
        expected = dataclasses.replace(
            expected,
            network=read.network,
            adapter_directory=tmp_path / folder if folder else None,
        )
    assert read_directory(tmp_path) == expected


def test_an_index_names_the_parts(tmp_path: Path) -> None:
    for name in ("none", "mix", "controlnet", "t2i", "autoencoder"):
        write_architecture(tmp_path / name, MODELS[name])
    assert index(tmp_path / "autoencoder") == {
        "_class_name": "CoDiModel",
        "vae": ["diffusers", "AutoencoderKL"],
    }
    assert set(index(tmp_path / "none")) == {"_class_name", "vae", "unet", "scheduler"}
    assert index(tmp_path / "controlnet")["controlnet"][0] == "diffusers"
    assert index(tmp_path / "t2i")["task"] == "sr" and index(tmp_path / "t2i")["scale"] == 4
    assert "task_options" not in index(tmp_path / "mix")


def test_our_own_adapter_travels_with_its_sources(tmp_path: Path) -> None:
    write_architecture(tmp_path, MODELS["mix"])
    for copy, source in (
        ("pipeline.py", "pipeline.py"),
        ("adapter/mix_adapter.py", "mix_adapter.py"),
    ):
        assert (tmp_path / copy).read_bytes() == (COMMUNITY / source).read_bytes()
    assert index(tmp_path)["_class_name"][0] == "pipeline"
    write_architecture(tmp_path / "other", MODELS["controlnet"])
    assert not [*(tmp_path / "other").rglob("*.py")]


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write_architecture(tmp_path / "m", MODELS["none"])
    assert not (tmp_path / "m").exists()


@pytest.fixture(scope="module")
def model() -> Model:
    return with_params(model_with("mix", PLAIN), jax.random.key(0))


@pytest.fixture(scope="module")
def directory(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_directory(path, model)
    return path


def test_weights_are_read_back_bit_for_bit(model: Model, directory: Path) -> None:
    assert trees.tree_hash(load_directory(directory).params) == trees.tree_hash(model.params)
    names = sorted(p.parent.name for p in directory.rglob("*.safetensors"))
    assert names == ["adapter", "unet", "vae"]


def test_half_precision_takes_two_bytes_a_number(
    model: Model, directory: Path, tmp_path: Path
) -> None:
    save_directory(tmp_path, model, dtype="float16")
    file = "unet/diffusion_pytorch_model.safetensors"
    count = trees.count(model.params["unet"])
    saved = (directory / file).stat().st_size - (tmp_path / file).stat().st_size
    assert abs(saved - 2 * count) < 0.2 * count  # the headers differ a little
    for a, b in zip(
        *map(jax.tree.leaves, (load_directory(tmp_path).params, model.params)), strict=True
    ):
        assert a.dtype == b.dtype
        assert abs(a - b).max() <= 1e-3 * max(1.0, abs(b).max())
    with pytest.raises(UserError, match="int8"):
        save_directory(tmp_path / "x", model, dtype="int8")


def test_the_index_comes_last(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was interrupted is not taken for a model."""
    monkeypatch.setattr("codi_jax.checkpoint.directory.write_architecture", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_directory(tmp_path, model)
    with pytest.raises(UserError, match=r"holds no model: model_index\.json is missing"):
        read_directory(tmp_path)


def test_a_directory_that_lacks_weights_is_refused(directory: Path, tmp_path: Path) -> None:
    root = shutil.copytree(directory, tmp_path / "m")
    shutil.rmtree(root / "adapter")
    with pytest.raises(UserError, match="adapter"):
        load_directory(root)
    root = shutil.copytree(directory, tmp_path / "n")
    next((root / "unet").glob("*.safetensors")).unlink()
    assert isinstance(read_directory(root), Model)
    with pytest.raises(UserError, match="unet"):
        load_directory(root)


@pytest.mark.parametrize(
    ("part", "name"), [("vae", "VQModel"), ("unet", "UNet3DConditionModel"), ("adapter", "LoRA")]
)
def test_other_classes_are_refused(part: str, name: str, directory: Path, tmp_path: Path) -> None:
    root = shutil.copytree(directory, tmp_path / "m")
    config = json.loads((root / part / "config.json").read_text())
    (root / part / "config.json").write_text(json.dumps({**config, "_class_name": name}))
    with pytest.raises(UserError, match=rf"{part}.*{name}"):
        read_directory(root)


def test_an_adapter_of_another_directory(model: Model, directory: Path, tmp_path: Path) -> None:
    write_architecture(tmp_path, model_with("controlnet", PLAIN))
    taken = with_adapter(model, tmp_path / "controlnet")
    assert taken.network.adapter.kind == "controlnet"
    assert taken.adapter_directory == tmp_path / "controlnet"
    assert taken.network.unet == model.network.unet
    write_architecture(tmp_path / "text", model_with("controlnet", TEXT))
    with pytest.raises(UserError, match="another model|does not fit|of another"):
        with_adapter(model, tmp_path / "text" / "controlnet")
    with pytest.raises(UserError, match=r"UNet2DConditionModel.*an adapter is one of"):
        with_adapter(model, directory / "unet")


def test_text_encoders_go_along_unchanged(tmp_path: Path, random_params: Any) -> None:
    def drawn(made: Model) -> Model:
        return dataclasses.replace(made, params=random_params(made.init))

    prior = tmp_path / "prior"
    save_directory(prior, drawn(model_with("none", TEXT)))
    content = index(prior)
    entries = {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    for folder in entries:
        (prior / folder).mkdir()
        (prior / folder / "file.txt").write_bytes(b"as it was")
    (prior / "model_index.json").write_text(json.dumps({**content, **entries}))
    distilled = dataclasses.replace(model_with("controlnet", TEXT), directory=prior)
    write_architecture(tmp_path / "architecture", distilled)
    assert not (tmp_path / "architecture" / "tokenizer").exists()
    found = index(tmp_path / "architecture")
    assert found["_class_name"] == "StableDiffusionControlNetPipeline"
    assert found["tokenizer"] == entries["tokenizer"]
    assert found["safety_checker"] == [None, None]
    save_directory(tmp_path / "whole", drawn(distilled))
    for folder in entries:
        assert (tmp_path / "whole" / folder / "file.txt").read_bytes() == b"as it was"
    # Written over itself, it stays whole.
    again = dataclasses.replace(load_directory(tmp_path / "whole"), directory=tmp_path / "whole")
    save_directory(tmp_path / "whole", again)
    assert (tmp_path / "whole" / "tokenizer" / "file.txt").read_bytes() == b"as it was"
