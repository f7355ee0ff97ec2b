"""Pictures, maps and masks as users give them."""

import numpy as np
import pytest
from PIL import Image

from codi_jax.sampling.user_pictures import as_map, as_mask
from codi_jax.typing import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (3, 5, 3), np.uint8)
GREY = RNG.integers(0, 256, (3, 5), np.uint8)


def test_a_map_keeps_its_levels() -> None:
    deep = RNG.integers(0, 65536, (3, 5)).astype(np.uint16)
    read = as_map(Image.fromarray(deep))
    np.testing.assert_array_equal(read, deep)
    metres = deep.astype(np.float64) / 1000
    assert as_map(metres) is metres
    assert as_map(Image.fromarray(metres.astype(np.float32))).dtype == np.float32
    for wrong in (RGB, metres[None]):
        with pytest.raises(UserError, match=r"a depth map is .*give \[height, width\]"):
            as_map(wrong)
    with pytest.raises(UserError, match="a depth map: depth must be grey .* this is RGB"):
        as_map(Image.fromarray(RGB))


def test_a_mask_is_grey_or_true() -> None:
    assert as_mask(GREY) is GREY
    np.testing.assert_array_equal(as_mask(GREY > 99), np.where(GREY > 99, 255, 0))
    assert as_mask(GREY > 99).dtype == np.uint8
    np.testing.assert_array_equal(as_mask(Image.fromarray(GREY)), GREY)
    white = Image.fromarray(np.full((3, 5, 3), 255, np.uint8))
    assert (as_mask(white) == 255).all()
    np.testing.assert_array_equal(as_mask(GREY / 255), GREY)
    np.testing.assert_array_equal(as_mask(GREY * np.uint16(257)), GREY)
    for wrong in (GREY.astype(np.float32), GREY[..., None], GREY.astype(np.int32)):
        with pytest.raises(UserError, match=r"a mask .*give "):
            as_mask(wrong)
