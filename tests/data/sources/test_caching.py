"""Decoded pictures that are kept: the same elements, however the cache fares."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from codi_jax.data import sources
from codi_jax.data.degradation import SecondOrder
from codi_jax.data.images import save_image
from codi_jax.data.pipeline import train_iterator
from codi_jax.data.sources import caching, notes
from codi_jax.data.transforms import Degrade, RandomCropFlip
from codi_jax.typing import UserError
from tests.data.sources.counting import SIDE, Counting, assert_equal, cached, elements

pytestmark = pytest.mark.usefixtures("memory")


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_each_picture_is_decoded_once(noise, mode):
    source = Counting(noise)
    expected = elements(sources.FolderSource(noise))
    kept = cached(source, mode)
    for _ in range(3):
        assert_equal(expected, elements(kept))
    assert source.reads == [0, 1, 2, 3, 4, 5]
    with pytest.raises(IndexError):
        kept[6]
    assert_equal(expected[-1:], [kept[-1]])


def test_what_is_written_into_a_picture_stays_there(noise):
    kept = cached(Counting(noise))
    expected = elements(sources.FolderSource(noise))
    kept[0], kept[0]["image"].fill(9)
    kept[0]["name"] = "changed"
    assert_equal(expected, elements(kept))


def test_the_disk_is_still_there_in_the_next_run_and_memory_is_not(noise, memory):
    for mode, again in (("disk", []), ("memory", [0, 1, 2, 3, 4, 5])):
        kept = cached(Counting(noise), mode)
        elements(kept)
        del kept
        source = Counting(noise)
        kept = cached(source, mode)
        elements(kept)
        assert source.reads == again, mode
    del kept
    assert [path for path in memory.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("change", ["content", "caption", "columns"])
def test_a_file_that_changed_is_decoded_anew(noise, change):
    source = Counting(noise)
    kept = cached(source, "disk")
    elements(kept)
    if change == "content":  # of the same size, and with the time of the old one
        path, times = noise / "3.png", os.stat(noise / "3.png")
        Path(path).write_bytes((noise / "4.png").read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert_equal(elements(sources.FolderSource(noise)), elements(kept))
        assert source.reads[6:] == [3]
        assert_equal(elements(sources.FolderSource(noise)), elements(kept))
        assert source.reads[6:] == [3] and kept.folder.counts().images == 6
        return
    rows = [{"file_name": "3.png", "text": "a dog"}]
    if change == "columns":
        for i in range(6):
            save_image(noise / "m" / f"{i}.png", np.full((SIDE, SIDE), i, np.uint8))
        rows = [{"file_name": f"{i}.png", "mask_file_name": f"m/{i}.png"} for i in range(6)]
    (noise / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    again = cached(Counting(noise), "disk")
    assert_equal(elements(sources.FolderSource(noise)), elements(again))
    assert_equal(elements(sources.FolderSource(noise)), elements(again))


def test_a_file_that_changes_while_it_is_read_is_not_kept(noise):
    class Changing(Counting):
        def __getitem__(self, index):
            element = super().__getitem__(index)
            os.utime(noise / self.names[index])
            return element

    kept = cached(Changing(noise))
    elements(kept)
    assert kept.folder.counts().images == 0


def test_the_bound_holds_and_is_said_once(noise, caplog):
    source = Counting(noise)
    kept = cached(source, max_gb=2.5 * 8192 / 1e9)
    expected = elements(sources.FolderSource(noise))
    for _ in range(3):
        assert_equal(expected, elements(kept))
    assert source.reads == [0, 1, 2, 3, 4, 5, *[2, 3, 4, 5] * 2]
    assert kept.folder.counts()[:2] == (2 * 8192, 2)
    assert sum(path.stat().st_size for path in kept.folder.path.glob("*/*")) <= 2 * 8192
    del kept
    (said,) = [text for text in caplog.messages if "data.cache" in text]
    assert "2 of 6 pictures are kept decoded in memory, 1.64e-05 GB" in said
    assert "the others exceed data.cache_gb=2.05e-05 and are decoded each time" in said


def test_one_message_says_what_is_kept(noise, caplog):
    kept = cached(Counting(noise), "disk")
    kept[0], kept[1]
    assert not caplog.messages
    del kept
    assert "2 of 6 pictures are kept decoded on disk" in caplog.messages[-1]
    kept = cached(Counting(noise), "disk")
    elements(kept), elements(kept)
    del kept
    assert "all 6 pictures are kept decoded on disk, 4.92e-05 GB" in caplog.messages[-1]
    assert len(caplog.messages) == 2
    notes._said.clear()
    cached(Counting(noise), "disk")  # the next run says it at its start
    assert len(caplog.messages) == 3


def test_auto_is_off_where_nothing_is_won_or_too_much_is_taken(noise, caplog, monkeypatch):
    source = Counting(noise)
    assert cached(source, "off") is source
    assert cached(source, "auto", reads=6) is source and not caplog.messages
    assert isinstance(cached(source, "auto", reads=7), sources.CachedSource)
    assert cached(source, "auto", max_gb=4e-5) is source
    assert (
        "6 pictures take about 4.92e-05 GB decoded, more than data.cache_gb=4e-05"
        in (caplog.messages[-1])
    )
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 40_000}))
    assert cached(source, "auto") is source
    assert "half of the 4e-05 GB free in" in caplog.messages[-1]
    with pytest.raises(UserError, match="config.data.cache='ram' is unknown: choose one of auto"):
        cached(source, "ram")


def test_a_source_that_makes_its_pictures_is_not_cached(caplog):
    source = sources.make_source("synthetic:depth", "train")
    assert cached(source, "auto") is source and not caplog.messages
    assert cached(source, "disk") is source
    assert "x is not cached: its pictures are made on the fly" in caplog.messages[-1]


def test_other_decoders_have_a_folder_of_their_own(monkeypatch):
    name = caching._name("photos")
    assert name == caching._name("./photos") != caching._name("photo")
    monkeypatch.setattr(caching.features, "version", lambda codec: "9.9")
    assert caching._name("photos") != name


def test_a_resumed_stream_is_the_same_with_every_cache(noise, tmp_path):
    steps = [RandomCropFlip(32), Degrade(SecondOrder(), 4, clean_share=0.3)]

    def batches(mode, max_gb=1.0, state=None):
        source = cached(sources.FolderSource(noise), mode, max_gb=max_gb)
        iterator = train_iterator(source, steps, batch_size=2, seed=3, num_workers=0)
        if state is not None:
            iterator.set_state(state)
        found = [next(iterator) for _ in range(4)]
        state = iterator.get_state()
        iterator.close()
        return found, state

    expected, state = batches("off")
    later, _ = batches("off", state=state)
    for options in (("memory",), ("disk",), ("disk",), ("memory", 3e-5)):
        first, reached = batches(*options)
        assert reached == state
        assert_equal(expected, first)
        assert_equal(later, batches(*options, state=reached)[0])
