"""The commands and snippets that README and docs print, and what is wrong with one."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags

from codi_jax.cli import flags as dataclass_flags
from codi_jax.evals.checkpoints import Evaluation

ROOT = Path(__file__).parents[1]
_FOLDERS = ("docs", "docs/howto", "launch", "notebooks")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f.relative_to(ROOT).as_posix() for d in _FOLDERS for f in sorted((ROOT / d).glob("*.md"))),
)
LANGUAGES = {"bash", "json", "python", "text"}
COMMANDS = ("main", "sample", "evaluate", "study", "prepare", "convert", "aot", "demo")
#: What is printed and cannot be tried here, and why. Their files and extras are checked.
NOT_TRIED = {
    "pip": "changes the environment, and reads the network",
    "pytest": "would run this test",
    "ruff": "the linter runs beside the tests",
    "mypy": "the type checker runs beside the tests",
    ".ci/build": "builds in an environment of its own, from the network; .ci/readme is tried",
    ".ci/address": "changes the notebooks; tests/test_notebooks.py tries it on copies",
    "mkdocs": "tests/test_site.py builds the site, where it is installed",
    "docker": "needs its daemon, and the network; tests/test_containers.py reads the Dockerfile",
}
#: Modules of snippets that need not be installed.
OPTIONAL = {"diffusers"}


class Fence(NamedTuple):
    page: str
    line: int
    language: str
    text: str


class Command(NamedTuple):
    where: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def fences() -> list[Fence]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
            line = text[: match.start()].count("\n") + 1
            found.append(Fence(page, line, match[1], match[2]))
    return found


def split_commands(where: str, text: str) -> Iterator[Command]:
    """The commands of lines in bash: joined where they continue, parted at ``&&``."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables before the command
            words = words[1:]
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield Command(where, words[:end])
            words = words[end + 1 :]


def docstring_commands() -> Iterator[Command]:
    files = [*(ROOT / "configs").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    files += [ROOT / "codi_jax" / f"{name}.py" for name in COMMANDS]
    for file in sorted(files):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        joined = text.replace("\\\n", " ")
        for line in re.findall(r"^\W*(?:Command: +)?(python -m .*)$", joined, re.M):
            yield from split_commands(file.relative_to(ROOT).as_posix(), line)


def printed_commands() -> list[Command]:
    printed = [
        command
        for fence in fences()
        if fence.language == "bash"
        for command in split_commands(f"{fence.page}:{fence.line}", fence.text)
    ]
    return [*printed, *docstring_commands()]


def snippets() -> list[Fence]:
    return [fence for fence in fences() if fence.language == "python"]


@contextmanager
def called_with(module: str, arguments: list[str]) -> Iterator[None]:
    """As if a command was called so; the flags that it defines are gone afterwards."""
    before, argv = set(flags.FLAGS), sys.argv
    sys.argv = [f"{module}.py", *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


@contextmanager
def parsed(module: str, arguments: list[str]) -> Iterator[list[str]]:
    """The flags of one command, parsed as when it starts; gives the other arguments."""
    with called_with(module, arguments):
        importlib.import_module(module).define_flags()
        yield flags.FLAGS(sys.argv)[1:]


def check_command(name: str, arguments: list[str]) -> None:
    """One of our commands: its flags, its config with every override, its arguments."""
    with parsed(f"codi_jax.{name}", arguments) as others:
        if name in ("main", "study"):
            assert flags.FLAGS.config is not None
            assert flags.FLAGS.workdir is not None or flags.FLAGS.dry_run
        if name == "evaluate":
            dataclass_flags.read(Evaluation).check()
        if name == "prepare":
            assert flags.FLAGS.source and flags.FLAGS.output
        words = {"inspect": 2, "import": 3, "export": 3} if name == "convert" else {}
        if name != "sample":  # it takes pictures
            assert len(others) == (words[others[0]] if words else 0), others


def check_benchmark(name: str, arguments: list[str]) -> None:
    """Some need packages that are not installed here: their sources say which flags they have."""
    source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    if "contest.parser(" in source:
        source += (ROOT / "benchmarks" / "contest.py").read_text(encoding="utf-8")
    known = set(re.findall(r"""(?:add_argument|DEFINE_\w+)\(\s*"(?:--)?([\w-]+)""", source))
    given = {word.removeprefix("--").split("=")[0] for word in arguments if word.startswith("--")}
    assert given <= known


def check_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option == "-c":
            assert (ROOT / value).is_file()
        if option == "-e":
            extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", value)
            assert extras is not None
            assert set(filter(None, (extras[1] or "").split(","))) <= {
                *project["optional-dependencies"]
            }


def check(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if words[0] in project["scripts"]:
        words = ["python", "-m", project["scripts"][words[0]].split(":")[0], *words[1:]]
    if words[:2] == ["python", "-m"]:
        package, name = words[2].split(".")
        assert package in ("codi_jax", "benchmarks")
        (check_command if package == "codi_jax" else check_benchmark)(name, words[3:])
    elif words[0].startswith("launch/"):
        assert (ROOT / words[0]).is_file()
        check_command("main", [word for word in words[1:] if word.startswith("--")])
    else:
        assert words[0] in NOT_TRIED, f"neither tried nor excused: {words[0]}"
        if "/" in words[0]:
            assert (ROOT / words[0]).is_file()
        if words[0] == "pip":
            check_pip(words[1:])


def run(words: list[str]) -> None:
    """A command in this process, from its flags on (optax needs jax's standard promotion).

    Args:
        words: its module and its arguments.
    """
    module, *arguments = words
    with parsed(module, arguments) as others, jax.numpy_dtype_promotion("standard"):
        importlib.import_module(module).run(others)
