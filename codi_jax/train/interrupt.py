"""Signals that end a run: it saves, closes its data workers and exits with one code.

SIGTERM is what schedulers send before they take a machine away: Slurm, Kubernetes, and the
shutdown of a TPU VM for maintenance. SIGINT is Ctrl-C.
"""

import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from codi_jax.typing import INTERRUPTED, Interrupted


class Interrupt:
    """Whether the run is to stop. As a context, it catches SIGTERM and SIGINT.

    Where nothing can be lost, a signal ends the process at once: before training, while the
    networks are compiled, and after the last checkpoint. Between :meth:`defer` and
    :meth:`release` it only sets a flag. A second SIGINT ends the process in any case.

    With several processes, jax's preemption service catches SIGTERM and makes all of them stop at
    the same step; SIGINT is passed on to it.

    The context can be entered in the main thread only. Without it, no signal is caught.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._deferred = self._over = False
        self._asked = 0
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        caught = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python runs handlers between two of its instructions, so never while XLA compiles. The
        # number of the signal is in the pipe at once, and a thread reads it.
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _do_nothing) for number in caught}
        for number in caught:
            signal.siginterrupt(number, False)
        threading.Thread(target=self._watch, args=(read, caught), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._write)  # ends the thread

    def defer(self) -> None:
        """From now on there is something to save: a signal waits for :meth:`reached`."""
        self._deferred = True

    def release(self) -> None:
        """All is saved. Several processes go on to the end: a signal may have come to one alone.

        Raises:
            Interrupted: there was a signal since the last step of a single process.
        """
        self._deferred = False
        if jax.process_count() > 1:
            self._over = True
            if self._old:
                # jax's service would wait three minutes for those that have ended already.
                signal.signal(signal.SIGTERM, _do_nothing)
        elif self._signal is not None:
            raise Interrupted("stopped after the last step, which is saved")

    def reached(self, step: int) -> bool:
        """Whether ``step``, the number of steps done, is where the run stops.

        All processes ask after each step, and get the same answer.
        """
        if jax.process_count() == 1:
            return self._signal is not None
        # The service says yes to one number, that after the highest that a process has asked for:
        # to 1, if the signal came before. A run that goes on from a checkpoint asks for it, too.
        # Orbax asks for the steps at which it may save, so that no other numbers can be taken.
        numbers = range(self._asked + 1, step + 1)
        self._asked = step
        return any(map(multihost_utils.reached_preemption_sync_point, numbers))

    def _watch(self, read: int, caught: list[signal.Signals]) -> None:
        with os.fdopen(read, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] in caught:
                    self._ask(signal.Signals(number[0]))

    def _ask(self, number: signal.Signals) -> None:
        if self._signal == number == signal.SIGINT:
            _end(f"{number.name} again: stopped without saving", 128 + number)
        if self._over:
            print(f"{number.name}: all steps are made, and the run ends soon", file=sys.stderr)
        else:
            self._stop(number)
        self._signal = number

    def _stop(self, number: signal.Signals) -> None:
        if self._signal is None and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # the preemption service tells the others
        elif not self._deferred:
            _end(f"{number.name}: stopped; nothing was to be saved", INTERRUPTED)
        if self._signal is None:
            print(f"{number.name}: the run saves at its next step and stops", file=sys.stderr)


def _do_nothing(number: int, frame: object) -> None:
    """Not SIG_IGN, with which no signal would reach the pipe."""


def _end(message: str, code: int) -> None:
    """End the process from any thread; what is being written is replaced whole or not at all."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)
