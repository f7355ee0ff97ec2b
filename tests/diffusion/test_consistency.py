"""Boundary scalings by hand; tests/parity compares the sampler that uses them with diffusers'."""

import jax.numpy as jnp
import numpy as np

from codi_jax.diffusion.consistency import boundary_scalings


def test_boundary_scalings():
    c_skip, c_out = boundary_scalings(jnp.array([0, 1, 999]))
    assert c_skip.dtype == c_out.dtype == jnp.float32
    np.testing.assert_allclose(c_skip, [1, 0.25 / 100.25, 0.25 / (9990**2 + 0.25)], rtol=1e-6)
    np.testing.assert_allclose(c_out, [0, 10 / np.sqrt(100.25), 1], rtol=1e-6)
    c_skip, c_out = boundary_scalings(jnp.array([[2]]), sigma_data=1.0, timestep_scaling=0.5)
    np.testing.assert_allclose([c_skip, c_out], [[[0.5]], [[0.5**0.5]]], rtol=1e-6)
