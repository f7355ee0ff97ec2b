import contextlib
import gc
import io
import json
import pickle
import tarfile

import pytest

from codi_jax.data import sources
from codi_jax.data.images import CorruptError
from codi_jax.typing import UserError


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def png(tmp_path, save):
    return lambda value: save(tmp_path / "one.png", value)


def test_samples_captions_and_columns(tmp_path, png):
    caption = json.dumps({"caption": "a bee", "url": "left out"}).encode()
    first = [
        ("a/0.png", png(0)),
        ("a/0.txt", "Zoë\n".encode()),
        ("a/0.mask.png", png(90)),
        ("a/1.json", caption),
        ("a/1.JPG", png(1)),
        ("a/1.mask.png", png(91)),
        ("a/1.edit.txt", b"make it night"),
    ]
    second = [
        ("a/._0.png", b"hidden"),
        ("README", b"left out"),
        ("a/0.webp", png(2)),
        ("a/0.mask.webp", png(92)),
    ]
    write_tar(tmp_path / "s-1.tar", second)
    write_tar(tmp_path / "s-0.tar", first)
    source = sources.make_source(str(tmp_path / "s-*.tar"), "train")
    assert len(source) == 3
    copied = pickle.loads(pickle.dumps(source))
    for index in (2, 0, 1):
        for element in (source[index], copied[index]):
            assert element.keys() == {"image", "text", "name", "mask", "edit"}
            assert (element["image"] == index).all() and (element["mask"] == 90 + index).all()
            assert element["mask"].shape == (6, 8)
    assert [source[i]["text"] for i in range(3)] == ["Zoë", "a bee", ""]
    assert [source[i]["name"] for i in range(3)] == ["s-0.tar/a/0", "s-0.tar/a/1", "s-1.tar/a/0"]
    assert [source[i]["edit"] for i in range(3)] == ["", "make it night", ""]
    with pytest.raises(IndexError):
        source[3]


def test_long_names_and_many_members(tmp_path, png):
    """Pax and GNU headers lie before the data; the index must point behind them."""
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        with tarfile.open(tmp_path / f"{name}.tar", "w", format=form) as tar:
            for i in range(50):
                data = png(i)
                info = tarfile.TarInfo("long" * 40 + f"/é{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        source = sources.WebDatasetSource([tmp_path / f"{name}.tar"])
        assert [int(source[i]["image"][0, 0, 0]) for i in range(50)] == list(range(50))
        assert source[7]["name"].endswith("/é7")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.txt"], "no sample in them has an image"),
        (["b.b.png"], "no sample in them has an image.*first dot"),
        (["a.png", "a.jpg"], "x.tar/a: has two images; keep one"),
        (["a.png", "a.png"], "'a' has two members 'png'"),
        (["a.png", "a.mask.png", "b.png"], "x.tar/b: has no 'mask'"),
        (["a.png", "a.lr.png"], "cannot be called 'lr'"),
        (["a.png", "a.name.txt"], "can be called 'name'"),
        (["README"], "no sample in them"),
    ],
)
def test_shards_that_are_wrong(tmp_path, png, names, message):
    write_tar(tmp_path / "x.tar", [(name, png(1)) for name in names])
    with pytest.raises(UserError, match=message):
        sources.WebDatasetSource(str(tmp_path / "x.tar"))


def test_members_in_any_order_and_those_that_lack(tmp_path, png, caplog):
    kinds = ["json", "mask.png", "png"]
    members = [(f"{i}.{kind}", png(i)) for kind in kinds for i in range(12)]
    captions = [json.dumps({"text": ["one", "two"] if i == 3 else f"t{i}"}) for i in range(12)]
    members[:12] = [(f"{i}.json", captions[i].encode()) for i in range(12)]
    lonely = [("x.txt", b"no image"), ("y.mask.png", png(1)), ("z.png", png(2)), ("z.cls", b"3")]
    write_tar(tmp_path / "a.tar", [*members, *lonely])
    write_tar(tmp_path / "b.tar", [("0.png", png(40)), ("0.mask.png", png(41))])
    source = sources.make_source(f"{tmp_path}/{{a,b}}.tar", "train")
    assert len(source) == 13  # z has no mask
    assert [int(source[i]["image"][0, 0, 0]) for i in range(13)] == [*range(12), 40]
    assert [int(source[i]["mask"][0, 0]) for i in range(13)] == [*range(12), 41]
    assert source[3]["captions"] == ("one", "two") and source[3]["text"] == "one"
    assert source[4]["text"] == "t4" and source[12]["name"] == "b.tar/0"
    for said in ("2 of 16 samples have no image", "1 of 16 samples have no 'mask'", "1 .cls"):
        assert said in caplog.text


