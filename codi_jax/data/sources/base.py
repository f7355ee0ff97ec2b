"""What a source is."""

from typing import Any, Protocol, runtime_checkable

#: One image: "image" uint8 [H, W, 3] RGB, "text" its caption ("" where there is none), "name"
#: what to call it, and the source's columns (see `columns`).
Element = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """Random access to images.

    `source[i]` may be called from several threads and processes, in any order, and is always
    the same. It raises `UserError` with the image's name where the image is broken.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Element: ...


@runtime_checkable
class Stamped(Source, Protocol):
    """A source that can say what its images are made of, so that decoded ones may be kept."""

    def made_of(self, index: int) -> str | None:
        """A text that differs whenever `source[index]` would: files, their sizes and times.

        None where it is not known. It costs no more than a look at the files' entries.
        """
