"""Winograd's convolution against XLA's, forwards and backwards, and where it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models import winograd
from codi_jax.models.resnet import conv3x3
from codi_jax.models.winograd import convolutions_for, convolve, matrices
from codi_jax.parallel.mesh import batch_sharding, make_mesh
from codi_jax.train.flops import count_flops

AROUND = ((1, 1), (1, 1))
NHWC = ("NHWC", "HWIO", "NHWC")


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), AROUND, dimension_numbers=NHWC)


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_one_dimension_is_a_correlation():
    """Y = A^T [(G g) * (B^T d)], the paper's equation 8, in float64."""
    rng = np.random.default_rng(0)
    at, g, bt = matrices()
    d, kernel = rng.normal(size=6), rng.normal(size=3)
    made = at @ ((g @ kernel) * (bt @ d))
    np.testing.assert_allclose(made, np.correlate(d, kernel), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "out_channels", "part"),
    [
        ((1, 8, 8, 3), 5, winograd.PART),
        ((4, 12, 8, 5), 3, 800),  # several groups of pictures
        ((2, 37, 18, 4), 6, 1000),  # bands of rows; neither side whole tiles
        ((3, 1, 1, 2), 2, winograd.PART),
    ],
)
def test_values_and_gradients_are_the_convolutions(shape, out_channels, part, monkeypatch):
    monkeypatch.setattr(winograd, "PART", part)
    jax.clear_caches()
    channels = shape[-1]
    x = numbers(*shape)
    kernel = numbers(3, 3, channels, out_channels, seed=1) / np.sqrt(9 * channels)
    wanted, back = jax.vjp(plain, x, kernel)
    made, ours = jax.vjp(winograd.winograd, x, kernel)
    np.testing.assert_allclose(made, wanted, atol=3e-5)
    gradient = numbers(*wanted.shape, seed=2)
    for a, b in zip(ours(gradient), back(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()))


def products(layer, x, platform):
    """Whether the layer, traced for a platform, is Winograd's; and its FLOPs."""
    params = layer.init(jax.random.key(0), x)
    function = convolutions_for(platform)(lambda x: layer.apply(params, x))
    text = str(jax.make_jaxpr(function)(x))
    return winograd.NAME in text, count_flops(function, x)


@pytest.mark.parametrize(
    ("x", "features", "options", "chosen"),
    [
        ((2, 12, 12, 64), 64, {}, True),
        ((2, 12, 12, 64), 32, {}, False),
        ((2, 12, 12, 16), 64, {}, False),
        ((2, 5, 5, 64), 64, {}, False),  # mostly padding
        ((2, 12, 12, 64), 64, {"strides": (2, 2)}, False),
        ((2, 12, 12, 64), 64, {"dtype": jnp.bfloat16}, False),
    ],
)
def test_wide_layers_in_float32_on_a_cpu(x, features, options, chosen):
    layer, x = conv3x3(features, **options), numbers(*x)
    here, flops = products(layer, x, "cpu")
    assert here == chosen
    assert products(layer, x, "tpu") == (False, flops)
    assert winograd.NAME not in str(jax.make_jaxpr(layer.init)(jax.random.key(0), x))


def test_a_layer_gives_what_it_gives_elsewhere():
    layer, x = conv3x3(64), numbers(2, 12, 16, 64)
    params = layer.init(jax.random.key(0), x)

    def apply(params):
        return jnp.sum(jnp.tanh(layer.apply(params, x)))

    wanted = jax.value_and_grad(apply)(params)
    with convolutions_for("cpu"):
        made = jax.value_and_grad(apply)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3), made, wanted)


def test_other_shapes_of_padding_are_xlas():
    x, kernel = numbers(1, 12, 12, 64), numbers(3, 3, 64, 64)
    with convolutions_for("cpu"):
        made = convolve(x, kernel, (1, 1), ((0, 1), (0, 1)), dimension_numbers=NHWC)
    assert made.shape == (1, 11, 11, 64)


@pytest.mark.parametrize("part", [winograd.PART, 600])
def test_a_batch_that_is_spread_over_devices(part, monkeypatch):
    monkeypatch.setattr(winograd, "PART", part)
    jax.clear_caches()
    x, kernel = numbers(16, 8, 8, 4), numbers(3, 3, 4, 4, seed=1)
    spread = jax.device_put(x, batch_sharding(make_mesh(data=8, fsdp=1)))
    made = jax.jit(winograd.winograd)(spread, kernel)
    np.testing.assert_allclose(made, plain(x, kernel), atol=1e-4)
