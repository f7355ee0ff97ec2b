"""Runs that are killed and stopped end bit for bit like one that was not.

The short form kills one process and stops a run in this one. The long form (``-m slow``) kills a
command twenty times, sends it SIGTERM twenty times and SIGINT five times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from codi_jax.checkpoint.store import Store
from codi_jax.run.train import train
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import INTERRUPTED, Interrupted
from tests.smallest import smallest

ROOT = Path(__file__).parents[2]
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


def start(workdir: Path, **settings: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, with the flags of this one: the same programs."""
    changes = [f"--config.{key.replace('__', '.')}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "codi_jax.main", "--config=tests/smallest.py"),
            *(f"--workdir={workdir}", *changes),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def checkpoints(workdir: Path) -> list[str]:
    """While it is written, a checkpoint's name is longer than its number."""
    return [path.name for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdigit()]


def weights(workdir: Path) -> bytes:
    return (workdir / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


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


def test_killed_and_stopped_runs_end_bit_for_bit_like_an_uninterrupted_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    first = start(broken, **SETTINGS)
    try:
        deadline = time.monotonic() + 300
        while not checkpoints(broken):
            assert time.monotonic() < deadline
            assert first.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
    finally:
        first.kill()
        first.communicate()
    assert not (broken / "results.json").exists()
    with pytest.raises(Interrupted, match="step 10, which is saved"), StopAt(10) as interrupt:
        train(smallest(**SETTINGS), broken, interrupt)
    assert "10" in checkpoints(broken) and not (broken / "model").exists()
    assert "resuming from step" in capfd.readouterr().err
    train(smallest(**SETTINGS), broken)
    assert "resuming from step 10" in capfd.readouterr().err
    train(smallest(**SETTINGS), whole)
    assert weights(broken) == weights(whole)
    with Store(broken / CHECKPOINTS, read_only=True) as store:
        assert store.latest_step() == STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times", "status"),
    [
        (signal.SIGKILL, 20, -signal.SIGKILL),
        (signal.SIGTERM, 20, INTERRUPTED),
        (signal.SIGINT, 5, INTERRUPTED),
    ],
)
def test_many_faults_at_any_time(
    number: signal.Signals, times: int, status: int, tmp_path: Path
) -> None:
    """At random times, among them saves and the export; also with data workers, which all end."""
    settings = {**SETTINGS, "steps": 200, "eval__every": 200, "data__num_workers": 2}
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    begin = time.monotonic()
    assert start(whole, **settings).wait() == 0
    length = time.monotonic() - begin
    draw, hit = random.Random(number), 0
    while hit < times:
        process = start(broken, **settings)
        time.sleep(draw.uniform(0.2, 1.2) * length)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        if process.returncode == 0:  # it had finished: the next one begins anew
            assert weights(broken) == weights(whole)
            broken = tmp_path / f"broken_{hit}"
            continue
        # A signal that comes while Python still starts has its default effect.
        assert process.returncode in (status, -number) or "interrupted" in err
        hit += 1
        time.sleep(5)
        assert not children(process.pid)
    assert start(broken, **settings).wait() == 0
    assert weights(broken) == weights(whole)


def children(pid: int) -> list[str]:
    """Command lines of the processes of a session that ended: its data workers."""
    named = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True)
    lines = named.stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(pid) or f"parent_pid={pid}," in line]
