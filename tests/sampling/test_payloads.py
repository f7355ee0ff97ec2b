"""Model directories and workdirs by strangers: nothing that they name is run."""

import contextlib
import copy
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codi_jax.checkpoint.directory import read_directory, write_architecture
from codi_jax.model import Model
from codi_jax.sampling.load import load_model
from codi_jax.tasks.registry import task_of
from codi_jax.typing import UserError
from tests.checkpoint.test_directory import model_with

JSON_FILES = (
    "model_index.json",
    "vae/config.json",
    "unet/config.json",
    "adapter/config.json",
    "scheduler/scheduler_config.json",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_architecture(tmp_path / "model", model_with("mix", task="edit"))
    return tmp_path / "model"


def read(directory: Path) -> None:
    """All that sampling does before it reads weights."""
    model = read_directory(directory)
    task_of(model)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be changed: the whole, and everything in it."""
    yield path
    items: Any = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield from places(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    result = copy.deepcopy(content)
    node = result
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return result


def test_a_pipe_is_no_file(directory: Path) -> None:
    (directory / "unet" / "config.json").unlink()
    os.mkfifo(directory / "unet" / "config.json")
    with pytest.raises(UserError, match="no regular file"):
        read(directory)


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the path whose import leaves a mark."""
    mark = tmp_path / "mark"
    (tmp_path / "payload.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Task: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("payload", None)


def test_nothing_that_a_file_names_is_run(directory: Path, payload: Path, unchecked: None) -> None:
    """In every place, the payload by every way to write it."""
    names = ("payload", "payload:Task", "payload.Task", ["payload", "Task"], "../payload.py")
    code = payload.with_name("payload.py").read_bytes()
    for file in ("pipeline.py", "unet/unet.py", "adapter/mix_adapter.py", "scheduler/scheduler.py"):
        (directory / file).write_bytes(code)
    (directory / "config.json").write_text('{"task": "payload:Task", "data": {}, "model": {}}')
    for file in JSON_FILES:
        content = json.loads((directory / file).read_text())
        keys = [*places(content)][1:] + [("auto_map",), ("_class_name",), ("task",), ("custom",)]
        for path, name in zip(keys, itertools.cycle(names), strict=False):
            (directory / file).write_text(json.dumps(changed(content, path, name)))
            with contextlib.suppress(UserError):
                read(directory)
        (directory / file).write_text(json.dumps(content))
    (directory / "model_index.json").unlink()
    with contextlib.suppress(UserError):
        load_model(directory)  # now it looks like a workdir
    assert not payload.exists() and "payload" not in sys.modules


def test_nor_what_a_workdir_names(tmp_path: Path, payload: Path, unchecked: None) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(
        json.dumps({"task": "payload:Task", "task_options": {}, "data": {}, "model": {}, "ema": {}})
    )
    with pytest.raises(UserError):
        load_model(workdir)
    write_architecture(workdir / "architecture", model_with("mix", task="payload:Task"))
    origin = dict.fromkeys(("pretrained", "adapter", "autoencoder", "trainable", "frozen"), "")
    others = {"redraw": [], "averages": ["eval"], "seed": 0, "guidance_input": False}
    (workdir / "origin.json").write_text(json.dumps({**origin, **others}))
    model = read_directory(workdir / "architecture")
    assert isinstance(model, Model) and model.task == "payload:Task"
    with pytest.raises(UserError, match="--task_module=payload:Task"):
        task_of(model)
    assert not payload.exists()
