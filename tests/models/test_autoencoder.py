import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.typing import UserError

CONFIG = AutoencoderConfig(
    block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=0.25
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables(random_params, images):
    return random_params(AutoencoderKL(CONFIG).init, images, KEY)


def apply(model, variables, method, *args):
    """Not compiled as a whole: the tests share one set of small compiled operations."""
    return model.apply(variables, *args, method=method)


def test_shapes_and_bounds(variables, images):
    model = AutoencoderKL(CONFIG)
    mean, logvar = apply(model, variables, "moments", images)
    assert mean.shape == logvar.shape == (2, 4, 6, 4)
    decoded = apply(model, variables, "decode", mean)
    assert decoded.shape == images.shape
    quant_conv = jax.tree.map(lambda x: x * 1000, variables["params"]["quant_conv"])
    loud = {"params": {**variables["params"], "quant_conv": quant_conv}}
    _, logvar = apply(model, loud, "moments", images)
    assert (float(logvar.min()), float(logvar.max())) == (-30, 20)


@pytest.mark.parametrize("shift", [None, 0.5])
def test_latents_are_scaled_moments_and_decode_undoes_it(variables, images, shift):
    config = AutoencoderConfig.from_config(CONFIG.to_config() | {"shift_factor": shift})
    model = AutoencoderKL(config)
    mean, logvar = apply(model, variables, "moments", images)
    mode = apply(model, variables, "encode", images)
    np.testing.assert_allclose(mode, (mean - (shift or 0.0)) * 0.25, rtol=1e-6, atol=1e-6)
    sample = apply(model, variables, "encode", images, KEY)
    noise = jax.random.normal(KEY, mean.shape)
    expected = (mean + np.exp(logvar / 2) * noise - (shift or 0.0)) * 0.25
    np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        apply(model, variables, "decode", mode),
        apply(model, variables, "decode_unscaled", mean),
        atol=1e-5,
    )


def test_call_reconstructs_from_one_sample(variables, images):
    model = AutoencoderKL(CONFIG)
    reconstruction, mean, logvar = apply(model, variables, None, images, KEY)
    sample = mean + jnp.exp(logvar / 2) * jax.random.normal(KEY, mean.shape)
    expected = apply(model, variables, "decode_unscaled", sample)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5)


def test_bf16_keeps_float32_at_its_borders(variables, images):
    half = AutoencoderKL(CONFIG, jnp.bfloat16)
    # flax's own GroupNorm relies on implicit promotion of bfloat16.
    with jax.numpy_dtype_promotion("standard"):
        latents = apply(half, variables, "encode", images)
        decoded = apply(half, variables, "decode", latents)
    assert latents.dtype == decoded.dtype == jnp.float32
    exact = apply(AutoencoderKL(CONFIG), variables, "encode", images)
    assert 0 < np.abs(latents - exact).max() < 0.05 * np.abs(exact).max()


def test_sizes_that_do_not_divide_are_refused(variables):
    with pytest.raises(UserError, match="7x8 are no multiple of 2"):
        AutoencoderKL(CONFIG).apply(variables, jnp.zeros((1, 7, 8, 3)), method="moments")
