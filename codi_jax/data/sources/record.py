"""The record of an ArrayRecord shard that `prepare` writes: a sample with all its columns.

A record is `MAGIC` and a msgpack map: "name" and "text" are strings, "image" an encoded image
file, "captions" a list of strings, and of the other keys strings are strings, bytes encoded image
files (decoded as `columns` says) and maps {"dtype", "shape", "data"} arrays of numbers.
"""

from typing import Any

import msgpack
import numpy as np

from codi_jax.data.images import CorruptError, load_image
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import load_column

#: A value as msgpack gives it back.
Packed = str | bytes | list[str] | dict[str, Any]

MAGIC = b"CODI\x01"  # no image file begins like this


def pack_record(sample: Element) -> bytes:
    """The record of a sample; equal samples give equal bytes.

    Args:
        sample: "image" (bytes), "text" and "name" (str), and further columns: str, bytes of image
            files, or numpy arrays (latents, embeddings).
    """
    packed = {
        key: _pack_array(value) if isinstance(value, np.ndarray) else value
        for key, value in sorted(sample.items())
    }
    return MAGIC + msgpack.packb(packed)


def unpack_record(record: bytes, name: str) -> Element:
    """Decodes a record, or an encoded image file alone, to an element.

    Args:
        record: of `pack_record`, or a PNG, JPEG, ... file.
        name: what to call an image that has no name of its own.

    Raises:
        CorruptError: neither of the two, or a broken image.
    """
    if not record.startswith(MAGIC):
        return {"image": load_image(record, f"record {name}"), "text": "", "name": name}
    try:
        sample = msgpack.unpackb(record[len(MAGIC) :])
        texts = [sample["name"], sample["text"], *sample.get("captions", ())]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("its name or text is no string")
        if not isinstance(sample["image"], bytes):
            raise TypeError("its image is no bytes")
        element = {key: _unpack(key, value, sample["name"]) for key, value in sample.items()}
    except CorruptError:
        raise
    except Exception as error:  # msgpack's and numpy's errors are of many types
        raise CorruptError(f"record {name}", f"is damaged ({error!r}).") from error
    return element


def _pack_array(value: np.ndarray) -> dict[str, object]:
    return {"dtype": str(value.dtype), "shape": list(value.shape), "data": value.tobytes()}


def _unpack(key: str, value: Packed, name: str) -> str | tuple[str, ...] | np.ndarray:
    if isinstance(value, dict):
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in "fiu":
            raise TypeError(f"{key} has the dtype {dtype}")
        # A copy: what frombuffer gives cannot be written to.
        return np.frombuffer(value["data"], dtype).reshape(value["shape"]).copy()
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str | bytes):
        raise TypeError(f"{key} is a {type(value).__name__}")
    if isinstance(value, bytes):
        return load_image(value, name) if key == "image" else load_column(key, value, name)
    return value
