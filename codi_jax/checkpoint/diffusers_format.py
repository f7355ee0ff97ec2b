"""Directories in diffusers' format: ``config.json`` and safetensors weights.

The one reader and writer of that format; ``checkpoint.names`` says how a path of our parameter
trees becomes a tensor's name and layout, and which file of a folder holds the weights.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from codi_jax import trees
from codi_jax.checkpoint.files import (
    WEIGHTS,
    OpenTensors,
    load_object,
    open_tensors,
    save_json,
    save_tensors,
    weight_files,
)
from codi_jax.checkpoint.names import (
    IGNORED_TENSORS,
    canonical_name,
    canonical_shape,
    from_torch,
    to_torch,
    torch_name,
)
from codi_jax.typing import Array, Params, PyTree, UserError

CONFIG = "config.json"


class Stored(NamedTuple):
    """A tensor as a file has it: the file, its name there, its shape in PyTorch's layout."""

    file: Path
    name: str
    shape: tuple[int, ...]


def load_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """``config.json`` of a model's directory. Raises UserError if absent or not an object."""
    return load_object(Path(directory) / CONFIG)


def check_class(
    config: Mapping[str, object], expected: Sequence[str], directory: str | os.PathLike[str]
) -> None:
    """Raises UserError unless the configuration's ``_class_name`` is one of ``expected``."""
    found, names = config.get("_class_name"), " or ".join(expected)
    if found not in expected:
        raise UserError(
            f"{Path(directory) / CONFIG} describes a {found or 'model without _class_name'}, "
            f"not a {names}. Point to the directory of a {names}."
        )


def save_model(
    directory: str | os.PathLike[str],
    config: Mapping[str, object],
    params: Params,
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
    save_tensors(directory / f"{WEIGHTS}.safetensors", tensors)
    save_json(directory / CONFIG, dict(config))


def load_params(
    directory: str | os.PathLike[str],
    template: Params,
    *,
    sharding: Sharding | Mapping[str, PyTree] | None = None,
) -> dict[str, Array]:
    """The weights in ``directory`` as nested dicts like ``template``.

    All names and shapes are checked before the first tensor is read. Then each tensor goes to
    its dtype, layout and devices before the next is read: beside the result, the host holds one
    tensor as stored and one copy of it. Values stored as bfloat16, float16 or float8
    are exact in float32.

    Args:
      directory: a safetensors file, or a folder with ``diffusion_pytorch_model`` (or ``model``) as
        ``.safetensors``, as ``.safetensors.index.json`` with its shards, or as the variant ``fp16``
        of either, in this order. Names of old diffusers and transformers are accepted, see
        ``canonical_name``.
      template: nested dicts of arrays or ShapeDtypeStructs: names, shapes and dtypes wanted.
      sharding: one for all, or a tree like ``template``; by default the first local device.

    Raises:
      UserError: no safetensors there (pickles are refused); a file that is truncated or not
        safetensors; tensors missing, too many, of another shape, or no floating-point numbers.
    """
    flat = trees.flatten(template)
    stored = check_params(directory, template)
    wanted = {path: canonical_name(torch_name(path)) for path in flat}
    places: Mapping[str, Sharding | None] = (
        trees.flatten(sharding) if isinstance(sharding, Mapping) else dict.fromkeys(flat, sharding)
    )
    by_file: dict[Path, list[str]] = {}
    for path, name in wanted.items():
        by_file.setdefault(stored[name].file, []).append(path)
    loaded = {}
    for file, paths in by_file.items():
        with open_tensors(file) as opened:
            for path in paths:
                array = _read(opened, stored[wanted[path]], path, flat[path].dtype)
                # Transfers that are under way keep their arrays on the host: wait for each.
                loaded[path] = _put(array, places[path]).block_until_ready()
                del array
    return trees.unflatten({path: loaded[path] for path in flat})


def check_params(directory: str | os.PathLike[str], template: Params) -> dict[str, Stored]:
    """What :func:`load_params` checks before it reads, from the files' headers alone.

    Returns:
      All tensors by their canonical names.

    Raises:
      UserError: as :func:`load_params`.
    """
    stored = _read_headers(weight_files(Path(directory)))
    remedy = f"Check that {CONFIG} belongs to these weights."
    check_tensors(f"The weights in {directory}", template, stored, remedy)
    return stored


def _read(opened: OpenTensors, found: Stored, path: str, dtype: np.dtype) -> np.ndarray:
    tensor = from_torch(path, opened.read(found.name).reshape(found.shape))
    # In one pass: converting first would copy a transposed tensor twice.
    return tensor.astype(dtype, order="C", copy=False)


def _put(array: np.ndarray, sharding: Sharding | None) -> Array:
    if sharding is None:
        return jax.device_put(array)
    # Unlike device_put, this needs no agreement between processes: each reads the file itself.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _read_headers(files: list[Path]) -> dict[str, Stored]:
    """``{canonical name: where and what}`` of all tensors."""
    stored: dict[str, Stored] = {}
    for file in files:
        with open_tensors(file) as opened:
            for name in opened.names():
                if IGNORED_TENSORS.fullmatch(name):
                    continue
                canonical = canonical_name(name)
                if canonical in stored:
                    raise UserError(
                        f"{file} holds {name}, and {stored[canonical].file} the same tensor as "
                        f"{stored[canonical].name}: get the checkpoint again."
                    )
                opened.check_float(name)
                shape = canonical_shape(canonical, opened.shape(name))
                stored[canonical] = Stored(file, name, shape)
    return stored


def check_tensors(what: str, template: Params, stored: Mapping[str, Stored], remedy: str) -> None:
    """Raises one UserError that names the missing, superfluous and wrongly shaped tensors.

    Args:
      what: the weights, for the message.
      template: nested dicts of arrays or ShapeDtypeStructs: names and shapes wanted.
      stored: the tensors by their canonical names.
      remedy: the message's last sentence.
    """
    flat = trees.flatten(template)
    wanted = {path: canonical_name(torch_name(path)) for path in flat}
    # Shapes are compared in PyTorch's layout: that is what other tools show for the file.
    shapes = {
        wanted[path]: to_torch(path, np.broadcast_to(0, leaf.shape)).shape
        for path, leaf in flat.items()
    }
    if len(shapes) != len(flat):
        raise ValueError("Two parameters of the template have the same PyTorch name.")
    problems = {
        "missing": [torch_name(path) for path, name in wanted.items() if name not in stored],
        "not in the model": [found.name for name, found in stored.items() if name not in shapes],
        "of another shape": [
            f"{stored[name].name} {list(stored[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in stored and stored[name].shape != shape
        ],
    }
    parts = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in problems.items()
        if names
    ]
    if parts:
        raise UserError(f"{what} do not fit the model; tensors {'; '.join(parts)}. {remedy}")
