"""The count against closed forms and against XLA's own on a CPU; utilisation."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import pytest

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.configs import UNetConfig
from codi_jax.train.flops import count_flops, utilisation

A = jax.ShapeDtypeStruct((64, 128), jnp.float32)
PRODUCT = 2 * 64 * 64 * 128


def product(a: jax.Array) -> jax.Array:
    return a @ a.T


def test_a_matrix_product() -> None:
    assert count_flops(product, A) == count_flops(jax.jit(product), A) == PRODUCT


def test_loops_conditions_and_gradients() -> None:
    def loop(a: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda sums, _: (sums + product(a), None), product(a), length=5)[0]

    def either(a: jax.Array) -> jax.Array:
        return jax.lax.cond(a[0, 0] > 0, product, lambda a: product(a) @ product(a), a)

    assert count_flops(loop, A) == 6 * PRODUCT
    assert count_flops(either, A) == 2 * PRODUCT + 2 * 64**3
    # Backward, the gradient of either factor is a product, too; remat computes the first again.
    loss = jax.checkpoint(lambda a: jnp.sum(jnp.sin(product(a))))
    assert count_flops(jax.grad(loss), A) == 4 * PRODUCT


@pytest.mark.parametrize(
    ("lhs", "rhs", "options"),
    [
        ((2, 9, 8, 4), (3, 3, 4, 6), {"padding": "SAME"}),
        ((2, 9, 8, 4), (3, 3, 4, 6), {"padding": [(0, 1), (0, 1)], "window_strides": (2, 2)}),
        ((2, 9, 8, 4), (1, 1, 4, 6), {"padding": "VALID"}),
        ((2, 9, 8, 4), (3, 3, 2, 6), {"padding": "SAME", "feature_group_count": 2}),
        ((2, 9, 8, 4), (3, 3, 4, 6), {"padding": "SAME", "rhs_dilation": (2, 2)}),
        ((2, 9, 8, 4), (3, 3, 4, 6), {"padding": [(1, 2), (1, 2)], "lhs_dilation": (2, 2)}),
    ],
)
def test_convolutions_and_their_gradients_as_xla_counts_them(
    lhs: tuple[int, ...], rhs: tuple[int, ...], options: dict[str, Any]
) -> None:
    options = {"window_strides": (1, 1), **options}
    numbers = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=numbers, **options)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (lhs, rhs)]
    assert count_flops(convolve, *shapes) == _xla(convolve, *shapes)

    def pullback(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(convolve, x, kernel)[1](g)

    out = jax.eval_shape(convolve, *shapes)
    # Either gradient has as many products as the convolution itself.
    assert count_flops(pullback, *shapes, out) == 3 * count_flops(convolve, *shapes)


def test_a_network_as_xla_counts_it() -> None:
    """XLA adds what norms and activations cost; in a network of real width that is little."""
    config = UNetConfig(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(128, 256),
        layers_per_block=1,
        cross_attention_dim=64,
    )
    network = AdaptedUNet(unet=config)
    z, t, text = (
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 4), (1,), (1, 7, 64))
    )
    args = (jax.eval_shape(network.init, jax.random.key(0)), z, t, {"text": text})
    counted, by_xla = (count(network.predict, *args) for count in (count_flops, _xla))
    assert counted <= by_xla <= 1.02 * counted


def test_utilisation() -> None:
    device = cast(Any, SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3"))
    assert utilisation(989e12, 2.0, device) == {"tflops_per_device": 494.5, "mfu": 0.5}
    cpu = cast(Any, SimpleNamespace(device_kind="cpu"))
    assert utilisation(1e12, 0.5, cpu) == {"tflops_per_device": 2.0}


def _xla(function: Any, *shapes: jax.ShapeDtypeStruct) -> float:
    return jax.jit(function).lower(*shapes).cost_analysis()["flops"]
