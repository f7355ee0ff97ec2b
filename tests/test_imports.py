"""Who may import whom, read from the sources; and the core without TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import codi_jax

ROOT = Path(codi_jax.__file__).parent
#: Packages and modules of codi_jax from the ground up: each imports lower floors and itself.
FLOORS = (
    ("typing",),
    ("trees", "cli"),
    ("models", "diffusion", "data", "parallel"),
    ("model",),
    ("distill", "checkpoint", "tasks"),
    ("train",),
    ("sampling",),
    ("evals",),
    ("run",),
    ("main", "sample", "evaluate", "study", "prepare", "convert", "aot", "demo"),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
MAX_NODES, MAX_EDGES = 24, 95
#: Third-party package -> the files that may import it.
OWNERS = {
    "flax": "models/",
    "orbax": ("checkpoint/store.py", "checkpoint/items.py", "parallel/processes.py"),
    "grain": "data/",
    "tensorboard": "train/metrics.py",
    "tensorflow_datasets": "data/",
    "array_record": "data/",
    "msgpack": "data/sources/record.py",
    "apache_beam": "data/beam_pool.py",
    "pyarrow": "data/sources/parquet.py",
    "safetensors": "checkpoint/files.py",
    "ml_collections": "run/config.py",
    "docstring_parser": "cli/flags.py",
    "transformers": ("checkpoint/tokenizer.py", "data/depth.py"),
    "huggingface_hub": "checkpoint/hub.py",
    "libtpu": "parallel/topology.py",
    "gradio": "sampling/page/",
}
#: Too heavy, or too often absent, to be imported before they are used.
LAZY = {
    "tensorboard",
    "tensorflow_datasets",
    "pyarrow",
    "apache_beam",
    "transformers",
    "huggingface_hub",
    "libtpu",
}
NEVER = {"torch", "torchvision", "diffusers", "tensorflow", "clu"}
#: Sources that travel with exported weights and run in PyTorch; nothing here imports them.
EXPORTED = "assets/"


class Import(NamedTuple):
    file: str
    line: int
    module: str  # dotted, as far as it can be a module
    lazy: bool

    def __str__(self):
        return f"codi_jax/{self.file}:{self.line} imports {self.module}"


def imports_of(source: str, file: str) -> list[Import]:
    """All imports of one file; ``from a import b`` counts as both ``a`` and ``a.b``."""
    found = []

    def visit(node, lazy):
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: write imports in full"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
            found.extend(Import(file, child.lineno, name, lazy) for name in names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                inside = True  # for annotations alone
            visit(child, lazy or inside)

    visit(ast.parse(source), False)
    return found


def sources() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(ROOT.rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(EXPORTED)
    }


def room(module_or_file: str) -> str:
    """``models/unet.py`` or ``models.unet`` -> ``models``; ``trees.py`` -> ``trees``."""
    return module_or_file.removesuffix(".py").replace("/", ".").split(".")[0]


def edges(imports: list[Import]) -> dict[tuple[str, str], Import]:
    """(importer, imported) -> where, between different rooms of the package."""
    found = {}
    for one in imports:
        if not one.module.startswith("codi_jax.") or one.file == "__init__.py":
            continue
        pair = room(one.file), room(one.module.removeprefix("codi_jax."))
        if pair[0] != pair[1] and pair[1] != "__version__":
            found.setdefault(pair, one)
    return found


def layering_faults(imports: list[Import]) -> list[str]:
    return [
        str(where)
        for (upper, lower), where in edges(imports).items()
        if FLOOR_OF[upper] <= FLOOR_OF[lower]
    ]


def ownership_faults(imports: list[Import]) -> list[str]:
    faults = []
    for found in imports:
        package = found.module.split(".")[0]
        owner = OWNERS.get(package)
        if (
            package in NEVER
            or (owner is not None and not found.file.startswith(owner))
            or (package in LAZY and not found.lazy)
            or (found.file.startswith("data/") and package in ("jax", "jaxlib", "optax"))
        ):
            faults.append(str(found))
    return faults


def mesh_faults(source: str, file: str) -> list[str]:
    """Calls that make a mesh or a NamedSharding outside ``parallel/``."""
    if file.startswith("parallel/"):
        return []
    makers = {"Mesh", "NamedSharding", "AbstractMesh"}
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.split(".")[-1] in makers or name == "jax.make_mesh":
                faults.append(f"codi_jax/{file}:{node.lineno} calls {name}")
        elif isinstance(node, ast.ImportFrom) and node.module == "jax":
            names = {alias.name for alias in node.names}
            if "make_mesh" in names:
                faults.append(f"codi_jax/{file}:{node.lineno} imports jax.make_mesh")
    return faults


def all_imports() -> list[Import]:
    return [found for file, text in sources().items() for found in imports_of(text, file)]


def test_floors():
    assert {room(file) for file in sources()} - {"__init__"} == {*FLOOR_OF}
    assert layering_faults(all_imports()) == []


def test_the_house_stays_small():
    assert len(FLOOR_OF) <= MAX_NODES
    assert len(edges(all_imports())) <= MAX_EDGES


def test_only_run_knows_the_config():
    """Who reads a run's config imports ConfigDict, which `run/` alone may have."""
    readers = [file for file, text in sources().items() if "ConfigDict" in text]
    assert readers and all(file.startswith("run/") for file in readers)


