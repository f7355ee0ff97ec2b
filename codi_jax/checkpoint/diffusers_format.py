"""Directories in diffusers' format: ``config.json`` and safetensors weights.

The one reader and writer of that format. Between a path of our parameter trees and a PyTorch
tensor's name the rule is mechanical:

* ``/`` becomes ``.``; a component that ends in ``_<digits>`` is an item of a list:
  ``down_blocks_0`` -> ``down_blocks.0``. Only ``linear_1`` and ``linear_2`` are names as such.
* the leaf ``kernel`` is ``weight`` with the axes reversed in meaning: [*window, in, out] ->
  [out, in, *window]; ``scale`` and ``embedding`` are ``weight`` as they are; other leaves
  (``bias``, ``mu``) keep name and layout.

The rule is applied to *our* template, so a name never has to be parsed back.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from codi_jax import trees
from codi_jax.typing import Array, UserError

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model"
#: Weights of diffusers' models, then of transformers' (text encoders).
_STEMS = (WEIGHTS, "model")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack")
_WEIGHT_LEAVES = ("kernel", "scale", "embedding")
_NOT_LISTS = ("linear_1", "linear_2")
# Old transformers stored this constant (0, 1, 2, ...) beside CLIP's parameters.
_IGNORED = re.compile(r"(.*\.)?position_ids")


def torch_name(path: str) -> str:
    """``down_blocks_0/attn1/to_out_0/kernel`` -> ``down_blocks.0.attn1.to_out.0.weight``."""
    *modules, leaf = path.split("/")
    names = [m if m in _NOT_LISTS else re.sub(r"_(\d+)$", r".\1", m) for m in modules]
    return ".".join([*names, "weight" if leaf in _WEIGHT_LEAVES else leaf])


def to_torch(path: str, array: np.ndarray) -> np.ndarray:
    """Our layout -> PyTorch's: kernels [*window, in, out] -> [out, in, *window]."""
    if path.rsplit("/", 1)[-1] == "kernel":
        n = array.ndim
        return array.transpose(n - 1, n - 2, *range(n - 2))
    return array


def from_torch(path: str, tensor: np.ndarray) -> np.ndarray:
    """PyTorch's layout -> ours: kernels [out, in, *window] -> [*window, in, out]."""
    if path.rsplit("/", 1)[-1] == "kernel":
        return tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return tensor


def save_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes ``obj`` as indented JSON; the file is replaced whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(obj, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file. Raises UserError if it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Give a directory in diffusers' format.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): get the file again.") from error


def load_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """``config.json`` of a model's directory. Raises UserError if absent or not an object."""
    path = Path(directory) / CONFIG
    config = load_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__}, not a JSON object.")
    return config


def check_class(
    config: Mapping[str, Any], expected: str, directory: str | os.PathLike[str]
) -> None:
    """Raises UserError unless the configuration's ``_class_name`` is ``expected``."""
    found = config.get("_class_name")
    if found != expected:
        raise UserError(
            f"{Path(directory) / CONFIG} describes a {found or 'model without _class_name'}, "
            f"not a {expected}. Point to the directory of a {expected}."
        )


def save_model(
    directory: str | os.PathLike[str],
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    dtype: str = "float32",
) -> None:
    """Writes ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    Each file is replaced whole or not at all, the configuration last. With several processes
    all must call this; the first one writes.

    Args:
      directory: created if needed.
      config: the model's configuration, with ``_class_name``.
      params: nested dicts of arrays, anywhere.
      dtype: ``float32`` or ``float16``, on disk.

    Raises:
      UserError: another ``dtype``, or a value too large for float16.
    """
    if dtype not in ("float32", "float16"):
        raise UserError(f"dtype={dtype!r}: diffusers-format weights are float32 or float16.")
    directory = Path(directory)
    tensors = {}
    for path, leaf in trees.flatten(params).items():
        array = trees.to_host(leaf).astype(np.float32)
        with np.errstate(over="ignore"):
            stored = array.astype(dtype)
        if not np.array_equal(np.isfinite(stored), np.isfinite(array)):
            raise UserError(
                f"{path} holds {np.abs(array).max():.4g}, beyond float16's 65504: "
                "export with dtype='float32'."
            )
        tensors[torch_name(path)] = np.asarray(to_torch(path, stored), order="C")
    if jax.process_index() != 0:
        return
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{WEIGHTS}.{os.getpid()}.tmp"
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        os.replace(temporary, directory / f"{WEIGHTS}.safetensors")
    finally:
        temporary.unlink(missing_ok=True)
    save_json(directory / CONFIG, dict(config))


