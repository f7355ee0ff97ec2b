"""Pictures to what the diffusion model sees."""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.conditioning import (
    map_condition,
    signed_to_uint8,
    size_ids,
    sr_condition,
    to_signed,
)


class Halving:
    """In place of an autoencoder: latents are the mean of 2 by 2 pixels, plus its parameter."""

    def apply(self, variables, x, method):
        assert method == "encode"
        b, h, w, c = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4)) + variables["params"]


def test_every_level_comes_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    signed = to_signed(jnp.asarray(levels))
    assert signed.dtype == jnp.float32
    assert float(signed.min()) == -1.0 and float(signed.max()) == 1.0
    np.testing.assert_array_equal(signed_to_uint8(signed), levels)


def test_what_is_out_of_range_is_clipped_and_the_rest_rounded() -> None:
    values = jnp.asarray([-7.0, -1.0, -0.9999, 0.0, 0.0045, 1.0, 3.0])
    np.testing.assert_array_equal(signed_to_uint8(values), [0, 0, 0, 128, 128, 255, 255])
    step = 2 / 255  # to the nearest: just below and above the middle between two levels
    between = jnp.asarray([-1 + 0.49 * step, -1 + 0.51 * step])
    np.testing.assert_array_equal(signed_to_uint8(between), [0, 1])


def test_sizes_are_those_of_a_picture_that_was_not_cropped() -> None:
    ids = size_ids(3, 512, 768)
    np.testing.assert_array_equal(ids, [[512, 768, 0, 0, 512, 768]] * 3)


@pytest.mark.usefixtures("unchecked")
def test_the_small_picture_is_enlarged_bicubically_and_encoded() -> None:
    lr = np.zeros((2, 4, 6, 3), np.uint8)
    lr[:, :, 3:] = 255
    made = sr_condition(Halving(), 0.5, jnp.asarray(lr), 4)
    assert made["image"].shape == (2, 16, 24, 3) and made["latents"].shape == (2, 8, 12, 3)
    image = np.asarray(made["image"])
    assert image.min() >= -1 and image.max() <= 1  # bicubic overshoots at the edge
    np.testing.assert_allclose(image[:, :, 0], -1.0, atol=1e-6)
    np.testing.assert_allclose(image[:, :, -1], 1.0, atol=1e-6)
    assert (np.diff(image[0, 0, 9:15, 0]) > 0).all()
    expected = image.reshape(2, 8, 2, 12, 2, 3).mean((2, 4)) + 0.5
    np.testing.assert_allclose(made["latents"], expected, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_map_is_a_grey_picture(dtype: type) -> None:
    values = jnp.asarray(np.linspace(-1, 1, 32).reshape(2, 4, 4), dtype)
    made = map_condition(Halving(), 0.0, values)
    assert made["image"].shape == (2, 4, 4, 3) and made["image"].dtype == jnp.float32
    for channel in range(3):
        np.testing.assert_array_equal(made["image"][..., channel], values.astype(jnp.float32))
