"""What a training step, and what a sampled picture costs: FLOPs, memory, seconds."""

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Wrapped
from jaxtyping import Key, UInt8

from codi_jax import trees
from codi_jax.model import Model
from codi_jax.parallel.compiling import compiled_bytes
from codi_jax.parallel.mesh import put_batch
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.train.flops import count_flops, jaxpr_flops
from codi_jax.train.state import TrainState
from codi_jax.typing import Array, Params


def step_cost(
    step: Wrapped,
    state: TrainState,
    frozen: Params,
    batch: Mapping[str, np.ndarray],
    key: Key[Array, ""],
    mesh: jax.sharding.Mesh,
    repeats: int = 5,
) -> dict[str, float]:
    """Compile one training step, and time it; ``state`` is donated.

    Args:
        step: the jitted step.
        state: its first argument.
        frozen: its second argument.
        batch: host arrays that go to the devices, as its third argument.
        key: its last argument.
        mesh: where they go.
        repeats: timed steps, after one that is not timed; the median counts.

    Returns:
        "gflops" (products and convolutions) and "memory_mb" (temporaries, arguments and results,
        by XLA's analysis) of one step on one device, "seconds" of one step.
    """
    arrays = put_batch(mesh, batch)
    traced = step.trace(state, frozen, arrays, key)
    compiled = traced.lower().compile()
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, frozen, arrays, key))
        seconds.append(time.perf_counter() - begin)
    cost = {
        "gflops": jaxpr_flops(traced.jaxpr) / mesh.size / 1e9,
        "seconds": sorted(seconds[1:])[repeats // 2],
    }
    memory = compiled_bytes(compiled)
    if memory is not None:
        cost["memory_mb"] = memory / 2**20
    return cost


def sampling_cost(
    model: Model,
    lr: UInt8[Array, "1 height width 3"] | UInt8[np.ndarray, "1 height width 3"],
    steps: int,
) -> dict[str, float]:
    """What one picture costs to sample, condition features computed once.

    Args:
        model: with its parameters.
        lr: one low-resolution picture.
        steps: of DDIM.

    Returns:
        "gflops" of condition and network calls (not of the autoencoder), "passes": the same in
        calls of the plain U-Net, "passes_recomputed": with the condition in every step,
        "seconds" with the autoencoder, the median of three, and "parameters" of all networks.
    """
    network, params = model.network, model.params
    sampler = PictureSampler(model)
    cond = sampler.image_condition(params["vae"], {"lr": lr})
    z, t = jnp.zeros_like(cond["latents"]), jnp.zeros((1,), jnp.int32)
    features = jax.eval_shape(network.condition, params, cond)  # FLOPs need shapes alone
    condition = count_flops(network.condition, params, cond)
    call = count_flops(network.predict, params, z, t, {**cond, "features": features})
    plain = count_flops(network.without_adapter().predict, params, z, t, {})
    key, seconds = jax.random.key(0), []
    for _ in range(4):
        begin = time.perf_counter()
        jax.block_until_ready(sampler.conditional(params, {"lr": lr}, key, steps))
        seconds.append(time.perf_counter() - begin)
    return {
        "gflops": (condition + steps * call) / 1e9,
        "passes": (condition + steps * call) / plain,
        "passes_recomputed": steps * (condition + call) / plain,
        "seconds": sorted(seconds[1:])[1],
        "parameters": trees.count(params),
    }
