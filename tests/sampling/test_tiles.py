"""Tiles: what each counts, how they become whole again, and patches from all over a picture."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from codi_jax.sampling.position_noise import SQUARE, position_noise
from codi_jax.sampling.tiles import Axis, Blend, Grid

RNG = np.random.default_rng(0)


def grid(height: int, width: int, tile: int = 32, align: int = 2) -> Grid:
    axes = [Axis.cover(side, tile, 2, 4, align) for side in (height, width)]
    return Grid(axes[0], axes[1], (height, width))


@pytest.mark.parametrize("length", [1, 31, 32, 33, 40, 57, 64, 100, 401])
def test_tiles_cover_an_axis_and_add_up_to_one(length):
    axis = Axis.cover(length, 32, 2, 4, 2)
    assert length <= axis.length and (axis.length - length < 2 or axis.length == 32)
    assert axis.starts[0] == 0 and axis.starts[-1] + 32 == axis.length
    assert all(start % 2 == 0 for start in axis.starts)
    for factor in (1, 4):
        total = np.zeros(axis.length * factor)
        for start, weights in zip(axis.starts, axis.weights(factor), strict=True):
            total[start * factor : (start + 32) * factor] += weights
        np.testing.assert_allclose(total, 1, atol=1e-5)
    for i, weights in enumerate(axis.weights()):  # what is near an edge is not used
        assert i == 0 or (weights[:2] == 0).all()
        assert i == len(axis.starts) - 1 or (weights[-2:] == 0).all()


@pytest.mark.parametrize("size", [(70, 45), (1, 100), (32, 32)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cut_and_blended_is_as_before(size, batch_size):
    made_of = grid(*size)
    picture = RNG.normal(size=(made_of.shape[0] * 3, made_of.shape[1] * 3, 2)).astype(np.float32)
    blend, whole = Blend(made_of, 2, 3), np.full_like(picture, np.nan)
    for batch in made_of.batches(batch_size):
        blend.add(batch, np.stack(batch.cut(picture, Fraction(3))))
        for top, rows in blend.ready(batch):
            assert np.isnan(whole[top : top + len(rows)]).all()  # each row comes once
            whole[top : top + len(rows)] = rows
    np.testing.assert_allclose(whole, picture, atol=1e-5)


def test_every_latent_counts_once_and_padding_never():
    for size in ((70, 45), (3, 100)):
        weights = [batch.weights for batch in grid(*size).batches(4)]
        assert np.concatenate(weights).sum() == pytest.approx(size[0] * size[1], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_tiles_that_have_most_of_the_picture(batch_size):
    made_of = grid(30, 47)
    most = made_of.most(made_of.batches(batch_size))
    counted = np.zeros(made_of.shape)
    for (piece,), weights in zip(most.tiles, most.weights, strict=True):
        counted[piece.top : piece.top + 32, piece.left : piece.left + 32] += weights
    # Each latent once, and padding never; a batch of one tile is the first.
    right = 47 if batch_size > 1 else 32
    np.testing.assert_array_equal(counted[:30, :right], 1)
    assert counted.sum() == 30 * right
    larger = grid(60, 47)
    assert larger.most(larger.batches(1)) is None


@pytest.mark.parametrize("size", [(400, 300), (1, 500), (500, 7)])
def test_a_mosaic_is_of_patches_from_everywhere(size):
    made_of = grid(*size)
    places = np.indices(made_of.shape).transpose(1, 2, 0)
    mosaic = made_of.mosaic(3, 2)
    tiles = np.stack(mosaic.cut(places))
    assert mosaic.weights.shape == (3, 32, 32)
    counted = tiles[mosaic.weights > 0]
    assert (counted < size).all() and len(counted)  # nothing padded counts
    for axis, length in enumerate(size):
        spread = np.ptp(counted[:, axis])
        assert spread >= min(0.6 * length, length - 1)


def test_noise_is_of_the_place():
    key = jax.random.key(1)
    large = position_noise(key, (SQUARE + 9, 2 * SQUARE + 3, 2))
    small = position_noise(key, (SQUARE + 2, SQUARE + 5, 2))
    np.testing.assert_array_equal(large[: SQUARE + 2, : SQUARE + 5], small)
    assert abs(large.mean()) < 0.02 and abs(large.std() - 1) < 0.02
    assert not np.array_equal(large[:9], large[SQUARE:])
    assert not np.array_equal(large[:, :9], large[:, SQUARE : SQUARE + 9])
