"""Random parameters and quick compilation for tiny networks."""

import jax
import numpy as np
import pytest


def _random_params(init, *args):
    """Parameters as ``init(key, *args)`` makes them, all random (zero convolutions, too).

    Drawn by numpy: compiling one initialiser per parameter takes longer than the tests.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            return np.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)
        return np.asarray((path[-1].key == "scale") + 0.1 * noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, jax.random.key(0), *args))


def _quick_jit(f):
    """jit that optimises little: here compiling costs far more than running."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def random_params():
    return _random_params


@pytest.fixture(scope="session")
def quick_jit():
    return _quick_jit
