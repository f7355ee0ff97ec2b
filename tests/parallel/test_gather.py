"""Split parameters made whole: the same numbers, and no kernel that is worked on in slices."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from codi_jax.parallel.gather import gather
from codi_jax.parallel.mesh import batch_sharding, make_mesh
from codi_jax.parallel.sharding import param_shardings

RNG = np.random.default_rng(0)
KERNELS = 3
PARAMS: Any = {
    "unet": {
        f"conv_{i}": {
            "kernel": jnp.asarray(RNG.normal(size=(3, 3, 16, 16)), jnp.float32),
            "bias": jnp.asarray(RNG.normal(size=(16,)), jnp.float32),
        }
        for i in range(KERNELS)
    },
    "prompt": {"text": jnp.ones((1, 3, 16))},
}
IMAGES = jnp.asarray(RNG.normal(size=(8, 8, 8, 16)), jnp.float32)


def loss(params: Any, images: jax.Array, dtype: Any = jnp.float32, mesh: Any = None) -> jax.Array:
    if mesh is not None:
        params = gather(params, mesh, dtype)
    x = images.astype(dtype) + params["prompt"]["text"].mean().astype(dtype)
    for layer in params["unet"].values():
        x = jax.lax.conv_general_dilated(
            x,
            layer["kernel"].astype(dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jnp.tanh(x + layer["bias"].astype(dtype))
    return jnp.mean(x.astype(jnp.float32) ** 2)


def compiled(mesh: jax.sharding.Mesh, function: Any) -> Any:
    everywhere = NamedSharding(mesh, PartitionSpec())
    places = {
        "unet": param_shardings(mesh, PARAMS["unet"]),
        "prompt": {"text": everywhere},
    }
    jitted = jax.jit(function, in_shardings=(places, batch_sharding(mesh)), out_shardings=places)
    return jitted.lower(PARAMS, IMAGES).compile()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_those_of_one_device(dtype: Any) -> None:
    mesh = make_mesh(data=2, fsdp=4)
    expected = jax.jit(jax.grad(partial(loss, dtype=dtype)))(PARAMS, IMAGES)
    program = compiled(mesh, jax.grad(partial(loss, dtype=dtype, mesh=mesh)))
    inputs = jax.device_put((PARAMS, IMAGES), program.input_shardings[0])
    found = program(*inputs)
    kernel = found["unet"]["conv_0"]["kernel"]
    assert kernel.dtype == jnp.float32
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 3, 16, 4)
    tolerance = 1e-5 if dtype == jnp.float32 else 5e-2  # relative to the largest entry
    networks = (found["unet"], expected["unet"])
    for a, b in zip(*map(jax.tree.leaves, networks), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(np.abs(b).max()))


def test_each_kernel_is_gathered_once_a_pass_and_activations_stay() -> None:
    mesh = make_mesh(data=1, fsdp=8)
    text = compiled(mesh, jax.grad(partial(loss, mesh=mesh))).as_text()
    gathers = re.findall(r"= (\S+) all-gather(?:-start)?\(", text)
    assert 0 < len(gathers) <= 2 * KERNELS
    assert all("3,3,16,16" in shape for shape in gathers)  # kernels, never pictures
    assert "collective-permute" not in text and "all-to-all" not in text


def test_without_shards_nothing_changes() -> None:
    assert gather(PARAMS, make_mesh(data=8, fsdp=1), jnp.bfloat16) is PARAMS
