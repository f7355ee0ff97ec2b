"""WebDataset: tar shards, read at random."""

import array
import json
import operator
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from codi_jax.data.images import MAX_BYTES, SUFFIXES, CorruptError, load_image, readable
from codi_jax.data.regular_files import stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import RESERVED, caption_of, check_image_column, load_column
from codi_jax.data.sources.files import find_files
from codi_jax.data.sources.notes import say_left_out, say_some
from codi_jax.typing import UserError

IMAGES = tuple(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
#: Of the samples that may lack an image column and are left out; more are a mistake of the set.
_MAY_LACK = 0.1


class WebDatasetSource:
    """Uncompressed tar shards whose members of one key make a sample, in any order.

    The key of a member is its path up to the first dot of the file's name; what follows says
    what it is: `.jpg`, `.png` and so on (:data:`IMAGES`) the image, `.txt` the caption, or `.json`
    with "text" or "caption"; `.X.png` (or another image) the image column X, `.X.txt` the string X.
    Members of other kinds, hidden ones, links and folders are left out, as are samples without an
    image; how many is said.

    The shards are read once through, for an index of where each member lies: 16 bytes a
    member and the keys, and half a minute for a million.

    Args:
        paths: a glob pattern, or the paths themselves; read in sorted order.

    Raises:
        UserError: no such file, no (uncompressed) tar file, no sample, a sample of two images, or
            many samples that lack an image column that others have.
    """

    def __init__(self, paths: str | Sequence[str | os.PathLike[str]]) -> None:
        self._paths = find_files(paths, "tar shards")
        index = _Index()
        self._starts = [0]  # the first sample of each shard
        left_out: Counter[str] = Counter()
        for path in self._paths:
            for name, offset, size in _members(path, left_out):
                key, kind = _split(name)
                if _is_known(kind):
                    index.add(key, kind, offset, size)
                else:
                    left_out[f".{readable(kind)}" if kind else "without a suffix"] += 1
            index.close_shard()
            self._starts.append(len(index))
        where = f"tar shards {readable(str(paths))}"
        say_left_out(where, left_out)
        self._members, self._keys, self._key_ends = index.arrays()
        if len(index):
            self._keep(self._complete(where))
        if len(self) == 0:
            raise UserError(
                f"{where}: no sample in them has an image ({' '.join('.' + k for k in IMAGES)}); "
                "check the path. A sample's name ends at the first dot."
            )

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
                element["text"], captions = _caption(data, what)
                if captions:
                    element["captions"] = captions
            elif column:
                element[column] = load_column(column, data, what)
            else:
                element["image"] = load_image(data, what)
        return element

    def made_of(self, index: int) -> str | None:
        """The shard with its stamp, and where the members lie in it."""
        index = operator.index(index)
        path = self._paths[int(np.searchsorted(self._starts, index, side="right")) - 1]
        places = [
            (kind, *(int(v[index]) for v in member)) for kind, member in self._members.items()
        ]
        try:
            return repr((os.path.abspath(path), stamp_of(path), self._name(index), places))
        except OSError:
            return None

    def _read(self, index: int, kind: str) -> bytes | None:
        offset, size = (int(values[index]) for values in self._members[kind])
        if offset < 0:
            return None
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        if size > MAX_BYTES:
            raise CorruptError(self._name(index), f"a member of {size} bytes, above {MAX_BYTES}.")
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
        key = self._keys[start : int(self._key_ends[index])].decode("utf-8", "backslashreplace")
        return f"{Path(self._paths[shard]).name}/{key}"

    def _complete(self, where: str) -> np.ndarray:
        """bool [N]: the samples that have one image and every image column; says how many not."""
        present = {kind: offsets >= 0 for kind, (offsets, _) in self._members.items()}
        nothing = np.zeros(len(self), bool)
        pictures = np.sum(
            [nothing, *(present[k] for k in IMAGES if k in present)], axis=0, dtype=int
        )
        if pictures.max() > 1:
            raise UserError(f"{self._name(int(pictures.argmax()))}: has two images; keep one.")
        complete = pictures == 1
        self._say(f"{where}: samples without an image", "samples have no image", ~complete)
        for column, there in self._image_columns(present).items():
            lacking = complete & ~there
            if not (complete & there).any():  # of samples that are left out
                continue
            if lacking.sum() > _MAY_LACK * complete.sum():
                raise UserError(
                    f"{self._name(int(lacking.argmax()))}: has no {column!r}, which others "
                    "have; give it to every sample or to none."
                )
            self._say(where, f"samples have no {column!r} and are left out", lacking)
            complete &= there
        return complete

    def _image_columns(self, present: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Image column -> which samples have it; checks the names of all columns."""
        columns: dict[str, np.ndarray] = {}
        for kind, there in present.items():
            column, _, suffix = kind.rpartition(".")
            if column and suffix == "txt" and column in RESERVED:
                raise UserError(f"{self._paths[0]}: no column can be called {column!r}; rename it.")
            if column and suffix in IMAGES:
                check_image_column(column, self._paths[0])
                columns[column] = columns.get(column, np.zeros(len(self), bool)) | there
        return columns

    def _say(self, where: str, what: str, samples: np.ndarray) -> None:
        names = [self._name(int(i)) for i in np.flatnonzero(samples)[:100]]
        if names:
            say_some(where, f"(or more) {what}" if len(names) == 100 else what, names, len(self))

    def _keep(self, samples: np.ndarray) -> None:
        """Drop the other samples from the index; bool [N]."""
        if samples.all():
            return
        starts = np.concatenate([[0], self._key_ends[:-1]])
        kept = np.flatnonzero(samples)
        self._keys = b"".join(self._keys[starts[i] : self._key_ends[i]] for i in kept)
        self._key_ends = np.cumsum((self._key_ends - starts)[kept])
        self._starts = [int(samples[:start].sum()) for start in self._starts]
        self._members = {
            kind: (offsets[kept], sizes[kept])
            for kind, (offsets, sizes) in self._members.items()
            if (offsets[kept] >= 0).any()
        }


class _Index:
    """Grows by one member at a time, in flat arrays: a million members are no burden."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[array.array, array.array]] = {}
        self._keys, self._key_ends = bytearray(), array.array("q")
        self._open: dict[str, int] = {}  # key -> number, in the shard that is read

    def __len__(self) -> int:
        return len(self._key_ends)

    def add(self, key: str, kind: str, offset: int, size: int) -> None:
        number = self._open.get(key)
        if number is None:
            number = self._open[key] = len(self)
            self._keys += key.encode("utf-8", "surrogateescape")
            self._key_ends.append(len(self._keys))
        offsets, sizes = self._members.setdefault(kind, (array.array("q"), array.array("q")))
        self._pad(offsets, sizes, number + 1)
        if offsets[number] >= 0:
            raise UserError(
                f"tar sample {readable(key)!r} has two members {kind!r}; keep one of them."
            )
        offsets[number], sizes[number] = offset, size

    def close_shard(self) -> None:
        """The same key in the next shard is another sample."""
        self._open = {}

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


def _members(path: str, left_out: Counter[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of each plain file, in the order of the shard."""
    last = -1
    try:
        with tarfile.open(path, "r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                if not 0 <= info.size < 2**62 or info.offset_data <= last:
                    raise tarfile.ReadError(f"a member has the size {info.size}")
                last = info.offset_data
                if not info.isreg() or info.issparse():
                    left_out["folders, links or special members"] += not info.isdir()
                elif PurePosixPath(info.name).name.startswith("."):
                    left_out["hidden"] += 1
                else:
                    yield info.name, info.offset_data, info.size
    # Damaged headers raise many types, a chain of long names even RecursionError.
    except (
        tarfile.TarError,
        OSError,
        ValueError,
        OverflowError,
        EOFError,
        RecursionError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"tar shard {readable(path)}: {error}; it must be a whole, uncompressed tar file."
        ) from error


def _split(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, kind.lower()


def _is_known(kind: str) -> bool:
    return kind == "json" or kind.split(".")[-1] in (*IMAGES, "txt")


def _decode_text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise CorruptError(name, f"is no UTF-8 text ({error}).") from error


def _caption(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(name, f"is no JSON ({error}).") from error
    return caption_of(row) if isinstance(row, dict) else ("", ())
