"""What the compiler writes is taken as soon as it is whole."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codi_jax.parallel.scheduled import dump_scheduled, scheduled_hlo


def program(compile_: Any) -> Any:
    return SimpleNamespace(lower=lambda: SimpleNamespace(compile=compile_))


def test_a_schedule_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    def compile_() -> None:
        (tmp_path / "1-TLP-other.txt").write_text("no")
        with open(tmp_path / "1-TLP-hlo.txt", "w", encoding="utf-8") as file:
            for part in ("HloModule", " m", "\n}"):
                file.write(part)
                file.flush()
                time.sleep(0.02)
        time.sleep(60)  # machine code: nobody waits for it

    assert scheduled_hlo(program(compile_), tmp_path, pause=0.1) == "HloModule m\n}"


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        scheduled_hlo(program(fail), tmp_path, pause=0.01)
    with pytest.raises(RuntimeError, match="has written no"):
        scheduled_hlo(program(lambda: None), tmp_path, pause=0.01)


def test_other_flags_of_the_compiler_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--a=b")
    dump_scheduled(tmp_path)
    flags = os.environ["LIBTPU_INIT_ARGS"].split()
    assert flags[0] == "--a=b" and f"--xla_jf_dump_to={tmp_path}" in flags
