"""Files of checkpoints: JSON, and weights as safetensors (never pickles)."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from codi_jax.checkpoint.names import NOT_READ, STEMS, choose_weights
from codi_jax.typing import UserError

WEIGHTS = STEMS[0]
#: An open safetensors file.
OpenTensors = safe_open
#: At the top of a pipeline: which parts it has.
INDEX = "model_index.json"


def save_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes ``obj`` as indented JSON; the file is replaced whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(obj, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON file that holds an object; raises UserError if it is absent or another thing."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")  # a pipe would be waited for
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Give a directory in diffusers' format.") from None
    # ValueError: no UTF-8, no JSON, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): get the file again.") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a JSON object: get the file again."
        )
    return content


def save_tensors(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> None:
    """Writes a safetensors file, whole or not at all, as PyTorch's tools expect it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"format": "pt", **metadata})
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_tensors(file: Path) -> OpenTensors:
    """A safetensors file as a context that gives numpy arrays (ml_dtypes' bfloat16 among them).

    Raises UserError if the file is truncated or not safetensors.
    """
    try:
        # Not mapped: pages of a mapped file count as this process's memory once they are read.
        return safe_open(file, framework="np", backend="pread")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is truncated or not a safetensors file ({error}): get it again."
        ) from error


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself; raises as :func:`open_tensors`."""
    with open_tensors(file) as opened:
        return dict(opened.metadata() or {})


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that together hold the model in ``directory``, or that file itself.

    Raises UserError if there are none, or if an index names a file that is absent or elsewhere.
    """
    if directory.is_file() and directory.suffix == ".safetensors":
        return [directory]
    names = [p.name for p in sorted(directory.glob("*")) if p.is_file()]
    chosen = choose_weights(names)
    if chosen:
        first = directory / chosen[0]
        return _shards(first) if first.suffix == ".json" else [first]
    refused = [name for name in names if name.endswith(NOT_READ)]
    if refused:
        raise UserError(
            f"{directory} holds only {', '.join(refused)}: such files can run code when they are "
            "loaded and are not read. Save the model as safetensors "
            "(diffusers: save_pretrained(..., safe_serialization=True))."
        )
    raise UserError(
        f"{directory} holds no {WEIGHTS}.safetensors. Give a model's directory in diffusers' "
        "format, e.g. the folder unet/ of a pipeline."
    )


def _shards(index: Path) -> list[Path]:
    weight_map = load_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map: get the file again.")
    files = []
    for name in sorted({str(name) for name in weight_map.values()}):
        if Path(name).name != name:
            raise UserError(
                f"{index} names {name!r}, which is not a file beside it: a checkpoint is read from "
                "its own folder only. Get it from a source that you trust."
            )
        if not (index.parent / name).is_file():
            raise UserError(f"{index} names {name}, which is absent: get that file.")
        files.append(index.parent / name)
    return files


#: Files of text encoders and tokenizers that are carried from one checkpoint to another.
COPIED = (".json", ".txt", ".safetensors")


def copy_part(folder: Path, target: Path, checkpoint: Path) -> None:
    """Copies the files of a part of a checkpoint, such as ``tokenizer/``.

    Args:
        folder: the part. Of its files only those named :data:`COPIED` are taken.
        target: made if needed.
        checkpoint: what the part belongs to. Links must stay inside it; those of Hugging Face's
            cache lead to its own ``blobs/``.

    Raises:
        UserError: a link that leads elsewhere: the copy would hand out a file of this machine.
    """
    root = checkpoint.resolve()
    inside = [root]
    if root.parent.name == "snapshots":
        inside.append(root.parents[1] / "blobs")
    files = [file for file in sorted(folder.iterdir()) if file.suffix in COPIED and file.is_file()]
    for file in files:
        if not any(file.resolve().is_relative_to(place) for place in inside):
            raise UserError(
                f"{file} is a link to {file.resolve()}, outside the checkpoint {checkpoint}: put "
                "the file itself there, if you trust it."
            )
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)


class StoredTensor(NamedTuple):
    """What a header says of a tensor: its file, dtype ("F16", "F32", ...) and number of values."""

    file: Path
    dtype: str
    size: int


def stored_tensors(directory: str | os.PathLike[str]) -> list[StoredTensor]:
    """All tensors of the model in ``directory``, from the files' headers alone.

    Raises UserError as :func:`weight_files`, and for a file that is truncated.
    """
    tensors = []
    for file in weight_files(Path(directory)):
        with open_tensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                part = opened.get_slice(name)
                tensors.append(StoredTensor(file, part.get_dtype(), math.prod(part.get_shape())))
    return tensors
