"""Sharded parameters made whole just before their use.

Left alone, XLA multiplies with kernels that are split over devices piece by piece: each convolution
becomes a loop over slices of a few dozen channels, or activations travel where weights could. One
explicit gather a kernel and pass, in the dtype of the computation, costs less of everything.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from codi_jax.parallel.mesh import replicated
from codi_jax.parallel.sharding import param_shardings
from codi_jax.typing import Array, Params

#: Parts whose layers cast their kernels to the dtype of the computation themselves.
CAST = ("vae", "unet", "adapter", "teacher")


def gather(params: Params, mesh: jax.sharding.Mesh, dtype: DTypeLike) -> Params:
    """The parameters, those that are split over ``fsdp`` whole on every device.

    Values and gradients are those of the split parameters: a layer casts its kernel anyhow. A
    gradient is summed, by XLA in ``dtype``, and goes in float32 to the devices that hold its
    parameter.

    Args:
        params: by part, placed by :mod:`codi_jax.parallel.sharding`; parts that are not networks
            ("prompt") are on every device already. To be called while tracing.
        mesh: of the devices.
        dtype: of the computation.
    """
    if mesh.shape["fsdp"] == 1:
        return params
    return {part: _part(part, tree, mesh, dtype) for part, tree in params.items()}


def _part(part: str, tree: Params, mesh: jax.sharding.Mesh, dtype: DTypeLike) -> Params:
    if part not in (*CAST, "lpips"):
        return tree
    wanted = dtype if part in CAST else jnp.float32
    return jax.tree.map(
        lambda leaf, sharding: (
            leaf if sharding.is_fully_replicated else _whole(leaf, sharding, wanted)
        ),
        tree,
        param_shardings(mesh, tree),
    )


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _whole(leaf: Array, sharding: NamedSharding, dtype: DTypeLike) -> Array:
    cast = jax.lax.with_sharding_constraint(leaf.astype(dtype), sharding)  # half the bytes travel
    return jax.lax.with_sharding_constraint(cast, replicated(sharding.mesh))


def _forward(leaf: Array, sharding: NamedSharding, dtype: DTypeLike) -> tuple[Array, None]:
    return _whole(leaf, sharding, dtype), None


def _backward(sharding: NamedSharding, dtype: DTypeLike, _: None, gradient: Array) -> tuple[Array]:
    del dtype
    # Whole first: asked for a shard of a product, XLA makes a loop over slices of it. It turns the
    # sum over devices and the cut that follows it into one reduce-scatter by itself.
    whole = replicated(sharding.mesh)
    summed = jax.lax.with_sharding_constraint(gradient.astype(jnp.float32), whole)
    return (jax.lax.with_sharding_constraint(summed, sharding),)


_whole.defvjp(_forward, _backward)
