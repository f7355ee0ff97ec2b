"""Importing, exporting and inspecting checkpoints: what `codi_jax.convert` does."""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.diffusers_format import CONFIG, load_config
from codi_jax.checkpoint.directory import (
    INDEX,
    load_directory,
    read_directory,
    save_directory,
)
from codi_jax.checkpoint.files import load_json, stored_tensors
from codi_jax.checkpoint.hub import SHIPPED, checkpoint_path, resolve
from codi_jax.checkpoint.single_file import convert_single_file, open_single_file
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapters.registry import BY_CLASS_NAME
from codi_jax.sampling.load import load_model
from codi_jax.typing import UserError

DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a checkpoint is written.

    Attributes:
        dtype: of the written weights; those of a single file keep theirs.
        prediction_type: what the U-Net of a single file predicts, if the file does not say.
        tokenizer: folder of a tokenizer, for a single file, which has none.
    """

    dtype: str = "float32"
    prediction_type: str | None = None
    tokenizer: str | None = None


def import_checkpoint(source: str, target: Path, options: Conversion) -> str:
    """Fetch, convert and check a model.

    Args:
        source: a directory, a Hugging Face id, or a single ``.safetensors`` file.
        target: a directory that does not exist or is empty.
        options: how it is written.

    Returns:
        A note on what was written.

    Raises:
        UserError: the source cannot be read, or the target is in use.
    """
    _check_empty(target)
    path = resolve(source)
    if path.is_file():
        note = convert_single_file(
            path, target, prediction_type=options.prediction_type, tokenizer=options.tokenizer
        )
        read_directory(target)  # what was written is what the rest of the package reads
        return note
    if options.prediction_type or options.tokenizer:
        raise UserError("--prediction_type and --tokenizer are for single files alone.")
    if not (path / INDEX).is_file() and (path / CONFIG).is_file():
        raise UserError(
            f"{path} is one network, a {load_config(path).get('_class_name')}: it needs no import. "
            "Give an adapter as --config.model.pretrained_adapter."
        )
    save_directory(target, load_directory(path), dtype=options.dtype)
    return f"written: {target}"


def export_model(source: str, target: Path, options: Conversion) -> str:
    """Write the model of a run, or of a directory, for PyTorch diffusers.

    Args:
        source: a run's workdir, a directory or a Hugging Face id.
        target: a directory that does not exist or is empty.
        options: how it is written.

    Returns:
        A note on how it is used there.

    Raises:
        UserError: the source cannot be read, or the target is in use.
    """
    _check_empty(target)
    model = load_model(source)
    save_directory(target, model, dtype=options.dtype)
    name = load_json(target / INDEX)["_class_name"]
    if name == "CoDiModel":
        use = "its parts load one by one with from_pretrained(DIRECTORY, subfolder=...)"
    else:
        trust = ", trust_remote_code=True" if isinstance(name, list) else ""
        use = f"DiffusionPipeline.from_pretrained({str(target)!r}{trust})"
    return f"written: {target}\nin PyTorch: {use}"


def inspect(source: str) -> str:
    """Text for people: a checkpoint's networks, their parameters and files, and what uses it."""
    path = checkpoint_path(source) if source in SHIPPED else resolve(source)
    if path.is_file():
        # Stable Diffusion 2.x does not tell what it predicts; for its parts that is no matter.
        found = open_single_file(path, prediction_type="epsilon")
        rows = [
            f"  {name:<16}{part.config.get('_class_name', '')}"
            for name, part in found.parts.items()
        ]
        fits = f"python -m codi_jax.convert import {path} DIRECTORY"
        return "\n".join([f"{path}: {found.family.title}, a single file", *rows, f"use: {fits}"])
    if not (path / INDEX).is_file():
        kind = load_config(path).get("_class_name") or "/".join(load_config(path)["architectures"])
        fits = "a part of a pipeline"
        if kind in BY_CLASS_NAME:
            fits = f"--config.model.pretrained_adapter={path}, with the U-Net that it was made for"
        return "\n".join([f"{path}: {kind}", _row(path), f"use: {fits}"])
    model = read_directory(path)
    folders = [f.parent for f in sorted(path.glob(f"*/{CONFIG}"))]
    lines = [f"{path}: {_kind(model)}", *(_row(folder) for folder in folders)]
    if isinstance(model, Model):
        lines.append(f"  predicts {model.prediction_type}; {model.schedule}")
        lines.append(f"  sampled with {model.sampler}")
    if not isinstance(model, Model):
        fits = f"configs/prior.py with --config.model.pretrained={source}"
    elif model.task:
        fits = f"python -m codi_jax.sample --checkpoint {source} --input PHOTO"
    else:
        fits = f"configs/sr.py with --config.model.pretrained={source}"
    return "\n".join([*lines, f"use: {fits}"])


def _kind(model: AutoencoderModel) -> str:
    if not isinstance(model, Model):
        return "an autoencoder"
    text = "text-to-image prior" if model.takes_text else "unconditional prior"
    if not model.task:
        return f"a {text}"
    return f"a model for {model.task} x{model.scale}, adapter {model.network.adapter.kind}"


def _row(folder: Path) -> str:
    tensors = stored_tensors(folder)
    count = sum(tensor.size for tensor in tensors)
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    megabytes = sum(file.stat().st_size for file in {tensor.file for tensor in tensors}) / 1e6
    return f"  {folder.name:<16}{count:>15,} parameters  {dtypes}  {megabytes:,.1f} MB"


def _check_empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder: give another one.")
