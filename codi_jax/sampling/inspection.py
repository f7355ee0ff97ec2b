"""What a checkpoint is and what it can be used for: `codi_jax.convert inspect`."""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.diffusers_format import CONFIG
from codi_jax.checkpoint.directory import read_directory
from codi_jax.checkpoint.files import load_json, stored_tensors
from codi_jax.checkpoint.ldm_noise import PredictionUnknown
from codi_jax.checkpoint.parameters import check_weights
from codi_jax.checkpoint.single_file import Reading, open_single_file
from codi_jax.checkpoint.store import Store
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapters.registry import BY_CLASS_NAME
from codi_jax.sampling import old_workdirs
from codi_jax.sampling.conversion import find_checkpoint, kind_of
from codi_jax.sampling.load import CHECKPOINTS, MODEL, find, network_class
from codi_jax.sampling.origin import Origin
from codi_jax.typing import Settings


def inspect(source: str, reading: Reading = Reading()) -> str:  # noqa: B008 (frozen)
    """Text for people: a checkpoint's networks, their parameters and files, and what uses it.

    Args:
        source: whatever `sample` takes as a checkpoint, a single file, or one network's directory.
        reading: what is known of a single file.

    Raises:
        UserError: it cannot be read, or its weights do not fit its networks.
    """
    path = find_checkpoint(source)
    if path.is_file():
        return _single_file(path, reading)
    kind = find(path)
    if kind == "network":
        return _network(path)
    if kind == "model":
        return _directory(path, source)
    if kind == "run":
        return "\n".join([f"{path}: a finished run", *_run(path), _directory(path / MODEL, source)])
    return _unfinished(path, source, kind)


def _single_file(path: Path, reading: Reading) -> str:
    unknown = ""
    try:
        found = open_single_file(path, reading)
    except PredictionUnknown as error:
        found = open_single_file(path, dataclasses.replace(reading, prediction_type="epsilon"))
        unknown = str(error)
    notes = [note for note in found.notes if not (unknown and note.startswith("prediction type"))]
    rows = [f"  {name:<16}{_class(part.config)}" for name, part in found.parts.items()]
    lines = [f"{path}: {found.family.title}, a single file", *rows]
    lines += [f"  {note}" for note in notes]
    if unknown:
        lines.append(f"  prediction type: unknown. {unknown}")
    choice = " --prediction_type=..." if unknown else ""
    return "\n".join([*lines, f"use: python -m codi_jax.convert import {path} DIRECTORY{choice}"])


def _class(config: Settings) -> str:
    return str(config.get("_class_name") or config["architectures"][0])


def _network(path: Path) -> str:
    name = network_class(path)
    fits = "a part of a pipeline"
    if name in BY_CLASS_NAME:
        fits = f"--config.model.pretrained_adapter={path}, with the U-Net that it was made for"
    return "\n".join([f"{path}: {name}", _row(path), f"use: {fits}"])


def _directory(path: Path, source: str) -> str:
    model = read_directory(path)
    check_weights(model)
    folders = [f.parent for f in sorted(path.glob(f"*/{CONFIG}"))]
    lines = [f"{path}: {kind_of(model)}", *(_row(folder) for folder in folders)]
    return "\n".join([*lines, *_noise(model), f"use: {_use(model, source)}"])


def _noise(model: AutoencoderModel) -> list[str]:
    if not isinstance(model, Model):
        return []
    lines = [f"  predicts {model.prediction_type}; {model.schedule}"]
    if isinstance(model.sampler, SamplerConfig):
        return [*lines, f"  sampled with {model.sampler}"]
    return [*lines, f"  sampled only with a solver that you choose: {model.sampler.reason}"]


def _use(model: AutoencoderModel, source: str) -> str:
    if not isinstance(model, Model):
        return f"configs/prior.py with --config.model.pretrained={source}"
    if model.task:
        return f"python -m codi_jax.sample --checkpoint {source} --input PHOTO"
    return f"configs/sr.py with --config.model.pretrained={source}"


def _unfinished(path: Path, source: str, kind: str) -> str:
    read = old_workdirs.translate if kind == "old" else Origin.read
    origin, model = read(path)
    step = None
    if (path / CHECKPOINTS).is_dir():
        with Store(path / CHECKPOINTS, read_only=True) as store:
            step = store.latest_step()
    saved = "no checkpoint yet" if step is None else f"last checkpoint at step {step:,}"
    lines = [f"{path}: an unfinished run, {saved}", *_run(path), f"  makes {kind_of(model)}"]
    if origin.pretrained:
        lines.append(f"  started from {origin.pretrained}")
    fits = "wait for its first checkpoint" if step is None else _use(model, source)
    return "\n".join([*lines, *_noise(model), f"use: {fits}"])


def _run(path: Path) -> list[str]:
    """What the config says of a run."""
    file = path / CONFIG
    config = load_json(file) if file.is_file() else {}
    known = {key: config[key] for key in ("task", "method", "steps") if key in config}
    return [f"  {', '.join(f'{key} {value}' for key, value in known.items())}"] if known else []


def _row(folder: Path) -> str:
    tensors = stored_tensors(folder)
    count = sum(tensor.size for tensor in tensors)
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    megabytes = sum(file.stat().st_size for file in {tensor.file for tensor in tensors}) / 1e6
    return f"  {folder.name:<16}{count:>15,} parameters  {dtypes}  {megabytes:,.1f} MB"
