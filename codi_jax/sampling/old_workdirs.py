"""Unfinished runs of version 0.1.0: they wrote no origin, but their config.json tells it."""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.files import load_json
from codi_jax.checkpoint.parameters import with_guidance_input
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.sampling.architecture import build_architecture
from codi_jax.sampling.origin import Origin
from codi_jax.tasks.registry import task_from_config
from codi_jax.typing import Settings, UserError

_CONFIG = "config.json"


def is_one(workdir: Path) -> bool:
    """Whether ``workdir`` is that of a run."""
    return (workdir / _CONFIG).is_file()


def translate(workdir: Path) -> tuple[Origin, AutoencoderModel]:
    """The origin that such a run would write today, and its architecture.

    Raises:
        UserError: the file is not the config of such a run.
    """
    path = workdir / _CONFIG
    config = load_json(path)
    try:
        return _origin(config), _model(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the config of a run ({error!r}): name another workdir."
        ) from None


def _origin(config: Settings) -> Origin:
    model = config["model"]
    averages = [*config["ema"]]
    if config["method"] == "progressive":
        averages.append("teacher")
    return Origin(
        pretrained=model["pretrained"],
        adapter=model["pretrained_adapter"],
        autoencoder="",
        redraw=("unet", "adapter") if model["init"] == "random" else (),
        seed=config["seed"],
        guidance_input=bool(model["time_cond_proj_dim"]),
        trainable=model["trainable"],
        averages=tuple(averages),
        frozen="",
    )


def _model(config: Settings) -> AutoencoderModel:
    task = task_from_config(config["task"], config["task_options"], config["data"])
    model = build_architecture(config["model"], task, config["data"]["size"])
    if not isinstance(model, Model):
        return model
    model = dataclasses.replace(model, sampler=_sampler(config["method"], config["loss"]))
    dim = config["model"]["time_cond_proj_dim"]
    return with_guidance_input(model, dim) if dim else model


def _sampler(method: str, loss: Settings) -> SamplerConfig:
    if method != "consistency":
        return SamplerConfig()
    return SamplerConfig(
        solver="consistency",
        original_inference_steps=loss.get("grid_steps", 50),
        timestep_scaling=loss.get("timestep_scaling", 10.0),
    )
