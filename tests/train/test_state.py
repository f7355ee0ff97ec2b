"""The state before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax.train.state import create_state
from codi_jax.typing import UserError

PARAMS = {"unet": {"kernel": np.arange(4, dtype=np.float32)}, "mu": np.float32(0.1)}


def test_every_average_starts_as_the_parameters() -> None:
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = create_state(params, optax.adam(1e-3), ("target", "eval"))
    assert int(state.step) == 0 and state.step.dtype == jnp.int32
    assert set(state.ema) == {"target", "eval"}
    for average in state.ema.values():
        jax.tree.map(np.testing.assert_array_equal, average, PARAMS)


def test_no_two_parts_share_memory() -> None:
    """The step donates the state: a buffer that is in it twice cannot be donated."""
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = create_state(params, optax.adam(1e-3), ("target", "eval"))
    leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.size > 1]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_the_optimisers_state_is_of_the_trained_parameters() -> None:
    state = create_state(PARAMS, optax.adam(1e-3), ("eval",))
    assert jax.tree.structure(state.opt[0].mu) == jax.tree.structure(PARAMS)


def test_a_state_is_a_tree() -> None:
    state = create_state(PARAMS, optax.sgd(0.1), ())
    doubled = jax.tree.map(lambda x: 2 * x, state)
    assert type(doubled) is type(state)
    np.testing.assert_array_equal(doubled.trainable["unet"]["kernel"], [0, 2, 4, 6])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_parameters_are_refused(dtype: type) -> None:
    params = {"unet": {"a": jnp.zeros(2), "kernel": jnp.zeros(2, dtype)}}
    with pytest.raises(UserError, match=r"unet/kernel is b?float16; trained weights must be"):
        create_state(params, optax.sgd(0.1), ("eval",))
