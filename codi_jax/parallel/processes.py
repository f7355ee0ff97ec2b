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
from typing import Any

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
#: Seconds between two looks whether another has an error.
LOOK = 2.0
#: Under this key jax's service keeps the status and the index of the first that has an error.
_FAILED = "codi_jax/failed"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def joined_processes() -> Iterator[None]:
    """Join the other processes of this command, where the launcher set ``CODI_DISTRIBUTED=1``.

    Only a child of the calling process goes on in the context. An error that leaves it ends this
    process within seconds, and the others with the same status: started again, they would meet it
    again.
    """
    if os.environ.get("CODI_DISTRIBUTED") != "1":
        yield
        return
    _fork()
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
    # On CPUs the first collective waits half a minute for the others, and they are all here now.
    multihost_utils.sync_global_devices("joined")
    from orbax.checkpoint import multihost  # not before the fork: it starts threads

    client = multihost.get_jax_distributed_client()
    over = threading.Event()
    watching = threading.Thread(target=_end_as_others, args=(client, over), daemon=True)
    watching.start()
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        over.set()
        status = 2 if isinstance(error, UserError | OSError) else 1
        if lost_contact(error):
            time.sleep(HEARTBEAT + 10)  # jax's service says who has died, and ends this process
        else:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # another came first
                client.key_value_set(_FAILED, f"{status} {jax.process_index()}")
        # At its exit jax waits for the others for minutes. They have the same error, or none.
        leave = threading.Timer(_leave(), os._exit, (status,))
        leave.daemon = True
        leave.start()
        raise
    finally:
        over.set()
        watching.join()  # in a call of jax's service Python's end would abort this process


def _leave() -> float:
    """Seconds to wait before this process ends; the first keeps jax's service, and ends last."""
    return 2 * LEAVE if jax.process_index() == 0 else LEAVE


def agreed(answer: bool) -> bool:
    """What the first process answers, on all; to be asked by all."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def lost_contact(error: BaseException) -> bool:
    """Whether ``error`` may come of the death of another process: its connection is broken."""
    return bool(_BROKEN.search(str(error)))


def _end_as_others(client: Any, over: threading.Event) -> None:
    """End this process as the first that has an error, where it has none itself.

    Args:
        client: of jax's service, which keeps what that process has left.
        over: set when this process has an error itself, or is done.
    """
    left = None
    while left is None:
        if over.wait(LOOK):
            return
        try:
            left = client.key_value_try_get(_FAILED)
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                return  # the service has ended
    status, index = left.split()
    if over.wait(_leave()):
        return
    print(
        f"process {index} of this run has ended with an error, so this one stops, too: see what "
        "was said there",
        file=sys.stderr,
        flush=True,
    )
    os._exit(int(status))


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
