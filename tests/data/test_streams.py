"""Every source gives the same stream for every number of workers and hosts."""

import importlib.util
import io
import itertools
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from codi_jax.data import pipeline, sources, transforms
from codi_jax.data.images import save_image

STEPS = (transforms.RandomCropFlip(16),)
COUNT = 6
#: TensorFlow data sets are among the sources where the extra `tfds` is installed.
TFDS = all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorflow_datasets"))


class Together:
    """Several sources as one, so that one set of workers reads them all; common keys only."""

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return sum(map(len, self.parts))

    def __getitem__(self, index):
        for part in self.parts:
            if index < len(part):
                return {key: part[index][key] for key in ("image", "text", "name")}
            index -= len(part)
        raise IndexError(index)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def every_source(tmp_path_factory, monkeypatch_module):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    root = tmp_path_factory.mktemp("every")
    rng = np.random.default_rng(0)
    files = []
    for i in range(COUNT):
        save_image(root / "folder" / f"{i}.png", rng.integers(0, 256, (20, 24, 3), np.uint8))
        files.append((root / "folder" / f"{i}.png").read_bytes())
    rows = [{"file_name": f"{i}.png", "text": f"number {i}"} for i in range(COUNT)]
    (root / "folder" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "folder" / "corrupt.png").write_bytes(b"")
    with tarfile.open(root / "a.tar", "w") as tar:
        for i, data in enumerate(files):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pq.write_table(
        pa.table({"image": [{"bytes": data, "path": None} for data in files]}),
        root / "a.parquet",
        row_group_size=2,
    )
    records = [{"name": f"r{i}", "text": "", "image": data} for i, data in enumerate(files)]
    sources.write_array_record(root / "a.array_record", map(sources.pack_record, records))
    specs = ("folder", "a.tar", "a.parquet", "a.array_record")
    parts = [sources.make_source("skimage", "train")]
    parts += [sources.make_source(str(root / spec), "train") for spec in specs]
    if TFDS:
        # Data workers import the builder, too: they are handed this process's sys.path.
        monkeypatch_module.syspath_prepend(Path(__file__).parent)
        import tiny_flowers

        tiny_flowers.prepare(root / "tfds")
        parts.append(sources.make_source("tfds:tiny_flowers", "train", str(root / "tfds")))
    return Together(parts)


def stream(source, count, **options):
    values = {"batch_size": 3, "seed": 5, "num_workers": 0, **options}
    iterator = pipeline.train_iterator(sources.SkippingSource(source, 1), STEPS, **values)
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


@pytest.fixture(scope="module")
def every_cached(every_source, tmp_path_factory):
    """The same with a cache before each, of which the smallest is full after a few pictures."""
    disk = tmp_path_factory.mktemp("decoded")
    options = {"reads": 10**6, "image_bytes": 1.0, "disk": disk}
    parts = [
        sources.cached(part, "disk", label=str(number), max_gb=10 if number else 1e-4, **options)
        for number, part in enumerate(every_source.parts)
    ]
    assert all(isinstance(part, sources.CachedSource) for part in parts)
    return Together(parts)


@pytest.mark.slow
def test_workers_do_not_change_the_stream(every_source, every_cached):
    assert [len(part) for part in every_source.parts] == [
        7, COUNT + 1, COUNT, COUNT, COUNT, *[18] * TFDS
    ]  # fmt: skip
    count = -(-len(every_source) // 3) + 1  # into the second epoch
    expected = stream(every_source, count)
    for num_workers, source in ((1, every_source), (2, every_cached), (4, every_cached)):
        found = stream(source, count, num_workers=num_workers)
        for a, b in zip(expected, found, strict=True):
            assert a.keys() == b.keys() == {"image", "text", "name"}
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{num_workers} {key}")
    counts = [part.folder.counts() for part in every_cached.parts]
    assert counts[0].images < 7 and counts[0].refused
    for part, count in zip(every_cached.parts[1:], counts[1:], strict=True):
        assert count.images == len(part) - (part is every_cached.parts[1])  # one is corrupt


def test_two_hosts_see_each_sample_once_an_epoch(every_source):
    for source in every_source.parts[2:]:
        names = Counter()
        for host in (0, 1):
            batches = stream(
                source, len(source) // 6, batch_size=3, shard_index=host, shard_count=2
            )
            names.update(name for batch in batches for name in batch["name"])
        assert len(names) == len(source) and set(names.values()) == {1}
