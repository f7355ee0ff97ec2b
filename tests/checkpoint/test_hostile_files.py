"""Files that came damaged or from a stranger: every reader ends in a UserError or a result."""

import copy
import json
import random
import struct

import numpy as np
import pytest

from codi_jax.checkpoint.copying import copy_part
from codi_jax.checkpoint.diffusers_format import check_params
from codi_jax.checkpoint.directory import read_directory, write_architecture
from codi_jax.checkpoint.files import (
    INDEX,
    load_json,
    open_tensors,
    save_tensors,
    stored_tensors,
)
from codi_jax.checkpoint.hub import _lacking
from codi_jax.checkpoint.single_file import open_single_file
from codi_jax.models.text_encoder import TextEncoderConfig
from codi_jax.typing import UserError
from tests.checkpoint.test_directory import MODELS

pytestmark = pytest.mark.usefixtures("unchecked")
JUNK = [
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, 10**400, "", "x",
    "9", [], [[]], [1], ["a", {}], {}, {"a": 1}, [0, 0], [None], [[1, 2], [3]], "../../etc/passwd",
]  # fmt: skip


def mutated(content, rng):
    """``content`` with one value, at any depth, replaced, removed or doubled."""
    content = copy.deepcopy(content)
    place, key = content, rng.choice(sorted(content))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.randrange(len(place)) if isinstance(place, list) else rng.choice(sorted(place))
    if rng.random() < 0.15:
        del place[key]
    else:
        place[key] = rng.choice(JUNK)
    return content


@pytest.mark.parametrize("name", ["none", "mix", "controlnet", "t2i", "autoencoder dc", "text"])
def test_a_directory_with_a_wrong_value(name, tmp_path):
    write_architecture(tmp_path, MODELS[name])
    rng, refused = random.Random(0), 0
    files = sorted(tmp_path.rglob("*.json"))
    for _ in range(150):
        file = rng.choice(files)
        before = file.read_text()
        file.write_text(json.dumps(mutated(json.loads(before), rng)))
        try:
            read_directory(tmp_path)
        except UserError:
            refused += 1
        file.write_text(before)
    assert refused > 50
    read_directory(tmp_path)


@pytest.mark.parametrize("content", ['"text"', "3", "null", "[1, 2]", "[" * 100_000, "1" * 5000])
@pytest.mark.parametrize("file", [INDEX, "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_file_that_is_no_object(content, file, tmp_path):
    write_architecture(tmp_path, MODELS["none"])
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=file.rsplit("/", 1)[-1]):
        read_directory(tmp_path)
    if file == INDEX:
        with pytest.raises(UserError):
            _lacking(tmp_path)


def test_a_text_encoder_with_a_wrong_value():
    content = TextEncoderConfig().to_config()
    rng = random.Random(1)
    for _ in range(200):
        try:
            TextEncoderConfig.from_config(mutated(content, rng))
        except UserError:
            continue


def test_bytes_flipped_in_the_header_of_weights(tmp_path):
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = {"a.weight": np.ones((2, 3), np.float32), "b.bias": np.ones(2, np.float16)}
    save_tensors(file, tensors)
    template = {"a": {"kernel": np.ones((3, 2), np.float32)}, "b": {"bias": np.ones(2)}}
    check_params(tmp_path, template)
    good, rng, refused = bytearray(file.read_bytes()), random.Random(2), 0
    (length,) = struct.unpack("<Q", good[:8])
    for _ in range(100):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(8 + length)] = rng.randrange(256)
        file.write_bytes(damaged)
        for read in (stored_tensors, lambda folder: check_params(folder, template)):
            try:
                read(tmp_path)
            except UserError:
                refused += 1
        try:
            open_single_file(file)
        except UserError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL", "C64", "F8_E8M0", "F4"])
def test_tensors_that_are_no_weights(dtype, tmp_path):
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    bits = {"F4": 4, "I64": 64, "C64": 64}.get(dtype, 8)
    size = 8 * bits // 8
    header = {"a.weight": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, size]}}
    data = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(data)) + data + bytes(size))
    with pytest.raises(UserError, match=f"stores a.weight as {dtype}.*float16 or float32"):
        check_params(tmp_path, {"a": {"kernel": np.ones((4, 2))}})
    with open_tensors(file) as opened, pytest.raises(UserError, match=f"as {dtype}"):
        opened.read("a.weight")
    assert stored_tensors(tmp_path)[0].dtype == dtype


def test_names_of_files_stay_within_their_folder(tmp_path):
    for name in ("../x.safetensors", "/etc/x.safetensors", "a/b.safetensors"):
        index = {"weight_map": {"a": name}}
        path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
        path.write_text(json.dumps(index))
        with pytest.raises(UserError, match="not a file beside it"):
            stored_tensors(tmp_path)


def test_json_that_cannot_be_read(tmp_path):
    for content in (b"\xff\xfe", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 200_000):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(UserError, match="x.json"):
            load_json(tmp_path / "x.json")


def test_nothing_that_a_directory_names_is_imported(tmp_path, monkeypatch):
    """A payload in every place that names a class or a module."""
    (tmp_path / "payload.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "model"
    write_architecture(model, MODELS["mix"])
    (model / "pipeline.py").write_text("raise SystemExit('executed')")
    for file in sorted(model.rglob("*.json")):
        before = file.read_text()
        for key in json.loads(before):
            for value in ("payload", "payload:Evil", ["payload", "Evil"]):
                file.write_text(json.dumps({**json.loads(before), key: value}))
                try:
                    read_directory(model)
                except UserError:
                    continue
        file.write_text(before)
    copy_part(model / "adapter", tmp_path / "copied")
    assert not [*(tmp_path / "copied").glob("*.py")]
