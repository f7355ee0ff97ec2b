"""3x3 convolutions with a quarter of the products, for CPUs: Winograd's F(4x4, 3x3).

Lavin & Gray 2016 (arXiv:1509.09308), equation 12: of a tile d of 6 x 6 inputs and a kernel g come
4 x 4 outputs, ``A^T [(G g G^T) * (B^T d B)] A``. The products of all tiles are 36 matrix products
over channels. On a CPU that halves the time of a wide convolution; accelerators have units for
convolutions, and keep theirs.

With points other than the paper's 0, 1, -1, 2, -2 an error is about 1e-6 of the output's deviation:
a sixth of theirs, and eight times that of the sum of products.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

#: Where the polynomials of the method are evaluated, beside infinity.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
#: Outputs of a tile along an axis.
TILE = 4
#: Fewer channels do not pay for the transforms.
CHANNELS = 64
#: Numbers that are computed at a time, so that they stay in the cache.
PART = 2**19
#: How the names of the programs begin, by which `codi_jax.train.flops` knows them.
NAME = "winograd"

_ON: ContextVar[bool] = ContextVar("winograd", default=False)


@contextlib.contextmanager
def convolutions_for(platform: str) -> Iterator[None]:
    """Functions that are traced within choose their convolutions for "cpu", "gpu" or "tpu".

    It also serves as a decorator of such a function.
    """
    token = _ON.set(platform == "cpu")
    try:
        yield
    finally:
        _ON.reset(token)


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels out_channels"],
    strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, "batch out_height out_width out_channels"]:
    """As ``jax.lax.conv_general_dilated``; for flax's ``conv_general_dilated`` of a 3x3 layer.

    Where :func:`convolutions_for` named a CPU, wide convolutions in float32 that keep the size
    are Winograd's. Anything else is XLA's.
    """
    plain = tuple(strides) == (1, 1) and tuple(map(tuple, padding)) == ((1, 1), (1, 1))
    if _ON.get() and plain and _pays(x, kernel):
        return winograd(x, kernel)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _pays(x: Array, kernel: Array) -> bool:
    _, height, width, _ = x.shape
    padded = _up(height) * _up(width) / (height * width)
    wide = kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= CHANNELS
    return wide and x.dtype == kernel.dtype == jnp.float32 and padded <= 1.3


@jax.custom_vjp
def winograd(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels out_channels"],
) -> Float[Array, "batch height width out_channels"]:
    """A convolution with one row or column of zeros around ``x``."""
    return winograd_convolution(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return winograd_convolution(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return winograd_convolution(gradient, turned), winograd_kernel_gradient(x, gradient)


winograd.defvjp(_forward, _backward)


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [4, 6], G [6, 3] and B^T [6, 6]: Toom and Cook's, for :data:`POINTS`.

    The outputs are the coefficients of a product of polynomials, transposed: G evaluates the
    kernel's polynomial at the points, A^T the powers of the output, and B^T interpolates.
    """
    points, count = np.array(POINTS), len(POINTS)
    others = [np.delete(points, j) for j in range(count)]
    at, g, bt = np.zeros((TILE, count + 1)), np.zeros((count + 1, 3)), np.zeros((count + 1,) * 2)
    for j, point in enumerate(points):
        at[:, j] = point ** np.arange(TILE)
        g[j] = point ** np.arange(3) / np.prod(point - others[j])
        bt[j, :count] = np.poly(others[j])[::-1]
    at[-1, -1] = g[-1, -1] = 1  # infinity
    bt[-1] = np.poly(points)[::-1]
    return at, g, bt


@jax.jit
def winograd_convolution(x: Array, kernel: Array) -> Array:
    """[B, H, W, C] and [3, 3, C, O] -> [B, H, W, O]."""
    channels, out_channels = kernel.shape[2:]
    at, g, bt = matrices()
    g = g.astype(np.float32)
    u = jnp.einsum("ai,bj,ijco->abco", g, g, kernel).reshape(36, channels, out_channels)
    parts = _Parts.of(x.shape, out_channels)
    padded = parts.padded(x, around=1)

    def part(i: Array) -> Array:
        v = _spread(parts.cut(padded, i, around=1), bt)
        m = jnp.einsum("kpc,kco->kpo", v.reshape(36, -1, channels), u)
        return _joined(m.reshape(*v.shape[:-1], out_channels), at)

    made = part(jnp.int32(0))[None] if parts.total == 1 else jax.lax.map(part, parts.numbers)
    return parts.whole(made, x.shape)


