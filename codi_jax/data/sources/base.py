"""What a source is, and a cache in front of one."""

import operator
import threading
from typing import Any, Protocol, runtime_checkable

#: One image: "image" uint8 [H, W, 3] RGB, "text" its caption ("" where there is none), "name"
#: what to call it, and the source's columns (see `columns`).
Element = dict[str, Any]
_CACHE_BYTES = 256 * 2**20


@runtime_checkable
class Source(Protocol):
    """Random access to images.

    `source[i]` may be called from several threads and processes, in any order, and is always
    the same. It raises `UserError` with the image's name where the image is broken.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Element: ...


class CachedSource:
    """Keeps decoded images in memory until `max_bytes` are used; what came first stays.

    Under a shuffle every image is as likely to come next as any other, so replacing one
    by another would win nothing. Each process has a cache of its own, empty at its start.
    """

    def __init__(self, source: Source, max_bytes: int = _CACHE_BYTES) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._start_empty()

    def _start_empty(self) -> None:
        self._kept: dict[int, Element] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"_source": self._source, "_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        element = self._kept.get(index)
        if element is None:
            element = self._source[index]
            element["image"].flags.writeable = False  # shared by all that ask for it
            size = element["image"].nbytes
            with self._lock:
                if index not in self._kept and self._bytes + size <= self._max_bytes:
                    self._kept[index] = element
                    self._bytes += size
        return element.copy()
