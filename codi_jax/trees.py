"""Nested dicts of parameters: paths, splitting, hashing.

A *path* is the keys from the root to a leaf, joined by ``/``, for example
``unet/down_blocks_0/resnets_0/conv1/kernel``. No function here returns a branch without leaves.
"""

import hashlib
import math
import re
from collections.abc import Mapping

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils

from codi_jax.typing import Params, PyTree


def flatten(tree: Params) -> dict[str, PyTree]:
    """Nested dicts -> ``{path: leaf}`` in the tree's own order."""
    flat: dict[str, PyTree] = {}
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(f"A tree's keys are non-empty strings without '/', got {key!r}.")
        if isinstance(value, Mapping):
            flat.update({f"{key}/{path}": leaf for path, leaf in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """``{path: leaf}`` -> nested dicts; the inverse of :func:`flatten`.

    Raises:
        ValueError: one path is a prefix of another; a leaf cannot be a branch.
    """
    tree: dict[str, PyTree] = {}
    for path, leaf in flat.items():
        *branches, name = path.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path!r} continues below the leaf {branch!r}.")
        if name in node:
            raise ValueError(f"{path!r} is a leaf and a branch.")
        node[name] = leaf
    return tree


def split(tree: Params, regex: str) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """``(matching, rest)``: the leaves whose whole path matches ``regex``, and the others."""
    pattern = re.compile(regex)
    matching: dict[str, PyTree] = {}
    rest: dict[str, PyTree] = {}
    for path, leaf in flatten(tree).items():
        (matching if pattern.fullmatch(path) else rest)[path] = leaf
    return unflatten(matching), unflatten(rest)


def merge(a: Params, b: Params) -> dict[str, PyTree]:
    """The union of two disjoint trees; the inverse of :func:`split`.

    Raises:
        ValueError: a path that both have, or that is a leaf in one and a branch in the other.
    """
    flat_a, flat_b = flatten(a), flatten(b)
    overlap = sorted(flat_a.keys() & flat_b.keys())
    if overlap:
        raise ValueError(f"Both trees have {overlap[0]!r} ({len(overlap)} paths overlap).")
    return unflatten({**flat_a, **flat_b})


def overlay(tree: Params, changes: Params) -> dict[str, PyTree]:
    """``tree`` with the leaves of ``changes`` in place of its own, or beside them."""
    return unflatten({**flatten(tree), **flatten(changes)})


def count(tree: PyTree) -> int:
    """Number of scalars in all leaves, which may be arrays or ShapeDtypeStructs."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def to_host(leaf: npt.ArrayLike) -> np.ndarray:
    """The whole of one array in host memory, gathered if it is spread over several hosts.

    With several processes, all of them must call this in the same order.
    """
    if (
        isinstance(leaf, jax.Array)
        and not leaf.is_fully_addressable
        and not leaf.is_fully_replicated
    ):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def tree_hash(tree: Params) -> str:
    """SHA-256 (hex) over every leaf's path, dtype, shape and bytes, in sorted order of paths.

    Two trees have the same hash exactly if they hold the same values bit for bit, whatever
    their sharding. One leaf at a time is on the host. With several processes, all must call it.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(tree).items()):
        array = to_host(leaf)
        digest.update(f"{path}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
