"""DDIM's step, and the order at which every solver converges on Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.sampler import initial_noise
from codi_jax.diffusion.schedules import DiscreteSchedule, expand
from codi_jax.diffusion.solvers import (
    ddim_step,
    multistep_corrections,
    step_orders,
)


def test_ddim_with_the_implied_noise_is_equation_6():
    schedule = DiscreteSchedule()
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        schedule.alpha_sigma(jnp.array(t)) for t in ([1, 500, 999], [-1, 300, 998])
    )
    z_t, x_hat = (initial_noise(jax.random.key(i), (3, 2, 2, 4)) for i in (3, 4))
    eps_hat = (z_t - expand(alpha_t, z_t) * x_hat) / expand(sigma_t, z_t)
    a_t, s_t, a_s, s_s = (
        np.float64(a)[:, None, None, None] for a in (alpha_t, sigma_t, alpha_s, sigma_s)
    )
    z, x = np.float64(z_t), np.float64(x_hat)
    by_hand = a_s * x + s_s * (z - a_t * x) / s_t
    result = ddim_step(x_hat, eps_hat, alpha_s, sigma_s)
    np.testing.assert_allclose(result, by_hand, rtol=1e-5, atol=1e-5)


def orders(num_steps, solver_order=3, lower_order_final=False, euler_at_final=False):
    return step_orders(
        num_steps,
        solver_order,
        lower_order_final=lower_order_final,
        euler_at_final=euler_at_final,
    )


def test_order_of_every_step():
    assert orders(5) == [1, 2, 3, 3, 3]
    assert orders(5, 2) == [1, 2, 2, 2, 2]
    assert orders(3, 1) == [1, 1, 1]
    assert orders(5, lower_order_final=True) == [1, 2, 3, 2, 1]
    assert orders(5, euler_at_final=True) == [1, 2, 3, 3, 1]
    assert orders(15, lower_order_final=True) == [1, 2, *[3] * 13]
    for steps, expected in [(1, [1]), (2, [1, 1]), (3, [1, 2, 1])]:
        assert orders(steps, lower_order_final=True) == expected


def error(solver, solver_order, solver_type, num_steps):
    """Of the whole run on N(0.7, 0.5^2), on even steps of the log-SNR, in float64."""
    half_log_snr = np.linspace(-7.0, 3.0, num_steps + 1)
    alpha, sigma = 1 / np.sqrt(1 + np.exp(np.stack([-2, 2])[:, None] * half_log_snr))
    corrections = multistep_corrections(
        solver, alpha, sigma, orders(int(num_steps), solver_order), solver_type
    )
    std = np.sqrt(alpha**2 * 0.5**2 + sigma**2)  # of z at every level
    z, history = alpha[0] * 0.7 + std[0], []  # one standard deviation above the mean
    for i in range(num_steps):
        x_hat = 0.7 + alpha[i] * (0.5 / std[i]) ** 2 * (z - alpha[i] * 0.7)
        eps_hat = (z - alpha[i] * x_hat) / sigma[i]
        history = [x_hat if solver == "dpmsolver++" else eps_hat, *history]
        z = alpha[i + 1] * x_hat + sigma[i + 1] * eps_hat
        for k, c in enumerate(corrections[i][: len(history) - 1]):
            z += c * (history[k] - history[k + 1])
    return np.abs(z - alpha[-1] * 0.7 - std[-1])  # the ODE keeps the distance in deviations


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++"])
@pytest.mark.parametrize(
    ("solver_order", "solver_type"),
    [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")],
)
def test_order_of_convergence(solver, solver_order, solver_type):
    steps = np.array([40, 80, 160, 320])
    errors = [error(solver, solver_order, solver_type, n) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    # diffusers' third-order formula has half of the second derivative: still order 2.
    assert slope == pytest.approx(min(solver_order, 2), abs=0.15)
    if solver_order == 3:
        second = [error(solver, 2, "midpoint", n) for n in steps]
        assert np.all(np.array(errors) < 0.5 * np.array(second))


def test_corrections_need_no_history_at_first_and_no_length_at_last():
    alpha = np.array([0.1, 0.5, 0.9, 0.9])
    sigma = np.sqrt(1 - alpha**2)
    for solver in ("dpmsolver", "dpmsolver++"):
        corrections = multistep_corrections(solver, alpha, sigma, [1, 2, 3], "heun")
        assert corrections.shape == (3, 2)
        np.testing.assert_array_equal(corrections != 0, [[0, 0], [1, 0], [0, 0]])


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++"])
def test_zero_terminal_snr_is_taken_for_a_small_alpha(solver):
    alpha = np.array([0.0, 0.2, 0.4, 0.6, 0.8])
    nudged = np.array([2**-12, *alpha[1:]])
    for levels, expected in [
        (alpha, nudged),
        # So small an alpha at the second level that 2^-12 would be above it.
        (1e-4 * alpha, 1e-4 * np.array([0.1, *alpha[1:]])),
    ]:
        sigma = np.sqrt(1 - levels**2)
        result, reference = (
            multistep_corrections(solver, a, sigma, [1, 2, 3, 3]) for a in (levels, expected)
        )
        assert np.isfinite(result).all()
        np.testing.assert_allclose(result, reference, rtol=1e-12)
