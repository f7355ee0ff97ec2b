"""A source that counts what it decodes, and a cache before it."""

from pathlib import Path

import numpy as np

from codi_jax.data import sources

SIDE = 40  # 4,800 bytes a picture: two blocks of a file


class Counting(sources.FolderSource):
    """Notes which images are decoded."""

    def __init__(self, path):
        super().__init__(path)
        self.reads = []

    def __getitem__(self, index):
        self.reads.append(index)
        return super().__getitem__(index)


def cached(source, mode="memory", **changed):
    options = {
        "label": str(source.root) if hasattr(source, "root") else "x",
        "max_gb": 1.0,
        "reads": 10**6,
        "image_bytes": 4096.0,
        "disk": source.root.parent / "disk" if hasattr(source, "root") else Path(),
    }
    return sources.cached(source, mode, **{**options, **changed})


def elements(source):
    return [source[i] for i in range(len(source))]


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        assert list(a) == list(b)
        for key, value in a.items():
            assert type(value) is type(b[key])
            np.testing.assert_array_equal(b[key], value, err_msg=key)
            assert getattr(value, "dtype", None) == getattr(b[key], "dtype", None)