def load_params(
    directory: str | os.PathLike[str],
    template: Mapping[str, Any],
    *,
    sharding: Sharding | Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """The weights in ``directory`` as nested dicts like ``template``.

    All names and shapes are checked before the first tensor is read; then one tensor at a
    time is in host memory. Values stored as bfloat16 or float16 are exact in float32.

    Args:
      directory: with ``diffusion_pytorch_model`` (or ``model``) as ``.safetensors``, as
        ``.safetensors.index.json`` with its shards, or as ``.fp16.safetensors``, in this order.
      template: nested dicts of arrays or ShapeDtypeStructs: names, shapes and dtypes wanted.
      sharding: one for all, or a tree like ``template``; by default the first local device.

    Raises:
      UserError: no safetensors there (pickles are refused); a file that is truncated or not
        safetensors; tensors missing, too many, or of another shape.
    """
    directory = Path(directory)
    flat = trees.flatten(template)
    tensors = {
        name: found
        for file in _weight_files(directory)
        for name, found in _read_header(file).items()
        if not _IGNORED.fullmatch(name)
    }
    _check_tensors(directory, flat, {name: shape for name, (_, shape) in tensors.items()})
    shardings = trees.flatten(sharding) if isinstance(sharding, Mapping) else None
    by_file: dict[Path, list[str]] = {}
    for path in flat:
        by_file.setdefault(tensors[torch_name(path)][0], []).append(path)
    loaded = {}
    for file, paths in by_file.items():
        with safe_open(file, framework="np") as opened:
            for path in paths:
                array = from_torch(path, opened.get_tensor(torch_name(path)))
                array = np.asarray(array.astype(flat[path].dtype), order="C")
                place = shardings[path] if shardings is not None else sharding
                loaded[path] = _put(array, place)
    return trees.unflatten({path: loaded[path] for path in flat})


def _put(array: np.ndarray, sharding: Any) -> Array:
    if sharding is None:
        return jax.device_put(array)
    # Unlike device_put, this needs no agreement between processes: each reads the file itself.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files that together hold the model."""
    for stem in _STEMS:
        single = directory / f"{stem}.safetensors"
        index = directory / f"{stem}.safetensors.index.json"
        half = directory / f"{stem}.fp16.safetensors"
        if single.is_file():
            return [single]
        if index.is_file():
            content = load_json(index)
            if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
                raise UserError(f"{index} has no weight_map: get the file again.")
            files = [directory / name for name in sorted(set(content["weight_map"].values()))]
            for file in files:
                if not file.is_file():
                    raise UserError(f"{index} names {file.name}, which is absent: get that file.")
            return files
        if half.is_file():
            return [half]
    pickles = [p.name for p in sorted(directory.glob("*")) if p.suffix in _PICKLES]
    if pickles:
        raise UserError(
            f"{directory} holds only {', '.join(pickles)}: such files can run code when they are "
            "loaded and are not read. Save the model as safetensors "
            "(diffusers: save_pretrained(..., safe_serialization=True))."
        )
    raise UserError(
        f"{directory} holds no {WEIGHTS}.safetensors. Give a model's directory in diffusers' "
        "format, e.g. the folder unet/ of a pipeline."
    )


def _read_header(file: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """``{tensor name: (file, shape)}``; opening also checks that the file is complete."""
    try:
        with safe_open(file, framework="np") as opened:
            names = opened.keys()
            return {name: (file, tuple(opened.get_slice(name).get_shape())) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is truncated or not a safetensors file ({error}): get it again."
        ) from error


def _check_tensors(
    directory: Path, wanted: Mapping[str, Any], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises one UserError that names the missing, superfluous and wrongly shaped tensors."""
    # Shapes are compared in PyTorch's layout: that is what other tools show for the file.
    shapes = {
        torch_name(path): to_torch(path, np.broadcast_to(0, leaf.shape)).shape
        for path, leaf in wanted.items()
    }
    if len(shapes) != len(wanted):
        raise ValueError("Two parameters of the template have the same PyTorch name.")
    problems = {
        "missing": [name for name in shapes if name not in found],
        "not in the model": [name for name in found if name not in shapes],
        "of another shape": [
            f"{name} {list(found[name])} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in found and found[name] != shape
        ],
    }
    parts = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in problems.items()
        if names
    ]
    if parts:
        raise UserError(
            f"The weights in {directory} do not fit the model; tensors {'; '.join(parts)}. "
            f"Check that {CONFIG} belongs to these weights."
        )
