"""What `import codi_jax` gives, and what it must not import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import codi_jax

ROOT = Path(__file__).parents[1]


def imported(program: str) -> set[str]:
    """The modules that a new process has after ``program``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return set(done.stdout.split())


def test_the_sampler_is_at_the_top() -> None:
    from codi_jax import Sampler
    from codi_jax.sample import Sampler as of_the_command
    from codi_jax.sampling.sampler import Sampler as defined

    assert Sampler is of_the_command is defined


def test_everything_that_is_announced_is_there() -> None:
    for name in codi_jax.__all__:
        assert getattr(codi_jax, name) is not None
    assert all(part.isdigit() for part in codi_jax.__version__.split("."))


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="'codi_jax' has no attribute 'Smapler'"):
        codi_jax.Smapler  # noqa: B018
    assert not hasattr(codi_jax, "sampler")


@pytest.mark.parametrize(
    "program",
    [
        "import codi_jax",
        "import codi_jax.data.pipeline",
        "import codi_jax.data.sources",
        "import codi_jax.data.prepare",
        "import codi_jax.cli.app, codi_jax.cli.flags",
        "import codi_jax.typing",
    ],
)
def test_workers_start_without_jax(program: str) -> None:
    """They would pay seconds and hundreds of megabytes each."""
    heavy = {"jax", "jaxlib", "flax", "optax", "orbax", "torch", "tensorflow", "transformers"}
    assert not imported(program) & heavy
