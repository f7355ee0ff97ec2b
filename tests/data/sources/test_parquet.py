import pickle
import sys

import pytest

from codi_jax.data import sources
from codi_jax.data.images import CorruptError
from codi_jax.typing import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def png(tmp_path, save):
    return lambda value: save(tmp_path / "one.png", value)


def picture(data, path="a.png"):
    return {"bytes": data, "path": path}


def test_rows_become_elements(tmp_path, png):
    rows = [
        {
            "image": picture(png(i)),
            "caption": f"number {i}",
            "mask": picture(png(90 + i)),
            "edit": None if i == 4 else "darker",
            "name": "left out",
            "label": i,
        }
        for i in range(7)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:5]), tmp_path / "p-0.parquet", row_group_size=2)
    pq.write_table(pa.Table.from_pylist(rows[5:]), tmp_path / "p-1.parquet")
    source = sources.make_source(str(tmp_path / "p-*.parquet"), "train")
    assert len(source) == 7
    copied = pickle.loads(pickle.dumps(source))
    for index in (6, 0, 3, 4, 1, 2, 5):
        for element in (source[index], copied[index]):
            assert element.keys() == {"image", "text", "name", "mask", "edit"}
            assert (element["image"] == index).all() and element["text"] == f"number {index}"
            assert (element["mask"] == 90 + index).all() and element["mask"].ndim == 2
            assert element["edit"] == ("" if index == 4 else "darker")
    assert source[5]["name"] == "p-1.parquet[5]"
    with pytest.raises(IndexError):
        source[7]


def test_plain_bytes_and_missing_values(tmp_path, png):
    table = pa.table({"image": pa.array([png(3), None], pa.binary()), "text": ["one", None]})
    pq.write_table(table, tmp_path / "x.parquet")
    source = sources.ParquetSource(str(tmp_path / "x.parquet"))
    assert (source[0]["image"] == 3).all() and source[0]["text"] == "one"
    with pytest.raises(CorruptError, match=r"x\.parquet\[1\]: holds no bytes"):
        source[1]


def test_parquet_that_is_wrong(tmp_path, png, monkeypatch):
    def write(name, columns):
        pq.write_table(pa.table(columns), tmp_path / name)
        return str(tmp_path / name)

    with pytest.raises(UserError, match=r"needs a column 'image'.*has photo \(binary\)"):
        sources.ParquetSource(write("a.parquet", {"photo": [png(1)]}))
    with pytest.raises(UserError, match="hold no row"):
        sources.ParquetSource(write("b.parquet", {"image": pa.array([], pa.binary())}))
    with pytest.raises(UserError, match="image column cannot be called 'lr'"):
        sources.ParquetSource(write("c.parquet", {"image": [b""], "lr": [picture(b"")]}))
    write("d-0.parquet", {"image": [png(1)]})
    write("d-1.parquet", {"image": [png(1)], "text": ["a"]})
    with pytest.raises(UserError, match=r"d-1\.parquet: has other columns than .*d-0"):
        sources.ParquetSource(str(tmp_path / "d-*.parquet"))
    (tmp_path / "e.parquet").write_bytes(b"none")
    with pytest.raises(UserError, match=r"e\.parquet: no parquet file"):
        sources.ParquetSource(str(tmp_path / "e.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        sources.ParquetSource(str(tmp_path / "d-0.parquet"))


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return sources.ParquetSource(str(path))


def test_a_string_among_the_bytes_is_no_path(tmp_path, png):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    images = pa.array([{"bytes": str(secret), "path": "a"}])
    with pytest.raises(UserError, match="needs a column 'image'"):
        write(tmp_path / "x.parquet", image=images)


@pytest.mark.parametrize("text", ["string", "large_string", "string_view", "dictionary", "list"])
def test_kinds_of_strings(tmp_path, png, text, caplog):
    kinds = {
        "string": pa.string(),
        "large_string": pa.large_string(),
        "string_view": pa.string_view(),
        "dictionary": pa.dictionary(pa.int8(), pa.string()),
        "list": pa.list_(pa.string()),
    }
    wanted = ["one", "two"] if text != "list" else [["one", "uno"], ["two"]]
    source = write(
        tmp_path / "x.parquet",
        image=pa.array([png(1), png(2)], pa.large_binary()),
        text=pa.array(wanted, kinds[text]),
        label=[3, 4],
    )
    assert [source[i]["text"] for i in range(2)] == ["one", "two"]
    assert source[0].get("captions") == (("one", "uno") if text == "list" else None)
    assert "captions" not in source[1]


def test_paths_are_relative_to_the_file(tmp_path, png, save):
    save(tmp_path / "pictures" / "a.png", 9)
    rows = [{"bytes": None, "path": "pictures/a.png"}, {"bytes": png(3), "path": "/etc/passwd"}]
    rows += [{"bytes": None, "path": path} for path in ("/etc/passwd", "../x.png", "", None)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    source = write(tmp_path / "x.parquet", image=pa.array(rows, kind))
    assert (source[0]["image"] == 9).all() and (source[1]["image"] == 3).all()
    for index, said in ((2, "leaves the folder"), (3, "leaves"), (4, "no bytes"), (5, "no bytes")):
        with pytest.raises(CorruptError, match=said):
            source[index]
    plain = write(tmp_path / "y.parquet", image=["pictures/a.png"])
    assert (plain[0]["image"] == 9).all()


def test_left_out_columns_are_said(tmp_path, png, caplog):
    write(tmp_path / "x.parquet", image=[png(1)], label=[3], score=[0.5])
    assert "not read are 1 column 'label' (int64), 1 column 'score' (double)" in caplog.text
