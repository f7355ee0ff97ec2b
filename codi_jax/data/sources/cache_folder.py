"""A folder of decoded elements that processes and runs share, bounded in bytes.

Below a root there is a folder for each source, with one file for each of its images. A lock of the
root orders whatever counts bytes or removes folders; who uses a source holds a lock of its folder.
The operating system frees the locks of a process that was killed. What it leaves is a file that was
not given its name yet, and it is removed by the next one that uses the folder.
"""

import contextlib
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from codi_jax.data.regular_files import replacing
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.cache_entry import blocks, disk_bytes, read_entry, write_entry

_LOCK, _USERS, _COUNTS = ".lock", ".users", ".counts"
_PER_FOLDER = 1000  # files


class Counts(NamedTuple):
    """What a folder holds."""

    bytes: int = 0
    images: int = 0
    refused: int = 0  #: 1 when an image did not fit any more.


_PACKED = struct.Struct("<qqq")


class CacheFolder:
    """The decoded elements of one source. It may be pickled into worker processes.

    Args:
        root: of all caches of a kind.
        name: of the source's folder.
        max_bytes: of all folders below the root.
    """

    def __init__(self, root: Path, name: str, max_bytes: int) -> None:
        self.path = root / name
        self.max_bytes = max_bytes
        self._root = root
        self._verified: dict[Path, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_verified": {}}

    def read(self, index: int, stamp: str) -> Element | None:
        """Image ``index``, if it is there and was made of what ``stamp`` says."""
        return read_entry(self._file(index), stamp, self._verified)

    def write(self, index: int, stamp: str, element: Element) -> Counts | None:
        """Keep image ``index``, unless it would exceed the bound.

        Returns:
            What the folder now holds, if this call has changed it; None if it was full before.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        path, size = self._file(index), disk_bytes(element)
        if self.counts().refused and self._total() + size > self.max_bytes:
            return None
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                with replacing(path) as file:
                    write_entry(file, stamp, element)
                    size = blocks(file.tell())
                    stack.enter_context(_locked(self._root))
                    counts, old = self.counts(), _size(path)
                    if self._total() - old + size > self.max_bytes:
                        raise _FullError
                counts = counts._replace(
                    bytes=counts.bytes - old + size, images=counts.images + (old == 0)
                )
            except _FullError:
                if counts.refused:  # another process was told in the meantime
                    return None
                counts = counts._replace(refused=1)
            self._set(counts)
        return counts

    def counts(self) -> Counts:
        """What the folder holds now."""
        return _counts(self.path)

    def open(self, wanted: int, *, keep: bool) -> int:
        """Make the folder, and room for it: folders of other sources that nobody uses go.

        Args:
            wanted: bytes, to make room for.
            keep: others stay as long as there is room; else all that nobody uses go.

        Returns:
            A lock, for :meth:`close`.

        Raises:
            OSError: the root cannot be written, has no locks, or belongs to somebody else.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._root.is_symlink() or os.stat(self._root).st_uid != os.getuid():
            raise PermissionError(f"{self._root} belongs to another user")
        with _locked(self._root):
            self.path.mkdir(exist_ok=True)
            os.utime(self.path)
            users = os.open(self.path / _USERS, os.O_RDWR | os.O_CREAT, 0o600)
            if _alone(users):
                self._set(_recounted(self.path))
            fcntl.flock(users, fcntl.LOCK_SH)
            for other in sorted(self._others(), key=lambda path: path.stat().st_mtime):
                if not keep or self._total(without=self.path) + wanted > self.max_bytes:
                    _remove_unused(other)
        return users

    def close(self, users: int, *, keep: bool) -> None:
        """Give the lock back; the last user removes what is not to be kept."""
        os.close(users)
        if not keep:
            with contextlib.suppress(OSError), _locked(self._root):
                _remove_unused(self.path)

    def _file(self, index: int) -> Path:
        return self.path / str(index // _PER_FOLDER) / str(index)

    def _others(self) -> list[Path]:
        return [path for path in self._root.iterdir() if path.is_dir() and path != self.path]

    def _total(self, without: Path | None = None) -> int:
        folders = [*self._others(), self.path]
        return sum(_counts(path).bytes for path in folders if path != without)

    def _set(self, counts: Counts) -> None:
        handle = os.open(self.path / _COUNTS, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, _PACKED.pack(*counts), 0)
        finally:
            os.close(handle)


class _FullError(Exception):
    """The element does not fit."""


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with open(root / _LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alone(users: int) -> bool:
    """Take the lock of a folder for this process alone, if nobody has it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_unused(folder: Path) -> None:
    """Remove a folder that nobody uses. The lock of the root must be held."""
    with contextlib.suppress(FileNotFoundError), open(folder / _USERS, "a") as users:
        if not _alone(users.fileno()):
            return
    shutil.rmtree(folder, ignore_errors=True)


def _recounted(folder: Path) -> Counts:
    """What lies in a folder that nobody else uses; leftovers of killed processes are removed."""
    size = images = 0
    for path in folder.glob("*/*"):
        if path.name.endswith(".part"):
            path.unlink()
        else:
            size += _size(path)
            images += 1
    return Counts(size, images)


def _counts(folder: Path) -> Counts:
    try:
        return Counts(*_PACKED.unpack((folder / _COUNTS).read_bytes()))
    except (OSError, struct.error):
        return Counts()


def _size(path: Path) -> int:
    try:
        return blocks(path.stat().st_size)
    except FileNotFoundError:
        return 0
