"""Single-file Stable Diffusion checkpoints -> directories in diffusers' format.

A checkpoint is a diffusers-format directory, everywhere else in this package. A ``.safetensors``
file in the original layout, as CompVis and Stability AI publish it and as other tools save it,
is converted once. What the file holds is read off names and shapes: Stable Diffusion 1.x, 2.x and
SDXL, also with the 9 channels of inpainting and the 8 of InstructPix2Pix. It holds no tokenizer.
"""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.checkpoint.diffusers_format import CONFIG
from codi_jax.checkpoint.files import OpenTensors, copy_part, open_tensors, save_json, save_tensors
from codi_jax.checkpoint.ldm_families import (
    SD2,
    SDXL,
    Family,
    averaged_unet,
    check_all_used,
    check_prediction_type,
    find_family,
    read_sections,
)
from codi_jax.checkpoint.ldm_layout import Part, Source, unet_part, vae_part
from codi_jax.checkpoint.ldm_text_encoders import clip_part, open_clip_part
from codi_jax.checkpoint.names import STEMS, refuse_pickle
from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.typing import UserError

_CLASSES = {
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
#: Input channels of the U-Net -> what diffusers' pipeline class has in its name.
_TASKS = {4: "", 8: "InstructPix2Pix", 9: "Inpaint"}


#: How the original code spaces and ends its steps; diffusers reads it, we do not.
_SAMPLER = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}


@dataclasses.dataclass(frozen=True)
class SingleFile:
    """What :func:`open_single_file` found.

    Attributes:
        path: the file.
        family: which Stable Diffusion it is.
        parts: "unet", "vae", "text_encoder" and, for SDXL, "text_encoder_2".
        scheduler: the content of ``scheduler_config.json``.
        averaged: the U-Net is the running average (EMA) that the file holds beside the plain one.
    """

    path: Path
    family: Family
    parts: dict[str, Part]
    scheduler: dict[str, Any]
    averaged: bool