def test_third_party_packages_have_one_owner():
    assert ownership_faults(all_imports()) == []


def test_only_parallel_makes_meshes():
    assert [f for file, text in sources().items() for f in mesh_faults(text, file)] == []


@pytest.mark.parametrize(
    ("file", "source", "faults"),
    [
        ("models/unet.py", "from codi_jax.diffusion import schedules", 1),
        ("models/unet.py", "def f():\n    import codi_jax.train.step", 1),
        ("models/unet.py", "from codi_jax import trees\nfrom codi_jax.models import unet", 0),
        ("distill/codi.py", "from codi_jax.checkpoint.store import Store", 1),
        ("sampling/load.py", "def f():\n    from codi_jax.run import plan", 1),
        ("trees.py", "from codi_jax import parallel", 1),
        ("train/loop.py", "from codi_jax.run import plan", 1),
        ("run/plan.py", "from codi_jax.main import main", 1),
        ("main.py", "from codi_jax import run, trees", 0),
        ("evaluate.py", "from codi_jax.sample import Sampler", 1),
        ("run/data.py", "from ml_collections import ConfigDict", 1),
        ("evals/features.py", "import flax.linen as nn", 1),
        ("checkpoint/diffusers_format.py", "import orbax.checkpoint", 1),
        ("train/loop.py", "def f():\n    from tensorboard import summary", 1),
        ("train/metrics.py", "def f():\n    from tensorboard import summary", 0),
        ("train/metrics.py", "try:\n    import tensorboard\nexcept ImportError:\n    pass", 1),
        ("train/metrics.py", "def f():\n    from clu import metric_writers", 1),
        ("data/pipeline.py", "def f():\n    import tensorflow", 1),
        ("data/pipeline.py", "import grain\nimport jax.numpy as jnp", 1),
        ("convert.py", "def f():\n    import torch", 1),
    ],
)
def test_the_rules_see_what_they_forbid(file, source, faults):
    imports = imports_of(source, file)
    assert len(layering_faults(imports) + ownership_faults(imports)) == faults


def test_the_mesh_rule_sees_what_it_forbids():
    source = "s = jax.sharding.NamedSharding(m, p)\nm = jax.make_mesh((1,), 'x')\nm = make_mesh()"
    assert len(mesh_faults(source, "train/loop.py")) == 2
    assert mesh_faults(source, "parallel/mesh.py") == []


def test_the_core_imports_without_tensorflow():
    rooms = ("models/", "diffusion/", "distill/", "parallel/", "checkpoint/", "train/", "evals/")
    modules = [
        "codi_jax." + file.removesuffix(".py").replace("/", ".")
        for file in sources()
        if file.startswith(rooms) and not file.endswith("__init__.py")
    ]
    assert "codi_jax.train.metrics" in modules
    program = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorboard", "clu", "torch"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Refuse())
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
