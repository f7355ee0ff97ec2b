"""One program over all tiles of a picture, with the same statistics for every tile."""

import functools
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import jax
import numpy as np
from jaxtyping import Array, Float

from codi_jax.models.norm import Moments
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.tile_programs import Program
from codi_jax.sampling.tiles import Batch, Blend, Grid
from codi_jax.typing import PyTree


class Pass:
    """A program over the tiles of one picture.

    If one batch of tiles has most of the picture, the group norms measure their statistics on that.
    Else they do on a mosaic of patches from all over the picture. They are used for every tile.

    Args:
        program: the program.
        grid: the tiles.
        devices: where they are computed.
        align: see :meth:`Grid.mosaic`.
        limit: bytes that the program may need.
        arguments: of the program, for a batch.
        told: called after each batch.
    """

    def __init__(
        self,
        program: Program,
        grid: Grid,
        devices: Devices,
        *,
        align: int,
        limit: int,
        arguments: Callable[[Batch], tuple[PyTree, ...]],
        told: Callable[[], None] = lambda: None,
    ):
        self.program, self.grid, self.devices = program, grid, devices
        self.align, self.limit, self.arguments, self.told = align, limit, arguments, told
        self.batches = grid.batches(devices.batch_size)

    def __call__(self, batch: Batch) -> PyTree:
        """The program's result for a batch.

        Raises:
            TooLargeError: it needs more memory than it may.
        """
        given, made = self._measured
        if batch.key in made:
            return made[batch.key]
        return self.program(self._weights(batch), self.arguments(batch), self.limit, given)[0]

    @functools.cached_property
    def _measured(self) -> tuple[tuple[Moments, ...] | None, dict[int, PyTree]]:
        """The statistics of the whole picture, and what came of a batch that they were measured on.

        None where every batch has its own statistics; the results are by the batch's key.
        """
        if len(self.batches) == 1:
            return None, {}
        size = self.devices.batch_size
        source = self.grid.most(self.batches) or self.grid.mosaic(size, self.align)
        args, weights = self.arguments(source), self._weights(source)
        if not self.program.measures(weights, args, self.limit):
            return None, {}
        result, moments = self.program(weights, args, self.limit)
        made = {source.key: result} if source.places else {}  # a mosaic has no place
        return jax.device_get(moments), made

    def _weights(self, batch: Batch) -> Float[Array, "tiles height width"]:
        return self.devices.spread([*batch.weights], fill=0)

    def results(self) -> Iterator[tuple[Batch, Float[np.ndarray, "tiles height width channels"]]]:
        """The results of all batches on the host; the next is begun before one is fetched."""
        waiting: tuple[Batch, Array] | None = None
        for batch in [*self.batches, None]:
            begun = None if batch is None else (batch, self(batch))
            if waiting is not None:
                yield waiting[0], np.asarray(waiting[1])
                self.told()
            waiting = begun

    def rows(self, factor: int = 1) -> Iterator[tuple[int, Float[np.ndarray, "rows width _"]]]:
        """(first row, rows) of the blended picture from the top, with ``factor`` rows a latent."""
        blend: Blend | None = None
        for batch, tiles in self.results():
            blend = blend or Blend(self.grid, tiles.shape[-1], factor)
            blend.add(batch, tiles)
            yield from blend.ready(batch)

    def blended(self) -> Float[np.ndarray, "height width channels"]:
        """The blended picture of latents."""
        whole: np.ndarray | None = None
        for top, rows in self.rows():
            if whole is None:
                whole = np.empty((*self.grid.shape, rows.shape[-1]), np.float32)
            whole[top : top + len(rows)] = rows
        assert whole is not None
        return whole


def cut_arrays(
    arrays: Mapping[str, np.ndarray], batch: Batch, devices: Devices, factor: Fraction
) -> dict[str, Array]:
    """The tiles of all arrays that a task reads, on the devices.

    Args:
        arrays: pictures and maps [h, w, ...] are cut; fewer axes are repeated for each tile.
        batch: the tiles.
        devices: where they go.
        factor: rows of the arrays a latent.
    """
    return {
        name: devices.spread(
            batch.cut(array, factor) if array.ndim > 1 else [array] * len(batch.tiles)
        )
        for name, array in arrays.items()
    }
