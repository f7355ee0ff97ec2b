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

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from codi_jax.checkpoint.copying import copy_part
from codi_jax.checkpoint.diffusers_format import CONFIG, check_class, load_config, save_model
from codi_jax.checkpoint.files import INDEX, load_object, new_directory, save_json
from codi_jax.checkpoint.parameters import Placement, with_params
from codi_jax.checkpoint.pipelines import NO_PIPELINE, prior_pipeline
from codi_jax.diffusion.parameterization import check_prediction_type
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.diffusion.unsupported_sampler import read_sampler
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.registry import BY_CLASS_NAME, FOLDERS
from codi_jax.models.autoencoders import CLASSES as AUTOENCODERS
from codi_jax.models.autoencoders import autoencoder_config
from codi_jax.models.configs import UNetConfig
from codi_jax.typing import UserError, fits

#: Parts that are carried from the prior to the distilled model as they are.
TEXT_PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
#: What is replaced when a model is written where another was.
OWNED = {INDEX, "vae", "unet", "scheduler", "pipeline.py", *FOLDERS, *TEXT_PARTS}
#: Entries of the index that say how a prior's pipeline runs; they are carried, too.
_SETTINGS = ("force_zeros_for_empty_prompt", "requires_aesthetics_score", "add_watermarker")
#: Sources for PyTorch diffusers, which travel with the weights of an adapter of our own.
COMMUNITY = Path(__file__).parents[1] / "assets" / "community"


def save_directory(
    directory: str | os.PathLike[str], model: AutoencoderModel, *, dtype: str = "float32"
) -> None:
    """Write every part. A model that was there is replaced whole, or stays if this is stopped.

    Args:
        directory: made if needed; files that are not a model's stay.
        model: with its parameters.
        dtype: "float32" or "float16", on disk; text encoders are copied as they are.

    Raises:
        UserError: another ``dtype``, or values too large for float16.
    """
    target = Path(directory).resolve()  # a link stays one
    # All processes gather the parameters, and the first one writes.
    first = jax.process_index() == 0
    with new_directory(target, OWNED) if first else contextlib.nullcontext(target) as root:
        for part, (folder, config) in _parts(model).items():
            save_model(root / folder, config, model.params[part], dtype=dtype)
        if isinstance(model, Model) and model.takes_text:
            _copy_text(model, root)
        write_architecture(root, model)


def write_architecture(directory: str | os.PathLike[str], model: AutoencoderModel) -> None:
    """Write everything about ``model`` but its weights and text encoders, the index last.

    Args:
        directory: made if needed; :func:`read_directory` reads it.
        model: its parameters are not used.
    """
    if jax.process_index() != 0:
        return
    root, parts = Path(directory), _parts(model)
    index: dict[str, Any] = {}
    for folder, config in parts.values():
        save_json(root / folder / CONFIG, config)
        index[folder] = ["diffusers", config["_class_name"]]
    if not isinstance(model, Model):
        save_json(root / INDEX, {"_class_name": NO_PIPELINE, **index})
        return
    index |= _text_index(model)
    config = model.sampler.to_config(model.schedule.to_config(model.prediction_type))
    save_json(root / "scheduler" / "scheduler_config.json", config)
    index["scheduler"] = ["diffusers", model.sampler.diffusers_class]
    adapter = model.network.adapter
    if model.task in adapter.own_pipelines:
        source = f"{adapter.own_module}.py"
        shutil.copyfile(COMMUNITY / "pipeline.py", root / "pipeline.py")
        shutil.copyfile(COMMUNITY / source, root / adapter.folder / source)
        index[adapter.folder] = [adapter.own_module, adapter.class_name]
    if model.task:
        index |= {"task": model.task, "scale": model.scale}
        if model.task_options:
            index["task_options"] = dict(model.task_options)
    save_json(root / INDEX, {"_class_name": _pipeline_class(model, index), **index})


def _parts(model: AutoencoderModel) -> dict[str, tuple[str, dict[str, object]]]:
    """Part of the parameters -> its folder and config."""
    parts = {"vae": ("vae", {"_class_name": model.vae.CLASS, **model.vae.to_config()})}
    if isinstance(model, Model):
        unet, adapter = model.network.unet, model.network.adapter
        parts["unet"] = ("unet", {"_class_name": "UNet2DConditionModel", **unet.to_config()})
        if model.network.has_adapter:
            config = {"_class_name": adapter.class_name, **adapter.to_config(unet)}
            parts["adapter"] = (adapter.folder, config)
    return parts


