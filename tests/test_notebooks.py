"""The notebooks are clean, their commands exist, and they run to their end at tiny size."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.printed import ROOT, check, split_commands

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = {"controlnet", "enlarge", "pytorch", "super_resolution"}
EXECUTE = all(importlib.util.find_spec(name) for name in ("nbclient", "ipykernel"))
PYTORCH = all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "transformers"))
#: Values of the notebooks' variables in commands, so that these can be checked as they are printed.
VALUES = {"CONFIG": "configs/sr.py", "STEPS": "240", "EVERY": "120", "SOURCE": "skimage"}
VALUES |= {"PRIOR": "models/sd", "MODEL": "demo", "model": "", "sizes": "", "times": "", "mesh": ""}

pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning")


def cells(notebook: Path, kind: str = "code") -> list[str]:
    book = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def python(source: str) -> str:
    """A cell without the lines that IPython alone understands."""
    return re.sub(r"^( *)!.*$", r"\1pass", source, flags=re.M)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_alike(notebook):
    book = json.loads(notebook.read_text(encoding="utf-8"))
    assert book["nbformat"] == 4 and {path.stem for path in NOTEBOOKS} == NAMES
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            ast.parse(python("".join(cell["source"])))
            shell = re.search(r"^ *!python", "".join(cell["source"]), re.M)
            assert not shell or "_exit_code == 0" in "".join(cell["source"])  # else no cell fails
    head = cells(notebook, "markdown")[0]
    assert f"blob/main/notebooks/{notebook.name})" in head and "colab-badge.svg" in head
    first = re.sub(r'EXTRAS = ".*"', "", cells(notebook)[0])
    assert first == re.sub(r'EXTRAS = ".*"', "", cells(NOTEBOOKS[0])[0])
    page = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert page.count(f"({notebook.name})") == 1 and head.split("\n\n")[1] in page


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_of_the_notebooks_exist(notebook, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^ *!(python .*)$", "\n".join(cells(notebook)), re.M)
    assert lines
    for line in lines:
        filled = re.sub(r"{(\w+)}", lambda match: VALUES[match[1]], line)
        for command in split_commands(notebook.name, filled):
            check(command.words)


def test_the_address_is_written_into_all_of_them(tmp_path):
    for folder in (".ci", "notebooks"):
        (tmp_path / folder).mkdir()
    files = [ROOT / ".ci" / "address", *NOTEBOOKS, ROOT / "notebooks" / "README.md"]
    for file in files:
        copy = tmp_path / file.relative_to(ROOT)
        copy.write_bytes(file.read_bytes())
        assert "OWNER/NAME" in copy.read_text(encoding="utf-8")
    script = ["bash", str(tmp_path / ".ci" / "address")]
    subprocess.run([*script, "https://github.com/some-one/codi.jax"], check=True)
    for file in files[1:]:
        text = (tmp_path / file.relative_to(ROOT)).read_text(encoding="utf-8")
        assert "OWNER/NAME" not in text
        assert ("https://github.com/some-one/codi.jax" in text) == (file.suffix == ".ipynb")
        assert "research.google.com/github/some-one/codi.jax/blob/main/" in text
    assert subprocess.run([*script, "https://elsewhere/x"], capture_output=True).returncode == 2


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Execute a notebook in ``folder``; what its cells printed."""
    import nbclient
    import nbformat

    monkeypatch.setenv("CODI_TINY", "1")
    # One device; most of the time goes into compiling.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("JAX_NUMPY_DTYPE_PROMOTION", "standard")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(book, timeout=1800, resources={"metadata": {"path": folder}})
    client.execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return [output.get("text", "") for output in outputs]


@pytest.mark.slow
@pytest.mark.skipif(not EXECUTE, reason="nbclient or ipykernel is not installed: extra notebooks")
@pytest.mark.parametrize("name", ["enlarge", "super_resolution"])
def test_notebooks_run(name, tmp_path, monkeypatch):
    printed = run(name, tmp_path, monkeypatch)
    assert "This runtime has a" in printed[0] and "JAX is needed" in printed[0]
    made = "out/a.png" if name == "enlarge" else "runs/mine/model/model_index.json"
    assert (tmp_path / made).is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not (EXECUTE and PYTORCH), reason="the extras notebooks and parity are not installed"
)
@pytest.mark.parametrize("name", ["controlnet", "pytorch"])
def test_notebooks_with_pytorch_run(name, tmp_path, monkeypatch):
    from tests.parity.test_life import make_checkpoint

    if name == "controlnet":  # a small random model in place of Stable Diffusion
        monkeypatch.setenv("CODI_PRIOR", str(make_checkpoint(tmp_path, "epsilon")))
    run(name, tmp_path, monkeypatch)
    folder = {"controlnet": "controlnet", "pytorch": "exported"}[name]
    assert (tmp_path / "models" / folder / "model_index.json").is_file()
