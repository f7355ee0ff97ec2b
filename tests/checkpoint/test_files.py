"""Files of checkpoints are whole or not there; what is broken is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from codi_jax.checkpoint.files import (
    StoredTensor,
    load_json,
    new_directory,
    open_tensors,
    read_metadata,
    save_json,
    save_tensors,
    stored_tensors,
    weight_files,
)
from codi_jax.typing import UserError

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(4, np.float16)}
STEM = "diffusion_pytorch_model"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_is_read_back_and_readable(tmp_path: Path) -> None:
    content = {"a": [1, 2.5], "b": {"c": None}, "é": True}
    save_json(tmp_path / "deep" / "x.json", content)
    assert load_json(tmp_path / "deep" / "x.json") == content
    text = (tmp_path / "deep" / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and len(text.splitlines()) > 5
    assert left(tmp_path / "deep") == ["x.json"]


@pytest.mark.parametrize("stopped", ["replace", "write"])
def test_an_interrupted_file_leaves_the_old_one(
    stopped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    save_json(file, {"old": 1})
    if stopped == "replace":

        def refuse(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="disk full"):
            save_json(file, {"new": 2})
    else:
        with pytest.raises(TypeError):
            save_json(file, {"new": object()})
    monkeypatch.undo()
    assert load_json(file) == {"old": 1} and left(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"{'a': 1}"])
def test_what_is_not_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json cannot be read as JSON"):
        load_json(tmp_path / "x.json")


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.json does not exist"):
        load_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        load_json(tmp_path)


def test_tensors_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.safetensors"
    save_tensors(file, TENSORS, made_by="us")
    with open_tensors(file) as opened:
        for name, tensor in TENSORS.items():
            found = opened.read(name)
            assert found.dtype == tensor.dtype
            np.testing.assert_array_equal(found, tensor)
    assert read_metadata(file) == {"format": "pt", "made_by": "us"}
    assert left(file.parent) == ["x.safetensors"]
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_named(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_tensors(file, TENSORS)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"x\.safetensors is truncated or not a safetensors"):
        read_metadata(file)


def test_the_weights_of_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / f"{STEM}.safetensors"
    save_tensors(file, TENSORS)
    assert weight_files(tmp_path) == weight_files(file) == [file]
    assert stored_tensors(tmp_path) == [
        StoredTensor(file, "F32", 6),
        StoredTensor(file, "F16", 4),
    ]


def shards(folder: Path, weight_map: object) -> Path:
    index = folder / f"{STEM}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_shards_are_found_by_their_index(tmp_path: Path) -> None:
    names = [f"{STEM}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, key in zip(names, TENSORS, strict=True):
        save_tensors(tmp_path / name, {key: TENSORS[key]})
    shards(tmp_path, {"b": names[1], "a": names[0]})
    assert weight_files(tmp_path) == [tmp_path / name for name in names]
    assert sum(tensor.size for tensor in stored_tensors(tmp_path)) == 10
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=rf"{names[1]}, which is absent"):
        weight_files(tmp_path)


@pytest.mark.parametrize("weight_map", [None, {}, ["a"]])
def test_an_index_without_a_map_is_refused(weight_map: object, tmp_path: Path) -> None:
    shards(tmp_path, weight_map)
    with pytest.raises(UserError, match="has no weight_map"):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors"])
def test_an_index_does_not_lead_elsewhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_tensors(tmp_path / "x.safetensors", TENSORS)
    shards(folder, {"a": name})
    with pytest.raises(UserError, match="which is not a file beside it"):
        weight_files(folder)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"holds no {STEM}\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / f"{STEM}.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"holds only .*\.bin.*can run code"):
        weight_files(tmp_path)


@pytest.mark.parametrize("stopped", ["while it is written", "between the renames", "never"])
def test_a_directory_is_replaced_whole_or_not_at_all(stopped: str, tmp_path: Path) -> None:
    """What is not the model's, here a README, stays in any case."""
    target, owned = tmp_path / "model", ("unet", "adapter")
    (target / "adapter").mkdir(parents=True)
    (target / "README.md").write_text("mine")
    if stopped == "while it is written":
        with pytest.raises(KeyboardInterrupt), new_directory(target, owned) as new:
            (new / "unet").mkdir()
            raise KeyboardInterrupt
        assert left(target) == ["README.md", "adapter"] and left(tmp_path) == ["model"]
        return
    if stopped == "between the renames":
        target.rename(tmp_path / ".model.old")
    with new_directory(target, owned) as new:
        (new / "unet").mkdir()
    assert left(target) == ["README.md", "unet"] and left(tmp_path) == ["model"]
