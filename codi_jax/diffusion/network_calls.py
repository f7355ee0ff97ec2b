"""A run of any solver as a list of network calls: what each one's predictions weigh.

The result of every call is linear in the predictions of this call (k = 0) and of the calls
before it, and in fresh noise::

    z_s = sum_k (x_weights[k] x_hat_k + eps_weights[k] eps_hat_k) + noise_weight eps

All that a solver is, is in the weights, which do not depend on the latents. The next call is
made at ``z_s``; a solver that calls the network more than once a step (singlestep DPM-Solver,
Heun) reaches back to the predictions at the step's start.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from codi_jax.diffusion.consistency import boundary_scalings
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.solvers import (
    corrects_eps,
    heun_correction,
    multistep_corrections,
    singlestep_corrections,
    singlestep_orders,
    step_orders,
)


class NetworkCalls(NamedTuple):
    """The n calls of a run, in float64."""

    #: The index of the noise level that the network is called at.
    level: Int[np.ndarray, " calls"]
    #: See the module's docstring, as for the next two.
    x_weights: Float[np.ndarray, "calls predictions"]
    eps_weights: Float[np.ndarray, "calls predictions"]
    #: Zero for solvers of the ODE.
    noise_weight: Float[np.ndarray, " calls"]


def network_calls(
    sampler: SamplerConfig,
    timesteps: Int[np.ndarray, " steps"],
    alpha: Float[np.ndarray, " steps+1"],
    sigma: Float[np.ndarray, " steps+1"],
) -> NetworkCalls:
    """The calls of a run of n steps.

    One call a step, but "heun" makes two: 2 n - 1, because its last step, which may end at
    sigma = 0, is Euler's, and so is a first step from alpha = 0, where ``sigma / alpha`` is
    infinite. For singlestep solvers n counts calls, as in diffusers; they start with a step of
    order 1 where alpha = 0, because the log-SNR is infinite.

    Args:
        sampler: the solver.
        timesteps: int [n], of the levels but the last.
        alpha: the levels that the steps connect, [n + 1], noisiest first.
        sigma: likewise.
    """
    alpha, sigma = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if sampler.solver == "heun":
        return _heun(alpha, sigma)
    if sampler.solver == "consistency":
        return _consistency(sampler, timesteps, alpha, sigma)
    n = len(timesteps)
    level, start, corrections = np.arange(n), np.zeros(n, int), np.zeros((n, 0))
    if sampler.solver.startswith("singlestep-"):
        orders = _singlestep_orders(sampler, alpha, sigma)
        start = np.array(orders) - 1
        corrections = singlestep_corrections(
            sampler.solver, alpha, sigma, orders, sampler.solver_type
        )
    elif sampler.solver != "ddim":
        orders = step_orders(
            n,
            sampler.solver_order,
            lower_order_final=sampler.lower_order_final,
            # The log-SNR of clean data is infinite: only a first-order step can end there.
            euler_at_final=sampler.euler_at_final or bool(sigma[-1] == 0),
        )
        corrections = multistep_corrections(
            sampler.solver, alpha, sigma, orders, sampler.solver_type
        )
    calls = _ode_calls(
        level, start, alpha[1:], sigma[1:], corrections, corrects_eps(sampler.solver)
    )
    return _of_sde(calls, alpha, sigma) if sampler.solver == "sde-dpmsolver++" else calls


def _ode_calls(
    level: np.ndarray,
    start: np.ndarray,
    alpha_s: np.ndarray,
    sigma_s: np.ndarray,
    corrections: np.ndarray,
    on_eps: bool,
) -> NetworkCalls:
    """DDIM from the predictions of ``start`` calls ago, [n], and corrections [n, K - 1]."""
    n, last = corrections.shape
    x_weights, eps_weights = np.zeros((n, last + 1)), np.zeros((n, last + 1))
    x_weights[np.arange(n), start] = alpha_s
    eps_weights[np.arange(n), start] = sigma_s
    corrected = eps_weights if on_eps else x_weights
    corrected[:, :last] += corrections
    corrected[:, 1:] -= corrections
    return NetworkCalls(level, x_weights, eps_weights, np.zeros(n))


def _singlestep_orders(sampler: SamplerConfig, alpha: np.ndarray, sigma: np.ndarray) -> list[int]:
    first = [1] if alpha[0] == 0 and len(alpha) > 2 else []
    return first + singlestep_orders(
        len(alpha) - 1 - len(first),
        sampler.solver_order,
        lower_order_final=sampler.lower_order_final,
        euler_at_final=sampler.euler_at_final or bool(sigma[-1] == 0),
    )


def _heun(alpha: np.ndarray, sigma: np.ndarray) -> NetworkCalls:
    """A call at t that ends at s, and a call at s that ends there again."""
    n = len(alpha) - 1
    calls = [
        (i + second, i + 1, second)
        for i in range(n)
        for second in (0, 1)
        if not second or (i < n - 1 and alpha[i] > 0)
    ]
    level, end, second = np.array(calls).T
    corrections = np.zeros((len(calls), int(second.any())))
    (two,) = np.nonzero(second)
    t, s = end[two] - 1, end[two]
    corrections[two, :1] = heun_correction(alpha[t], sigma[t], alpha[s], sigma[s])[:, None]
    return _ode_calls(level, second, alpha[end], sigma[end], corrections, on_eps=True)


def _of_sde(calls: NetworkCalls, alpha: np.ndarray, sigma: np.ndarray) -> NetworkCalls:
    """SDE-DPM-Solver++ (Lu et al. 2022b, section 5): the ODE's step, its noise in part fresh.

    Of eps_hat remains ``e^-h``, with h the step of half the log-SNR; fresh noise makes up the
    variance.
    """
    kept = alpha[:-1] * sigma[1:] / (sigma[:-1] * alpha[1:])
    return calls._replace(
        eps_weights=calls.eps_weights * kept[:, None],
        noise_weight=sigma[1:] * np.sqrt(np.maximum(1 - kept**2, 0)),
    )


def _consistency(
    sampler: SamplerConfig, timesteps: np.ndarray, alpha: np.ndarray, sigma: np.ndarray
) -> NetworkCalls:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1): denoise, add new noise.

    ``f = c_out x_hat + c_skip z_t`` with ``z_t = alpha_t x_hat + sigma_t eps_hat``.
    """
    with jax.ensure_compile_time_eval():  # numbers under jit too
        scalings = boundary_scalings(
            jnp.asarray(timesteps), timestep_scaling=sampler.timestep_scaling
        )
    c_skip, c_out = (np.float64(c) for c in scalings)
    return NetworkCalls(
        level=np.arange(len(timesteps)),
        x_weights=(alpha[1:] * (c_out + c_skip * alpha[:-1]))[:, None],
        eps_weights=(alpha[1:] * c_skip * sigma[:-1])[:, None],
        noise_weight=sigma[1:],
    )
