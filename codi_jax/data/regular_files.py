"""Files as users have them: read bounded, written whole, and named so that it can be printed."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codi_jax.typing import UserError

#: Largest picture: 0.5 GB as uint8 RGB, where Pillow too sees a decompression bomb.
MAX_PIXELS = 178_956_970
#: Largest image file: as many bytes.
MAX_BYTES = 3 * MAX_PIXELS


class CorruptError(UserError):
    """An image that cannot be used: its name, and what is wrong with it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(readable(name), " ".join(readable(problem).split()))

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


def readable(name: str) -> str:
    r"""A file's name as text: bytes that are not UTF-8 become escapes such as ``\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_regular(path: str | os.PathLike[str], name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file, which must be a regular one: a pipe never ends, nor does /dev/zero.

    Args:
        path: of the file.
        name: what error messages call it.
        max_bytes: the largest that is read.

    Raises:
        CorruptError: missing, another kind of file, or too large.
    """
    check_regular(path, name, max_bytes)
    with _readable(name):
        return Path(path).read_bytes()


def check_regular(path: str | os.PathLike[str], name: str, max_bytes: int = MAX_BYTES) -> None:
    """What :func:`read_regular` checks, from the file's entry alone.

    Opening a pipe would wait for its writer, so it is looked at first.
    """
    with _readable(name):
        found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CorruptError(name, "no regular file (a folder, a pipe or a device); remove it.")
    if found.st_size > max_bytes:
        raise CorruptError(
            name, f"{found.st_size} bytes, above {max_bytes}; scale it down or cut it first."
        )


def stamp_of(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """What differs when a file was written or replaced: its size and its times in nanoseconds.

    Raises:
        OSError: there is no such file.
    """
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        problem = getattr(error, "strerror", None) or error
        raise CorruptError(name, f"cannot be read ({problem}); check the path.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write in; at the end it takes the place of ``path``, whole or not at all.

    Args:
        path: in a folder that exists.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
