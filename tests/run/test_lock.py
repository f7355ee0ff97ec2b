"""One run at a time in a workdir."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codi_jax.run.train import train
from codi_jax.run.workdir import locked, write_config
from codi_jax.typing import UserError
from tests.smallest import smallest


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path):
        said = rf"a run is at work in {tmp_path}: process {os.getpid()} on .*stop it"
        with pytest.raises(UserError, match=said), locked(tmp_path):
            pass
    (tmp_path / ".lock").write_text("process 1 on a machine that is long gone\n")
    with locked(tmp_path):  # the file alone holds nobody back
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()


def test_a_run_of_another_process_is_named_and_loses_nothing(tmp_path: Path) -> None:
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write('process 5 on node7'); file.flush(); print('locked', flush=True); input()"
    )
    write_config(smallest(), tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for config in (smallest(), smallest(seed=9)):
        with pytest.raises(UserError, match="a run is at work in .*: process 5 on node7"):
            train(config, tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    holder.kill()
    holder.communicate()
    with locked(tmp_path):  # whoever is killed holds nobody back
        pass
