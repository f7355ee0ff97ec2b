"""Signals, in processes of their own: what they end, what waits, and the status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from jax.experimental import multihost_utils

from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import Interrupted

ROOT = Path(__file__).parents[2]
#: A command that trains ten steps of a tenth of a second, after a start of ten seconds.
PROGRAM = """
import sys, time
from codi_jax.cli import app
from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import Interrupted

def main(_):
    with Interrupt() as interrupt:
        print("ready", flush=True)
        {start}
        interrupt.defer()
        print("training", flush=True)
        for step in range(1, 100):
            time.sleep(0.1)
            if interrupt.reached(step):
                print("saved", flush=True)
                raise Interrupted("stopped at step 1, which is saved")
        interrupt.release()

app.run(main, lambda: None, "")
"""


def run(start: str, after: str, *signals: signal.Signals) -> tuple[int, str, str]:
    """Status, output and errors of the command, to which ``signals`` are sent after a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(start=start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != after:
        assert process.poll() is None
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_it_trains_a_run_saves_and_ends_with_75(number: signal.Signals) -> None:
    status, out, err = run("pass", "training", number, signal.SIGTERM)
    assert (status, out) == (75, "saved\n")
    assert err.splitlines() == [
        f"{number.name}: the run saves at its next step and stops",
        "stopped at step 1, which is saved; the same command goes on from there",
    ]


def test_before_it_trains_a_signal_ends_it_at_once() -> None:
    """Also in code that never returns to Python's loop, as the compilation of a network."""
    begin = time.monotonic()
    block = "import ctypes; ctypes.CDLL(None).sleep(30); ctypes.CDLL(None).sleep(30)"
    status, out, err = run(block, "ready", signal.SIGTERM)
    assert (status, out) == (75, "") and time.monotonic() - begin < 25
    assert err == "SIGTERM: stopped; nothing was to be saved\n"


def test_a_second_interrupt_does_not_wait() -> None:
    status, out, err = run("pass", "training", signal.SIGINT, signal.SIGINT)
    assert (status, out) == (130, "") and "SIGINT again: stopped without saving" in err


def test_of_several_processes_none_stops_alone_after_the_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others have heard of no signal, and write the model together with it."""
    interrupt = Interrupt()
    interrupt.defer()
    interrupt._signal = signal.SIGINT
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    interrupt.release()
    monkeypatch.undo()
    alone = Interrupt()
    alone._signal = signal.SIGINT
    with pytest.raises(Interrupted, match="after the last step"):
        alone.release()


@pytest.mark.parametrize("named", [1, 5, 9, 11])
def test_several_processes_stop_at_the_number_that_jax_names(
    named: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names 1 where the signal came before they asked, and a run may go on from step 9."""
    asked: list[int] = []
    service = "reached_preemption_sync_point"
    monkeypatch.setattr(multihost_utils, service, lambda n: asked.append(n) or n == named)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    interrupt = Interrupt()
    stops = (step for step in range(9, 20) if interrupt.reached(step))
    assert next(stops) == max(9, named)
    assert asked == [*range(1, named + 1)]


def test_after_the_last_step_of_several_processes_no_signal_reaches_jaxs_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would wait for those that have ended, three minutes."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with Interrupt() as interrupt:
            interrupt.defer()
            interrupt.release()
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 10
            while interrupt._signal is None and time.monotonic() < deadline:
                time.sleep(0.01)
        assert interrupt._signal == signal.SIGINT and not told
        assert "SIGINT: all steps are made" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGTERM, before)
