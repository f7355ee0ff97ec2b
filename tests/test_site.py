"""The documentation site: what is made of the code is whole, and it builds without a warning."""

import ast
import importlib.util
import re
import subprocess
import sys

import pytest

from codi_jax.tasks.registry import task_names
from configs.base import base
from tests.printed import ROOT

SITE = all(importlib.util.find_spec(name) for name in ("mkdocs", "mkdocstrings", "latex2mathml"))


@pytest.fixture(scope="module")
def reference():
    path = ROOT / "docs" / "site" / "config_reference.py"
    spec = importlib.util.spec_from_file_location("config_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_the_config_has_a_meaning(reference):
    keys = {key.name: key for key in reference.base_keys()}
    config = base()
    for name, key in keys.items():
        value = config
        for part in name.split("."):
            value = value[part]
        assert key.default == (value.to_dict() if name in _EMPTY else value)
    assert [name for name, key in keys.items() if not key.meaning] == []
    assert keys["optim.clip_norm"].meaning.startswith("largest global norm")  # of its class
    assert keys["batch_size"].meaning == "over all devices"  # beside the key
    assert keys["method"].meaning.startswith("The loss")  # above the key
    assert keys["seed"].values == "a whole number from 0 to 4294967295"
    assert "`inpaint`" in keys["task"].values


_EMPTY = {"task_options", "loss", "model.vae", "model.unet", "model.scheduler"}


def test_every_field_of_losses_and_tasks_has_a_meaning(reference):
    page = reference.pages()["reference/config.md"]
    assert all(f"### Of `{name}`" in page for name in (*reference.LOSSES, *task_names()))
    assert [
        line for line in page.splitlines() if line.startswith("| ") and line.endswith("|  |")
    ] == []
    names = set(re.findall(r"^\| `([\w.]+)`", page, re.M))
    assert set(reference.CHOICES) <= names
    assert {"loss.min_snr_gamma", "loss.edge_weight", "task_options.masks"} <= names


def test_the_page_of_configs_says_what_each_changes(reference):
    page = reference.pages()["reference/configs.md"]
    for file in (ROOT / "configs").glob("*.py"):
        assert (f"## `configs/{file.name}`" in page) == (file.stem not in ("base", "shared"))
    after = page.split("## `configs/edit.py`")[1].split("\n## ")[0]
    assert "| `task` | `'edit'` |" in after and "| `seed` |" not in after


def messages() -> set[str]:
    """What the package's errors say, with … for values."""
    found = set()
    for file in (ROOT / "codi_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.add("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_page_of_messages_quotes_real_ones():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    ours = page.split("## Not ours")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", ours, re.M)
    assert len(quoted) > 35
    known = messages()
    absent = [
        text
        for text in quoted
        if not any(
            re.search(".*".join(map(re.escape, re.split(" ?… ?", text))), one, re.S)
            for one in known
        )
    ]
    assert absent == []


@pytest.mark.slow
@pytest.mark.skipif(not SITE, reason="mkdocs is not installed: pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    method = (tmp_path / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 20 and "arithmatex" not in method and "\\alpha" not in method
    config = (tmp_path / "reference" / "config.html").read_text(encoding="utf-8")
    assert "optim.clip_norm" in config and "largest global norm" in config
    api = (tmp_path / "reference" / "api" / "sampling.html").read_text(encoding="utf-8")
    assert 'id="codi_jax.sampling.sampler.Sampler"' in api
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="sampling.html"' in index and 'src="images/demo.png"' in index
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    loaded = {
        url
        for page in pages
        for url in re.findall(r'<(?:script|link)[^>]+?(?:src|href)="(http[^"]+)"', page)
    }
    assert loaded == set()  # it works without a network
