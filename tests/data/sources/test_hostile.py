"""Files with flipped bytes, for every reader of data: what comes out is a `UserError`."""

import io
import json
import tarfile

import numpy as np
import pytest

from codi_jax.data import sources
from codi_jax.data.sources.array_record import write_array_record
from codi_jax.data.sources.record import MAGIC, pack_record, unpack_record
from codi_jax.typing import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
TIMES = 60


def read_all(spec):
    """Whatever the source is willing to give; True where it complains."""
    try:
        source = sources.make_source(spec, "train")
        for index in range(min(len(source), 4)):
            element = source[index]
            assert element["image"].dtype == np.uint8 and isinstance(element["text"], str)
    except UserError as error:
        assert "\n" not in str(error)[:200]
        return True
    return False


def damaged(data, rng):
    """The data with some bytes changed, and sometimes cut."""
    changed = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 8)):
        changed[at] = rng.integers(256)
    return bytes(changed[: rng.integers(1, 2 * len(data))])


@pytest.fixture
def png(tmp_path, save):
    return save(tmp_path / "pictures" / "a.png", 7)


def complaints(path, spec, seed=0):
    whole, rng = path.read_bytes(), np.random.default_rng(seed)
    wrong = 0
    for _ in range(TIMES):
        path.write_bytes(damaged(whole, rng))
        wrong += read_all(spec)
    path.write_bytes(whole)
    assert not read_all(spec)
    return wrong


def test_tar(tmp_path, png):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        texts = {"a.png": png, "a.txt": b"a", "b/é.json": b'{"text": ["x", "y"]}', "b/é.png": png}
        for name, data in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert complaints(path, str(path)) > 20


def test_parquet(tmp_path, png):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": png, "path": "a"}, "text": ["x", "y"], "at": "z"}] * 3
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert complaints(path, str(path)) > 20


def test_array_record(tmp_path, png):
    path = tmp_path / "x.array_record"
    write_array_record(path, [pack_record({"name": "a", "text": "t", "image": png})] * 2)
    assert complaints(path, str(path)) > 20


def test_metadata(tmp_path, png):
    path = tmp_path / "pictures" / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "a.png", "text": "é", "x_file_name": "a.png"}) + "\n")
    (tmp_path / "pictures" / "b.png").write_bytes(png)
    path.write_text('{"file_name": "a.png", "text": "é", "note": "n"}\n{"file_name": "b.png"}\n')
    assert complaints(path, str(path.parent)) > 20
    table = tmp_path / "pictures" / "metadata.csv"
    path.unlink()
    table.write_text('file_name,text,note\na.png,"é, or so",n\nb.png,,\n')
    assert complaints(table, str(table.parent)) > 5


def test_records(png):
    whole = pack_record(
        {
            "name": "a",
            "text": "t",
            "captions": ("t", "u"),
            "image": png,
            "latents": np.zeros((2, 2, 1), np.float16),
        }
    )
    assert unpack_record(whole, "x")["captions"] == ("t", "u")
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        try:
            element = unpack_record(MAGIC + damaged(whole, rng)[len(MAGIC) :], "x")
            assert isinstance(element["image"], np.ndarray)
        except UserError:
            wrong += 1
    assert wrong > 100
    import msgpack

    good = {"name": "a", "text": "t", "image": png}
    for other in (
        {"image": "/etc/passwd"},
        {"image": 3},
        {"text": 3},
        {"name": ["a"]},
        {"x": None},
        {"captions": [3]},
        {"x": {"dtype": "O", "shape": [1], "data": b"12345678"}},
        {"x": {"dtype": "f4", "shape": [-5], "data": b"1234567"}},
    ):
        with pytest.raises(UserError, match="is damaged"):
            unpack_record(MAGIC + msgpack.packb({**good, **other}), "x")
