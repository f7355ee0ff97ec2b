"""Single-file Stable Diffusion checkpoints -> directories in diffusers' format.

A checkpoint is a diffusers-format directory, everywhere else in this package. A ``.safetensors``
file in the original layout, as CompVis and Stability AI publish it and as other tools save it,
is converted once. What the file holds is read off names and shapes: Stable Diffusion 1.x, 2.x and
SDXL, also with the 9 channels of inpainting and the 8 of InstructPix2Pix. It holds no tokenizer.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.checkpoint.copying import copy_part
from codi_jax.checkpoint.diffusers_format import CONFIG
from codi_jax.checkpoint.files import (
    INDEX,
    OpenTensors,
    new_directory,
    open_tensors,
    save_json,
    save_tensors,
)
from codi_jax.checkpoint.ldm_averages import EMA
from codi_jax.checkpoint.ldm_check import check_fits
from codi_jax.checkpoint.ldm_families import (
    SD2,
    SDXL,
    UNET,
    Family,
    check_all_used,
    find_family,
    read_sections,
)
from codi_jax.checkpoint.ldm_layout import Part, Source, unet_part, vae_part
from codi_jax.checkpoint.ldm_noise import Noise, read_noise
from codi_jax.checkpoint.ldm_text_encoders import text_part
from codi_jax.checkpoint.names import STEMS, refuse_pickle
from codi_jax.checkpoint.pipelines import TASKS, prior_pipeline
from codi_jax.typing import UserError

_CLASSES = {
    "vae": ("diffusers", "AutoencoderKL"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What the user knows of a single file, where the weights leave it to a guess.

    Attributes:
        family: of a single file: "sd1", "sd2" or "sdxl"; by default, what its tensors are those of.
        prediction_type: what the U-Net of a single file predicts; by default, what the file says,
            or "epsilon". It must be given for Stable Diffusion 2.x if the file does not say.
        zero_terminal_snr: whether the U-Net of a single file was trained up to pure noise; by
            default, what the file says.
        text_layers: how many layers of a single file's text encoder are read; by default all but
            the 24th of Stable Diffusion 2.x, which was never used.
        ema: of a file with two U-Nets, take the running average.
    """

    family: str | None = None
    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None
    text_layers: int | None = None
    ema: bool = True


@dataclasses.dataclass(frozen=True)
class SingleFile:
    """What :func:`open_single_file` found.

    Attributes:
        path: the file.
        family: which Stable Diffusion it is.
        parts: "unet", "vae", "text_encoder" and, for SDXL, "text_encoder_2".
        scheduler: the content of ``scheduler_config.json``.
        notes: what was guessed or chosen, for people; a line each.
    """

    path: Path
    family: Family
    parts: dict[str, Part]
    scheduler: dict[str, Any]
    notes: tuple[str, ...]


