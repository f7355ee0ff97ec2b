"""Boundary scalings of consistency models (Song et al. 2023, eq. 5; discrete as in LCM)."""

import jax.numpy as jnp

from codi_jax.typing import Array


def boundary_scalings(
    t: Array, *, sigma_data: float = 0.5, timestep_scaling: float = 10.0
) -> tuple[Array, Array]:
    """``(c_skip, c_out)`` of ``f(z_t, t) = c_skip z_t + c_out x_hat``, which is ``z_0`` at t = 0.

    Args:
        t: timesteps, integers or floats of any shape.
        sigma_data: standard deviation of the data.
        timestep_scaling: diffusers' ``LCMScheduler`` multiplies ``t`` by it; at 10, ``c_skip``
            is below 0.003 from t = 1 on.

    Returns:
        float32 with the shape of ``t``.
    """
    scaled = jnp.asarray(t).astype(jnp.float32) * timestep_scaling
    variance = scaled**2 + sigma_data**2
    return sigma_data**2 / variance, scaled / jnp.sqrt(variance)