@jax.jit
def winograd_kernel_gradient(x: Array, gradient: Array) -> Array:
    """[B, H, W, C] and [B, H, W, O] -> [3, 3, C, O]."""
    channels, out_channels = x.shape[-1], gradient.shape[-1]
    at, g, bt = matrices()
    g = g.astype(np.float32)
    parts = _Parts.of(x.shape, out_channels)
    x, gradient = parts.padded(x, around=1), parts.padded(gradient, around=0)

    def add(total: Array, i: Array) -> tuple[Array, None]:
        v = _spread(parts.cut(x, i, around=1), bt).reshape(36, -1, channels)
        m = _spread(parts.cut(gradient, i, around=0), at.T).reshape(36, -1, out_channels)
        return total + jnp.einsum("kpc,kpo->kco", v, m), None

    u = jnp.zeros((36, channels, out_channels))
    u = add(u, jnp.int32(0))[0] if parts.total == 1 else jax.lax.scan(add, u, parts.numbers)[0]
    return jnp.einsum("ai,bj,abco->ijco", g, g, u.reshape(6, 6, channels, out_channels))


def _up(length: int) -> int:
    return -(-length // TILE) * TILE


class _Parts(NamedTuple):
    """A batch in parts that a cache holds: some rows of some pictures each.

    Picture b is number ``b // groups`` of part ``b % groups``: where a batch is spread over
    devices, every device has its share of each part.
    """

    pictures: int
    groups: int
    rows: int
    bands: int

    @classmethod
    def of(cls, shape: tuple[int, ...], out_channels: int) -> "_Parts":
        batch, height, width, channels = shape
        row = _up(width) * max(channels, out_channels)
        fitting = max(1, PART // (row * _up(height)))
        pictures = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fitting)
        bands = math.ceil(_up(height) / max(TILE, PART // row // TILE * TILE))
        return cls(pictures, batch // pictures, _up(math.ceil(height / bands)), bands)

    @property
    def total(self) -> int:
        return self.groups * self.bands

    @property
    def numbers(self) -> Array:
        return jnp.arange(self.total, dtype=jnp.int32)

    def padded(self, x: Array, around: int) -> Array:
        """[pictures, groups, h, w, C], with zeros up to whole tiles and ``around`` that."""
        below, right = self.rows * self.bands - x.shape[1], _up(x.shape[2]) - x.shape[2]
        edges = ((0, 0), (around, below + around), (around, right + around), (0, 0))
        padded = jnp.pad(x, edges)
        return padded.reshape(self.pictures, self.groups, *padded.shape[1:])

    def cut(self, x: Array, number: Array, around: int) -> Array:
        """A part of what is padded, [pictures, rows, w, C]."""
        group, band = number // self.bands, number % self.bands * self.rows
        zero = jnp.int32(0)
        size = (self.pictures, 1, self.rows + 2 * around, *x.shape[3:])
        return jax.lax.dynamic_slice(x, (zero, group, band, zero, zero), size)[:, 0]

    def whole(self, made: Array, shape: tuple[int, ...]) -> Array:
        """The batch of all parts, [parts, pictures, rows, w, C]."""
        made = made.reshape(self.groups, self.bands, *made.shape[1:]).transpose(2, 0, 1, 3, 4, 5)
        made = made.reshape(shape[0], self.rows * self.bands, *made.shape[4:])
        return made[:, : shape[1], : shape[2]]


def _spread(x: Array, matrix: np.ndarray) -> Array:
    """``matrix d matrix^T`` of each tile: [B, h, w, C] -> [6, 6, B, h // 4, w // 4, C]."""
    down, across = x.shape[1] // TILE, x.shape[2] // TILE

    def part(x: Array, i: int, count: int, axis: int) -> Array:
        return jax.lax.slice_in_dim(x, i, i + TILE * (count - 1) + 1, TILE, axis)

    window = range(matrix.shape[1])
    rows = jnp.stack(_mixed(matrix, [part(x, i, down, 1) for i in window]))
    rows = jax.lax.optimization_barrier(rows)  # else each is computed six times
    return jnp.stack(_mixed(matrix, [part(rows, j, across, 3) for j in window]), 1)


def _joined(m: Array, matrix: np.ndarray) -> Array:
    """``matrix m matrix^T`` of each tile: [6, 6, B, h, w, C] -> [B, 4 h, 4 w, C]."""
    _, _, batch, down, across, channels = m.shape
    rows = jnp.stack(_mixed(matrix, [*m]))
    tiles = jnp.stack(_mixed(matrix, [*rows.swapaxes(0, 1)]), 4)
    return tiles.transpose(1, 2, 0, 3, 4, 5).reshape(batch, TILE * down, TILE * across, channels)


def _mixed(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """Sums of the parts with each row's numbers."""
    made = []
    for row in matrix:
        of = [(np.float32(c), part) for c, part in zip(row, parts, strict=True) if c]
        made.append(functools.reduce(jnp.add, [part if c == 1 else c * part for c, part in of]))
    return made