def open_single_file(
    path: str | os.PathLike[str], *, prediction_type: str | None = None
) -> SingleFile:
    """Reads the names and shapes in a single-file checkpoint; no weights.

    Args:
      path: a ``.safetensors`` file in the original layout.
      prediction_type: what the U-Net predicts, "epsilon" or "v_prediction". The weights do not
        tell. By default "epsilon" for 1.x and XL; for 2.x it must be given.

    Raises:
      UserError: a pickle, another kind of file, or a model that is not supported; tensors that
        are unknown or missing; no ``prediction_type`` for 2.x.
    """
    path = Path(path)
    refuse_pickle(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a .safetensors checkpoint.")
    with open_tensors(path) as opened:
        names = opened.keys()
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    family = find_family(path, shapes)
    prediction_type = check_prediction_type(path, family, prediction_type)
    sections = read_sections(path, shapes, family)
    parts = {}
    for name, prefix in family.text_encoders.items():
        if prefix.endswith(".model."):  # OpenCLIP's; the other wraps a transformers model
            parts[name] = open_clip_part(sections[name], pooled=family is SDXL)
        else:
            parts[name] = clip_part(sections[name])
    pooled = parts["text_encoder_2"].config["projection_dim"] if family is SDXL else None
    parts["unet"] = unet_part(sections["unet"], pooled)
    parts["vae"] = vae_part(sections["vae"], family.scaling_factor)
    check_all_used(path, shapes, sections)
    _complete_configs(path, parts, family, prediction_type)
    scheduler = DiscreteSchedule().to_config(prediction_type) | _SAMPLER
    return SingleFile(path, family, parts, scheduler, averaged_unet(shapes))


def convert_single_file(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    prediction_type: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> str:
    """Writes a single-file checkpoint as a directory in diffusers' format, whole or not at all.

    Values and dtypes stay as they are in the file. One part at a time is in memory.

    Args:
      path: a ``.safetensors`` file in the original layout.
      directory: must not exist, or be empty.
      prediction_type: see :func:`open_single_file`.
      tokenizer: a folder ``tokenizer/`` to copy, since the file has none. For SDXL its
        neighbour ``tokenizer_2/`` is copied as well. By default the directory gets none.

    Returns:
      What was written and what is missing, for people to read.

    Raises:
      UserError: see :func:`open_single_file`; ``directory`` is in use; ``tokenizer`` is no such
        folder.
    """
    directory = Path(os.path.abspath(directory))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not an empty folder: give another one.")
    found = open_single_file(path, prediction_type=prediction_type)
    tokenizers = _tokenizer_folders(found.family, tokenizer)
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        for name, part in found.parts.items():
            _write_part(found.path, part, temporary / name, STEMS[_CLASSES[name][0] != "diffusers"])
        save_json(temporary / "scheduler" / "scheduler_config.json", found.scheduler)
        for name, folder in tokenizers.items():
            copy_part(folder, temporary / name, folder.parent)
        save_json(temporary / "model_index.json", _index(found))
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _note(found, directory, copied=bool(tokenizers))


def _complete_configs(
    path: Path, parts: Mapping[str, Part], family: Family, prediction_type: str
) -> None:
    """Adds what is known of the family: the size it was trained at, and its attention."""
    unet, vae = parts["unet"].config, parts["vae"].config
    if unet["in_channels"] not in _TASKS:
        raise UserError(
            f"{path}: a U-Net of {unet['in_channels']} input channels is not supported, only of "
            f"{', '.join(map(str, _TASKS))}."
        )
    unet["sample_size"] = 64
    if family is SD2:
        unet["upcast_attention"] = True  # 2.1's attention overflows float16
        unet["sample_size"] = 96 if prediction_type == "v_prediction" else 64
    if family is SDXL:
        unet["sample_size"] = 128
    vae["sample_size"] = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def _tokenizer_folders(family: Family, tokenizer: str | os.PathLike[str] | None) -> dict[str, Path]:
    if tokenizer is None:
        return {}
    first, *others = family.tokenizers
    folders = {first: Path(tokenizer)}
    folders |= {name: Path(tokenizer).with_name(name) for name in others}
    for name, folder in folders.items():
        if not (folder / "tokenizer_config.json").is_file():
            raise UserError(
                f"{folder} holds no tokenizer_config.json. Give the folder tokenizer/ of "
                f"{family.repository} or of another {family.title} repository"
                f"{f' ({name}/ must be beside it)' if name in others else ''}."
            )
    return folders


def _write_part(path: Path, part: Part, directory: Path, stem: str) -> None:
    with open_tensors(path) as opened:
        tensors = {name: _read(opened, source) for name, source in part.tensors.items()}
    save_tensors(directory / f"{stem}.safetensors", tensors)
    save_json(directory / CONFIG, part.config)


def _read(opened: OpenTensors, source: Source) -> np.ndarray:
    if source.rows is None:
        array = opened.get_tensor(source.name)
    else:
        array = opened.get_slice(source.name)[slice(*source.rows)]
    if source.transform is not None:
        array = source.transform(array)
    return np.ascontiguousarray(array)


def _index(found: SingleFile) -> dict[str, object]:
    """The content of ``model_index.json``, so that diffusers reads the directory as well."""
    task = _TASKS[found.parts["unet"].config["in_channels"]]
    index: dict[str, object] = {"_class_name": f"{found.family.pipeline}{task}Pipeline"}
    index |= {name: list(_CLASSES[name]) for name in found.parts}
    index["scheduler"] = ["diffusers", found.scheduler["_class_name"]]
    for name in found.family.tokenizers:
        index[name] = ["transformers", "CLIPTokenizer"]
    if found.family is not SDXL:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return index


def _note(found: SingleFile, directory: Path, *, copied: bool) -> str:
    note = f"{found.path} is {found.family.title}; written to {directory}."
    if found.averaged:
        note += " The file holds two U-Nets; the running average (EMA) was taken."
    if not copied:
        folders = " and ".join(f"{name}/" for name in found.family.tokenizers)
        note += (
            f" A single file has no tokenizer: copy the folder {folders} of "
            f"{found.family.repository} on Hugging Face into {directory}."
        )
    return note
