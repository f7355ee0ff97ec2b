"""Ask uv whether what is installed resolves on every machine that is supported.

    python -m benchmarks.resolve [EXTRA ...]    # the requirements alone, and with each extra
    python -m benchmarks.resolve --lock         # renews constraints.txt
    python -m benchmarks.resolve --newest       # what is newer by now than constraints.txt

Nothing is installed and no such machine is needed: uv (`pip install uv`) reads the package index,
and counts wheels only. The first form prints a table, of the extra `test` by default, and ends with
status 1 where something does not resolve. It needs none of the project's packages.
"""

import argparse
import difflib
import functools
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCK = ROOT / "constraints.txt"
#: torch is pinned in its extra, and its builds differ by machine: it is not locked.
LOCKED_EXTRAS = ("test", "sd", "parity", "tfds", "parquet", "docs", "notebooks", "demo", "browser")
UNLOCKED = "torch"
#: tensorflow-datasets needs it, and it has no wheel: pure Python, built on any machine.
BUILT = ("promise",)
HEAD = """\
# Versions that the tests pass with, for `pip install -c`; torch is pinned in pyproject.toml.
# Renewed by: python -m benchmarks.resolve --lock
"""


def wanted(extras: Sequence[str]) -> str:
    """The requirements of these extras, one a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return "\n".join(line for line in lines if not line.startswith(UNLOCKED))


def compiled(arguments: Sequence[str], extras: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """``uv pip compile`` of the requirements and of these extras."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        sys.exit("uv is not installed: pip install uv")
    command = [uv, "pip", "compile", "--quiet", "--no-header", *arguments, "requirements.txt", "-"]
    return subprocess.run(
        command, cwd=ROOT, input=wanted(extras), capture_output=True, text=True, encoding="utf-8"
    )


def fault(extra: str | None, platform: str, python: str) -> str:
    """What uv says against it, one line; empty where it resolves."""
    arguments = ["--only-binary", ":all:"]
    arguments += ["--python-platform", platform, "--python-version", python]
    if extra == "tfds":
        arguments += [argument for name in BUILT for argument in ("--no-binary", name)]
    done = compiled(arguments, [] if extra is None else [extra])
    return " ".join(done.stderr.split()) if done.returncode else ""


def table(extras: Sequence[str]) -> int:
    """Prints where each set of packages resolves, and why not; the exit status."""
    faults = []
    print(f"{'':14}{'':28}" + "".join(f"{python:>6}" for python in PYTHONS))
    with ThreadPoolExecutor(4) as pool:
        for extra in (None, *extras):
            for platform in PLATFORMS:
                found = list(pool.map(functools.partial(fault, extra, platform), PYTHONS))
                name = "requirements" if extra is None else extra
                words = "".join(f"{'NO' if text else 'yes':>6}" for text in found)
                print(f"{name:14}{platform:28}{words}", flush=True)
                faults += [
                    f"{name}, {platform}, Python {python}: {text}"
                    for python, text in zip(PYTHONS, found, strict=True)
                    if text
                ]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


def newest() -> str:
    """The newest versions for every machine, as ``constraints.txt`` holds them."""
    done = compiled(["--universal", "--python-version", PYTHONS[0], "--no-annotate"], LOCKED_EXTRAS)
    if done.returncode:
        sys.exit(done.stderr)
    return HEAD + done.stdout


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("extras", nargs="*", default=["test"])
    parser.add_argument("--lock", action="store_true")
    parser.add_argument("--newest", action="store_true")
    options = parser.parse_args(arguments)
    if options.lock:
        LOCK.write_text(newest(), encoding="utf-8")
        return 0
    if options.newest:
        old, new = LOCK.read_text(encoding="utf-8").splitlines(), newest().splitlines()
        changes = [line for line in difflib.ndiff(old, new) if line[:2] in ("- ", "+ ")]
        print(*(changes or ["constraints.txt has the newest versions."]), sep="\n")
        return 0
    return table(options.extras)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