def _pipeline_class(model: Model, index: dict[str, object]) -> str | list[str]:
    """What diffusers is to run the directory with; it adds to ``index`` what that needs."""
    adapter = model.network.adapter
    own = adapter.own_pipelines.get(model.task or "")
    if own is not None:
        return ["pipeline", own]
    if adapter.pipeline is None or "text_encoder" not in index:
        return NO_PIPELINE  # diffusers has no pipeline without text
    xl = "text_encoder_2" in index
    name = adapter.pipeline.replace("Diffusion", "DiffusionXL") if xl else adapter.pipeline
    if not model.network.has_adapter:
        found = _source_index(model).get("_class_name")
        name = prior_pipeline(model.network.unet.in_channels, xl=xl, found=found)
    if not xl and name != NO_PIPELINE:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return name


def _text_parts(model: Model) -> dict[str, Path]:
    source = model.directory
    if source is None or not model.takes_text:
        return {}
    return {part: source / part for part in TEXT_PARTS if (source / part).is_dir()}


def _text_index(model: Model) -> dict[str, object]:
    """Entries of the index for text encoders and tokenizers, as the model came with them."""
    if not model.takes_text:
        return {}
    index = _source_index(model)
    return {key: index[key] for key in (*_text_parts(model), *_SETTINGS) if key in index}


def _source_index(model: Model) -> dict[str, Any]:
    """The index of the directory that the model came from; {} if there is none."""
    return {} if model.directory is None else load_object(model.directory / INDEX)


def _copy_text(model: Model, root: Path) -> None:
    """Text encoders and tokenizers go along unchanged."""
    for part, folder in _text_parts(model).items():
        if jax.process_index() == 0:
            copy_part(folder, root / part)


def read_directory(directory: str | os.PathLike[str]) -> AutoencoderModel:
    """The architecture in a directory of :func:`save_directory`, or of a diffusers prior.

    No weights are read: see :func:`codi_jax.checkpoint.parameters.with_params`.

    Returns:
        A :class:`Model`, or an :class:`AutoencoderModel` where there is no U-Net.

    Raises:
        UserError: no such directory, no model in it, or a config that is not supported.
    """
    root = Path(directory)
    if not (root / INDEX).is_file():
        raise no_model(root)
    index = load_object(root / INDEX)
    config = load_config(root / "vae")
    check_class(config, AUTOENCODERS, root / "vae")
    vae = autoencoder_config(config)
    if "unet" not in index:
        return AutoencoderModel(vae=vae, directory=root)
    config = load_config(root / "unet")
    check_class(config, ("UNet2DConditionModel",), root / "unet")
    scheduler = load_object(root / "scheduler" / "scheduler_config.json")
    schedule = schedule_from_config(scheduler)
    prediction_type = scheduler.get("prediction_type", "epsilon")
    check_prediction_type(schedule, prediction_type)
    model = Model(
        vae=vae,
        network=AdaptedUNet(unet=UNetConfig.from_config(config)),
        schedule=schedule,
        prediction_type=prediction_type,
        sampler=read_sampler(scheduler),
        directory=root,
        **_read_task(root, index),
    )
    folder = next((name for name in FOLDERS if name in index), None)
    return model if folder is None else with_adapter(model, root / folder)


def no_model(path: Path) -> UserError:
    """What is raised for a directory that holds no model."""
    return UserError(
        f"{path} holds no model: {INDEX} is missing. Give a diffusers-format directory, or the "
        "workdir of a run."
    )


def _read_task(root: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = {"task": None, "scale": 1, "task_options": {}}
    task |= {key: index[key] for key in task if key in index}
    kinds = {"task": str | None, "scale": int, "task_options": dict}
    for key, kind in kinds.items():
        if not fits(task[key], kind) or (key == "scale" and not 0 < task[key] < 100):
            raise UserError(f"{root / INDEX}: {key}={task[key]!r} cannot be. Get the file again.")
    return task


def with_adapter(model: Model, directory: Path) -> Model:
    """``model`` with the adapter in ``directory``: ours, a ControlNet's or a T2I-Adapter's.

    Raises:
        UserError: no config there, of another class, or of an adapter for another U-Net.
    """
    config = load_config(directory)
    kind = BY_CLASS_NAME.get(str(config.get("_class_name")))
    if kind is None:
        raise UserError(
            f"{directory}: _class_name is {config.get('_class_name')!r}; an adapter is one of "
            f"{', '.join(BY_CLASS_NAME)}."
        )
    adapter = kind.from_config(config, model.network.unet, directory)
    network = dataclasses.replace(model.network, adapter=adapter)
    return dataclasses.replace(model, network=network, adapter_directory=directory)


def load_directory(
    directory: str | os.PathLike[str], place: Placement | None = None
) -> AutoencoderModel:
    """:func:`read_directory` with the weights, complete.

    Raises:
        UserError: as there, or weights that are absent or do not fit.
    """
    return with_params(read_directory(directory), jax.random.key(0), place, new=False)
