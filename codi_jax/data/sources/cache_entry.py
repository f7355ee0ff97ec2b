"""One decoded element as a file, of which no more is read than what is looked at.

The file is a magic number, a JSON header, and the arrays as they lie in memory. It is mapped, not
read: a crop of a picture costs the pages that the crop lies on.
"""

import json
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from codi_jax.data.sources.base import Element

_MAGIC = b"CODIRAW1"
_START = struct.Struct("<8sII")  # magic, bytes of the header, CRC-32 of all that follows
_ALIGNED = 64
_BLOCK = 4096  # what file systems keep files in


def can_hold(element: Element) -> bool:
    """Whether all its values are strings, tuples of strings or arrays of numbers."""
    return all(
        value.dtype.kind in "fiub"
        if isinstance(value, np.ndarray)
        else isinstance(value, str)
        or (isinstance(value, tuple) and all(isinstance(text, str) for text in value))
        for value in element.values()
    )


def disk_bytes(element: Element) -> int:
    """What the file of an element takes, about."""
    return blocks(_ALIGNED * 8 + sum(getattr(value, "nbytes", 0) for value in element.values()))


def blocks(size: int) -> int:
    """Bytes that a file of ``size`` bytes occupies."""
    return -(-size // _BLOCK) * _BLOCK


def write_entry(file: BinaryIO, stamp: str, element: Element) -> None:
    """Write an element that :func:`can_hold`.

    Args:
        file: empty.
        stamp: what the element was made of.
        element: of a source.
    """
    arrays, texts, parts, offset = {}, {}, [], 0
    for key, value in element.items():
        if not isinstance(value, np.ndarray):
            texts[key] = value
            continue
        arrays[key] = (str(value.dtype), value.shape, offset)
        parts.append(np.ascontiguousarray(value).tobytes())
        parts.append(bytes(-len(parts[-1]) % _ALIGNED))
        offset += len(parts[-2]) + len(parts[-1])
    keys = list(element)
    header = json.dumps({"stamp": stamp, "keys": keys, "arrays": arrays, "texts": texts}).encode()
    header += b" " * (-(_START.size + len(header)) % _ALIGNED)
    check = zlib.crc32(header)
    for part in parts:
        check = zlib.crc32(part, check)
    file.write(_START.pack(_MAGIC, len(header), check))
    file.writelines([header, *parts])


def read_entry(path: Path, stamp: str, verified: dict[Path, int]) -> Element | None:
    """The element of a file, if it is whole and was made of the same.

    The arrays can be written to: what is written stays with them, and never reaches the file.

    Args:
        path: of the file, which need not exist.
        stamp: what the element would be made of now.
        verified: files whose checksum was found right; they are not summed again.
    """
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        magic, length, check = _START.unpack_from(data)
        if magic != _MAGIC:
            return None
        if verified.get(path) != check:
            with memoryview(data) as view, view[_START.size :] as summed:
                if zlib.crc32(summed) != check:
                    return None
            verified[path] = check
        start = _START.size + length
        header = json.loads(data[_START.size : start])
        if header["stamp"] != stamp:
            return None
        values: dict[str, Any] = {
            key: np.ndarray(shape, dtype, data, start + offset)
            for key, (dtype, shape, offset) in header["arrays"].items()
        }
    except (OSError, ValueError, struct.error):  # absent, empty, or cut short
        return None
    for key, text in header["texts"].items():
        values[key] = tuple(text) if isinstance(text, list) else text
    return {key: values[key] for key in header["keys"]}