def open_single_file(
    path: str | os.PathLike[str],
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> SingleFile:
    """Reads the names, shapes and dtypes in a single-file checkpoint; no weights.

    Args:
      path: a ``.safetensors`` file in the original layout.
      reading: what the user knows of it.

    Raises:
      UserError: a pickle, another kind of file, or a model that is not supported; tensors that
        are unknown, missing or quantised; no ``prediction_type`` for 2.x.
    """
    path = Path(path)
    refuse_pickle(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a .safetensors checkpoint.")
    with open_tensors(path) as opened:
        shapes = {name: opened.shape(name) for name in opened.names()}
        metadata = opened.metadata()
    family = find_family(path, shapes, reading.family)
    noise = read_noise(
        path, family, shapes, metadata, reading.prediction_type, reading.zero_terminal_snr
    )
    averaged, networks = _choose_unet(shapes, reading.ema)
    sections = read_sections(path, shapes, family, averaged=averaged)
    if family is SDXL and reading.text_layers is not None:
        raise UserError("--text_layers does not work with SDXL, which reads all of both encoders.")
    parts, notes = {}, [f"family: {family.title} (--family)", *noise.notes, *networks]
    for name, kind in family.text_encoders.items():
        parts[name], layers = text_part(sections[name], kind, reading.text_layers)
        if family is not SDXL:
            notes.append(f"text encoder: {layers}")
    pooled = parts["text_encoder_2"].config["projection_dim"] if family is SDXL else None
    parts["unet"] = unet_part(sections["unet"], pooled)
    parts["vae"] = vae_part(sections["vae"], family.scaling_factor)
    check_all_used(path, shapes, sections)
    _complete_configs(path, parts, family, noise)
    check_fits(path, parts, shapes)
    return SingleFile(path, family, parts, noise.scheduler(), tuple(notes))


def _choose_unet(shapes: dict[str, tuple[int, ...]], ema: bool) -> tuple[bool, list[str]]:
    """Whether the running average is taken, and for people what was chosen."""
    plain = any(name.startswith(UNET) for name in shapes)
    averaged = any(name.startswith(EMA) for name in shapes)
    if plain and averaged:
        taken = "the running average (EMA)" if ema else "the plain one"
        return ema, [f"the file holds two U-Nets: {taken} was taken (--ema or --noema)"]
    if averaged:
        return True, ["the file holds the running average (EMA) of its U-Net alone"]
    return False, []


def convert_single_file(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    tokenizer: str | os.PathLike[str] | None = None,
) -> str:
    """Writes a single-file checkpoint as a directory in diffusers' format, whole or not at all.

    Values and dtypes stay as they are in the file, but float8 becomes float16, which holds the
    same values. One part at a time is in memory.

    Args:
      path: a ``.safetensors`` file in the original layout.
      directory: must not exist, or be empty.
      reading: what the user knows of the file.
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
    found = open_single_file(path, reading)
    tokenizers = _tokenizer_folders(found.family, tokenizer)
    with new_directory(directory.resolve(), ()) as root:
        for name, part in found.parts.items():
            _write_part(found.path, part, root / name, STEMS[_CLASSES[name][0] != "diffusers"])
        save_json(root / "scheduler" / "scheduler_config.json", found.scheduler)
        for name, folder in tokenizers.items():
            copy_part(folder, root / name)
        save_json(root / INDEX, _index(found))
    return _note(found, directory, copied=bool(tokenizers))


def _complete_configs(path: Path, parts: dict[str, Part], family: Family, noise: Noise) -> None:
    """Adds what is known of the family: the size it was trained at, and its attention."""
    unet, vae = parts["unet"].config, parts["vae"].config
    if unet["in_channels"] not in TASKS:
        raise UserError(
            f"{path}: a U-Net of {unet['in_channels']} input channels is not supported, only of "
            f"{', '.join(map(str, TASKS))}."
        )
    unet["sample_size"] = 64
    if family is SD2:
        unet["upcast_attention"] = True  # 2.1's attention overflows float16
        unet["sample_size"] = 96 if noise.prediction_type == "v_prediction" else 64
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
    array = opened.read(source.name, source.rows)
    if source.transform is not None:
        array = source.transform(array)
    return np.ascontiguousarray(array)


def _index(found: SingleFile) -> dict[str, object]:
    """The content of ``model_index.json``, so that diffusers reads the directory as well."""
    channels = found.parts["unet"].config["in_channels"]
    index: dict[str, object] = {"_class_name": prior_pipeline(channels, xl=found.family is SDXL)}
    index |= {name: list(_CLASSES[name]) for name in found.parts}
    index["scheduler"] = ["diffusers", found.scheduler["_class_name"]]
    for name in found.family.tokenizers:
        index[name] = ["transformers", "CLIPTokenizer"]
    if found.family is not SDXL:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return index


def _note(found: SingleFile, directory: Path, *, copied: bool) -> str:
    lines = [f"{found.path} -> {directory}", *(f"  {note}" for note in found.notes)]
    if not copied:
        folders = " and ".join(f"{name}/" for name in found.family.tokenizers)
        lines.append(
            f"A single file has no tokenizer: copy the folder {folders} of "
            f"{found.family.repository} on Hugging Face into {directory}."
        )
    return "\n".join(lines)
