"""Noise that depends on seed and place alone: not on the picture's size, nor on tiles."""

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from codi_jax.diffusion.sampler import initial_noise
from codi_jax.parallel.compiling import jit_noise

#: Side of the squares that are drawn at once.
SQUARE = 64


def position_noise(
    key: Key[Array, ""], shape: tuple[int, int, int]
) -> Float[np.ndarray, "height width channels"]:
    """Standard normal noise, float32 of ``shape``.

    A larger picture has the same noise where a smaller one has any, so that pictures of one seed
    are alike whatever they were padded to.
    """
    height, width, channels = shape
    noise = np.empty(shape, np.float32)
    for row, top in enumerate(range(0, height, SQUARE)):
        for column, left in enumerate(range(0, width, SQUARE)):
            part = noise[top : top + SQUARE, left : left + SQUARE]
            part[...] = _square(key, row, column, channels)[: part.shape[0], : part.shape[1]]
    return noise


def _square(key: Key[Array, ""], row: int, column: int, channels: int) -> np.ndarray:
    draw = jit_noise(_drawn, "channels")
    return np.asarray(draw(key, np.uint32(row), np.uint32(column), channels=channels))


def _drawn(
    key: Key[Array, ""], row: Array, column: Array, channels: int
) -> Float[Array, "height width channels"]:
    own = jax.random.fold_in(jax.random.fold_in(key, row), column)
    return initial_noise(own, (SQUARE, SQUARE, channels))
