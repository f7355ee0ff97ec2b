"""Processes that join: what their parents pass on, say and exit with. jax itself is not started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from benchmarks.jobs import several
from codi_jax.parallel.processes import agreed, joined_processes, last_words, lost_contact

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, time
import jax
from jax.experimental import multihost_utils
from benchmarks.jobs import several
from codi_jax.parallel.processes import joined_processes
from codi_jax.parallel import processes
from codi_jax.typing import UserError
processes.LEAVE, processes.LOOK = 1, 0.2  # seconds that tests need not wait
{before}
outside = os.getpid()
with joined_processes():
    assert os.getppid() == outside
    print(os.getpid(), flush=True)
    {body}
"""
#: What jax's service says, shortened.
DIED = """\
E1126 23:43:46.582475    9360 coordination_service.cc:1549] [16] Use error polling to propagate:
1
The tasks have crashed. [type.googleapis.com/tensorflow.CoordinationServiceError='']
F1126 23:43:46.583010    9371 client.h:80] Terminating process because: absl::Status: UNAVAILABLE: \
The following tasks are unhealthy (stopped sending heartbeats):
{tasks}
The tasks have crashed. Check the task logs for an earlier error
"""
LEADER = (
    "F1126 23:44:01.575481    9655 client.h:80] Terminating process: UNAVAILABLE: Failed to send "
    "RPC to coordination service. Either the leader task was preempted\n"
)
#: In the place of jax's service.
ALONE = """
from orbax.checkpoint import multihost

class Client:
    def key_value_set(self, key, value):
        pass

    def key_value_try_get(self, key):
        raise jax.errors.JaxRuntimeError("NOT_FOUND: " + key)

jax.distributed.initialize = lambda **options: None
multihost_utils.sync_global_devices = lambda name: None
multihost.get_jax_distributed_client = Client
"""


def start(
    body: str, before: str = ALONE, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before, body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CODI_DISTRIBUTED": "1", **environment},
    )


def run(body: str) -> tuple[int, str]:
    process = start(body)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_the_death_of_another_is_one_line_and_75() -> None:
    said = f"sys.stderr.write('mine\\n' + {DIED.format(tasks='1')!r}); sys.stderr.flush()"
    status, err = run(f"{said}; os.abort()")
    first, line = err.splitlines()
    assert (status, first) == (75, "mine")
    assert line.startswith("process 1 of this run has ended or cannot be reached")
    assert "start the same command again" in line


def test_an_end_of_its_own_is_passed_on() -> None:
    assert run("sys.exit(75)") == (75, "")
    assert run("os.kill(os.getpid(), 9)") == (-signal.SIGKILL, "")
    status, err = run("raise ValueError('odd')")
    assert status == 1 and err.endswith("ValueError: odd\n")


def test_an_error_ends_it_although_the_exit_waits_for_the_others() -> None:
    wait = "import atexit; atexit.register(time.sleep, 100)"
    begin = time.monotonic()
    status, _ = run(f"{wait}; raise UserError('full')")
    assert status == 2 and time.monotonic() - begin < 60


def two(body: str) -> tuple[list[int], list[str]]:
    """The exit codes of two processes that jax's service joins, and what they said."""
    environment = {**several(2), "SLURM_LOCALID": "0", "JAX_PLATFORMS": "cpu"}
    processes = [start(body, "", environment | {"SLURM_PROCID": str(i)}) for i in range(2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


def test_an_error_of_one_ends_the_others_with_its_status() -> None:
    codes, said = two(
        "time.sleep(100 * (jax.process_index() == 0)); raise UserError('no such picture')"
    )
    assert codes == [2, 2], said
    assert said[1].endswith("UserError: no such picture\n")
    assert "process 1 of this run has ended with an error" in said[0].splitlines()[-1]


def test_two_that_are_done_end_quietly() -> None:
    codes, said = two("time.sleep(3)")
    assert codes == [0, 0] and not any("Fatal" in text for text in said), said


def test_signals_reach_it_and_it_ends_with_its_parent() -> None:
    process = start("import signal; signal.signal(15, lambda *_: sys.exit(7)); time.sleep(100)")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)  # its handler
    process.terminate()
    assert process.wait(60) == 7
    process = start("time.sleep(100)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.communicate()  # its child has the pipes, too, until it ends
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("said", "who"),
    [
        (DIED.format(tasks="3"), "process 3 of this run has"),
        (DIED.format(tasks="1\n2"), "processes 1, 2 of this run have"),
        (DIED.format(tasks="/job:jax_worker/replica:0/task:5"), "process 5 of this run has"),
        (LEADER, "process 0 of this run has"),
        ("F1126 12:00:00.0 1 client.h:80] something new\n", "another process of this run has"),
    ],
)
def test_who_has_died(said: str, who: str) -> None:
    assert last_words(said.encode()).startswith(who)


def test_a_broken_connection_is_known() -> None:
    assert lost_contact(ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"))
    assert not lost_contact(ValueError("batch_size=3 is no multiple of 2"))


@pytest.mark.parametrize("answer", [True, False])
def test_one_process_agrees_with_itself(answer: bool) -> None:
    assert agreed(answer) is answer


def test_alone_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", None):
        if value is None:
            monkeypatch.delenv("CODI_DISTRIBUTED", raising=False)
        else:
            monkeypatch.setenv("CODI_DISTRIBUTED", value)
        before = os.getpid()
        with joined_processes():
            assert os.getpid() == before
