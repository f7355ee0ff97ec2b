"""Folders as people keep them: where captions lie, what links and odd names do, what is said."""

import json
import os
import unicodedata

import numpy as np
import pytest

from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.data.sources import FolderSource, SkippingSource, make_source, notes
from codi_jax.data.transforms import FillPrompt
from codi_jax.typing import UserError


@pytest.fixture
def said(monkeypatch):
    """What is said, line by line."""
    lines: list[str] = []
    monkeypatch.setattr(notes, "_said", set())
    monkeypatch.setattr(notes.logging, "warning", lambda form, text: lines.append(text))
    return lines


@pytest.fixture
def photos(tmp_path, save):
    """Makes pictures, and text files of other suffixes; the folder."""

    def make(*names, **texts):
        for value, name in enumerate(names):
            save(tmp_path / name, value)
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return make


def row(**values):
    return json.dumps(values, ensure_ascii=False) + "\n"


def texts(source):
    return {source[i]["name"]: source[i]["text"] for i in range(len(source))}


def test_one_file_above_the_splits(photos, said):
    lines = row(file_name="train/a.png", text="a cat") + row(file_name="eval/b.png", text="a dog")
    root = photos("train/a.png", "eval/b.png", metadata_dot_jsonl=lines)
    assert texts(make_source(str(root), "train")) == {"a.png": "a cat"}
    assert texts(make_source(str(root), "eval")) == {"b.png": "a dog"}
    assert not said  # rows of the other split are no fault


def test_files_in_folders_below_and_columns_from_above(photos, save, said):
    lines = row(file_name="train/a.png", text="one", edited_file_name="depth/a.png")
    lines += row(file_name="train/x/c.png", edited_file_name="depth/a.png", text="")
    root = photos("train/a.png", "train/x/c.png", "depth/a.png", "val/b.png")
    (root / "metadata.jsonl").write_text(lines)
    (root / "val" / "metadata.csv").write_text("file_name,text\nb.png,two\n")
    source = make_source(str(root), "train")
    assert texts(source) == {"a.png": "one", "x/c.png": ""}
    assert source[0]["edited"].shape == (6, 8, 3)
    assert texts(make_source(str(root), "eval")) == {"b.png": "two"}
    assert any("1 of 2 images have no caption, for example 'x/c.png'" in line for line in said)


def test_csv_with_its_habits(photos, said):
    text = '\ufefffile_name,caption,instruction\na.png,"a cat,\nasleep",at night\nb.png,,\n'
    root = photos("a.png", "b.png", metadata_dot_csv=text)
    source = FolderSource(root)
    assert texts(source) == {"a.png": "a cat,\nasleep", "b.png": ""}
    assert source[0]["instruction"] == "at night" and source[1]["instruction"] == ""


def test_marks_and_separators_in_json(photos):
    lines = (
        "\ufeff" + row(file_name="a.png", text="one\u2028two") + row(file_name="b.png", text="x")
    )
    root = photos("a.png", "b.png", metadata_dot_jsonl=lines.replace("\n", "\r\n"))
    assert texts(FolderSource(root)) == {"a.png": "one\u2028two", "b.png": "x"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata_dot_jsonl", b'{"file_name": "a.png", "text": "caf\xe9"}', "no UTF-8 text"),
        ("metadata_dot_csv", "file_name,text\na.png,a,b\n".encode("utf-16"), "no UTF-8 text"),
        ("metadata_dot_csv", "file_name,text\na.png,a,b\n", "line 2: more cells than"),
        ("metadata_dot_csv", "file;text\na.png;x\n", "without 'file_name' there are 'file;text'"),
        ("metadata_dot_csv", 'file_name,text\na.png,"x\n', "no CSV"),
        ("metadata_dot_jsonl", "[" * 100_000, "expected one JSON object"),
        ("metadata_dot_jsonl", row(file_name="../../a.png"), "leaves the folder"),
    ],
)
def test_metadata_that_is_wrong(photos, name, content, message):
    with pytest.raises(UserError, match=message):
        FolderSource(photos("a.png", **{name: content}))


def test_two_files_that_disagree(photos):
    root = photos("x/a.png", metadata_dot_jsonl=row(file_name="x/a.png", text="one"))
    (root / "x" / "metadata.jsonl").write_text(row(file_name="a.png", text="one"))
    assert texts(FolderSource(root)) == {"x/a.png": "one"}  # the same twice
    (root / "x" / "metadata.jsonl").write_text(row(file_name="a.png", text="two"))
    with pytest.raises(UserError, match=r"'x/a\.png' has another row in"):
        FolderSource(root)


def test_texts_beside_the_images(photos, said):
    root = photos("a.png", "b.JPG", "c.d.png", a_dot_txt="a cat \n", b_dot_caption="\ufeffa dog")
    (root / "c.d.txt").write_text("a fox")
    (root / "readme.txt").write_text("no caption")
    source = FolderSource(root)
    assert texts(source) == {"a.png": "a cat", "b.JPG": "a dog", "c.d.png": "a fox"}
    assert any("1 of 4 text files belong to no image, for example 'readme.txt'" in s for s in said)
    (root / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"a\.txt: is no UTF-8 text"):
        source[0]


def test_columns_without_the_suffix(photos, said):
    lines = "".join(
        row(image=f"images/{i}.png", conditioning_image=f"conditioning_images/{i}.png", text="t")
        for i in (1, 2)
    )
    names = [f"{kind}/{i}.png" for kind in ("images", "conditioning_images") for i in (1, 2)]
    source = FolderSource(photos(*names, metadata_dot_jsonl=lines))
    assert source.names == ["images/1.png", "images/2.png"]
    assert (source[1]["conditioning_image"] == 3).all()
    assert any("'conditioning_image' are read as pictures" in line for line in said)


