"""From the settings of a model to its architecture, without weights."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from codi_jax.checkpoint.directory import write_architecture
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.autoencoders import autoencoder_config
from codi_jax.sampling.architecture import build_architecture
from codi_jax.tasks.autoencoder import Autoencoder
from codi_jax.tasks.base import Task
from codi_jax.tasks.edit import TASK as Edit
from codi_jax.tasks.inpaint import Inpainting
from codi_jax.tasks.prior import Prior
from codi_jax.tasks.sr import SuperResolution
from codi_jax.typing import UserError
from tests.smallest import VAE, smallest


def options(**changes: Any) -> dict[str, Any]:
    return smallest(**{f"model__{key}": value for key, value in changes.items()}).model.to_dict()


def build(task: Task, size: int = 32, **changes: Any) -> Model:
    made = build_architecture(options(**changes), task, size)
    assert isinstance(made, Model)
    return made


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The architecture of an earlier run's model."""
    write_architecture(tmp_path / "earlier", build(SuperResolution()))
    return tmp_path / "earlier"


def test_networks_as_they_are_described() -> None:
    model = build(SuperResolution(scale=2), prediction_type="epsilon")
    assert model.vae == autoencoder_config(VAE)
    assert model.network.unet.block_out_channels == (8,)
    assert model.schedule == schedule_from_config(options()["scheduler"])
    assert model.prediction_type == "epsilon"
    assert (model.task, model.scale, model.task_options) == ("sr", 2, {})
    assert model.directory is None and model.params == {}


@pytest.mark.parametrize(("size", "latents"), [(32, 16), (64, 32)])
def test_a_new_unet_knows_the_size_that_it_is_trained_at(size: int, latents: int) -> None:
    assert build(Prior(), size).network.unet.sample_size == latents


def test_an_autoencoder_has_no_unet() -> None:
    made = build_architecture(options(), Autoencoder(), 32)
    assert type(made) is AutoencoderModel and made.vae == autoencoder_config(VAE)


def test_a_prior_is_for_no_task() -> None:
    model = build(Prior(), adapter="none")
    assert model.task is None and not model.network.has_adapter


@pytest.mark.parametrize("adapter", ["none", "mix", "controlnet", "t2i"])
def test_the_adapter_is_of_the_kind_that_is_asked_for(adapter: str) -> None:
    assert build(SuperResolution(), adapter=adapter).network.adapter.kind == adapter


def test_an_adapter_is_as_wide_as_the_tasks_condition() -> None:
    """Inpainting has a mask as a further channel of the picture and of the latents."""
    plain = build(SuperResolution(), adapter="mix").network.adapter
    masked = build(Inpainting(), adapter="mix").network.adapter
    assert plain != masked
    hint = build(Inpainting(), adapter="controlnet").network.adapter
    assert getattr(hint, "config").conditioning_channels == 4  # noqa: B009


@pytest.mark.parametrize(
    ("said", "policy"), [(False, "none"), (True, "blocks"), ("everything", "everything")]
)
def test_the_gradient_keeps_what_the_config_says(said: str | bool, policy: str) -> None:
    assert build(SuperResolution(), remat=said).network.remat == policy


def test_what_sampling_needs_of_the_task_goes_along() -> None:
    assert build(Edit(instruction_channels=3)).task_options == {"instruction_channels": 3}


def test_an_unknown_adapter_is_refused() -> None:
    with pytest.raises(UserError, match=r"adapter='lora' is unknown.*mix"):
        build(SuperResolution(), adapter="lora")


def test_a_pretrained_model_keeps_its_networks(earlier: Path) -> None:
    model = build(
        SuperResolution(scale=2),
        pretrained=str(earlier),
        adapter="controlnet",
        prediction_type="epsilon",
        vae={"block_out_channels": (2, 2)},
    )
    assert model.network.adapter.kind == "mix"  # its own
    assert model.vae == autoencoder_config(VAE) and model.prediction_type == "v_prediction"
    assert model.directory == earlier and model.adapter_directory == earlier / "adapter"
    assert model.scale == 2  # what it is trained for now


def test_a_pretrained_autoencoder_gets_a_new_unet(tmp_path: Path) -> None:
    vae = autoencoder_config({**VAE, "scaling_factor": 0.25})
    write_architecture(tmp_path, AutoencoderModel(vae=vae))
    model = build(Prior(), pretrained=str(tmp_path), adapter="none")
    assert model.vae == vae and model.directory == tmp_path
    assert model.network.unet.block_out_channels == (8,)


def test_an_adapter_of_its_own_directory(earlier: Path, tmp_path: Path) -> None:
    write_architecture(tmp_path / "c", build(SuperResolution(), adapter="controlnet"))
    folder = tmp_path / "c" / "controlnet"
    model = build(SuperResolution(), pretrained=str(earlier), pretrained_adapter=str(folder))
    assert model.network.adapter.kind == "controlnet"
    assert model.adapter_directory == folder and model.directory == earlier
    wider = dataclasses.replace(model.network.unet, block_out_channels=(16,))
    other = build(SuperResolution(), unet=wider.to_config(), adapter="controlnet")
    write_architecture(tmp_path / "d", other)
    with pytest.raises(UserError, match="belongs to another model"):
        build(SuperResolution(), pretrained_adapter=str(tmp_path / "d" / "controlnet"))


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        build(SuperResolution(), pretrained=str(tmp_path))
