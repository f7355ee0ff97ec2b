"""Steps of the probability-flow ODE (eq. 5) from time ``t`` to an earlier time ``s``.

``alpha`` and ``sigma`` may be scalars, [B], or already expanded to the rank of the latents.
"""

from typing import NamedTuple

from codi_jax.diffusion.schedules import expand
from codi_jax.typing import Array


class StepInfo(NamedTuple):
    """What one step of a sampler knows before it starts; stacked over steps for a scan."""

    t: Array  #: int32, the time the network is called with.
    alpha_t: Array
    sigma_t: Array
    alpha_s: Array
    sigma_s: Array


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
