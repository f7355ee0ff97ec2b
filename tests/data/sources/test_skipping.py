import pickle

import numpy as np
import pytest

from codi_jax.data import pipeline, sources, transforms
from codi_jax.data.images import CorruptError
from codi_jax.typing import UserError


@pytest.fixture
def photos(tmp_path, save):
    for i in range(6):
        save(tmp_path / f"{i}.png", i * 10)
    for i in (2, 3, 5):
        (tmp_path / f"{i}.png").write_bytes(b"")
    return sources.FolderSource(tmp_path)


def test_the_next_good_image_stands_in(photos):
    source = sources.SkippingSource(photos, 3)
    assert [source[i]["name"][0] for i in range(6)] == list("014440")
    assert len(source) == 6
    assert [line.split("/")[-1].split(":")[0] for line in source.corrupt()] == [
        "2.png",
        "3.png",
        "5.png",
    ]
    source[2]  # counted once
    assert len(source.corrupt()) == 3
    with pytest.raises(IndexError):
        source[6]


def test_the_limit_stops_with_all_names(photos):
    source = sources.SkippingSource(photos, 2)
    assert source[2]["name"] == "4.png"
    copied = pickle.loads(pickle.dumps(source))  # as a worker has it: the count is shared
    with pytest.raises(UserError, match=r"3 corrupt.*max_corrupt=2.*/2\.png.*/3\.png.*/5\.png"):
        copied[5]
    with pytest.raises(CorruptError, match=r"2\.png: the file is empty"):
        sources.SkippingSource(photos, 0)[2]
    with pytest.raises(UserError, match="max_corrupt is -1"):
        sources.SkippingSource(photos, -1)


def test_all_corrupt_ends(tmp_path, save):
    save(tmp_path / "a.png", 1)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="every image is corrupt"):
        sources.SkippingSource(sources.FolderSource(tmp_path), 5)[0]


def test_check_source_counts_too(photos):
    sources.check_source(photos, 3)
    with pytest.raises(UserError, match=r"3 corrupt images.*max_corrupt=2"):
        sources.check_source(photos, 2)
    with pytest.raises(CorruptError, match=r"2\.png"):
        sources.check_source(photos)


def test_errors_survive_pickling():
    copied = pickle.loads(pickle.dumps(CorruptError("a.png", "is torn")))
    assert isinstance(copied, CorruptError) and str(copied) == "a.png: is torn"


def batches(source, num_workers, count=4):
    iterator = pipeline.train_iterator(
        source,
        [transforms.RandomCropFlip(8)],
        batch_size=3,
        seed=1,
        num_workers=num_workers,
    )
    result = [next(iterator) for _ in range(count)]
    iterator.close()
    return result


def test_workers_skip_the_same(photos):
    expected = batches(sources.SkippingSource(photos, 3), 0)
    source = sources.SkippingSource(photos, 3)
    for a, b in zip(expected, batches(source, 2), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["name"], b["name"])
    assert len(source.corrupt()) == 3
    with pytest.raises(UserError, match="3 corrupt images, more than data.max_corrupt=2"):
        batches(sources.SkippingSource(photos, 2), 2)
