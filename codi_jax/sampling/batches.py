"""Images of any sizes in batches, over all devices of this process."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Shaped

from codi_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from codi_jax.typing import PyTree

Item = TypeVar("Item")


def buckets(
    items: Iterable[Item], shape: Callable[[Item], Hashable], size: int
) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items of one shape; shorter ones come at the end."""
    waiting: dict[Hashable, list[Item]] = {}
    for item in items:
        bucket = waiting.setdefault(shape(item), [])
        bucket.append(item)
        if len(bucket) == size:
            yield waiting.pop(shape(item))
    yield from waiting.values()


class Devices:
    """The devices of this process: each has all parameters and its part of every batch.

    Processes work on images of their own, so no process uses another one's devices.

    Args:
        batch_size: rounded up to a multiple of the number of devices.
        devices: how many of this process's are used; by default all.
    """

    def __init__(self, batch_size: int = 1, devices: int | None = None):
        self.mesh = make_mesh(devices=jax.local_devices()[:devices])
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size

    def replicate(self, tree: PyTree) -> PyTree:
        """The arrays of ``tree`` on every device."""
        return jax.device_put(tree, replicated(self.mesh))

    def spread(
        self, rows: Sequence[np.ndarray], fill: float | None = None
    ) -> Shaped[Array, "batch ..."]:
        """[batch_size, ...] of up to ``batch_size`` rows of one shape, split over the devices.

        The last row is repeated until there are enough, so that every batch has one shape and
        is compiled once.

        Args:
            rows: at least one.
            fill: what fills further rows, if they are not to be the last one.
        """
        more = rows[-1] if fill is None else np.full_like(rows[-1], fill)
        padded = [*rows, *[more] * (self.batch_size - len(rows))]
        return jax.device_put(np.stack(padded), batch_sharding(self.mesh))

    def map(
        self, f: Callable[..., Array], *columns: Iterable[np.ndarray]
    ) -> Shaped[np.ndarray, "rows ..."]:
        """The results of ``f`` [N, ...], one row for each row of the columns, in their order.

        Args:
            f: takes as many arrays [batch_size, ...] as there are columns.
            columns: N arrays each; shapes may differ from row to row.
        """
        rows: dict[int, np.ndarray] = {}
        numbered = enumerate(zip(*columns, strict=True))
        for batch in buckets(numbered, lambda item: item[1][0].shape, self.batch_size):
            by_column = zip(*(row for _, row in batch), strict=True)
            out = np.asarray(f(*(self.spread(column) for column in by_column)))
            rows.update((i, out[k]) for k, (i, _) in enumerate(batch))
        return np.stack([rows[i] for i in range(len(rows))])
