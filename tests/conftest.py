"""Eight fake CPU devices, strict dtype promotion, jax's deprecations as errors."""

import os
import tempfile

# Most of the time goes into compiling programs that run once.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    + " --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests, and the commands that they start, compile the same programs: once is enough. The
# first process makes the folder and removes it at its end; the workers inherit its name.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="codi_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from collections.abc import Callable

import beartype.typing  # noqa: F401  the hook below finds it
import jax
import jaxtyping
import numpy as np
import pytest

#: Files that come first, so that no worker is left with one of them at the end.
LONG = (
    "tests/e2e/test_tiny.py",
    "tests/run/test_plan.py",
    "tests/sampling/test_sampler.py",
    "tests/train/test_step.py",
)

# Helpers whose assertions are to say what failed, as those of the tests do.
pytest.register_assert_rewrite("tests.printed", "tests.parity.schedulers")

# Every call in these packages is checked against the annotations: types, shapes and dtypes. The
# hook comes before the first import of codi_jax. As for mypy, an int may stand for a float;
# beartype cannot check Self in a single method.
jaxtyping.install_import_hook(
    [f"codi_jax.{name}" for name in ("models", "diffusion", "distill", "sampling", "evals")],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, "
    "hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))",
)

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs a file: its tests share fixtures and compiled programs."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONG)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of the tests have few pixels: tiles of 512 would mostly compute padding."""
    from codi_jax.sampling import tiling

    monkeypatch.setattr(tiling, "TILE", 64)


@pytest.fixture(scope="session")
def tiny_model() -> Callable:
    """A config's model with random parameters."""
    import dataclasses

    from codi_jax.run.plan import plan

    def build(config):
        model = plan(config).model
        params = jax.tree.map(jax.numpy.asarray, _random_params(model.init, seed=config.seed))
        return dataclasses.replace(model, params=params)

    return build


def _random_params(init, *args, seed=0):
    """Parameters as ``init(key, *args)`` makes them, all random (zero convolutions, too).

    Drawn by numpy: compiling one initialiser per parameter takes longer than the tests.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            return np.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)
        return np.asarray((path[-1].key == "scale") + 0.1 * noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, jax.random.key(0), *args))


@pytest.fixture(scope="session")
def random_params() -> Callable:
    """Draws all parameters of an ``init``, also those that start at zero."""
    return _random_params


@pytest.fixture
def unchecked():
    """No check of annotations: for tests of what the code itself says to a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
