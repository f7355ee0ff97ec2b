import numpy as np
import pytest

from codi_jax.data import duplicates, images
from codi_jax.data.degradation import jpeg
from codi_jax.data.sources import SkimageSource
from codi_jax.typing import UserError


def brute_force(hashes, distance):
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    return np.tril(near, -1).any(axis=1)


@pytest.mark.parametrize("distance", [0, 1, 3, 6])
@pytest.mark.parametrize("mask", [2**64 - 1, 0x0303030303030303])
def test_pairs_are_those_of_brute_force(distance, mask):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 600, dtype=np.uint64)
    flips = sum(np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64) for _ in range(2))
    hashes[300:] = hashes[:300] ^ np.where(np.arange(300) % 3, flips.astype(np.uint64), 0)
    hashes = rng.permutation(hashes) & np.uint64(mask)  # many ties, with the second mask
    expected = brute_force(hashes, distance)
    np.testing.assert_array_equal(duplicates.near_duplicates(hashes, distance), expected)
    assert expected.any() and not expected.all()


def test_distance_out_of_range():
    with pytest.raises(UserError, match="distance 16"):
        duplicates.near_duplicates(np.zeros(2, np.uint64), 16)


def test_the_hash_survives_scaling_and_jpeg_but_not_another_picture():
    source = SkimageSource("eval")
    photos = [source[0]["image"], source[1]["image"], source[1]["image"][:, ::-1].copy()]
    hashes = [duplicates.perceptual_hash(photo) for photo in photos]
    for photo, value in zip(photos, hashes, strict=True):
        small = jpeg(images.resize(photo, (150, 200), "bicubic"), 70)
        assert (duplicates.perceptual_hash(small) ^ value).bit_count() <= 3
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 10


def test_the_hash_is_that_of_its_definition():
    cells = np.random.default_rng(1).integers(0, 256, (8, 9), np.uint8)
    image = np.repeat(np.repeat(np.repeat(cells[..., None], 3, 2), 5, 0), 4, 1)
    bits = "".join("01"[int(cells[y, x + 1] > cells[y, x])] for y in range(8) for x in range(8))
    assert duplicates.perceptual_hash(image) == int(bits, 2)
