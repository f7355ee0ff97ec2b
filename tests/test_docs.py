"""Every command and snippet that README and docs print is checked; the main ones are run, tiny."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from absl import flags
from PIL import Image

from codi_jax import Sampler
from codi_jax.cli import flags as dataclass_flags
from codi_jax.data.sources import SkimageSource
from codi_jax.evals.checkpoints import Evaluation
from codi_jax.evals.results import Results

pytestmark = [
    pytest.mark.xdist_group("docs"),
    # ml_collections reads config files so.
    pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "launch/README.md", *(f"docs/{p}.md" for p in (
    "architecture", "data", "method", "metrics", "results", "study", "tasks")))  # fmt: skip
LANGUAGES = {"bash", "json", "python", "text"}
COMMANDS = ("main", "sample", "evaluate", "study", "prepare", "convert")
#: What is printed and cannot be tried here, and why. Their files and extras are checked.
NOT_TRIED = {
    "pip": "changes the environment, and reads the network",
    "pytest": "would run this test",
    "ruff": "the linter runs beside the tests",
    "mypy": "the type checker runs beside the tests",
    ".ci/build": "builds in an environment of its own, from the network; .ci/readme is tried",
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


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """A folder with the files that the docs tell the reader to write; the first line names each."""
    for fence in snippets():
        if name := re.match(r"# ([\w/]+\.py)\n", fence.text):
            (tmp_path / name[1]).parent.mkdir(exist_ok=True)
            (tmp_path / name[1]).write_text(fence.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@contextmanager
def parsed(module: str, arguments: list[str]) -> Iterator[list[str]]:
    """The flags of one command, parsed as when it starts; gives the other arguments."""
    command = importlib.import_module(module)
    before, argv = set(flags.FLAGS), sys.argv
    sys.argv = [f"{module}.py", *arguments]
    try:
        command.define_flags()
        yield flags.FLAGS(sys.argv)[1:]
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def check_command(name: str, arguments: list[str]) -> None:
    """One of our commands: its flags, its config with every override, its arguments."""
    with parsed(f"codi_jax.{name}", arguments) as others:
        if name in ("main", "study"):
            assert flags.FLAGS.config is not None and flags.FLAGS.workdir is not None
        if name == "evaluate":
            dataclass_flags.read(Evaluation).check()
        if name == "prepare":
            assert flags.FLAGS.source and flags.FLAGS.output
        words = {"inspect": 2, "import": 3, "export": 3} if name == "convert" else {}
        assert len(others) == (words[others[0]] if words else 0), others


def check_benchmark(name: str, arguments: list[str]) -> None:
    """Some need packages that are not installed here: their sources say which flags they have."""
    source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
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


def test_fences_say_what_they_hold():
    assert {fence.language for fence in fences()} <= LANGUAGES
    long = [f"{f.page}:{f.line}" for f in fences() if f.language == "bash" and "\\\n" in f.text]
    assert long == []  # a line that continues can be copied into one kind of shell only


def test_every_printed_command(own_files):
    printed, faults = printed_commands(), []
    assert len(printed) > 60
    for command in printed:
        try:
            check(command.words)
        except (Exception, SystemExit) as error:
            faults.append(f"{command}\n    {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("python -m codi_jax.nothing --config=configs/sr.py", "No module"),
        ("python -m codi_jax.main --config=configs/none.py --workdir=w", "does not exist"),
        ("python -m codi_jax.main --config=configs/sr.py:none --workdir=w", "unknown variant"),
        ("python -m codi_jax.main --config=configs/sr.py --workdir=w --config.data.x=1", "'x'"),
        ("python -m codi_jax.main --config=configs/sr.py --workdir=w --config.steps=a", "steps"),
        ("python -m codi_jax.main --config=configs/sr.py", "None"),
        ("codi-sample --checkpoint demo --inputs photos/", "inputs"),
        ("codi-evaluate --images out/", "--reference"),
        ("python -m codi_jax.convert import one", "one"),
        ("python -m benchmarks.codec prior --pictures x", "pictures"),
        ("pip install -e '.[nothing]'", "nothing"),
        ("launch/slurm.sh --config=configs/sr.py", "slurm.sh"),
        ("curl something", "neither tried nor excused"),
    ],
)
def test_a_wrong_command_is_found(wrong, fault, own_files):
    (command,) = split_commands("here", wrong)
    with pytest.raises(Exception) as caught:
        check(command.words)
    assert fault in str(caught.value)


def test_links_of_the_pages_lead_to_files():
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_package_index_gets_absolute_links():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = ["bash", str(ROOT / ".ci" / "readme"), "https://host/owner/name", "v1"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    targets = re.findall(r"\]\(([^)]+)\)", done.stdout)
    assert len(targets) == len(re.findall(r"\]\(([^)]+)\)", text))
    assert all(target.startswith("https://") for target in targets)
    assert "![" in text and "https://host/owner/name/raw/v1/docs/images/demo.png" in targets
    assert "https://host/owner/name/blob/v1/docs/method.md#solvers" in targets


@pytest.mark.parametrize("fence", snippets(), ids=lambda fence: f"{fence.page}:{fence.line}")
def test_snippets_compile_and_their_imports_exist(fence, own_files):
    tree = ast.parse(fence.text)
    compile(tree, fence.page, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            if node.module in OPTIONAL and importlib.util.find_spec(node.module) is None:
                continue
            module = importlib.import_module(node.module)
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.util.find_spec(submodule), submodule
        if isinstance(node, ast.Call) and makes_pictures(node.func):
            known = inspect.signature(Sampler.__call__).parameters
            assert {keyword.arg for keyword in node.keywords} <= {*known}


def makes_pictures(function: ast.expr) -> bool:
    return ast.unparse(function) == "sampler" or (
        isinstance(function, ast.Call) and ast.unparse(function.func) == "Sampler.load"
    )


# README's main commands, run one after the other on one tiny model.

#: What is another in the test than in README: small sizes, and our run in place of the demo.
TINY = {
    "--config=configs/sr.py": "--config=configs/sr.py:tiny",
    "demo": "runs/sr",
    "runs/shards": "runs/sr",
    "runs/sd21": "runs/sr",
    "stabilityai/stable-diffusion-2-1": "models/my_sr",
    "--crop=512": "--crop=32",
    "--workers=8": "--workers=0",
    "1,2,4": "1,2",
    "4": "1",
}
#: A program for one device compiles faster, and the run need not learn.
QUICK = ["--config.mesh.data=1", "--config.steps=2", "--config.eval.every=2"]
QUICK += ["--config.checkpoint.every=2", "--config.eval.steps=(1,)", "--config.eval.count=1"]


def printed(beginning: str) -> list[str]:
    """The words of README's one command that begins so, at tiny size."""
    found = [c.words for c in printed_commands() if c.where.startswith("README")]
    (words,) = [words for words in found if shlex.join(words).startswith(beginning)]
    return [TINY.get(word, word) for word in words[2:]]


