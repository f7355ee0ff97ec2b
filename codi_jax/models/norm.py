"""Group normalisation, also with statistics of more than the picture that it is given.

Tiles of a picture that were each normalised by their own mean and variance would differ in colour
and contrast: a piece of flat sky would be amplified as if it were a texture. So whoever computes
in tiles measures the statistics once, over a sample of the whole picture, and gives the same
numbers to every tile::

    with statistics(weights) as measured:  # over the batch, too
        network.apply(...)
    with statistics(weights, given=tuple(measured)):
        network.apply(...)
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Moments(NamedTuple):
    """Mean and variance of each group of channels, for each condition of a guided call."""

    mean: Float[Array, "conditions groups"]
    variance: Float[Array, "conditions groups"]


@dataclasses.dataclass
class _Shared:
    """What the norms of one traced call read and write.

    Attributes:
        weights: how much each latent counts.
        given: statistics in the order of the norms, and whether they are used.
        measured: those that were used.
    """

    weights: Float[Array, "batch height width"]
    given: tuple[Moments, ...] | None
    use_given: Bool[Array, ""] | bool
    measured: list[Moments]


_SHARED: contextvars.ContextVar[_Shared | None] = contextvars.ContextVar("shared", default=None)


@contextlib.contextmanager
def statistics(
    weights: Float[Array, "batch height width"],
    given: tuple[Moments, ...] | None = None,
    use_given: Bool[Array, ""] | bool = True,
) -> Iterator[list[Moments]]:
    """Within it, while networks are traced, every :class:`GroupNorm` has one mean and variance.

    Not for networks with ``remat``, whose blocks are traced apart.

    Args:
        weights: of each latent in the mean, over all of the batch. Where the features have
            another resolution it is averaged or repeated. A batch of n times as many rows is taken
            as n conditions, with statistics for each.
        given: statistics that were measured before; by default they are measured.
        use_given: whether ``given`` is used, so that one program can do both.

    Yields:
        A list that receives what was used, in the order of the norms.
    """
    shared = _Shared(weights, given, use_given, [])
    token = _SHARED.set(shared)
    try:
        yield shared.measured
    finally:
        _SHARED.reset(token)


class GroupNorm(nn.GroupNorm):
    """flax's, but within :func:`statistics`."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Normalise each group of channels to mean 0 and variance 1, then scale and shift."""
        shared = _SHARED.get()
        if shared is None:
            return super().__call__(x)
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        assert self.num_groups is not None
        rows = shared.weights.shape[0]
        grouped = x.astype(jnp.float32).reshape(
            -1, rows, *x.shape[1:-1], self.num_groups, channels // self.num_groups
        )
        moments = _moments(grouped, shared.weights)
        if shared.given is not None:
            given = shared.given[len(shared.measured)]
            moments = Moments(
                *(jnp.where(shared.use_given, *pair) for pair in zip(given, moments, strict=True))
            )
        shared.measured.append(moments)
        mean, variance = (m[:, None, None, None, :, None] for m in moments)
        normal = (grouped - mean) / jnp.sqrt(variance + self.epsilon)
        return (normal.reshape(x.shape) * scale + bias).astype(self.dtype or x.dtype)


def _moments(
    grouped: Float[Array, "conditions rows height width groups channels"],
    weights: Float[Array, "rows latent_height latent_width"],
) -> Moments:
    height, width = grouped.shape[2:4]
    weights = _at_resolution(weights, height, width)
    weights = weights / weights.sum()
    weighted = weights[..., None, None] * grouped
    mean = weighted.sum((1, 2, 3, 5)) / grouped.shape[-1]
    square = (weighted * grouped).sum((1, 2, 3, 5)) / grouped.shape[-1]
    return Moments(mean, jnp.maximum(square - mean * mean, 0.0))


def _at_resolution(
    weights: Float[Array, "rows latent_height latent_width"], height: int, width: int
) -> Float[Array, "rows height width"]:
    for axis, size in ((1, height), (2, width)):
        have = weights.shape[axis]
        if have > size:
            shape = (*weights.shape[:axis], size, have // size, *weights.shape[axis + 1 :])
            weights = weights.reshape(shape).mean(axis + 1)
        elif have < size:
            weights = weights.repeat(size // have, axis=axis)
    return weights
