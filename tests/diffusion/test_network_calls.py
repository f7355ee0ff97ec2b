"""Whole runs of every solver on Gaussian data, in float64: order of convergence, mean, variance.

All of it is linear: ``z`` is a vector of its constant and of its factors of independent noises.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.consistency import boundary_scalings
from codi_jax.diffusion.network_calls import network_calls
from codi_jax.diffusion.sampler_config import SamplerConfig

MEAN, STD = 0.7, 0.5


def even_levels(num_steps):
    """On even steps of the log-SNR."""
    half_log_snr = np.linspace(-7.0, 3.0, num_steps + 1)
    return 1 / np.sqrt(1 + np.exp(np.stack([-2, 2])[:, None] * half_log_snr))


def cosine_levels(num_steps):
    """On even steps of time, in a cosine schedule."""
    phi = np.linspace(1.55, 0.03, num_steps + 1)
    return np.stack([np.cos(phi), np.sin(phi)])


def std(alpha, sigma):
    return np.hypot(alpha * STD, sigma)


def denoiser(z, alpha, sigma, t):
    constant = np.eye(1, len(z))[0]
    return MEAN * constant + alpha * (STD / std(alpha, sigma)) ** 2 * (z - alpha * MEAN * constant)


def run(sampler, alpha, sigma, predict=denoiser, first_timestep=0):
    """``z`` at the end, from the exact distribution at the start."""
    n = len(alpha) - 1
    timesteps = first_timestep + np.arange(n)[::-1]
    calls = network_calls(sampler, timesteps, alpha, sigma)
    z, history = np.zeros(2 + len(calls.level)), []
    z[:2] = alpha[0] * MEAN, std(alpha[0], sigma[0])
    for i, level in enumerate(calls.level):
        x_hat = predict(z, alpha[level], sigma[level], timesteps[level])
        history = [(x_hat, (z - alpha[level] * x_hat) / sigma[level]), *history]
        weights = zip(history, calls.x_weights[i], calls.eps_weights[i], strict=False)
        z = sum(w_x * x_hat + w_eps * eps_hat for (x_hat, eps_hat), w_x, w_eps in weights)
        z[2 + i] += calls.noise_weight[i]
    return z


def errors(sampler, levels, steps):
    """Of the mean plus one standard deviation: for the ODE, of the point that started there."""
    result = []
    for n in steps:
        alpha, sigma = levels(n)
        z = run(sampler, alpha, sigma)
        exact = np.array([alpha[-1] * MEAN, std(alpha[-1], sigma[-1])])
        result.append(np.abs([z[0], np.linalg.norm(z[1:])] - exact).sum())
    return np.array(result)


@pytest.mark.parametrize("levels", [even_levels, cosine_levels])
@pytest.mark.parametrize(
    ("solver", "solver_order", "solver_type", "order"),
    [
        ("ddim", 2, "midpoint", 1),
        ("heun", 2, "midpoint", 2),
        ("dpmsolver", 2, "midpoint", 2),
        ("dpmsolver", 2, "heun", 2),
        ("dpmsolver++", 2, "midpoint", 2),
        ("dpmsolver++", 2, "heun", 2),
        ("singlestep-dpmsolver", 2, "midpoint", 2),
        ("singlestep-dpmsolver", 2, "heun", 2),
        ("singlestep-dpmsolver", 3, "midpoint", 3),
        ("singlestep-dpmsolver", 3, "heun", 3),
        ("singlestep-dpmsolver++", 2, "midpoint", 2),
        ("singlestep-dpmsolver++", 2, "heun", 2),
        ("singlestep-dpmsolver++", 3, "midpoint", 3),
        ("singlestep-dpmsolver++", 3, "heun", 3),
        ("sde-dpmsolver++", 1, "midpoint", 1),
        ("sde-dpmsolver++", 2, "midpoint", 2),
        ("sde-dpmsolver++", 2, "heun", 2),
    ],
)
def test_order_of_convergence(solver, solver_order, solver_type, order, levels):
    sampler = SamplerConfig(
        solver=solver,
        solver_order=solver_order,
        solver_type=solver_type,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    coarse, fine = errors(sampler, levels, [600, 1200])
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def to_clean(levels):
    """The last level replaced by clean data."""
    alpha, sigma = np.array(levels)
    alpha[-1], sigma[-1] = 1.0, 0.0
    return alpha, sigma


def test_sde_is_ddim_with_a_part_of_its_noise_fresh():
    alpha, sigma = to_clean(even_levels(6))
    ddim, sde = (
        network_calls(SamplerConfig(solver=solver, solver_order=1), np.arange(6), alpha, sigma)
        for solver in ("ddim", "sde-dpmsolver++")
    )
    np.testing.assert_array_equal(ddim.x_weights[:, 0], alpha[1:])
    np.testing.assert_array_equal(ddim.eps_weights[:, 0], sigma[1:])
    np.testing.assert_array_equal(sde.x_weights, ddim.x_weights)
    variance = sde.eps_weights[:, 0] ** 2 + sde.noise_weight**2
    np.testing.assert_allclose(variance, sigma[1:] ** 2)
    assert np.all(ddim.noise_weight == 0) and np.all(sde.noise_weight[:-1] > 0)
    # Between close levels nearly all noise is kept.
    alpha, sigma = even_levels(10_000)
    sde = network_calls(
        SamplerConfig(solver="sde-dpmsolver++", solver_order=1), np.arange(10_000), alpha, sigma
    )
    np.testing.assert_allclose(sde.eps_weights[:, 0], sigma[1:], rtol=2e-3)


def test_heun_calls_twice_a_step_but_the_last():
    alpha, sigma = to_clean(even_levels(4))
    calls = network_calls(SamplerConfig(solver="heun"), np.arange(4), alpha, sigma)
    assert calls.level.tolist() == [0, 1, 1, 2, 2, 3, 3]
    # One that starts at alpha = 0 takes an Euler step first, and is finite.
    alpha[0], sigma[0] = 0.0, 1.0
    calls = network_calls(SamplerConfig(solver="heun"), np.arange(4), alpha, sigma)
    assert calls.level.tolist() == [0, 1, 2, 2, 3, 3]
    assert all(np.isfinite(array).all() for array in calls)
    np.testing.assert_array_equal(calls.x_weights[0], [alpha[1], 0])


@pytest.mark.parametrize("solver", ["singlestep-dpmsolver", "singlestep-dpmsolver++"])
def test_singlestep_counts_calls_and_needs_alpha(solver):
    alpha, sigma = to_clean(even_levels(7))
    alpha[0], sigma[0] = 0.0, 1.0
    for solver_order in (1, 2, 3):
        sampler = SamplerConfig(solver=solver, solver_order=solver_order)
        for n in (1, 2, 7):
            ends = np.append(alpha[:n], 1.0), np.append(sigma[:n], 0.0)
            calls = network_calls(sampler, np.arange(n), *ends)
            assert calls.level.tolist() == list(range(n))
            assert all(np.isfinite(array).all() for array in calls)
            assert calls.x_weights[0, 0] == ends[0][1] and not calls.x_weights[0, 1:].any()


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("timestep_scaling", [10.0, 0.1])
def test_consistency_sampler_gives_the_data_in_any_number_of_steps(num_steps, timestep_scaling):
    sampler = SamplerConfig(solver="consistency", timestep_scaling=timestep_scaling)

    def predict(z, alpha, sigma, t):
        """The network whose scaled output is the Gaussian's exact consistency function."""
        constant = np.eye(1, len(z))[0]
        f = MEAN * constant + STD * (z - alpha * MEAN * constant) / std(alpha, sigma)
        c_skip, c_out = (
            np.float64(c)
            for c in boundary_scalings(jnp.int32(t), timestep_scaling=timestep_scaling)
        )
        return (f - c_skip * z) / c_out

    alpha, sigma = to_clean(even_levels(num_steps))
    z = run(sampler, alpha, sigma, predict, first_timestep=1)
    np.testing.assert_allclose([z[0], np.linalg.norm(z[1:])], [MEAN, STD], rtol=1e-6)
