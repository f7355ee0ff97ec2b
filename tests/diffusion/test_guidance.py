"""Guidance by image and text, on a network that adds its conditions up."""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.guidance import cfg_predict, two_guidances


def predict(params, z_t, t, cond):
    """The output says which condition it saw: 100 with the image, 1 with the text."""
    del t
    return (
        params["gain"] * z_t
        + cond["image"][:, None, None, None]
        + cond["text"][:, None, None, None]
    )


def condition(image, text):
    return {"image": jnp.full((2,), float(image)), "text": jnp.full((2,), float(text))}


Z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 1)), jnp.float32)
PARAMS = {"gain": jnp.float32(2)}
T = jnp.zeros((2,), jnp.int32)


@pytest.mark.parametrize(("s_image", "s_text"), [(1.0, 1.0), (1.5, 7.5), (0.0, 0.0)])
def test_two_guidances_weigh_image_and_text(s_image, s_text):
    """InstructPix2Pix, equation 3: the image's part times s_I, the text's times s_T."""
    cond = {
        "full": condition(100, 1),
        "image": condition(100, 0),
        "none": condition(0, 0),
        "scales": jnp.asarray([[s_image, s_text]] * 2, jnp.float32),
    }
    out = two_guidances(predict)(PARAMS, Z, T, cond)
    np.testing.assert_allclose(out, 2 * Z + 100 * s_image + s_text, rtol=1e-5)


def test_without_image_guidance_it_is_the_usual_one():
    full, image = condition(100, 1), condition(100, 0)
    scales = jnp.asarray([[1.0, 3.0]] * 2, jnp.float32)
    both = {"full": full, "image": image, "none": condition(0, 0), "scales": scales}
    np.testing.assert_allclose(
        two_guidances(predict)(PARAMS, Z, T, both),
        cfg_predict(predict, PARAMS, Z, T, full, image, 3.0),
        rtol=1e-5,
    )
