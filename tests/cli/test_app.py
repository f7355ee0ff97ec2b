"""How commands start and end: arguments, errors in one line, the version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codi_jax import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from absl import flags
from codi_jax.cli import app
from codi_jax.typing import UserError

def define_flags():
    flags.DEFINE_integer("count", 1, "How many")
    {define}

def main(arguments):
    print(flags.FLAGS.count, arguments, "jax" in sys.modules)
    {main}

if __name__ == "__main__":
    app.run(main, define_flags, "Counts things.", arguments=True)
"""


def run(
    *arguments: str, main: str = "pass", define: str = "pass"
) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(main=main, define=define)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_flags_and_arguments_reach_the_command_and_jax_is_not_imported() -> None:
    done = run("first", "--count=3", "second")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 ['first', 'second'] False\n"


def test_a_user_error_is_one_line_and_status_2() -> None:
    done = run(main="raise UserError('size=3 is odd: give an even one.')")
    assert done.returncode == 2
    assert done.stderr == "error: size=3 is odd: give an even one.\n"


def test_so_is_one_while_flags_are_defined() -> None:
    done = run(define="raise UserError('no such config')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no such config\n")


def test_a_disk_that_is_full_or_gone_is_one_line_and_status_2() -> None:
    done = run(main="raise OSError(28, 'No space left on device', '/runs/sr/config.json')")
    assert done.returncode == 2
    assert done.stderr == (
        "error: /runs/sr/config.json: No space left on device. Remedy: make room there.\n"
    )


def test_ctrl_c_is_one_line() -> None:
    done = run(main="raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("path", ["gs://bucket/runs", "s3://bucket/runs"])
def test_buckets_are_refused(path: str) -> None:
    for arguments in ([f"--workdir={path}"], ["--workdir", path], [path]):
        done = run(*arguments, define="flags.DEFINE_string('workdir', None, 'Where')")
        assert done.returncode == 2 and "buckets are not read or written" in done.stderr


def test_another_error_is_a_bug_and_has_its_traceback() -> None:
    done = run(main="raise ValueError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ValueError: a bug" in done.stderr


@pytest.mark.parametrize("wrong", ["--count=many", "--cuont=3", "--count"])
def test_a_wrong_flag_is_one_line(wrong: str) -> None:
    done = run(wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
    assert wrong[2:].split("=")[0] in done.stderr and "Traceback" not in done.stderr


def test_the_version_is_printed_before_anything_is_done() -> None:
    done = run("--version", main="raise UserError('not reached')")
    assert (done.returncode, done.stdout) == (0, f"codi_jax {__version__}\n")


def test_help_says_what_the_command_does() -> None:
    done = run("--help")
    assert done.stdout == "Counts things.\n\nflags:\n  --count         How many [1]\n"
    assert (done.returncode, done.stderr) == (0, "")
