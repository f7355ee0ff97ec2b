"""What a checkpoint holds against what a model wants: flat trees, by path."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from codi_jax.typing import PyTree, UserError


def by_path(tree: PyTree) -> dict[str, PyTree]:
    """``{path: leaf}``, also of named tuples and dataclasses."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): leaf for k, leaf in leaves}


def abstract(leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of ``leaf``; without one, this process's first device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        # Otherwise orbax takes the saved sharding, whose devices may not exist here.
        sharding = SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def check_matches(
    where: str, saved: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Raises one UserError about the first difference between checkpoint and template."""
    problems = []
    for path, want in wanted.items():
        have = saved.get(path)
        if have is None:
            problems.append(f"{path} is not in the checkpoint")
        elif tuple(have.shape) != tuple(want.shape) or have.dtype != want.dtype:
            problems.append(
                f"{path} is {have.dtype}{list(have.shape)} in the checkpoint and "
                f"{want.dtype}{list(want.shape)} in this model"
            )
    problems += [f"{path} is not in this model" for path in saved if path not in wanted]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"Checkpoint {where} does not fit this model: {problems[0]}{more}. "
            "Use the configuration it was trained with, or another workdir."
        )
