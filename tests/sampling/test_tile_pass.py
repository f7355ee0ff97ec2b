"""A program over tiles: all have the same statistics, and nothing is computed in vain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.norm import GroupNorm
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.tile_pass import Pass
from codi_jax.sampling.tile_programs import Program
from codi_jax.sampling.tiles import Batch
from codi_jax.typing import Array
from tests.sampling.test_tiles import grid

TILE = 32
RNG = np.random.default_rng(0)


class Counted(Program):
    """A program that knows how often it was called."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().__call__(*args, **kwargs)


@pytest.fixture(scope="module")
def normalise() -> Counted:
    norm = GroupNorm(num_groups=1)
    params = norm.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
    return Counted(lambda x: norm.apply(params, x))


def passed(program: Counted, picture: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The blended result, the number of calls, and how many batches were told of."""
    devices, told = Devices(1, 1), []
    before = program.calls

    def cut(batch: Batch) -> tuple[Array]:
        return (devices.spread(batch.cut(picture)),)

    def tell() -> None:
        told.append(1)

    tiles = grid(*picture.shape[:2], TILE)
    over = Pass(program, tiles, devices, align=2, limit=2**30, arguments=cut, told=tell)
    return over.blended(), program.calls - before, len(told)


@pytest.mark.parametrize("size", [(32, 48), (44, 32)])
def test_a_tile_of_most_of_the_picture_has_its_statistics(
    size: tuple[int, int], normalise: Counted
) -> None:
    picture = RNG.normal(3, 2, (*size, 2)).astype(np.float32)
    whole, calls, told = passed(normalise, picture)
    first = picture[:TILE, :TILE]
    np.testing.assert_allclose(whole, (picture - first.mean()) / first.std(), atol=2e-5)
    assert calls == told == 2


def test_else_a_mosaic_has_them(normalise: Counted) -> None:
    """All of a large picture is in it, so that one corner says nothing."""
    picture = RNG.normal(3, 2, (96, 96, 2)).astype(np.float32)
    picture[:TILE, :TILE] = 100 + picture[:TILE, :TILE]
    whole, calls, told = passed(normalise, picture)
    rest, before = whole[TILE:, TILE:], picture[TILE:, TILE:]
    factor = rest.std() / before.std()
    expected = rest.mean() + factor * (before - before.mean())
    np.testing.assert_allclose(rest, expected, atol=2e-5)
    assert 1 / picture.std() == pytest.approx(factor, rel=0.3)
    assert calls == told + 1


def test_a_picture_of_one_tile_has_its_own(normalise: Counted) -> None:
    picture = RNG.normal(3, 2, (TILE, TILE, 2)).astype(np.float32)
    whole, calls, told = passed(normalise, picture)
    np.testing.assert_allclose(whole, (picture - picture.mean()) / picture.std(), atol=2e-5)
    assert calls == told == 1
