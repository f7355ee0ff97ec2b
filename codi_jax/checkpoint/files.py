"""Files of checkpoints: JSON, and weights as safetensors (never pickles)."""

import contextlib
import json
import math
import os
import shutil
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from codi_jax.checkpoint.names import NOT_READ, STEMS, choose_weights
from codi_jax.typing import UserError

WEIGHTS = STEMS[0]
#: At the top of a pipeline: which parts it has.
INDEX = "model_index.json"
#: What files and folders are called while they are written.
TEMPORARY = ".*.tmp"


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


@contextlib.contextmanager
def new_directory(target: Path, owned: Collection[str]) -> Iterator[Path]:
    """A folder to write in; at the end it takes the place of ``target``, whole or not at all.

    Args:
        target: a folder that exists or not.
        owned: names in ``target`` that go with it. Others, such as a user's README, stay there.
    """
    new, old = target.with_name(f".{target.name}.tmp"), target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)  # the process was killed between the two renames below
    _move_others(old, target, owned)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    _move_others(old, target, owned)


def _move_others(old: Path, target: Path, owned: Collection[str]) -> None:
    """What is not ``owned`` goes from ``old`` to ``target``, the rest is removed."""
    if old.is_dir():
        for path in old.iterdir():
            if path.name not in owned and not (target / path.name).exists():
                path.rename(target / path.name)
        shutil.rmtree(old)


def load_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file. Raises UserError if it is absent or not JSON."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")  # a pipe would be waited for
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Give a directory in diffusers' format.") from None
    # ValueError: not UTF-8, no JSON, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): get the file again.") from error


def load_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """:func:`load_json` of a file that must hold a JSON object, as every config does."""
    content = load_json(path)
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


#: What weights are read from; the values of all are exact in float32, those of float8 in float16.
_FLOATS = ("F64", "F32", "F16", "BF16")
_FLOAT8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


class OpenTensors:
    """An open safetensors file, as a context; made by :func:`open_tensors`.

    Attributes:
        file: its path.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        # Not mapped: pages of a mapped file count as this process's memory once they are read.
        self._opened = safe_open(file, framework="np", backend="pread")
        self._header: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self._opened.metadata() or {})

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._opened.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._opened.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The number format of a tensor in safetensors' words: "F16", "BF16", ..."""
        return str(self._opened.get_slice(name).get_dtype())

    def check_float(self, name: str) -> None:
        """Raises UserError unless :meth:`read` can read the tensor."""
        dtype = self.dtype(name)
        if dtype not in _FLOATS and dtype not in _FLOAT8:
            raise UserError(
                f"{self.file} stores {name} as {dtype}: weights are read from "
                f"{', '.join((*_FLOATS, *_FLOAT8))}. Get the checkpoint in float16 or float32; "
                "quantised weights would have to be converted by the tool that made them."
            )

    def read(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        """A tensor of floating-point numbers.

        Args:
            name: of the tensor.
            rows: (first, end) of its first axis, if only these.

        Returns:
            float64, float32, float16 or ml_dtypes' bfloat16, as it is stored; float16 for the
            two float8 formats, exactly.

        Raises:
            UserError: another number format.
        """
        self.check_float(name)
        dtype = _FLOAT8.get(self.dtype(name))
        if dtype is not None:
            array = self._read_bytes(name).view(dtype).reshape(self.shape(name))
            return array[slice(*rows) if rows else ...].astype(np.float16)
        if rows is None:
            return self._opened.get_tensor(name)
        return self._opened.get_slice(name)[slice(*rows)]

    def _read_bytes(self, name: str) -> np.ndarray:
        """The bytes of a tensor: safetensors asks numpy for float8, which numpy does not have."""
        with open(self.file, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if self._header is None:
                self._header = json.loads(file.read(length))
            start, end = self._header[name]["data_offsets"]
            file.seek(8 + length + start)
            return np.frombuffer(file.read(end - start), np.uint8)


def open_tensors(file: Path) -> OpenTensors:
    """A safetensors file as a context that gives numpy arrays.

    Raises UserError if the file is truncated or not safetensors.
    """
    try:
        return OpenTensors(file)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is truncated or not a safetensors file ({error}): get it again."
        ) from error


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself; raises as :func:`open_tensors`."""
    with open_tensors(file) as opened:
        return opened.metadata()


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
    content = load_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
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
            for name in opened.names():
                size = math.prod(opened.shape(name))
                tensors.append(StoredTensor(file, opened.dtype(name), size))
    return tensors
