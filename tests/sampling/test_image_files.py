import json

import numpy as np
import pytest

from codi_jax.data.images import save_image
from codi_jax.sampling.image_files import (
    ImageFiles,
    _remedy,
    all_files,
    captions,
    check_shapes,
    matched,
)
from codi_jax.typing import UserError


def folder(root, **sizes):
    for i, (stem, (suffix, height)) in enumerate(sizes.items()):
        save_image(
            root / f"{stem.replace('__', '/')}{suffix}", np.full((height, 9, 3), i, np.uint8)
        )
    return root


def test_files_are_matched_by_path_without_suffix(tmp_path):
    a = folder(tmp_path / "a", b=(".png", 8), sub__a=(".png", 9))
    b = folder(tmp_path / "b", sub__a=(".webp", 9), b=(".jpg", 8))
    images, references = matched(a, b)
    assert images.names == ("b.png", "sub/a.png")
    assert references.names == ("b.jpg", "sub/a.webp")
    assert [x.shape[0] for x in references] == [8, 9]
    assert (images[1] == 1).all()
    check_shapes(images, references)
    assert isinstance(images[:1], ImageFiles)
    assert len(images[:1]) == 1
    assert len(all_files(a)) == 2


@pytest.mark.parametrize(
    ("left", "right", "says"),
    [
        ({"x": (".png", 8), "y": (".png", 8)}, {"x": (".png", 8)}, r"a/y.png has no .* in .*b "),
        ({"x": (".png", 8)}, {"x": (".png", 8), "y": (".png", 8)}, r"b/y.png has no .* in .*a "),
    ],
)
def test_a_file_without_counterpart_is_named(tmp_path, left, right, says):
    with pytest.raises(UserError, match=says):
        matched(folder(tmp_path / "a", **left), folder(tmp_path / "b", **right))


def test_two_files_of_one_name_and_unequal_sizes_are_named(tmp_path):
    a = folder(tmp_path / "a", x=(".png", 8))
    b = folder(tmp_path / "b", x=(".png", 10))
    with pytest.raises(UserError, match="a/x.png is 9x8 pixels, but .*b/x.png 9x10"):
        check_shapes(*matched(a, b))
    larger = folder(tmp_path / "c", x=(".png", 21))
    with pytest.raises(UserError, match="magick mogrify -path RESULTS -resize 9x21! .*/a"):
        check_shapes(*matched(a, larger))
    assert "4 times smaller" in _remedy(a, np.zeros((8, 9, 3)), np.zeros((32, 36, 3)))
    assert "on its side" in _remedy(a, np.zeros((8, 9, 3)), np.zeros((9, 8, 3)))
    folder(a, x=(".jpg", 8))
    with pytest.raises(UserError, match="x.jpg and x.png"):
        matched(a, b)


def test_captions(tmp_path):
    root = folder(tmp_path, a=(".png", 8), b=(".png", 8))
    line = json.dumps({"file_name": "b.png", "text": "a bee"})
    (root / "metadata.jsonl").write_text(line)
    assert captions(all_files(root)) == ["", "a bee"]
