"""Quick compilation for tiny networks."""

import jax
import pytest


def _quick_jit(f):
    """jit that optimises little: here compiling costs far more than running."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def quick_jit():
    return _quick_jit
