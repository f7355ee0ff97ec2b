"""A tiny pipeline per task, and the shared photos where they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from codi_jax.builder import build_pipeline
from codi_jax.checkpoint.pipeline import Pipeline, with_params

#: Beside the repository, or beside the folder that a worktree is in.
SHARED = [Path(__file__).parents[n] / "shared" / "data" for n in (3, 4)]


@pytest.fixture(scope="session")
def tiny_pipeline() -> Callable[[Any], Pipeline]:
    """A config's pipeline with random parameters, drawn without optimisation."""
    import jax.numpy as jnp

    def build(config: Any) -> Pipeline:
        return with_params(build_pipeline(config, jnp.float32), jax.random.key(0))

    return build


@pytest.fixture
def shared_data() -> Path:
    for path in SHARED:
        if path.is_dir():
            return path
    pytest.skip("the folder shared/data is not beside the repository")
