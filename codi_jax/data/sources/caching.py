"""A source whose pictures are decoded once: `config.data.cache`."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from importlib import metadata
from pathlib import Path

from absl import logging
from PIL import features

from codi_jax.data.sources.base import Element, Source, Stamped
from codi_jax.data.sources.cache_entry import can_hold
from codi_jax.data.sources.cache_folder import CacheFolder, Counts
from codi_jax.data.sources.notes import say
from codi_jax.typing import UserError, check_choice

MODES = ("auto", "off", "memory", "disk")
_GB = 1e9
_BESIDE = 4096  # bytes of a file beside its pictures
#: Their versions may change what a file is decoded to.
_DECODERS = ("pillow", "opencv-python-headless", "numpy", "pillow-jxl-plugin", "tifffile")
_CODECS = ("jpg", "jpg_2000", "webp", "avif", "libtiff", "littlecms2", "zlib")


class CachedSource:
    """Gives what its source gives, but decodes each image once, as long as there is room.

    What came first stays: under a shuffle every image is as likely to come next as any other, so
    replacing one by another would win nothing. Processes share the folder. An image whose files
    have changed is decoded anew.

    Args:
        source: knows what its images are made of.
        folder: where the decoded images are; :meth:`CacheFolder.open` has been called.
        where: "in memory" or "on disk", for the message.
    """

    def __init__(self, source: Stamped, folder: CacheFolder, where: str) -> None:
        self._source, self.folder, self.where = source, folder, where
        self._writes = True

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        index = range(len(self))[index]
        stamp = self._source.made_of(index)
        element = None if stamp is None else self.folder.read(index, stamp)
        if element is None:
            element = self._source[index]
            # Not what has changed while it was read, and not what only reading it has told.
            if self._writes and stamp is not None and stamp == self._source.made_of(index):
                self._keep(index, stamp, element)
        return element

    def _keep(self, index: int, stamp: str, element: Element) -> None:
        if not can_hold(element):
            return
        try:
            counts = self.folder.write(index, stamp, element)
        except OSError as error:
            self._writes = False
            logging.warning("data.cache: no more is kept (%s): %s", self.folder.path, error)
            return
        if counts is not None and (counts.refused or counts.images == len(self)):
            say(_message(counts, len(self), self.folder, self.where))


def cached(
    source: Source,
    mode: str,
    *,
    label: str,
    max_gb: float,
    reads: int,
    image_bytes: float,
    disk: Path,
) -> Source:
    """The source, with a cache before it if ``mode`` asks for one and it can have one.

    Args:
        source: any.
        mode: one of `MODES`; "auto" keeps all images in memory if they fit, else none.
        label: what the user called the source.
        max_gb: bound, in 1e9 bytes.
        reads: how many images will be asked for, with repetitions.
        image_bytes: of a decoded image, about.
        disk: root of the caches on disk.

    Returns:
        A source of the same elements. While it lives, its folder is in use.

    Raises:
        UserError: an unknown mode, or a folder that cannot be used.
    """
    check_choice("config.data.cache", mode, MODES)
    auto, keep, max_bytes = mode == "auto", mode == "disk", int(max_gb * _GB)
    root = disk if keep else _memory()
    if mode == "off" or (auto and (reads <= len(source) or not isinstance(source, Stamped))):
        return source
    if not isinstance(source, Stamped):
        say(f"data.cache: {label} is not cached: its pictures are made on the fly")
        return source
    expected = (image_bytes + _BESIDE) * len(source)
    if auto and (problem := _too_large(expected, max_bytes, root)):
        say(
            f"data.cache: {len(source)} pictures take about {expected / _GB:.3g} GB decoded, more "
            f"than {problem}: none is kept. --config.data.cache=memory or disk keeps what fits in "
            "--config.data.cache_gb"
        )
        return source
    folder = CacheFolder(root, _name(label), max_bytes)
    try:
        users = folder.open(int(min(expected, max_bytes)), keep=keep)
    except OSError as error:
        problem = f"data.cache={mode!r}: {root} cannot be used ({error})"
        if auto:
            say(f"{problem}: no picture is kept")
            return source
        remedy = "set XDG_CACHE_HOME to another folder, or " if keep else ""
        raise UserError(f"config.{problem}; {remedy}use config.data.cache=off.") from error
    return _in_use(CachedSource(source, folder, "on disk" if keep else "in memory"), users)


def _in_use(source: CachedSource, users: int) -> CachedSource:
    """The source; when it goes, so does the lock."""
    total, folder, where = len(source), source.folder, source.where
    weakref.finalize(source, _close, total, folder, where, users, os.getpid())
    if (counts := folder.counts()).refused or counts.images == total:
        say(_message(counts, total, folder, where))
    return source


def _close(total: int, folder: CacheFolder, where: str, users: int, owner: int) -> None:
    if os.getpid() != owner:  # a forked child
        return
    counts = folder.counts()
    if not counts.refused and 0 < counts.images < total:  # else it was said
        say(_message(counts, total, folder, where))
    folder.close(users, keep=where == "on disk")


def _message(counts: Counts, total: int, folder: CacheFolder, where: str) -> str:
    """What is kept, how many bytes it takes, and what does not fit."""
    size = f"{counts.bytes / _GB:.3g} GB"
    kept = f"pictures are kept decoded {where}, {size} ({folder.path})"
    if counts.images == total:
        return f"data.cache: all {total} {kept}"
    rest = f"data.cache: {counts.images} of {total} {kept}; the others"
    if counts.refused:
        bound = f"{folder.max_bytes / _GB:.3g}"
        return f"{rest} exceed data.cache_gb={bound} and are decoded each time"
    return f"{rest} were not read, or cannot be"


def _memory() -> Path:
    """Root of the caches in memory; where the system has no such folder, of temporary files."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    return folder / f"codi_jax_decoded_{os.getuid()}"


def _too_large(expected: float, max_bytes: int, root: Path) -> str:
    """What so many bytes exceed; "" if they fit."""
    if expected > max_bytes:
        return f"data.cache_gb={max_bytes / _GB:.3g}"
    free = shutil.disk_usage(root.parent).free
    return f"half of the {free / _GB:.3g} GB free in {root.parent}" if expected > free / 2 else ""


def _name(label: str) -> str:
    """Of the folder of a source: other code or other decoders may make other pictures."""
    made_by = hashlib.blake2b(os.path.abspath(os.path.expanduser(label)).encode(), digest_size=12)
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        made_by.update(path.read_bytes())
    for package in _DECODERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            made_by.update(metadata.version(package).encode())
    for codec in _CODECS:
        made_by.update(str(features.version(codec)).encode())
    return made_by.hexdigest()
