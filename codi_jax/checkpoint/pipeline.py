"""A whole model as one diffusers-format directory.

```
model_index.json                     what the parts are, the task, the scale
vae/  unet/  adapter/                config.json, diffusion_pytorch_model.safetensors
scheduler/scheduler_config.json
```
A prior has no ``adapter``; an autoencoder alone is a directory with ``vae`` only.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.checkpoint.diffusers_format import (
    check_class,
    load_config,
    load_json,
    load_params,
    save_json,
    save_model,
)
from codi_jax.diffusion.schedules import Schedule, schedule_from_config
from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.configs import AutoencoderConfig, ControlNetConfig, UNetConfig
from codi_jax.typing import Params, UserError

INDEX = "model_index.json"
CLASSES = {"mix": "CoDiMixAdapter", "controlnet": "ControlNetModel"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Networks, schedule and parameters of one model.

    Attributes:
        vae: the autoencoder's architecture.
        unet: the U-Net and its adapter; None for an autoencoder alone.
        schedule: noise schedule; None for an autoencoder alone.
        prediction_type: what the U-Net predicts, in diffusers' words.
        task: "sr", or None for an unconditional prior.
        scale: for "sr", how many times larger the result is.
        params: float32 nested dicts under "vae", "unet", "adapter".
    """

    vae: AutoencoderConfig
    unet: AdaptedUNet | None = None
    schedule: Schedule | None = None
    prediction_type: str = "v_prediction"
    task: str | None = None
    scale: int = 1
    params: Params = dataclasses.field(default_factory=dict)


def vae_shapes(config: AutoencoderConfig) -> Any:
    """Shapes and dtypes of the autoencoder's parameters."""
    return jax.eval_shape(lambda: init_vae(config, jax.random.key(0)))


def init_vae(config: AutoencoderConfig, key: jax.Array) -> Any:
    """Random parameters of an autoencoder, with a narrow posterior.

    Drawn as usual, the posterior's deviation would start at 1 and bury the mean: training would
    spend its first thousands of steps on shrinking it.
    """
    side = 2 * config.downsampling
    images = jnp.zeros((1, side, side, config.in_channels))
    params = AutoencoderKL(config).init(key, images, key)["params"]
    last = params["quant_conv"] if config.use_quant_conv else params["encoder"]["conv_out"]
    last["bias"] = last["bias"].at[config.latent_channels :].set(-8.0)  # the log-variance
    return params


def save_pipeline(
    directory: str | os.PathLike[str], pipeline: Pipeline, *, dtype: str = "float32"
) -> None:
    """Write every part, the index last: a directory without it is not a model."""
    root = Path(directory)
    params = pipeline.params
    index: dict[str, Any] = {"_class_name": "CoDiPipeline" if pipeline.task else "LatentPrior"}
    vae_config = {"_class_name": "AutoencoderKL", **pipeline.vae.to_config()}
    save_model(root / "vae", vae_config, params["vae"], dtype=dtype)
    index["vae"] = ["diffusers", "AutoencoderKL"]
    if pipeline.unet is not None:
        unet = pipeline.unet
        config = {"_class_name": "UNet2DConditionModel", **unet.unet.to_config()}
        save_model(root / "unet", config, params["unet"], dtype=dtype)
        index["unet"] = ["diffusers", "UNet2DConditionModel"]
        if unet.adapter != "none":
            config = {"_class_name": CLASSES[unet.adapter], **unet.controlnet.to_config()}
            save_model(root / "adapter", config, params["adapter"], dtype=dtype)
            index["adapter"] = ["codi_jax", CLASSES[unet.adapter]]
    if pipeline.schedule is not None:
        config = pipeline.schedule.to_config(pipeline.prediction_type)
        (root / "scheduler").mkdir(parents=True, exist_ok=True)
        save_json(root / "scheduler" / "scheduler_config.json", config)
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if pipeline.task:
        index |= {"task": pipeline.task, "scale": pipeline.scale}
    if jax.process_index() == 0:
        save_json(root / INDEX, index)


def load_pipeline(directory: str | os.PathLike[str]) -> Pipeline:
    """Read a directory of :func:`save_pipeline`, or a diffusers prior without text.

    Raises:
        UserError: no such directory, no model in it, or parts that do not fit.
    """
    root = Path(directory)
    if not (root / INDEX).is_file():
        raise UserError(
            f"{root} holds no model: {INDEX} is missing. Give a diffusers-format directory, or "
            "the workdir of a finished run."
        )
    index = load_json(root / INDEX)
    config = load_config(root / "vae")
    check_class(config, "AutoencoderKL", root / "vae")
    vae = AutoencoderConfig.from_config(config)
    params = {"vae": load_params(root / "vae", vae_shapes(vae))}
    if "unet" not in index:
        return Pipeline(vae=vae, params=params)
    config = load_config(root / "unet")
    check_class(config, "UNet2DConditionModel", root / "unet")
    unet = AdaptedUNet(unet=UNetConfig.from_config(config))
    if "adapter" in index:
        config = load_config(root / "adapter")
        kinds = {name: kind for kind, name in CLASSES.items()}
        kind = kinds.get(config.get("_class_name", ""))
        if kind is None:
            raise UserError(f"{root}/adapter: unknown _class_name {config.get('_class_name')!r}.")
        control = ControlNetConfig.from_config(config)
        unet = dataclasses.replace(unet, adapter=kind, controlnet=control)
    for name, shapes in jax.eval_shape(unet.init, jax.random.key(0)).items():
        params[name] = load_params(root / name, shapes)
    scheduler = load_json(root / "scheduler" / "scheduler_config.json")
    return Pipeline(
        vae=vae,
        unet=unet,
        schedule=schedule_from_config(scheduler),
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        task=index.get("task"),
        scale=index.get("scale", 1),
        params=params,
    )
