"""Formulas of the solvers of the probability-flow ODE (eq. 5) and of its SDEs.

Every solver of the ODE is DDIM plus a correction from the network's other predictions::

    z_s = alpha_s x_hat + sigma_s eps_hat + sum_k c_k (m_k - m_k+1)

where ``m_0, m_1, ...`` are the predictions of the latest call and of the calls before it:
``x_hat`` for "dpmsolver++" (Lu et al. 2022b), ``eps_hat`` for "dpmsolver" (Lu et al. 2022a).
``x_hat`` and ``eps_hat`` are those of the call at the step's start: the latest call of a
multistep solver, an earlier one of a singlestep solver. All c are zero for "ddim" and for
first-order steps. The papers write the DDIM part as a multiple of ``z_t`` and one of a
prediction; this form is equal and also holds where ``alpha_t`` or ``sigma_s`` is zero.

:mod:`codi_jax.diffusion.network_calls` makes a whole run of them.

In functions of arrays ``alpha`` and ``sigma`` may be scalars, [B], or already expanded to the
rank of the latents.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from codi_jax.diffusion.schedules import expand

SOLVERS = (
    "ddim",
    "dpmsolver",
    "dpmsolver++",
    "sde-dpmsolver++",
    "singlestep-dpmsolver",
    "singlestep-dpmsolver++",
    "heun",
    "consistency",
)
#: Those that draw noise in every step.
STOCHASTIC_SOLVERS = ("sde-dpmsolver++", "consistency")
SOLVER_TYPES = ("midpoint", "heun")


def ddim_step(
    x_hat: Float[Array, "*latents"],
    eps_hat: Float[Array, "*latents"],
    alpha_s: Float[Array, "..."] | float,
    sigma_s: Float[Array, "..."] | float,
) -> Float[Array, "*latents"]:
    """DDIM from both predictions, ``z_s = alpha_s x_hat + sigma_s eps_hat`` (eq. 8).

    With ``eps_hat = (z_t - alpha_t x_hat) / sigma_t`` it is eq. 6.
    """
    return expand(alpha_s, x_hat) * x_hat + expand(sigma_s, x_hat) * eps_hat


def step_orders(
    num_steps: int, solver_order: int, *, lower_order_final: bool, euler_at_final: bool
) -> list[int]:
    """The order of every step of a multistep solver, as diffusers chooses it.

    The first steps lack a history. With ``lower_order_final`` the last steps of a run of
    fewer than 15 are of lower order too, for stability; ``euler_at_final`` makes the last
    step of any run first-order.
    """
    orders = [min(solver_order, i + 1) for i in range(num_steps)]
    lower_order_final = lower_order_final and num_steps < 15
    if lower_order_final:
        orders[-2:] = [min(order, 2) for order in orders[-2:]]
    if lower_order_final or euler_at_final:
        orders[-1] = 1
    return orders


def singlestep_orders(
    num_calls: int, solver_order: int, *, lower_order_final: bool, euler_at_final: bool
) -> list[int]:
    """The order of every call of a singlestep solver, as diffusers chooses it.

    A step of order k is k calls, of orders 1, 2 ... k, all from the step's start; each but the
    last only finds the point of the next. What a run's calls leave over is a step of lower
    order, and with ``lower_order_final``, or the ``euler_at_final`` that a run to clean data
    needs, the run ends with a call of order 1.
    """
    left_over = num_calls % solver_order
    if left_over or not (lower_order_final or euler_at_final):
        steps = [solver_order] * (num_calls // solver_order) + [left_over]
    else:
        steps = [solver_order] * (num_calls // solver_order - 1) + [solver_order - 1, 1]
    orders = [order for step in steps for order in range(1, step + 1)]
    if euler_at_final:
        orders[-1] = 1
    return orders


def multistep_corrections(
    solver: str,
    alpha: Float[np.ndarray, " levels"],
    sigma: Float[np.ndarray, " levels"],
    orders: Sequence[int],
    solver_type: str = "midpoint",
) -> Float[np.ndarray, "levels-1 corrections"]:
    """The corrections of DPM-Solver and DPM-Solver++, multistep.

    Both papers expand the prediction m in powers of ``u``, half the log-SNR up to its sign,
    integrate exactly over a step ``h`` of u, and estimate the derivatives of m by divided
    differences of the history. In the SDE that "sde-dpmsolver++" solves, m decays over twice
    the step.

    The third-order formula is diffusers', whose term in m'' is half of the expansion's: it
    converges at second order, with a third of the error of order 2 on Gaussian data.

    Where the first level is alpha = 0 (zero terminal SNR), u is infinite. The first step needs
    no u; for the divided differences of the next two, diffusers takes alpha = 2^-12 there, and
    so does this, to be equal to it.

    Args:
        solver: "dpmsolver", "dpmsolver++" or "sde-dpmsolver++".
        alpha: the levels that the steps connect, [n + 1] for n steps, noisiest first.
        sigma: likewise.
        orders: the order of each of the n steps, 1 to 3 ("sde-dpmsolver++": 1 or 2); of step i
            at most i + 1, and 1 for a step that ends at sigma = 0.
        solver_type: one of `SOLVER_TYPES`, two second-order schemes: "midpoint" takes half
            of the first-order term, "heun" the exact integral of the expansion.

    Returns:
        float64 [n, max(orders) - 1].
    """
    alpha = np.array(alpha, np.float64)
    if alpha[0] == 0:
        alpha[0] = min(2**-12, alpha[1] / 2)  # below the next level on any grid
    u, scale = _integration_variable(solver, alpha, sigma)
    rate = 2 if solver == "sde-dpmsolver++" else 1
    corrections = np.zeros((len(orders), max(orders) - 1))
    for i, order in enumerate(orders):
        h = u[i + 1] - u[i]
        if order == 1 or h == 0:  # h = 0: the run ends at the level where it already is
            continue
        h_1 = u[i] - u[i - 1]
        first = _first_integral(rate * h, order, solver_type)
        if order == 3:
            h_2 = u[i - 1] - u[i - 2]
            slope_change = (first * h_1 + _second_integral(h) * h) / (h_1 + h_2)
            corrections[i, 1] = scale[i + 1] * slope_change * h / h_2
            first += slope_change
        corrections[i, 0] = -scale[i + 1] * first * h / h_1
    return corrections


def singlestep_corrections(
    solver: str,
    alpha: Float[np.ndarray, " levels"],
    sigma: Float[np.ndarray, " levels"],
    orders: Sequence[int],
    solver_type: str = "midpoint",
) -> Float[np.ndarray, "levels-1 corrections"]:
    """The corrections of DPM-Solver and DPM-Solver++, singlestep: DPM-Solver-2 and -3.

    A call of order k estimates the derivatives at the step's start, k - 1 calls ago, from this
    step's calls alone. Equal to diffusers' ``DPMSolverSinglestepScheduler``, whose calls are at
    evenly spaced times where the papers space them evenly in the log-SNR within a step. Order 2
    is DPM-Solver-2 for any spacing and converges at second order. Order 3 converges at third
    order where the calls of a step approach even spacing in u as steps become small (any smooth
    schedule): in general "midpoint" needs the last call at 2/3 of the step, as in DPM-Solver-3
    (Lu et al. 2022a, algorithm 2), and so does "heun".

    Args:
        solver: "dpmsolver" or "dpmsolver++".
        alpha: the levels that the calls connect, [n + 1] for n calls, noisiest first; > 0 at
            the start of steps of order 2 and 3.
        sigma: likewise.
        orders: of every call, see `singlestep_orders`.
        solver_type: one of `SOLVER_TYPES`; in order 3, "midpoint" uses the first derivative
            alone and "heun" two derivatives.

    Returns:
        float64 [n, max(orders) - 1].
    """
    u, scale = _integration_variable(solver, alpha, sigma)
    corrections = np.zeros((len(orders), max(orders) - 1))
    for i, order in enumerate(orders):
        if order == 1:
            continue
        start = i - order + 1
        h = u[i + 1] - u[start]
        first, r_0 = _first_integral(h, order, solver_type), (u[i] - u[start]) / h
        weight_0, weight_1 = first / r_0, 0.0  # of m_0 and, in order 3, m_1, less the start's m
        if order == 3 and solver_type == "heun":
            r_1, second = (u[i - 1] - u[start]) / h, 2 * _second_integral(h)
            weight_0 = (second - r_1 * first) / (r_0 - r_1) / r_0
            weight_1 = (r_0 * first - second) / (r_0 - r_1) / r_1
        corrections[i, 0] = -scale[i + 1] * weight_0
        if order == 3:
            corrections[i, 1] = -scale[i + 1] * (weight_0 + weight_1)
    return corrections


def heun_correction(
    alpha_t: Float[np.ndarray, " steps"],
    sigma_t: Float[np.ndarray, " steps"],
    alpha_s: Float[np.ndarray, " steps"],
    sigma_s: Float[np.ndarray, " steps"],
) -> Float[np.ndarray, " steps"]:
    """The correction of Heun's second call, made at s, with m = eps_hat; alpha_t > 0.

    Heun's method for ``z / alpha`` over ``sigma / alpha``, in which the ODE's derivative is
    eps_hat (Karras et al. 2022, algorithm 1, on this process): half of both calls' eps_hat.
    """
    return (sigma_s - alpha_s * sigma_t / alpha_t) / 2


def _integration_variable(
    solver: str, alpha: Float[np.ndarray, " levels"], sigma: Float[np.ndarray, " levels"]
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """u at every level, and what multiplies the integral of m up to that level, float64."""
    alpha, sigma = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(alpha) - np.log(sigma)
    return (half_log_snr, sigma) if corrects_eps(solver) else (-half_log_snr, alpha)


def corrects_eps(solver: str) -> bool:
    """Whether the corrections of a DPM solver are made of eps_hat, or else of x_hat."""
    return not solver.endswith("++")


def _first_integral(h: float, order: int, solver_type: str) -> float:
    """Of the term in m', for a derivative of 1 / h."""
    if order == 2 and solver_type == "midpoint":
        return math.expm1(h) / 2
    return math.expm1(h) / h - 1


def _second_integral(h: float) -> float:
    """Of the term in m'', for a derivative of 1 / h^2."""
    return (math.expm1(h) - h) / h**2 - 0.5
