"""Worker processes that hold a source, and end with their parent."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import cv2

from codi_jax.data.worker import end_with_parent
from codi_jax.typing import UserError

#: The arguments of one call.
Task = TypeVar("Task", bound=tuple[object, ...])
#: What this process was given: set once, so that it does not travel with every task.
_held: list[object] = []


class Pool:
    """Calls `function(held, *arguments)` in processes, or in this one.

    Args:
        held: picklable; each process gets it once.
        workers: number of processes; 0: none.
    """

    def __init__(self, held: object, workers: int) -> None:
        if workers < 0:
            raise UserError(f"workers={workers}; it must be at least 0.")
        self._held, self._executor = held, None
        if workers:
            self._executor = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(held,),
            )

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def run(self, function: Callable[..., None], tasks: Sequence[Task]) -> Iterator[Task]:
        """Yields each task as it is done, in any order; an error ends them all."""
        if self._executor is None:
            for task in tasks:
                function(self._held, *task)
                yield task
            return
        futures = {self._executor.submit(_call, function, *task): task for task in tasks}
        for future in as_completed(futures):
            future.result()
            yield futures[future]


def _start(held: object) -> None:
    _held[:] = [held]
    use_one_thread()
    # A killed parent cannot stop its workers: they would go on beside those of the next run.
    end_with_parent()


def use_one_thread() -> None:
    """To be called in a process that works beside others."""
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"  # for a depth estimator's PyTorch, imported later


def _call(function: Callable[..., None], *task: object) -> None:
    function(_held[0], *task)
