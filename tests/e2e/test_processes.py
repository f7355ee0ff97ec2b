"""Several processes are one run: the same losses, one end, and other numbers on resume."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import Job
from codi_jax.typing import INTERRUPTED

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "steps": 10,
    "log_every": 1,
    "batch_size": 8,
    "checkpoint.every": 100,
    "eval.every": 100,
    "eval.steps": "(1,)",
    "eval.count": 1,
    # With more steps, as a run that goes on has them, any other rate would change.
    "optim.decay": "constant",
    "optim.warmup_steps": 0,
}
CONFIG = "tests/smallest.py"


def losses(workdir: Path) -> list[float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def run(workdir: Path, processes: int, steps: int) -> list[float]:
    with Job(workdir, processes, {**SETTINGS, "steps": steps}, CONFIG) as job:
        assert set(job.wait(1800)) == {0}, [job.said(i) for i in range(processes)]
        assert job.left() == {}
    return losses(workdir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return run(tmp_path_factory.mktemp("alone") / "run", 1, 10)


@pytest.mark.parametrize("processes", [2, 4])
def test_they_have_the_losses_of_one(processes: int, alone: list[float], tmp_path: Path) -> None:
    together = run(tmp_path / "run", processes, 10)
    assert len(together) == 10
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_run_goes_on_with_another_number(alone: list[float], tmp_path: Path) -> None:
    for number, (processes, steps) in enumerate([(1, 3), (2, 5), (4, 7), (1, 9), (4, 10)]):
        seen = run(tmp_path / "run", processes, steps)
        assert len(seen) == steps, f"start {number}"
    assert seen == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_others_end_and_the_run_goes_on(victim: int, tmp_path: Path) -> None:
    settings = {**SETTINGS, "steps": 400, "checkpoint.every": 5}
    with Job(tmp_path / "run", 2, settings, CONFIG) as job:
        assert job.until(lambda: "step 20/" in job.said()), job.said()
        job.kill_worker(victim)
        begin = time.monotonic()
        codes = job.wait(120)
        assert time.monotonic() - begin < 30
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == INTERRUPTED
        last = job.said(1 - victim).splitlines()[-1]
        assert last.startswith(f"process {victim} of this run has ended or cannot be reached")
        assert "Traceback" not in job.said(1 - victim) and job.left() == {}
    with Job(tmp_path / "run", 2, settings, CONFIG) as job:
        assert job.until(lambda: "resuming from step" in job.said()), job.said()


def test_a_second_run_on_the_workdir_is_refused_and_the_first_loses_nothing(
    tmp_path: Path,
) -> None:
    settings = {**SETTINGS, "steps": 60}
    with Job(tmp_path / "run", 2, settings, CONFIG) as first:
        assert first.until(lambda: "step 2/" in first.said()), first.said()
        with Job(tmp_path / "run", 2, settings, CONFIG, name="second") as second:
            assert set(second.wait(300)) == {2}
            assert "error: a run is at work in" in second.said()
            assert second.left() == {}
        assert set(first.wait(600)) == {0}, first.said()
    assert len(losses(tmp_path / "run")) == 60
