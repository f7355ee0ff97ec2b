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


def test_a_run_shorter_than_the_warm_up_ends_at_the_peak() -> None:
    config = OptimConfig(learning_rate=0.1, warmup_steps=500, weight_decay=0.0)
    rates = [-float(u["bias"][0]) for u in updates(config, 4, 4)]
    np.testing.assert_allclose(rates, [0.0, 0.1 / 3, 0.2 / 3, 0.1], atol=1e-6)


def test_updates_are_adam_s_after_clipping_the_global_norm() -> None:
    """By hand; the gradients differ, because Adam's first update does not see their scale."""
    config = OptimConfig(
        learning_rate=0.1, warmup_steps=0, weight_decay=0.0, b1=0.6, b2=0.8, clip_norm=2.0
    )
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.zeros(2), "mu": jnp.zeros(())}
    state, m, v = optimizer.init(params), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(([3.0, 0.0, 4.0], [0.5, -1.0, 0.2], [9.0, 9.0, -9.0]), 1):
        grads = {"kernel": jnp.asarray(gradient[:2]), "mu": jnp.asarray(gradient[2])}
        update, state = optimizer.update(grads, state, params)
        clipped = np.array(gradient) * min(1.0, 2.0 / np.linalg.norm(gradient))
        m, v = 0.6 * m + 0.4 * clipped, 0.8 * v + 0.2 * clipped**2
        by_hand = -0.1 * (m / (1 - 0.6**step)) / (np.sqrt(v / (1 - 0.8**step)) + 1e-8)
        np.testing.assert_allclose([*update["kernel"], update["mu"]], by_hand, rtol=1e-5)
