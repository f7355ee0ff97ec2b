"""WebDataset: tar shards, read at random."""

import array
import json
import operator
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from codi_jax.data.images import CorruptError, load_image
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import RESERVED, check_image_column, load_column
from codi_jax.data.sources.files import find_files
from codi_jax.typing import UserError

IMAGES = ("jpg", "jpeg", "png", "webp", "tif", "tiff")


class WebDatasetSource:
    """Uncompressed tar shards whose neighbouring members of one key make a sample.

    The key of a member is its path up to the first dot of the file's name; what follows says
    what it is: `.jpg .jpeg .png .webp .tif .tiff` the image, `.txt` the caption, or `.json` with
    "text" or "caption"; `.X.png` (or another image) the image column X, `.X.txt` the string X.
    Members of other kinds, hidden ones, links and folders are left out.

    The shards are read once through, for an index of where each member lies: 16 bytes a
    member and the keys, and half a minute for a million.

    Args:
        paths: a glob pattern, or the paths themselves; read in sorted order.

    Raises:
        UserError: no such file, no (uncompressed) tar file, no sample, a sample that has no image,
            or lacks an image column that others have.
    """

    def __init__(self, paths: str | Sequence[str | os.PathLike[str]]) -> None:
        self._paths = find_files(paths, "tar shards")
        index = _Index()
        self._starts = [0]  # the first sample of each shard
        for path in self._paths:
            for name, offset, size in _members(path):
                key, kind = _split(name)
                index.add(key, kind, offset, size)
            index.close_sample()
            self._starts.append(len(index))
        if len(index) == 0:
            raise UserError(f"tar shards {paths}: no sample in them; check the path.")
        self._members, self._keys, self._key_ends = index.arrays()
        self._check()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = self._name(index)
        element: Element = {"image": None, "text": "", "name": name}
        for kind in self._members:
            data = self._read(index, kind)
            column, _, suffix = kind.rpartition(".")
            what = f"{name}.{kind}"
            if data is None:
                if suffix == "txt" and column:
                    element[column] = ""
            elif suffix == "txt":
                element[column or "text"] = _decode_text(data, what)
            elif suffix == "json":
                # "txt" comes later in the sorted kinds: where there are both, it stays.
                element["text"] = _caption(data, what)
            elif column:
                element[column] = load_column(column, data, what)
            else:
                element["image"] = load_image(data, what)
        return element

    def _read(self, index: int, kind: str) -> bytes | None:
        offset, size = (int(values[index]) for values in self._members[kind])
        if offset < 0:
            return None
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        try:
            with open(self._paths[shard], "rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise CorruptError(self._name(index), f"cannot be read ({error}).") from error
        if len(data) != size:
            raise CorruptError(self._name(index), "the shard ends inside it; write it again.")
        return data

    def _name(self, index: int) -> str:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        start = int(self._key_ends[index - 1]) if index else 0
        key = self._keys[start : int(self._key_ends[index])].decode()
        return f"{Path(self._paths[shard]).name}/{key}"

    def _check(self) -> None:
        present = {kind: offsets >= 0 for kind, (offsets, _) in self._members.items()}
        pictures = np.sum([present[k] for k in IMAGES if k in present], axis=0, dtype=int)
        wrong = np.flatnonzero(np.broadcast_to(pictures, len(self)) != 1)
        if len(wrong):
            raise UserError(
                f"{self._name(int(wrong[0]))}: needs one image "
                f"({' '.join('.' + k for k in IMAGES)}); the key ends at the first dot."
            )
        columns: dict[str, np.ndarray] = {}
        for kind, there in present.items():
            column, _, suffix = kind.rpartition(".")
            if column and suffix == "txt" and column in RESERVED:
                raise UserError(f"{self._paths[0]}: no column can be called {column!r}; rename it.")
            if column and suffix in IMAGES:
                check_image_column(column, self._paths[0])
                columns[column] = columns.get(column, np.zeros(len(self), bool)) | there
        for column, there in columns.items():
            if not there.all():
                raise UserError(
                    f"{self._name(int(np.argmin(there)))}: has no {column!r}, which others "
                    "have; give it to every sample or to none."
                )


class _Index:
    """Grows by one member at a time, in flat arrays: a million members are no burden."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[array.array, array.array]] = {}
        self._keys, self._key_ends = bytearray(), array.array("q")
        self._open: str | None = None

    def __len__(self) -> int:
        return len(self._key_ends)

    def add(self, key: str, kind: str, offset: int, size: int) -> None:
        if not _is_known(kind):
            return
        if key != self._open:
            self.close_sample()
            self._open = key
            self._keys += key.encode()
            self._key_ends.append(len(self._keys))
        offsets, sizes = self._members.setdefault(kind, (array.array("q"), array.array("q")))
        self._pad(offsets, sizes, len(self) - 1)
        if len(offsets) == len(self):
            raise UserError(f"tar sample {key!r} has two members {kind!r}; keep one of them.")
        offsets.append(offset)
        sizes.append(size)

    def close_sample(self) -> None:
        self._open = None

    def arrays(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], bytes, np.ndarray]:
        """Kind -> (offsets, sizes), -1 where absent; the keys in one string; where they end."""
        for offsets, sizes in self._members.values():
            self._pad(offsets, sizes, len(self))
        members = {
            kind: (np.array(offsets), np.array(sizes))
            for kind, (offsets, sizes) in sorted(self._members.items())
        }
        return members, bytes(self._keys), np.array(self._key_ends)

    @staticmethod
    def _pad(offsets: array.array, sizes: array.array, length: int) -> None:
        missing = length - len(offsets)
        if missing > 0:
            offsets.extend([-1] * missing)
            sizes.extend([0] * missing)


def _members(path: str) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of each plain file, in the order of the shard."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                if info.isreg() and not PurePosixPath(info.name).name.startswith("."):
                    yield info.name, info.offset_data, info.size
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"tar shard {path}: {error}; it must be a whole, uncompressed tar file."
        ) from error


def _split(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, kind.lower()


def _is_known(kind: str) -> bool:
    return kind == "json" or kind.split(".")[-1] in (*IMAGES, "txt")


def _decode_text(data: bytes, name: str) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise CorruptError(name, f"is no UTF-8 text ({error}).") from error


def _caption(data: bytes, name: str) -> str:
    try:
        row = json.loads(data)
    except ValueError as error:
        raise CorruptError(name, f"is no JSON ({error}).") from error
    row = row if isinstance(row, dict) else {}
    return str(row.get("text") or row.get("caption") or "")