def test_several_captions_are_drawn_from(photos):
    lines = row(file_name="a.png", text=["one", "two", "three"]) + row(
        file_name="b.png", text=["x"]
    )
    source = FolderSource(photos("a.png", "b.png", metadata_dot_jsonl=lines))
    assert source[0]["text"] == "one" and "captions" not in source[1]
    fill = FillPrompt("a photo of {text}")
    drawn = [
        fill.random_map(source[0], np.random.default_rng(seed))["prompt"] for seed in range(20)
    ]
    assert {*drawn} == {f"a photo of {word}" for word in ("one", "two", "three")}
    assert drawn[3] == fill.random_map(source[0], np.random.default_rng(3))["prompt"]


def test_rows_without_a_file_are_counted(photos, said):
    lines = "".join(row(file_name=f"{i}.png", text=str(i)) for i in range(5))
    source = FolderSource(photos("0.png", "1.png", "9.png", metadata_dot_jsonl=lines))
    assert texts(source) == {"0.png": "0", "1.png": "1", "9.png": ""}
    assert any("3 of 5 rows name no image of the folder, for example '2.png'" in s for s in said)
    assert any("1 of 3 images have no caption, for example '9.png'" in line for line in said)
    assert len(said) == len({*said})
    FolderSource(source.root)
    assert len(said) == len({*said})  # the second time says nothing again


def test_linked_folders_are_followed_once(photos, tmp_path_factory, save, said):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "2.png", 2)
    root = photos("1.png", "sub/3.png")
    (root / "more").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "sub")
    (elsewhere / "loop").symlink_to(root)
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "circle.png").symlink_to("circle.png")
    os.mkfifo(root / "pipe.png")
    assert FolderSource(root).names == ["1.png", "more/2.png", "sub/3.png"]
    assert any("4 broken links, pipes or devices" in line for line in said)
    assert any("1 links to folders are followed" in line for line in said)


def test_links_that_are_relative_lead_on_or_lead_above(photos, tmp_path_factory, save, said):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "deep" / "2.png", 2)
    root = photos("sub/1.png")
    (root / "chain").symlink_to("next")
    (root / "next").symlink_to(os.path.relpath(elsewhere, root))
    (root / "sub" / "above").symlink_to("..")  # the root, which is read once
    (root / "one.png").symlink_to(elsewhere / "deep" / "2.png")
    names = FolderSource(root).names
    assert sorted(os.path.realpath(root / name) for name in names) == sorted(
        map(str, [elsewhere / "deep" / "2.png"] * 2 + [root / "sub" / "1.png"])
    )
    assert any("links to folders are followed" in line for line in said)


def test_odd_names(photos):
    names = ["a [1].png", "{b}.PNG", "c'\"d.png", "é.png", "日本.gif", " e.bmp", "x*?.avif"]
    decomposed = unicodedata.normalize("NFD", "é.png")
    lines = row(file_name=decomposed, text="x") + row(file_name="./a [1].png", text="y")
    source = FolderSource(photos(*names, metadata_dot_jsonl=lines))
    assert {*source.names} == {*names}
    assert texts(source)["é.png"] == "x" and texts(source)["a [1].png"] == "y"


def test_backslashes_of_windows(photos):
    root = photos("x/a.png", metadata_dot_jsonl=row(file_name="x\\a.png", text="t"))
    assert texts(FolderSource(root)) == {"x/a.png": "t"}


def test_names_that_are_not_utf8(photos, tmp_path_factory):
    root = photos("a.png")
    data = (root / "a.png").read_bytes()
    for name, content in ((b"caf\xe9.png", data), (b"d\xe9.png", b"nope")):
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(content)
    source = make_source(str(root), "train")
    assert [source[i]["name"] for i in range(2)] == ["a.png", "caf\\xe9.png"]
    good = SkippingSource(source, 5)
    assert [good[i]["name"] for i in range(3)] == ["a.png", "caf\\xe9.png", "a.png"]
    assert "d\\xe9.png" in good.corrupt()[0]
    output = tmp_path_factory.mktemp("shards")
    report = prepare(source, output, PrepareConfig(near_duplicates=-1), label="x")
    assert report["images"]["corrupt"] == 1
    records = make_source(f"{output}/*.array_record", "train")
    assert [records[i]["name"] for i in range(2)] == ["a.png", "caf\\xe9.png"]


def test_kinds_that_are_not_read_are_said_once(photos, said):
    texts = {"a_dot_heic": "x", "b_dot_heic": "x", "c_dot_psd": "x", "_dot_d": "x", "LICENSE": "x"}
    root = photos("a.png", "b.gif", ".thumbs/t.png", **texts)
    for _ in range(2):
        assert FolderSource(root).names == ["a.png", "b.gif"]
    assert said == [
        f"image folder {root}: not read are 2 .heic, 1 .psd, 2 hidden, 1 without a suffix"
    ]


def test_a_folder_of_shards_says_how_they_are_named(photos):
    with pytest.raises(UserError, match=r"no image in it.*\.tar.*by a pattern: .*/\*\.tar"):
        FolderSource(photos(a_dot_tar="x", b_dot_json="{}"))


def test_pictures_beside_the_splits_are_said(photos, said):
    root = photos("train/a.png", "eval/b.png", "cover.png")
    assert make_source(str(root), "train").names == ["a.png"]
    assert any("1 of 1 pictures lie beside train/ and are not read" in line for line in said)
