"""Tiles of any size give the picture that the whole gives, and memory is kept to."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from codi_jax.model import Model
from codi_jax.sampling import tiling
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.tiling import TILE, Tiling
from codi_jax.typing import UserError
from tests.smallest import smallest


@pytest.fixture(autouse=True)
def large_tiles(small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the users."""
    monkeypatch.setattr(tiling, "TILE", TILE)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Model:
    """It does not say what it was trained at."""
    return trained_at(None, tiny_model(smallest()))


def trained_at(side: int | None, model: Model) -> Model:
    unet = dataclasses.replace(model.network.unet, sample_size=side)
    return dataclasses.replace(model, network=dataclasses.replace(model.network, unet=unet))


def shape(model: Model, size: tuple[int, int], **options: Any) -> tuple[tuple[int, int], int]:
    """Sides of a tile in pixels and the number of tiles."""
    grid = next(Tiling(**options).geometries(model, size)).unet
    f = model.vae.downsampling
    return (grid.rows.tile * f, grid.columns.tile * f), grid.count


def test_tiles_are_of_one_size(model: Model) -> None:
    """One program for all pictures: one of another size needs no compilation."""
    assert shape(model, (3000, 700))[0] == (TILE, TILE)
    sides = {shape(model, (side, side // 2)) for side in (2, 9, 31, TILE // 2, TILE - 1, TILE)}
    assert sides == {((TILE, TILE), 1)}
    assert shape(model, (200, 301), tile="0") == ((200, 304), 1)
    assert shape(model, (200, 301), tile="64")[0] == (64, 64)
    assert shape(model, (9, 9), tile="64") == ((64, 64), 1)


def test_a_smaller_tile_is_tried_where_memory_is_short(model: Model) -> None:
    smaller = [g.unet.rows.tile for g in Tiling().geometries(model, (900, 900))]
    assert [side * model.vae.downsampling for side in smaller] == [512, 256, 128, 64]


def test_a_model_is_used_at_the_size_that_it_was_trained_at(model: Model) -> None:
    assert shape(trained_at(512, model), (3000, 3000))[0] == (1024, 1024)
    assert shape(trained_at(16, model), (3000, 3000))[0] == (192, 192)  # six times 32
    assert shape(trained_at(4, model), (3000, 3000))[0] == (64, 64)  # no less
    prior = dataclasses.replace(model, task=None, scale=1)
    assert shape(prior, (600, 1000)) == ((600, 1000), 1)  # drawn as a whole where that fits


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": "large"}, "tile='large': give auto, 0, or a number"),
        ({"tile": "-1"}, "tile='-1'"),
        ({"max_memory": 0.0}, "max_memory=0.0: give GiB"),
    ],
)
def test_tilings_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Tiling(**options)


def test_memory_is_kept_to(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"max_memory=0.1: a result of 24.0 megapixels needs 1.4"):
        Tiling(max_memory=0.1).limit(24_000_000)
    sampler = Sampler(model, tile=32)
    monkeypatch.setattr(Tiling, "limit", lambda self, pixels: 1000)
    with pytest.raises(UserError, match="tile=32: a result of 32x32 pixels needs .* at once"):
        sampler(np.zeros((8, 8, 3), np.uint8), steps=1)
