"""Where each parameter lives: an ordered table of regexes over parameter paths.

The first rule whose regex matches the whole path decides. A path that no rule matches is an
error, never silently replicated: a new kind of parameter gets its line in :data:`RULES`.

Optimiser and EMA states repeat the parameters' paths below a prefix of their own
(``0/mu/unet/conv_in/kernel``), and the rules look only at the path's end, so the same table
places them (:func:`state_shardings`).
"""

import math
import re
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from codi_jax.typing import PyTree, UserError

Rule = Callable[[tuple[int, ...], int], PartitionSpec]


def _output_or_input_axis(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Split the output channels (last axis), else the input channels, else nothing."""
    for axis in range(len(shape) - 1, max(len(shape) - 3, -1), -1):
        if fsdp > 1 and shape[axis] % fsdp == 0:
            return PartitionSpec(*([None] * axis), "fsdp")
    return PartitionSpec()


def _replicate(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Whole on every device: a few thousand numbers are not worth a collective."""
    del shape, fsdp
    return PartitionSpec()


#: (regex over the whole path, rule). Kernels are [*window, in, out], embeddings [rows, features].
RULES: tuple[tuple[str, Rule], ...] = (
    (r"(.*/)?kernel", _output_or_input_axis),
    (r"(.*/)?embedding", _output_or_input_axis),
    (r"(.*/)?(bias|scale|mu)", _replicate),
)


def _spec(path: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec | None:
    for regex, rule in RULES:
        if re.fullmatch(regex, path):
            return rule(shape, fsdp)
    return None


def _shardings(mesh: Mesh, shapes: PyTree, scalars_need_rule: bool) -> PyTree:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    fsdp = mesh.shape["fsdp"]
    placed, unmatched = [], []
    for keys, leaf in leaves:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if leaf.shape or scalars_need_rule:
            spec = _spec(path, tuple(leaf.shape), fsdp)
        else:
            spec = PartitionSpec()
        if spec is None:
            unmatched.append(f"{path} {tuple(leaf.shape)}")
        else:
            placed.append(NamedSharding(mesh, spec))
    if unmatched:
        shown = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
        raise UserError(
            f"No sharding rule matches {len(unmatched)} of {len(leaves)} parameters: {shown}. "
            "Add a line to RULES in codi_jax/parallel/sharding.py."
        )
    return jax.tree.unflatten(treedef, placed)


def param_shardings(mesh: Mesh, shapes: PyTree) -> PyTree:
    """One NamedSharding for each parameter.

    Args:
        mesh: from :func:`codi_jax.parallel.mesh.make_mesh`.
        shapes: nested dicts of anything with a ``shape`` (arrays, ShapeDtypeStructs).

    Raises:
        UserError: naming the parameters that no rule matches.
    """
    return _shardings(mesh, shapes, scalars_need_rule=True)


def state_shardings(mesh: Mesh, shapes: PyTree) -> PyTree:
    """One NamedSharding for each leaf of an optimiser, EMA or whole training state.

    Scalars (step counts, loss scales) are replicated. The path of every other leaf must end in
    a parameter's path, and the leaf is placed like that parameter.

    Args:
        mesh: from :func:`codi_jax.parallel.mesh.make_mesh`.
        shapes: a tree of anything with a ``shape``.

    Raises:
        UserError: naming the leaves that no rule matches.
    """
    return _shardings(mesh, shapes, scalars_need_rule=False)


def bytes_a_device(shapes: PyTree, shardings: PyTree) -> int:
    """Bytes that one device holds of a tree of shapes, placed by a tree of NamedShardings."""

    def size(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
        return math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, shapes, shardings)))
