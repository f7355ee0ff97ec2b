"""Boundary scalings: the identity at the boundary, and diffusers' formula in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.consistency import boundary_scalings, consistency_function


def test_the_boundary_is_the_identity_bit_for_bit() -> None:
    z, x_hat = jnp.linspace(-3.0, 3.0, 8).reshape(2, 4), jnp.full((2, 4), 7.0)
    f = consistency_function(x_hat, z, jnp.asarray([0, 999]), 10.0)
    np.testing.assert_array_equal(f[0], z[0])
    np.testing.assert_allclose(f[1], x_hat[1], rtol=1e-6)


@pytest.mark.parametrize("scaling", [10.0, 0.1])
def test_formula(scaling: float) -> None:
    t = np.array([0, 1, 20, 999])
    c_skip, c_out = boundary_scalings(jnp.asarray(t), timestep_scaling=scaling)
    root = np.hypot(t * scaling, 0.5)
    np.testing.assert_allclose(c_skip, (0.5 / root) ** 2, rtol=1e-5)
    np.testing.assert_allclose(c_out, t * scaling / root, rtol=1e-5)
