import pickle
import sys

import numpy as np
import pytest

from codi_jax.data import sources
from codi_jax.data.images import CorruptError
from codi_jax.data.sources.record import MAGIC, pack_record, unpack_record
from codi_jax.typing import UserError


def test_array_record_roundtrip(tmp_path, save):
    data = [save(tmp_path / f"{i}.png", i * 10) for i in range(5)]
    assert sources.write_array_record(tmp_path / "ar" / "s-0.array_record", data[:3]) == 3
    sources.write_array_record(tmp_path / "ar" / "s-1.array_record", iter(data[3:]))
    assert sorted(p.name for p in (tmp_path / "ar").iterdir()) == [
        "s-0.array_record",
        "s-1.array_record",
    ]
    source = sources.make_source(str(tmp_path / "ar" / "*.array_record"), "train")
    copied = pickle.loads(pickle.dumps(source))
    for index in (4, 0, 2, 3, 1):
        assert (source[index]["image"] == index * 10).all()
        assert (copied[index]["image"] == index * 10).all()
    sources.write_array_record(tmp_path / "ar" / "s-2.array_record", [b"junk"])
    broken = sources.ArrayRecordSource(str(tmp_path / "ar" / "s-2*"))
    with pytest.raises(UserError, match=r"record ar\[0\]: not an image"):
        broken[0]
    (tmp_path / "ar" / "s-3.array_record").write_bytes(b"no shard")
    with pytest.raises(UserError, match="s-3"):
        sources.ArrayRecordSource(str(tmp_path / "ar" / "s-3*"))


def test_without_the_package_all_else_runs_and_the_message_helps(tmp_path, save, monkeypatch):
    """As on Windows, for which the package has no build."""
    save(tmp_path / "a.png", 7)
    (tmp_path / "a.array_record").write_bytes(b"not opened")
    blocked = [name for name in sys.modules if name.split(".")[0] == "array_record"]
    for name in {*blocked, "array_record", "array_record.python"}:
        monkeypatch.setitem(sys.modules, name, None)
    assert (sources.make_source(str(tmp_path), "train")[0]["image"] == 7).all()
    with pytest.raises(UserError, match=r"\*.array_record needs .*array_record.*WSL 2"):
        sources.make_source(str(tmp_path / "*.array_record"), "train")
    with pytest.raises(UserError, match=r"b\.array_record needs .*pip install array_record"):
        sources.write_array_record(tmp_path / "b.array_record", [b"x"])


def test_records_of_several_columns(tmp_path, save):
    picture = save(tmp_path / "a.png", 7)
    latents = np.arange(12, dtype=np.float16).reshape(2, 3, 2)
    sample = {"name": "a", "text": "Zoë", "image": picture, "mask": picture, "latents": latents}
    record = pack_record(sample)
    assert record == pack_record(dict(reversed(sample.items())))  # the order does not matter
    element = unpack_record(record, "x[0]")
    assert element.keys() == sample.keys()
    assert element["name"] == "a" and element["text"] == "Zoë"
    assert element["image"].shape == (6, 8, 3) and element["mask"].shape == (6, 8)
    np.testing.assert_array_equal(element["latents"], latents)
    assert element["latents"].dtype == np.float16 and element["latents"].flags.writeable


def test_damaged_records_are_corrupt(tmp_path, save):
    record = pack_record({"name": "a", "text": "", "image": save(tmp_path / "a.png", 7)})
    for damaged in (record[:-5], MAGIC, MAGIC + b"\xc0", pack_record({"text": "no name"})):
        with pytest.raises(CorruptError, match=r"record x\[0\]: is damaged"):
            unpack_record(damaged, "x[0]")
    with pytest.raises(CorruptError, match="^a: not an image"):
        unpack_record(pack_record({"name": "a", "text": "", "image": b"none"}), "x[0]")
