"""What a step and a picture cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.evals.cost import sampling_cost, step_cost
from codi_jax.parallel.mesh import make_mesh
from codi_jax.train.state import TrainState
from configs import sr
from tests.smallest import smallest


@pytest.mark.parametrize("adapter", ["mix", pytest.param("t2i", marks=pytest.mark.slow)])
def test_condition_computed_once_costs_at_most_half_a_pass(adapter, tiny_model):
    # A T2I-Adapter is made for the latents of more levels than the smallest network has.
    config = smallest() if adapter == "mix" else sr.get_config("tiny")
    config.model.adapter = adapter
    model = tiny_model(config)
    cost = sampling_cost(model, np.zeros((1, 8, 8, 3), np.uint8), 4)
    assert 4.0 <= cost["passes"] <= 4.5 and cost["passes"] < cost["passes_recomputed"]
    assert cost["seconds"] > 0 and cost["gflops"] > 0


def test_a_step_costs_flops_memory_and_time():
    def step(state, frozen, batch, key):
        del key
        return dataclasses.replace(state, step=state.step + jnp.sum(batch["x"] @ frozen["w"])), {}

    batch = {"x": np.ones((8, 64), np.float32)}
    cost = step_cost(
        jax.jit(step),
        TrainState(step=jnp.zeros(()), trainable={}, ema={}, opt=()),
        {"w": jnp.ones((64, 64))},
        batch,
        jax.random.key(0),
        make_mesh(data=1, fsdp=1),
        repeats=1,
    )
    # A product of [8, 64] and [64, 64], and the sum of its entries.
    assert cost["gflops"] * 1e9 == pytest.approx(2 * 8 * 64 * 64, rel=0.1)
    assert cost["memory_mb"] > 0 and cost["seconds"] > 0
