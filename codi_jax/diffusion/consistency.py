"""The consistency function of a network: the identity at the boundary (Song et al. 2023, eq. 5).

    f(z_t, t) = c_skip(t) z_t + c_out(t) x_hat(z_t, t),    c_skip(0) = 1, c_out(0) = 0

The boundary is ``t = 0``, the lowest noise level that a network is called with.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from codi_jax.diffusion.schedules import expand


def boundary_scalings(
    t: Real[Array, "*times"], *, sigma_data: float = 0.5, timestep_scaling: float = 10.0
) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
    """``(c_skip, c_out)`` of latent consistency models (Luo et al. 2023; diffusers' LCMScheduler).

    Args:
        t: times in timesteps of the grid of 1000, any shape, integer or float, >= 0.
        sigma_data: deviation that the data are taken to have.
        timestep_scaling: how fast ``c_skip`` falls with ``t``: the larger, the smaller the share
            of ``z_t`` above the boundary.

    Returns:
        float32 each, with the shape of ``t``; exactly 1 and 0 at ``t = 0``.
    """
    scaled = jnp.asarray(t).astype(jnp.float32) * timestep_scaling
    square = scaled**2 + sigma_data**2
    return sigma_data**2 / square, scaled / jnp.sqrt(square)


def consistency_function(
    x_hat: Float[Array, " batch *latent"],
    z_t: Float[Array, " batch *latent"],
    t: Real[Array, " batch"],
    timestep_scaling: float,
) -> Float[Array, " batch *latent"]:
    """``f(z_t, t)``, computed from the signal prediction ``x_hat``; float32."""
    c_skip, c_out = boundary_scalings(t, timestep_scaling=timestep_scaling)
    return expand(c_skip, z_t) * z_t + expand(c_out, z_t) * x_hat
