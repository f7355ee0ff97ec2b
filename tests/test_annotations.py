"""The tests check every call against its annotations; these show that they do."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from codi_jax.diffusion.parameterization import to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.evals.image_metrics import psnr
from codi_jax.models.conditioning import to_signed
from codi_jax.models.resnet import ResnetBlock


def test_shapes_that_differ_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="z_t"):
        to_x_eps("epsilon", jnp.zeros((2, 3)), jnp.zeros((2, 4)), 0.6, 0.8)
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(jaxtyping.TypeCheckError, match="'b'"):
        psnr(image, image[1:])


def test_another_dtype_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="images"):
        to_signed(jnp.zeros((2, 8, 8, 3)))


def test_networks_and_dataclasses_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="x"):
        ResnetBlock(4, 2).init(jax.random.key(0), jnp.zeros((8, 8, 4)))
    with pytest.raises(jaxtyping.TypeCheckError, match="solver_order"):
        SamplerConfig(solver_order="2")


@pytest.mark.usefixtures("unchecked")
def test_the_check_can_be_left_out():
    assert to_signed(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1, 3)
