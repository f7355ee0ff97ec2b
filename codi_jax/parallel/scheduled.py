"""A program as XLA's compiler for TPUs has scheduled it, without waiting for its machine code."""

import os
import threading
import time
from pathlib import Path

import jax

from codi_jax.parallel.compiling import compile_traced

#: Ends the name of the file that the compiler writes once everything is fused and scheduled.
_FILE = "*TLP-hlo.txt"


def dump_scheduled(folder: Path) -> None:
    """Have the compiler write its schedules to a folder; to be called before it is loaded."""
    asked = f"--xla_jf_dump_to={folder} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=false"
    before = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = f"{before} {asked}".strip()


def scheduled_hlo(traced: jax.stages.Traced, folder: Path, pause: float = 2.0) -> str:
    """Compile in the background, and return the scheduled program as soon as it is written.

    The compiler cannot be stopped: it goes on until the process ends, which must be by
    ``os._exit``.

    Args:
        traced: the program, for TPUs.
        folder: of :func:`dump_scheduled`, empty.
        pause: seconds between two looks at the folder.

    Returns:
        HLO, a text.

    Raises:
        DoesNotFit: the compiler itself found that the memory is too small.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            compile_traced(traced)
        except BaseException as error:  # raised below, where it is awaited
            failed.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    text, before = "", -1
    while not (text and len(text) == before):  # unchanged between two looks: whole
        alive = worker.is_alive()
        files = sorted(folder.glob(_FILE), key=lambda file: file.stat().st_size)
        if failed:
            raise failed[0]
        text, before = (files[-1].read_text(encoding="utf-8") if files else ""), len(text)
        if not alive and not files:
            raise RuntimeError(f"the compiler has written no {_FILE} to {folder}")
        time.sleep(pause)
    return text
