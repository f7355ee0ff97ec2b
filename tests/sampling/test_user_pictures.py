"""Pictures, maps and masks as users give them."""

import numpy as np
import pytest
from PIL import Image

from codi_jax.sampling.user_pictures import as_map, as_mask, as_picture
from codi_jax.typing import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (3, 5, 3), np.uint8)
GREY = RNG.integers(0, 256, (3, 5), np.uint8)


def test_a_picture_is_rgb() -> None:
    assert as_picture(RGB) is RGB
    np.testing.assert_array_equal(as_picture(Image.fromarray(RGB)), RGB)
    grey = as_picture(Image.fromarray(GREY))
    np.testing.assert_array_equal(grey, np.repeat(GREY[..., None], 3, axis=-1))
    alpha = np.concatenate([RGB, np.zeros((3, 5, 1), np.uint8)], axis=-1)
    assert (as_picture(Image.fromarray(alpha)) == 255).all()  # laid on white, as files are


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RGB.astype(np.float32), r"float32\[3, 5, 3\]"),
        (GREY, r"uint8\[3, 5\]"),
        (RGB[None], r"uint8\[1, 3, 5, 3\]"),
        (RGB[..., :2], r"uint8\[3, 5, 2\]"),
    ],
)
def test_another_array_is_no_picture(wrong: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=rf"an image is {said}; give uint8 \[height, width, 3\]"):
        as_picture(wrong)


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
    for wrong in (GREY.astype(np.float32), GREY[..., None], GREY.astype(np.int32)):
        with pytest.raises(UserError, match=r"a mask is .*give uint8 \[height, width\]"):
            as_mask(wrong)
