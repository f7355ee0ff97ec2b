"""Every command and snippet that README and docs print is checked; the main ones are run, tiny."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from codi_jax import Sampler
from codi_jax.data.sources import SkimageSource
from codi_jax.evals.results import Results
from codi_jax.sampling.recipe import Options
from tests.printed import (
    LANGUAGES,
    OPTIONAL,
    PAGES,
    ROOT,
    check,
    fences,
    printed_commands,
    run,
    snippets,
    split_commands,
)

pytestmark = [
    # ml_collections reads config files so.
    pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning"),
]


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
            known = {*inspect.signature(Sampler.__call__).parameters, *Options.__annotations__}
            assert {keyword.arg for keyword in node.keywords} <= known


def makes_pictures(function: ast.expr) -> bool:
    return ast.unparse(function) == "sampler" or (
        isinstance(function, ast.Call) and ast.unparse(function.func) == "Sampler.load"
    )


# README's main commands, run one after the other on one tiny model.

#: What is another in the test than in README: small sizes, and our run in place of the demo.
TINY = {
    "--config=configs/sr.py": f"--config={ROOT / 'tests' / 'smallest.py'}",
    "demo": "runs/sr",
    "--workdir=runs/shards": "--workdir=runs/sr",
    "runs/sd21": "runs/sr",
    "stabilityai/stable-diffusion-2-1": "models/my_sr",
    "--crop=512": "--crop=32",
    "--workers=8": "--workers=0",
    "1,2,4": "1,2",
    "4": "1",
}
#: The run need not learn.
QUICK = ["--config.tensorboard=True", "--config.steps=2", "--config.eval.every=2"]
QUICK += ["--config.checkpoint.every=2", "--config.eval.steps=(1,)", "--config.eval.count=1"]


def printed(beginning: str) -> list[str]:
    """The words of README's one command that begins so, at tiny size."""
    found = [c.words for c in printed_commands() if c.where.startswith("README")]
    (words,) = [words for words in found if shlex.join(words).startswith(beginning)]
    return [TINY.get(word, word) for word in words[2:]]


@pytest.mark.slow
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

    run([*printed(f"{command}sample photos/"), "--checkpoint=runs/sr"])
    assert Image.open("out/0.png").size == (256, 192)
    run(printed(f"{command}evaluate --checkpoint demo"))
    scored = Results.load(Path("runs/scores/results.json")).scores
    assert scored.keys() == {"bicubic", "lanczos", "codi"} and scored["codi"].keys() == {1, 2}
    run(printed(f"{command}sample --checkpoint runs/sr --input runs/scores"))
    run(printed(f"{command}evaluate --images"))
    assert Results.load(Path("runs/scores_mine/results.json")).scores.keys() == {"images"}

    run(printed(f"{command}convert export"))
    run(printed(f"{command}convert inspect"))
    assert "a model for sr x4, adapter mix" in capsys.readouterr().out
