"""Runs that are killed and stopped end bit for bit like one that was not.

``python -m benchmarks.faults`` does the same many times, at moments drawn at random.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks.faults import digest, saving
from benchmarks.jobs import Job
from codi_jax.checkpoint.store import Store
from codi_jax.run.train import train
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import Interrupted
from tests.smallest import smallest

STEPS = 12
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "checkpoint__every": 3,
    "eval__every": STEPS,
    "eval__steps": (1,),
    "eval__count": 1,
}


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax promotes dtypes implicitly."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def checkpoints(workdir: Path) -> list[str]:
    """While it is written, a checkpoint's name is longer than its number."""
    return [path.name for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdigit()]


class StopAt(Interrupt):
    """A signal that comes during the step before."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def reached(self, step: int) -> bool:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # the thread that reads it
        return super().reached(step)


@pytest.mark.slow
def test_killed_and_stopped_runs_end_bit_for_bit_like_an_uninterrupted_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    flags = {key.replace("__", "."): value for key, value in SETTINGS.items()}
    settings = {**flags, "data.num_workers": 2}
    with Job(broken, settings=settings, config="tests/smallest.py") as job:
        assert job.until(lambda: bool(checkpoints(broken)) and saving(broken)), job.said()
        workers = [line for line in job.family().values() if "spawn_main" in line]
        job.processes[0].kill()
        job.wait()
        assert len(workers) == 2 and job.left() == {}
    assert not (broken / "results.json").exists()
    with pytest.raises(Interrupted, match="step 10, which is saved"), StopAt(10) as interrupt:
        train(smallest(**SETTINGS), broken, interrupt)
    assert "10" in checkpoints(broken) and not (broken / "model").exists()
    assert "resuming from step" in capfd.readouterr().err
    train(smallest(**SETTINGS), broken)
    assert "resuming from step 10" in capfd.readouterr().err
    train(smallest(**SETTINGS), whole)
    assert digest(broken) == digest(whole)
    with Store(broken / CHECKPOINTS, read_only=True) as store:
        assert store.latest_step() == STEPS
