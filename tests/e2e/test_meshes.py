"""A run goes on with other numbers of devices, and ends as on one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from codi_jax.run.train import train
from tests.smallest import smallest

#: Every change between 1, 2 and 8 devices, in copies (data) and in shards (fsdp).
MESHES = [(1, 1), (2, 1), (1, 8), (1, 1), (8, 1), (1, 2), (1, 1)]


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax promotes dtypes implicitly."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def losses(workdir: Path, steps: int, sizes: tuple[int, int]) -> list[float]:
    settings: dict[str, Any] = {"eval__steps": (1,), "eval__count": 1, "log_every": 1}
    # With more steps, as a run that goes on has them, any other rate would change.
    settings |= {"optim__decay": "constant", "optim__warmup_steps": 0}
    data, fsdp = sizes
    train(smallest(steps=steps, mesh__data=data, mesh__fsdp=fsdp, **settings), workdir)
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
def test_training_goes_on_with_other_devices(tmp_path: Path) -> None:
    for number, sizes in enumerate(MESHES, start=1):
        seen = losses(tmp_path / "run", number, sizes)
        assert len(seen) == number, sizes
    assert seen == pytest.approx(losses(tmp_path / "one", len(MESHES), (1, 1)), abs=1e-5)
