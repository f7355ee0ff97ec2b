"""Model directories by strangers: nothing of them is run, and what is damaged is a `UserError`."""

import contextlib
import copy
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from codi_jax.checkpoint.diffusers_format import load_params
from codi_jax.checkpoint.directory import read_directory, write_architecture
from codi_jax.checkpoint.files import copy_part, load_json, stored_tensors
from codi_jax.checkpoint.single_file import open_single_file
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
WRONG: tuple[Any, ...] = (
    *(None, True, "x", "", 0, -1, -0.5, 2**70, 1e308, [], [0], [[1]], {}, {"a": [1]}),
    ["../../etc", "x"],
    float("nan"),
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


@pytest.mark.parametrize("name", JSON_FILES)
def test_every_value_may_be_anything(name: str, directory: Path, unchecked: None) -> None:
    file = directory / name
    content = json.loads(file.read_text())
    wrong, rng = 0, np.random.default_rng(0)
    for path in places(content):
        for value in (WRONG[i] for i in rng.permutation(len(WRONG))[: len(WRONG) // 2]):
            file.write_text(json.dumps(changed(content, path, value)))
            try:
                read(directory)
            except UserError:
                wrong += 1
    file.write_text(json.dumps(content))
    read(directory)
    assert wrong > 15


@pytest.mark.parametrize(
    "text",
    [b"", b'"a string"', b"3", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
    + [b'{"scale": ' + b"9" * 10_000 + b"}", b'{"unet": ' + b"[" * 5000 + b"]" * 5000 + b"}"],
)
def test_files_that_are_no_object(text: bytes, directory: Path, unchecked: None) -> None:
    for name in JSON_FILES:
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(text)
        with pytest.raises(UserError):
            read(directory)
        (directory / name).write_bytes(whole)


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
        for path in keys:
            for name in names:
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


HEADERS = ("BOOL", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I64", "U8", "XX", "F32")


@pytest.mark.parametrize("dtype", HEADERS)
def test_tensors_of_odd_types(dtype: str, tmp_path: Path) -> None:
    bits = {"C64": 64, "F4": 4, "I64": 64, "F32": 32}.get(dtype, 8)
    entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * bits // 8]}
    header = json.dumps({"weight": entry}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(4 * bits // 8)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(data)
    template = {"kernel": np.zeros((2, 2), np.float32)}
    try:
        assert np.asarray(load_params(tmp_path, template)["kernel"]).dtype == np.float32
        assert dtype not in ("BOOL", "C64", "F4", "XX", "I64", "U8")
    except UserError as error:
        assert dtype in str(error) or "weight" in str(error) or "safetensors" in str(error)


def test_flipped_bytes_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float16)}, file)
    whole, rng, wrong = file.read_bytes(), np.random.default_rng(0), 0
    template = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, 160, rng.integers(1, 6)):  # the header
            damaged[at] = rng.integers(256)
        file.write_bytes(damaged[: rng.integers(1, 2 * len(whole))])
        for reader in (stored_tensors, lambda folder: load_params(folder, template)):
            try:
                reader(tmp_path)
            except UserError:
                wrong += 1
        try:
            open_single_file(file)
        except UserError:
            wrong += 1
    assert wrong > 300


def test_links_that_leave_the_checkpoint_are_not_copied(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    part = cache / "snapshots" / "abc" / "text_encoder"
    (cache / "blobs").mkdir(parents=True)
    part.mkdir(parents=True)
    (cache / "blobs" / "1234").write_text("{}")
    (part / "config.json").symlink_to(cache / "blobs" / "1234")
    (part / "pytorch_model.bin").write_bytes(b"pickle")
    copy_part(part, tmp_path / "out", part.parent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]
    assert not (tmp_path / "out" / "config.json").is_symlink()
    secret = tmp_path / "secret"
    secret.write_text("key")
    for target in (secret, Path("/etc/hostname"), Path("../../../../secret")):
        (part / "merges.txt").unlink(missing_ok=True)
        (part / "merges.txt").symlink_to(target)
        if (part / "merges.txt").exists():
            with pytest.raises(
                UserError, match=r"merges\.txt is a link to .*outside the checkpoint"
            ):
                copy_part(part, tmp_path / "out2", part.parent)
            assert not (tmp_path / "out2").exists()
    os.mkfifo(part / "pipe.json")
    (part / "merges.txt").unlink()
    (part / "vocab.json").symlink_to("/dev/zero")
    copy_part(part, tmp_path / "out3", part.parent)
    assert load_json(tmp_path / "out3" / "config.json") == {}
    assert len([*(tmp_path / "out3").iterdir()]) == 1