def run(words: list[str]) -> None:
    """A command in this process, from its flags on (optax needs jax's standard promotion)."""
    module, *arguments = words
    with parsed(module, arguments) as others, jax.numpy_dtype_promotion("standard"):
        importlib.import_module(module).run(others)


def test_the_main_commands_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos = SkimageSource("train")
    for folder, suffix in (("PHOTOS", "png"), ("photos", "jpg")):
        Path(folder).mkdir()
        for i in range(2):
            Image.fromarray(photos[i]["image"][:48, :64]).save(f"{folder}/{i}.{suffix}")
    command = "python -m codi_jax."

    run(printed(f"{command}prepare"))
    assert Path("shards/report.json").is_file()
    run([*printed(f"{command}main --config=configs/sr.py --workdir=runs/shards"), *QUICK])
    written = {path.name for path in Path("runs/sr").iterdir()}
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("to its workdir:\n\n")[1]
    names = "".join(line.split("|")[1] for line in table.split("\n\n")[0].splitlines())
    assert written == {*re.findall(r"`([\w.]+)[/`]", names)}

    run(printed(f"{command}sample --checkpoint demo"))
    assert Image.open("out/0.png").size == (256, 192)
    run(printed(f"{command}evaluate --checkpoint demo"))
    scored = Results.load(Path("runs/scores/results.json")).scores
    assert scored.keys() == {"bicubic", "codi"} and scored["codi"].keys() == {1, 2}
    run(printed(f"{command}sample --checkpoint runs/sr --input runs/scores"))
    run(printed(f"{command}evaluate --images"))
    assert Results.load(Path("runs/scores_mine/results.json")).scores.keys() == {"images"}

    run(printed(f"{command}convert export"))
    run(printed(f"{command}convert inspect"))
    assert "a model for sr x4, adapter mix" in capsys.readouterr().out
