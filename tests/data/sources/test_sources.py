import numpy as np
import pytest
from PIL import Image

from codi_jax.data import sources
from codi_jax.typing import UserError


def test_make_source_splits_a_folder(folder, tmp_path, save):
    assert len(sources.make_source(str(folder), "train")) == 5
    assert len(sources.make_source(str(folder), "eval")) == 5
    save(tmp_path / "split" / "train" / "a.png", 1)
    assert len(sources.make_source(str(tmp_path / "split"), "train")) == 1
    # Never the training images under the name of evaluation.
    with pytest.raises(UserError, match="split/eval: no such folder"):
        sources.make_source(str(tmp_path / "split"), "eval")
    save(tmp_path / "split" / "test" / "t.png", 1)
    assert sources.make_source(str(tmp_path / "split"), "eval").names == ["t.png"]


def test_make_source_that_is_wrong(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        sources.make_source(str(tmp_path / "nowhere"), "train")
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="void: no image in it.*\\.png"):
        sources.make_source(str(tmp_path / "void"), "train")
    with pytest.raises(UserError, match=r"x\*\.array_record: no such file"):
        sources.make_source(str(tmp_path / "x*.array_record"), "train")
    with pytest.raises(UserError, match="data source is empty"):
        sources.make_source("", "train")
    with pytest.raises(UserError, match="'trian'.*train, eval"):
        sources.make_source("skimage", "trian")


def test_skimage_photos_are_colour_and_splits_are_disjoint():
    train, held_out = (sources.make_source("skimage", s) for s in ("train", "eval"))
    names = [{s[i]["name"] for i in range(len(s))} for s in (train, held_out)]
    assert len(names[0]) == len(train) >= 5 and len(names[1]) == len(held_out) >= 2
    assert not names[0] & names[1]
    scenes = [{n.split("_")[0].split(".")[0] for n in side} for side in names]
    assert not scenes[0] & scenes[1]
    for source in (train, held_out):
        for i in range(len(source)):
            image = source[i]["image"].astype(int)
            assert min(image.shape[:2]) >= 256 and source[i]["text"]
            assert np.abs(image[..., 0] - image[..., 2]).mean() > 3  # not grey


def test_check_source_names_the_broken_file(folder):
    sources.check_source(sources.FolderSource(folder))
    (folder / "a" / "cc.png").write_bytes(b"")
    source = sources.FolderSource(folder)
    with pytest.raises(UserError, match=r"cc\.png.*0 bytes"):
        sources.check_source(source, decode=0)
    sources.check_source(source, limit=2, decode=0)  # two headers only: not reached


def test_check_source_decodes_a_few(folder):
    path = folder / "zz.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])  # the header is whole
    with pytest.raises(UserError, match=r"zz\.jpg: broken"):
        sources.check_source(sources.FolderSource(folder))
