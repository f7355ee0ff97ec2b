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


#: What would cost a data worker seconds and hundreds of megabytes.
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "torch", "tensorflow", "transformers"}
#: grain takes jax along where it is installed, and does without it where it is not.
WITHOUT = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize(
    "modules",
    [
        "codi_jax",
        "codi_jax.typing",
        "codi_jax.cli.app, codi_jax.cli.flags",
        "codi_jax.data.pipeline",
        "codi_jax.data.prepare, codi_jax.data.preparation, codi_jax.data.pool",
    ],
)
def test_data_workers_need_no_jax(modules: str) -> None:
    assert not imported(f"{WITHOUT}import {modules}") & HEAVY


def test_the_block_is_one() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        imported(f"{WITHOUT}import codi_jax.model")
