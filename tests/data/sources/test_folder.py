import json

import numpy as np
import pytest
from PIL import Image

from codi_jax.data import sources
from codi_jax.typing import UserError


def test_folder_is_recursive_sorted_and_any_case(folder):
    source = sources.FolderSource(folder)
    assert [source[i]["name"] for i in range(len(source))] == [
        "a/b/d.webp",
        "a/c.PNG",
        "b.png",
        "t.TIFF",
        "z.jpeg",
    ]
    element = source[1]
    assert element["text"] == "" and element["image"].shape == (6, 8, 3)
    assert (element["image"] == 40).all()
    with pytest.raises(IndexError):
        source[5]


def test_folder_captions(folder):
    rows = [{"file_name": "b.png", "text": "a bee"}, {"file_name": "a/c.PNG", "text": "Zoë"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    source = sources.FolderSource(folder)
    assert [source[i]["text"] for i in range(3)] == ["", "Zoë", "a bee"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "../b.png", "text": "x"}', "line 2.*leaves the folder"),
        ('{"file_name": "/etc/b.png", "text": "x"}', "line 2.*leaves the folder"),
        ('{"text": "b.png"}', "line 2: expected.*'file_name'"),
        ('["b.png"]', "line 2: expected"),
        ('{"file_name": "z.jpeg"}', "line 2: 'z.jpeg' has a line already"),
        ('{"file_name": "b.png", "mask_file_name": "m.png"}', "line 2: mask_file_name.*no image"),
        (
            '{"file_name": "b.png", "lr_file_name": "a/c.PNG"}',
            "line 2: an image column.*'lr'.*rename",
        ),
        ('{"file_name": "b.png", "x_file_name": "t.TIFF"}', "'a/b/d.webp' has no 'x_file_name'"),
        ("{broken", "line 2: expected"),
    ],
)
def test_folder_captions_that_are_wrong(folder, line, message):
    first = '{"file_name": "z.jpeg", "text": "fine"}\n'
    (folder / "metadata.jsonl").write_text(first + line)
    with pytest.raises(UserError, match=message):
        sources.FolderSource(folder)


def test_folder_columns(tmp_path, save):
    depth = np.array([[0, 1000, 65535]], np.uint16)
    rows = []
    for i in range(2):
        save(tmp_path / f"{i}.png", i)
        save(tmp_path / "more" / f"mask{i}.png", 100 + i)
        save(tmp_path / "more" / f"canny{i}.jpg", 200)
        (tmp_path / "more").mkdir(exist_ok=True)
        Image.fromarray(depth + np.uint16(i == 0)).save(tmp_path / "more" / f"d{i}.png")
        rows.append(
            {
                "file_name": f"{i}.png",
                "mask_file_name": f"more/mask{i}.png",
                "canny_file_name": f"more/canny{i}.jpg",
                "depth_file_name": f"more/d{i}.png",
                "instruction": "make it night",
                "likes": 3,
                "name": "left out",
            }
        )
    del rows[0]["instruction"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = sources.FolderSource(tmp_path)
    assert source.names == ["0.png", "1.png"]  # what a column names is no sample
    element = source[1]
    assert element.keys() == {"image", "text", "name", "mask", "canny", "depth", "instruction"}
    assert element["text"] == "" and element["instruction"] == "make it night"
    assert element["name"] == "1.png" and source[0]["instruction"] == ""
    np.testing.assert_array_equal(element["depth"], depth)
    assert element["depth"].dtype == np.uint16
    assert element["mask"].shape == (6, 8) and (element["mask"] == 101).all()
    assert element["canny"].shape == (6, 8, 3) and element["canny"].dtype == np.uint8
    (tmp_path / "more" / "d0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"d0\.png: the file is empty"):
        source[0]
