"""Steps of the probability-flow ODE (eq. 5) from time ``t`` to an earlier time ``s``.

Every solver is DDIM plus a correction from the network's earlier predictions::

    z_s = alpha_s x_hat + sigma_s eps_hat + sum_k c_k (m_k - m_k+1)

where ``m_0, m_1, ...`` are the predictions of this step and of the steps before it: ``x_hat``
for "dpmsolver++" (Lu et al. 2022b), ``eps_hat`` for "dpmsolver" (Lu et al. 2022a). All c are
zero for "ddim" and for first-order steps. The papers write the DDIM part as a multiple of
``z_t`` and one of ``m_0``; this form is equal and also holds where ``alpha_t`` or ``sigma_s``
is zero.

In functions of arrays ``alpha`` and ``sigma`` may be scalars, [B], or already expanded to the
rank of the latents.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from codi_jax.diffusion.schedules import expand
from codi_jax.typing import Array

SOLVERS = ("ddim", "dpmsolver", "dpmsolver++")
SOLVER_TYPES = ("midpoint", "heun")


class StepInfo(NamedTuple):
    """What one step of a sampler knows before it starts; stacked over steps for a scan."""

    t: Array  #: int32, the time the network is called with.
    alpha_t: Array
    sigma_t: Array
    alpha_s: Array
    sigma_s: Array
    correction: Array  #: [order - 1], the c of the module's docstring.


def ddim_step(
    x_hat: Array, eps_hat: Array, alpha_s: Array | float, sigma_s: Array | float
) -> Array:
    """DDIM from both predictions, ``z_s = alpha_s x_hat + sigma_s eps_hat`` (eq. 8)."""
    return expand(alpha_s, x_hat) * x_hat + expand(sigma_s, x_hat) * eps_hat


def ddim_step_x(
    z_t: Array,
    x_hat: Array,
    alpha_t: Array | float,
    sigma_t: Array | float,
    alpha_s: Array | float,
    sigma_s: Array | float,
) -> Array:
    """DDIM from the signal prediction (eq. 6); sigma_t > 0."""
    eps_hat = (z_t - expand(alpha_t, z_t) * x_hat) / expand(sigma_t, z_t)
    return ddim_step(x_hat, eps_hat, alpha_s, sigma_s)


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


def multistep_corrections(
    solver: str,
    alpha: np.ndarray,
    sigma: np.ndarray,
    orders: Sequence[int],
    solver_type: str = "midpoint",
) -> np.ndarray:
    """The corrections of DPM-Solver and DPM-Solver++, multistep.

    Both papers expand the prediction m in powers of ``u``, half the log-SNR up to its sign,
    integrate exactly over a step ``h`` of u, and estimate the derivatives of m by divided
    differences of the history.

    The third-order formula is diffusers', whose term in m'' is half of the expansion's: it
    converges at second order, with a third of the error of order 2 on Gaussian data.

    Where the first level is alpha = 0 (zero terminal SNR), u is infinite. The first step needs
    no u; for the divided differences of the next two, diffusers takes alpha = 2^-12 there, and
    so does this, to be equal to it.

    Args:
        solver: "dpmsolver" or "dpmsolver++".
        alpha: the levels that the steps connect, [n + 1] for n steps, noisiest first.
        sigma: likewise.
        orders: the order of each of the n steps, 1 to 3; of step i at most i + 1, and 1 for
            a step that ends at sigma = 0.
        solver_type: one of `SOLVER_TYPES`, two second-order schemes: "midpoint" takes half
            of the first-order term, "heun" the exact integral of the expansion.

    Returns:
        float64 [n, max(orders) - 1].
    """
    alpha, sigma = np.array(alpha, np.float64), np.array(sigma, np.float64)
    if alpha[0] == 0:
        alpha[0] = min(2**-12, alpha[1] / 2)  # below the next level on any grid
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(alpha) - np.log(sigma)
    u, scale = (half_log_snr, sigma) if solver == "dpmsolver" else (-half_log_snr, alpha)
    corrections = np.zeros((len(orders), max(orders) - 1))
    for i, order in enumerate(orders):
        h = u[i + 1] - u[i]
        if order == 1 or h == 0:  # h = 0: the run ends at the level where it already is
            continue
        h_1 = u[i] - u[i - 1]
        if order == 2 and solver_type == "midpoint":
            first = math.expm1(h) / 2
        else:
            first = math.expm1(h) / h - 1
        if order == 3:
            h_2 = u[i - 1] - u[i - 2]
            second = (math.expm1(h) - h) / h**2 - 0.5
            slope_change = (first * h_1 + second * h) / (h_1 + h_2)
            corrections[i, 1] = scale[i + 1] * slope_change * h / h_2
            first += slope_change
        corrections[i, 0] = -scale[i + 1] * first * h / h_1
    return corrections
