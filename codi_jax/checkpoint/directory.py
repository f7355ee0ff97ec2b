"""A whole model as one diffusers-format directory.

```
model_index.json                     what the parts are, the task, the scale
vae/  unet/                          config.json, diffusion_pytorch_model.safetensors
adapter/ (or controlnet/)            the same
scheduler/scheduler_config.json
text_encoder/  tokenizer/            as they came with the prior (text_encoder_2/ too: SDXL)
pipeline.py, adapter/mix_adapter.py  what PyTorch diffusers needs to run the mix adapter
```
A prior has no adapter; an autoencoder alone is a directory with ``vae`` only.
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import jax

from codi_jax.checkpoint.diffusers_format import check_class, load_config, save_model
from codi_jax.checkpoint.files import INDEX, load_json, save_json
from codi_jax.checkpoint.pipeline import Pipeline, Placement, with_params
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.autoencoders import CLASSES as AUTOENCODERS
from codi_jax.models.autoencoders import autoencoder_config
from codi_jax.models.configs import ControlNetConfig, UNetConfig
from codi_jax.models.t2i_adapter import T2IAdapterConfig
from codi_jax.typing import UserError

#: Parts that are carried from the prior to the distilled model as they are.
TEXT_PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
#: Class of an adapter's config.json -> its kind here.
ADAPTER_CLASSES = {
    "CoDiMixAdapter": "mix",
    "ControlNetModel": "controlnet",
    "T2IAdapter": "t2i",
}
#: Kind -> its folder in a pipeline, which diffusers' pipelines expect by these names.
FOLDERS = {"mix": "adapter", "controlnet": "controlnet", "t2i": "adapter"}
#: Kind -> the pipeline of diffusers that runs it, where there is a text encoder.
PIPELINES = {
    "none": "StableDiffusionPipeline",
    "controlnet": "StableDiffusionControlNetPipeline",
    "t2i": "StableDiffusionAdapterPipeline",
}
#: Sources for PyTorch diffusers, which travel with the weights of the mix adapter.
COMMUNITY = Path(__file__).parents[1] / "assets" / "community"


def save_pipeline(
    directory: str | os.PathLike[str], pipeline: Pipeline, *, dtype: str = "float32"
) -> None:
    """Write every part, the index last: a directory without it is not a model.

    Args:
        directory: made if needed.
        pipeline: with its parameters.
        dtype: "float32" or "float16", on disk; text encoders are copied as they are.

    Raises:
        UserError: another ``dtype``, or values too large for float16.
    """
    root, network = Path(directory), pipeline.unet
    index: dict[str, Any] = {}
    parts: dict[str, tuple[str, dict[str, Any], str]] = {
        "vae": ("vae", pipeline.vae.to_config(), pipeline.vae.CLASS)
    }
    if network is not None:
        parts["unet"] = ("unet", network.unet.to_config(), "UNet2DConditionModel")
    if network is not None and network.adapter != "none":
        names = {kind: name for name, kind in ADAPTER_CLASSES.items()}
        folder = FOLDERS[network.adapter]
        parts["adapter"] = (folder, _adapter_config(network), names[network.adapter])
    for part, (folder, config, name) in parts.items():
        config = {"_class_name": name, **config}
        save_model(root / folder, config, pipeline.params[part], dtype=dtype)
        index[folder] = ["diffusers", name]
    index |= _copy_text(pipeline, root)
    if jax.process_index() != 0:
        return
    if pipeline.schedule is not None:
        config = pipeline.schedule.to_config(pipeline.prediction_type)
        config = pipeline.sampler.to_config(config)
        save_json(root / "scheduler" / "scheduler_config.json", config)
        index["scheduler"] = ["diffusers", pipeline.sampler.diffusers_class]
    if network is not None and network.adapter == "mix" and pipeline.task == "sr":
        shutil.copyfile(COMMUNITY / "pipeline.py", root / "pipeline.py")
        shutil.copyfile(COMMUNITY / "mix_adapter.py", root / "adapter" / "mix_adapter.py")
        index["adapter"] = ["mix_adapter", "CoDiMixAdapter"]
    if pipeline.task:
        index |= {"task": pipeline.task, "scale": pipeline.scale}
        if pipeline.task_options:
            index["task_options"] = dict(pipeline.task_options)
    save_json(root / INDEX, {"_class_name": _pipeline_class(pipeline, index), **index})


def _adapter_config(network: AdaptedUNet) -> dict[str, Any]:
    if network.adapter == "mix":
        return {**network.unet.to_config(), "in_channels": network.mix_in_channels}
    return (network.controlnet if network.adapter == "controlnet" else network.t2i).to_config()


def _pipeline_class(pipeline: Pipeline, index: dict[str, Any]) -> Any:
    """What diffusers is to run the directory with; it adds to ``index`` what that needs."""
    kind = pipeline.unet.adapter if pipeline.unet is not None else "none"
    if kind == "mix":  # PyTorch has a pipeline of ours for super-resolution alone
        return ["pipeline", "CoDiPipeline"] if pipeline.task == "sr" else "CoDiModel"
    if "text_encoder" not in index:
        return "CoDiModel"  # diffusers has no pipeline without text; its parts load one by one
    if "text_encoder_2" in index:
        return PIPELINES[kind].replace("Diffusion", "DiffusionXL")
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    index["requires_safety_checker"] = False
    return PIPELINES[kind]


def _copy_text(pipeline: Pipeline, root: Path) -> dict[str, Any]:
    """Text encoders and tokenizers go along unchanged; their entries of the index."""
    source = pipeline.directory
    if source is None or not pipeline.takes_text:
        return {}
    index = load_json(source / INDEX)
    parts = [part for part in TEXT_PARTS if (source / part).is_dir()]
    if jax.process_index() == 0 and source.resolve() != root.resolve():
        for part in parts:
            shutil.copytree(source / part, root / part, dirs_exist_ok=True)
    kept = (*parts, "force_zeros_for_empty_prompt")
    return {key: index[key] for key in kept if key in index}


def read_pipeline(directory: str | os.PathLike[str]) -> Pipeline:
    """The architecture in a directory of :func:`save_pipeline`, or of a diffusers prior.

    No weights are read: see :func:`codi_jax.checkpoint.pipeline.with_params`.

    Raises:
        UserError: no such directory, no model in it, or a config that is not supported.
    """
    root = Path(directory)
    if not (root / INDEX).is_file():
        raise UserError(
            f"{root} holds no model: {INDEX} is missing. Give a diffusers-format directory, or "
            "the workdir of a run."
        )
    index = load_json(root / INDEX)
    config = load_config(root / "vae")
    check_class(config, AUTOENCODERS, root / "vae")
    vae = autoencoder_config(config)
    if "unet" not in index:
        return Pipeline(vae=vae, directory=root)
    config = load_config(root / "unet")
    check_class(config, ("UNet2DConditionModel",), root / "unet")
    scheduler = load_json(root / "scheduler" / "scheduler_config.json")
    pipeline = Pipeline(
        vae=vae,
        unet=AdaptedUNet(unet=UNetConfig.from_config(config)),
        schedule=schedule_from_config(scheduler),
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        task=index.get("task"),
        scale=index.get("scale", 1),
        task_options=index.get("task_options", {}),
        sampler=SamplerConfig.from_config(scheduler),
        directory=root,
    )
    folder = next((name for name in ("adapter", "controlnet") if name in index), None)
    return pipeline if folder is None else with_adapter(pipeline, root / folder)


def with_adapter(pipeline: Pipeline, directory: Path) -> Pipeline:
    """``pipeline`` with the adapter in ``directory``: ours, a ControlNet's or a T2I-Adapter's.

    Raises:
        UserError: no config there, of another class, or of an adapter for another U-Net.
    """
    assert pipeline.unet is not None
    config = load_config(directory)
    kind = ADAPTER_CLASSES.get(config.get("_class_name", ""))
    if kind is None:
        raise UserError(
            f"{directory}: _class_name is {config.get('_class_name')!r}; an adapter is one of "
            f"{', '.join(ADAPTER_CLASSES)}."
        )
    changes: dict[str, Any] = {"adapter": kind}
    if kind == "controlnet":
        changes["controlnet"] = ControlNetConfig.from_config(config)
    elif kind == "t2i":
        changes["t2i"] = T2IAdapterConfig.from_config(config)
    else:
        extra = config["in_channels"] - pipeline.unet.unet.in_channels
        if extra < 0:
            raise UserError(f"{directory}: the adapter belongs to a U-Net of fewer channels.")
        changes["extra_latents"] = extra
    network = dataclasses.replace(pipeline.unet, **changes)
    return dataclasses.replace(pipeline, unet=network, adapter_directory=directory)


def load_pipeline(directory: str | os.PathLike[str], place: Placement | None = None) -> Pipeline:
    """:func:`read_pipeline` with the weights, complete.

    Raises:
        UserError: as there, or weights that are absent or do not fit.
    """
    return with_params(read_pipeline(directory), jax.random.key(0), place, new=False)
