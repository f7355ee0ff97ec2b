"""Where the tiles of a picture are, what each of them counts, and how they become whole again.

All positions are in latents. Arrays that are finer or coarser, as pixels are, name their factor:
how many of their rows belong to a latent.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

#: Patches of a mosaic lie where a low-discrepancy sequence says (Roberts 2018): spread evenly.
_SPREAD = (0.7548776662466927, 0.5698402909980532)
#: Share of a picture that tiles must have for their statistics to be the picture's.
MOST = 0.65


class Piece(NamedTuple):
    """A rectangle of the picture, and where it is in the tile that it is copied to."""

    top: int
    left: int
    height: int
    width: int
    to_top: int = 0
    to_left: int = 0


@dataclasses.dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a picture.

    Neighbours overlap. Of an overlap, ``margin`` at each side is computed but not used, because
    what is near a tile's edge does not see beyond it; in between, one tile fades into the other.

    Attributes:
        length: of the picture, with what was padded.
        tile: length of a tile.
        starts: where each tile starts.
        margin: see above.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    margin: int

    @classmethod
    def cover(cls, length: int, tile: int, margin: int, fade: int, align: int) -> "Axis":
        """As few tiles as cover ``length``, evenly spread.

        Args:
            length: of the picture.
            tile: length of a tile, a multiple of ``align``.
            margin: see above.
            fade: at least so much of each overlap is faded over.
            align: starts are multiples of it.
        """
        length = -(-length // align) * align
        if length <= tile:
            return cls(tile, tile, (0,), margin)
        step = max(align, (tile - 2 * margin - fade) // align * align)
        count = 1 + -(-(length - tile) // step)
        steps = (length - tile) // align
        starts = tuple(i * steps // (count - 1) * align for i in range(count))
        return cls(length, tile, starts, margin)

    def weights(self, factor: int = 1) -> Float[np.ndarray, "tiles positions"]:
        """How much each tile counts at each of its positions; over the tiles they add up to 1."""
        at = (np.arange(self.tile * factor) + 0.5) / factor
        weights = np.ones((len(self.starts), at.size))
        for i, (start, after) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            overlap = start + self.tile - after
            middle = after + overlap / 2
            # Fades that met one another would not add up to 1.
            fade = min(max(overlap - 2 * self.margin, 1e-6), after - start)
            weights[i] *= np.clip((middle - start - at) / fade + 0.5, 0, 1)
            weights[i + 1] *= np.clip((after + at - middle) / fade + 0.5, 0, 1)
        return weights.astype(np.float32)


class Batch(NamedTuple):
    """Tiles that are computed together.

    Attributes:
        key: names it, for what is remembered.
        tiles: of each tile the pieces of the picture that it is made of.
        weights: how much each latent counts in the statistics [tiles, height, width].
        places: (row, column) of each tile in the grid; none of a mosaic.
    """

    key: int
    tiles: tuple[tuple[Piece, ...], ...]
    weights: Float[np.ndarray, "tiles height width"]
    places: tuple[tuple[int, int], ...] = ()

    def cut(
        self, array: Shaped[np.ndarray, "height width *channels"], factor: Fraction | int = 1
    ) -> list[Shaped[np.ndarray, "tile_height tile_width *channels"]]:
        """The tiles of an array with ``factor`` rows a latent."""
        return [self._assembled(array, pieces, factor) for pieces in self.tiles]

    def _assembled(
        self, array: np.ndarray, pieces: Sequence[Piece], factor: Fraction | int
    ) -> np.ndarray:
        height, width = (int(side * factor) for side in self.weights.shape[1:])
        tile = np.empty((height, width, *array.shape[2:]), array.dtype)
        for piece in pieces:
            top, left, h, w, to_top, to_left = (int(value * factor) for value in piece)
            tile[to_top : to_top + h, to_left : to_left + w] = array[top : top + h, left : left + w]
        return tile


@dataclasses.dataclass(frozen=True)
class Grid:
    """The tiles of a picture.

    Attributes:
        rows: along its height.
        columns: along its width.
        size: height and width without what was padded.
    """

    rows: Axis
    columns: Axis
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width with what was padded."""
        return self.rows.length, self.columns.length

    @property
    def count(self) -> int:
        """The number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    @functools.cached_property
    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.weights(), self.columns.weights()

    def batches(self, size: int) -> list[Batch]:
        """All tiles, row by row, ``size`` at once; the last batch may be shorter."""
        places = [
            (i, j) for i in range(len(self.rows.starts)) for j in range(len(self.columns.starts))
        ]
        chunks = [places[k : k + size] for k in range(0, len(places), size)]
        return [self._batch(key, chunk) for key, chunk in enumerate(chunks)]

    def _batch(self, key: int, places: Sequence[tuple[int, int]]) -> Batch:
        th, tw = self.rows.tile, self.columns.tile
        corners = [(self.rows.starts[i], self.columns.starts[j]) for i, j in places]
        weights = [
            np.outer(self._weights[0][i], self._weights[1][j]) * self._inside(top, left, th, tw)
            for (i, j), (top, left) in zip(places, corners, strict=True)
        ]
        tiles = tuple((Piece(top, left, th, tw),) for top, left in corners)
        return Batch(key, tiles, np.stack(weights), tuple(places))

    def _inside(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """1 for the latents of the picture, 0 for what was padded."""
        rows = np.arange(top, top + height) < self.size[0]
        columns = np.arange(left, left + width) < self.size[1]
        return np.outer(rows, columns).astype(np.float32)

    def most(self, batches: Sequence[Batch]) -> Batch | None:
        """The first batch that has :data:`MOST` of the picture, each latent counted once.

        Args:
            batches: of this grid.

        Returns:
            The batch with weights for statistics of all that it has; None if there is none.
        """
        enough = MOST * math.prod(self.size)
        for batch in batches:
            if batch.weights.size < enough:
                continue
            covered = np.zeros(self.shape, np.float32)
            pieces = [piece for (piece,) in batch.tiles]
            for top, left, h, w, *_ in pieces:
                covered[top : top + h, left : left + w] += 1
            weights = np.stack(
                [
                    self._inside(top, left, h, w) / covered[top : top + h, left : left + w]
                    for top, left, h, w, *_ in pieces
                ]
            )
            if weights.sum(dtype=np.float64) >= enough:
                return batch._replace(weights=weights)
        return None

    def mosaic(self, size: int, align: int) -> Batch:
        """Tiles that are put together of patches from all over the picture.

        Where patches meet the networks see edges that are none, so the outer eighth of a patch
        does not count.

        Args:
            size: number of tiles.
            align: patches start at multiples of it.
        """
        th, tw = self.rows.tile, self.columns.tile
        # Patches of at least 16 latents, at most 16 in a tile.
        across = [max(1, min(4, tile // max(16, align))) for tile in (th, tw)]
        ph, pw = (tile // n // align * align for tile, n in zip((th, tw), across, strict=True))
        tops = _cuts(th, ph)
        lefts = _cuts(tw, pw)
        tiles, weights, k = [], [], 0
        for _ in range(size):
            pieces, counted = [], np.zeros((th, tw), np.float32)
            for to_top, h in tops:
                for to_left, w in lefts:
                    k += 1
                    top = _spread(k, 0, self.size[0], self.shape[0], h, align)
                    left = _spread(k, 1, self.size[1], self.shape[1], w, align)
                    pieces.append(Piece(top, left, h, w, to_top, to_left))
                    # What the picture's whole height (or width) fits in keeps its edges.
                    y, x = h // 8 * (self.size[0] > h), w // 8 * (self.size[1] > w)
                    inner = (slice(to_top + y, to_top + h - y), slice(to_left + x, to_left + w - x))
                    counted[inner] = self._inside(top + y, left + x, h - 2 * y, w - 2 * x)
            tiles.append((*pieces,))
            weights.append(counted)
        return Batch(-1, tuple(tiles), np.stack(weights))


def _cuts(tile: int, patch: int) -> list[tuple[int, int]]:
    """(start, length) of the patches along a tile; the last takes what is left over."""
    starts = [*range(0, tile - patch + 1, patch)]
    return [
        (start, (after or tile) - start)
        for start, after in zip(starts, [*starts[1:], 0], strict=True)
    ]


def _spread(k: int, axis: int, size: int, length: int, patch: int, align: int) -> int:
    """Where patch k starts: inside the picture, as far as it is large enough."""
    room = max(0, min(size, length) - patch) // align
    return int((k * _SPREAD[axis]) % 1 * (room + 1)) * align


class Blend:
    """A picture that is put together of overlapping tiles, from the top, and leaves as it is ready.

    Args:
        grid: of the tiles.
        channels: of the picture.
        factor: rows of the picture a latent.
    """

    def __init__(self, grid: Grid, channels: int, factor: int = 1):
        self.grid, self.factor = grid, factor
        self._weights = grid.rows.weights(factor), grid.columns.weights(factor)
        self._rows = np.zeros((0, grid.columns.length * factor, channels), np.float32)
        self._top = 0

    def add(self, batch: Batch, tiles: Float[np.ndarray, "tiles height width channels"]) -> None:
        """Add the tiles of the next batch; what is more than the batch has is left out."""
        for (i, j), tile in zip(batch.places, tiles, strict=False):
            height, width = tile.shape[:2]
            top = self.grid.rows.starts[i] * self.factor - self._top
            left = self.grid.columns.starts[j] * self.factor
            missing = top + height - len(self._rows)
            if missing > 0:
                more = np.zeros((missing, *self._rows.shape[1:]), np.float32)
                self._rows = np.concatenate([self._rows, more])
            weights = self._weights[0][i][:, None, None] * self._weights[1][j][:, None]
            self._rows[top : top + height, left : left + width] += weights * tile

    def ready(self, batch: Batch) -> Iterator[tuple[int, Float[np.ndarray, "rows width channels"]]]:
        """(first row, rows) that no tile after this batch changes; each comes once."""
        i, j = batch.places[-1]
        last = j == len(self.grid.columns.starts) - 1
        after = i + 1 if last else i
        starts = (*self.grid.rows.starts, self.grid.rows.length)
        count = starts[after] * self.factor - self._top
        if count > 0:
            yield self._top, self._rows[:count]
            self._rows, self._top = self._rows[count:].copy(), self._top + count