@pytest.mark.parametrize(
    ("encoding", "stem"),
    [
        ("latin-1", "caf\xe9"),
        ("shift-jis", "\u5199\u771f"),
        ("latin-1", f"caf\xe9/{'x' * 150}\xe9"),
    ],
)
def test_names_that_are_not_utf8(encoding, stem, tmp_path, png):
    """The last is so long that it is in a member of its own."""
    path, gnu = tmp_path / "l.tar", tarfile.GNU_FORMAT
    with tarfile.open(path, "w", encoding=encoding, format=gnu) as tar:
        for name in (f"{stem}.png", f"{stem}.txt"):
            info = tarfile.TarInfo(name)
            data = png(5) if name.endswith("png") else b"coffee"
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = sources.WebDatasetSource(str(tmp_path / "l.tar"))
    assert source[0]["text"] == "coffee"
    assert source[0]["name"].startswith("l.tar/") and source[0]["name"].encode()


def header(name, size, kind=b"0"):
    """A tar header whose size is any number, also a negative one (base 256)."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 2**88).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("size", [-512, -1, -(2**60), 2**70])
def test_sizes_that_cannot_be(tmp_path, png, size):
    write_tar(tmp_path / "x.tar", [("a.png", png(1))])
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:1024] + header("b.png", size) + whole)
    with pytest.raises(UserError, match=r"tar shard .*x\.tar: a member has the size"):
        sources.WebDatasetSource(str(tmp_path / "x.tar"))
    for kind in (b"L", b"x"):  # it ends, whatever it finds
        (tmp_path / "x.tar").write_bytes(whole[:1024] + header("b.png", size, kind) + whole)
        with contextlib.suppress(UserError):
            sources.WebDatasetSource(str(tmp_path / "x.tar"))


def test_a_chain_of_long_names(tmp_path):
    (tmp_path / "x.tar").write_bytes(header("long", 4, b"L") * 3000)
    gc.disable()  # other tests' garbage cannot be cleared at the end of the stack
    try:
        with pytest.raises(UserError, match=r"x\.tar"):
            sources.WebDatasetSource(str(tmp_path / "x.tar"))
    finally:
        gc.enable()


def test_compressed_and_truncated_shards(tmp_path, png):
    members = [(f"{i}.png", png(i)) for i in range(3)]
    write_tar(tmp_path / "z.tar", members, "w:gz")
    with pytest.raises(UserError, match=r"z\.tar: .*uncompressed tar"):
        sources.WebDatasetSource(str(tmp_path / "z.tar"))
    write_tar(tmp_path / "x.tar", members)
    source = sources.WebDatasetSource(str(tmp_path / "x.tar"))
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:2600])  # in the last image
    assert (source[1]["image"] == 1).all()
    with pytest.raises(CorruptError, match=r"x\.tar/2: the shard ends inside it"):
        source[2]
    with pytest.raises(UserError, match=r"x\.tar: .*whole"):
        sources.WebDatasetSource(str(tmp_path / "x.tar"))


def test_texts_that_are_no_text(tmp_path, png):
    write_tar(tmp_path / "x.tar", [("a.png", png(1)), ("a.txt", b"\xff")])
    with pytest.raises(CorruptError, match=r"x\.tar/a\.txt: is no UTF-8"):
        sources.WebDatasetSource(str(tmp_path / "x.tar"))[0]
    write_tar(tmp_path / "x.tar", [("a.png", png(1)), ("a.json", b"{")])
    with pytest.raises(CorruptError, match=r"x\.tar/a\.json: is no JSON"):
        sources.WebDatasetSource(str(tmp_path / "x.tar"))[0]
