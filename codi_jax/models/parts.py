"""Batches that are worked through in equal parts."""

import jax

from codi_jax.typing import PyTree


def parts(batch: PyTree, count: int) -> PyTree:
    """[B, ...] -> [count, B / count, ...]; each part takes examples of every device."""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch
    )


def whole(parted: PyTree) -> PyTree:
    """What :func:`parts` was given, [count, B / count, ...] -> [B, ...]."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parted)
