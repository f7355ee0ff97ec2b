"""Worker processes that end with the process that started them, however it ended."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """To be called in a process of :mod:`multiprocessing`, as early as may be."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
