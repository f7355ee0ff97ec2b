"""AdamW by hand: warm-up, clipping, decay on kernels alone, the rate of mu."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax.train.optim import OptimConfig, make_optimizer

PARAMS = {
    "kernel": jnp.asarray([2.0]),
    "bias": jnp.asarray([2.0]),
    "mu": jnp.asarray(0.0),
}
GRADS = {"kernel": jnp.asarray([0.3]), "bias": jnp.asarray([0.3]), "mu": jnp.asarray(0.3)}


def updates(config: OptimConfig, total: int, steps: int) -> list[dict]:
    optimizer = make_optimizer(config, total)
    state, params, out = optimizer.init(PARAMS), PARAMS, []
    for _ in range(steps):
        update, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, update)
        out.append(update)
    return out


def test_first_update_is_the_sign_and_decay_touches_kernels_alone() -> None:
    config = OptimConfig(
        learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=100.0, mu_multiplier=3.0
    )
    first = updates(config, 10, 1)[0]
    np.testing.assert_allclose(first["bias"], [-0.1], rtol=1e-5)
    np.testing.assert_allclose(first["kernel"], [-0.1 * (1 + 0.5 * 2.0)], rtol=1e-5)
    np.testing.assert_allclose(first["mu"], -0.3, rtol=1e-5)


def test_warm_up_is_linear_from_zero() -> None:
    config = OptimConfig(learning_rate=0.1, warmup_steps=4, weight_decay=0.0)
    rates = [-float(u["bias"][0]) for u in updates(config, 100, 6)]
    np.testing.assert_allclose(rates, [0.0, 0.025, 0.05, 0.075, 0.1, 0.1], atol=1e-6)


def test_cosine_ends_at_zero() -> None:
    config = OptimConfig(learning_rate=0.1, warmup_steps=2, weight_decay=0.0, decay="cosine")
    rates = [-float(u["bias"][0]) for u in updates(config, 10, 11)]
    assert max(rates) == pytest.approx(0.1, rel=1e-4)
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)
