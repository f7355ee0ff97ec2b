import sys
import types
from pathlib import Path

import numpy as np
import pytest

from codi_jax.data import sources
from codi_jax.typing import UserError


def fake_tfds(monkeypatch, splits):
    def builder(name, data_dir=None, file_format=None):
        assert file_format == "array_record"  # has random access
        if name != "tiny":
            raise KeyError(f"no builder {name}")
        return types.SimpleNamespace(
            download_and_prepare=lambda: None,
            data_dir=str(Path(__file__).parent),
            info=types.SimpleNamespace(splits=splits),
            as_data_source=lambda split: splits[split],
        )

    module = types.SimpleNamespace(builder=builder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def test_tfds_records_become_elements(monkeypatch):
    grey = {"image": np.full((4, 5, 1), 9, np.uint8), "text": b"nine"}
    colour = {"hr": np.full((4, 5, 3), 3, np.uint8), "lr": np.zeros((1, 1, 3), np.uint8)}
    fake_tfds(monkeypatch, {"train": [grey], "validation": [colour], "test": []})
    element = sources.make_source("tfds:tiny", "train")[0]
    assert element["image"].shape == (4, 5, 3) and element["text"] == "nine"
    element = sources.make_source("tfds:tiny", "eval")[0]
    assert (element["image"] == 3).all() and element["name"] == "tiny[0]"


def test_tfds_that_is_wrong(monkeypatch):
    fake_tfds(monkeypatch, {"train": [{"audio": np.zeros(3)}], "test": []})
    with pytest.raises(UserError, match="tfds:tiny.*no feature 'image', only audio"):
        sources.make_source("tfds:tiny", "train")[0]
    with pytest.raises(UserError, match="tfds:tiny', split 'val'"):
        sources.make_source("tfds:tiny", "val")
    with pytest.raises(UserError, match="tfds:nono.*check its name"):
        sources.make_source("tfds:nono", "train")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tfds\]'"):
        sources.make_source("tfds:tiny", "train")


def test_a_data_set_with_train_alone_is_divided(monkeypatch):
    rest, tenth = ([{"image": np.full((4, 5, 3), v, np.uint8)}] for v in (1, 2))
    fake_tfds(monkeypatch, {"train": None, "train[:90%]": rest, "train[90%:]": tenth})
    assert (sources.make_source("tfds:tiny", "train")[0]["image"] == 1).all()
    assert (sources.make_source("tfds:tiny", "eval")[0]["image"] == 2).all()


def test_other_channels_and_bits(monkeypatch):
    clear = np.zeros((4, 5, 4), np.uint8)
    deep = np.full((4, 5, 1), 257 * 9, np.uint16)
    faint = np.dstack([np.full((4, 5), 7, np.uint8), np.full((4, 5), 255, np.uint8)])
    odd = {"image": np.zeros((4, 5, 3), np.float32)}
    data = [{"image": clear, "text": [b"one", b"two"]}, {"image": deep}, {"image": faint}, odd]
    fake_tfds(monkeypatch, {"train": data, "test": []})
    source = sources.make_source("tfds:tiny", "train")
    assert (source[0]["image"] == 255).all() and source[0]["captions"] == ("one", "two")
    assert (source[1]["image"] == 9).all() and (source[2]["image"] == 7).all()
    assert {source[i]["image"].shape for i in range(3)} == {(4, 5, 3)}
    with pytest.raises(UserError, match="images are float32"):
        source[3]
