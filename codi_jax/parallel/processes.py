"""The processes of one command: how they join, and how each ends when another has died.

jax notices that a process has died, and then aborts the others with a stack trace and the status
134. So each process that joins is forked: the child works, and the parent passes its messages and
signals on, says in one line what happened, and has the status that launchers know.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

from codi_jax.typing import INTERRUPTED, Interrupted, UserError

#: Seconds without a sign of life after which a process counts as dead.
HEARTBEAT = 20
#: Where jax's own service begins to say that the processes have lost each other. From here on
#: its lines are held back.
_LOST = re.compile(rb"^[EF]\d{4} \S+ +\d+ (coordination_service|client\.h|distributed)")
#: What errors say when a collective, or a barrier of the processes, has failed.
_BROKEN = re.compile(r"Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Bb]arrier")
#: Seconds that a process with an error waits for the others to have it, too.
LEAVE = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def joined_processes() -> Iterator[None]:
    """Join the other processes of this command, where the launcher set ``CODI_DISTRIBUTED=1``.

    Only a child of the calling process goes on in the context. An error that leaves it ends this
    process within seconds, also if the others go on: they stop when they miss it.
    """
    if os.environ.get("CODI_DISTRIBUTED") != "1":
        yield
        return
    _fork()
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
    # On CPUs the first collective waits half a minute for the others, and they are all here now.
    multihost_utils.sync_global_devices("joined")
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if lost_contact(error):
            time.sleep(HEARTBEAT + 10)  # jax's service says who has died, and ends this process
        status = 2 if isinstance(error, UserError | OSError) else 1
        # At its exit jax waits for the others for minutes. They have the same error, or none.
        leave = threading.Timer(LEAVE, os._exit, (status,))
        leave.daemon = True
        leave.start()
        raise


def agreed(answer: bool) -> bool:
    """What the first process answers, on all; to be asked by all."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def lost_contact(error: BaseException) -> bool:
    """Whether ``error`` may come of the death of another process: its connection is broken."""
    return bool(_BROKEN.search(str(error)))


def _fork() -> None:
    """Return in a child of this process, which stays and ends as the child ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    read, write = os.pipe()
    # All threads so far are those of OpenBLAS, which knows forks; jax has no backend yet.
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C goes to the parent alone, which passes it on
        os.dup2(write, sys.stderr.fileno())
        os.close(read)
        os.close(write)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        return
    os.close(write)
    held: list[bytes] = []
    passing = threading.Thread(target=_pass_on, args=(read, held), daemon=True)
    with _passed_on(child):
        passing.start()
        _, waited = os.waitpid(child, 0)
    passing.join(LEAVE)  # data workers hold the pipe, too, until they end
    code = os.waitstatus_to_exitcode(waited)
    if held and code not in (0, INTERRUPTED):
        print(last_words(b"".join(held)), file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
    sys.stderr.buffer.writelines(held)
    sys.stderr.flush()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL cannot be caught, nor set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(parent, -code)
    os._exit(code)


def _end_with(parent: int) -> None:
    """End this process when its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def _passed_on(child: int) -> Iterator[None]:
    def handler(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    old = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, action in old.items():
            signal.signal(number, action)


def _pass_on(read: int, held: list[bytes]) -> None:
    """Write what comes to standard error; what jax's service says is ``held`` back."""
    with os.fdopen(read, "rb") as lines:
        for line in lines:
            if held or _LOST.match(line):
                held.append(line)
            else:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()


def last_words(said: bytes) -> str:
    """One line for people from what jax's service says when a process has died."""
    text = said.decode(errors="replace")
    unhealthy = re.search(r"stopped sending heartbeats\):\s*((?:\S*\d+\s*\n)+)", text)
    if unhealthy:
        numbers = re.findall(r"(\d+)\s*\n", unhealthy[1])
        names = f"process {numbers[0]}" if len(numbers) == 1 else f"processes {', '.join(numbers)}"
    elif "leader" in text:
        names = "process 0"
    else:
        names = "another process"
    verb = "have" if names.startswith("processes") else "has"
    return (
        f"{names} of this run {verb} ended or cannot be reached, so this one stops, too: see what "
        "was said there, and start the same command again; it goes on from the last checkpoint"
    )
