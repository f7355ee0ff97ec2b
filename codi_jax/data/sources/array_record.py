"""ArrayRecord shards: read and written."""

import hashlib
import operator
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grain

from codi_jax.data.images import CorruptError
from codi_jax.data.regular_files import stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.files import find_files
from codi_jax.data.sources.record import unpack_record
from codi_jax.typing import UserError


class ArrayRecordSource:
    """ArrayRecord shards of `prepare` (see `record`), or of encoded image files (PNG, JPEG, ...).

    Args:
        paths: a glob pattern, or the paths themselves; read in sorted order.

    Raises:
        UserError: no such file, or shards that hold no record; ArrayRecord is not installed.
    """

    def __init__(self, paths: str | Sequence[str | os.PathLike[str]]) -> None:
        self._paths = find_files(paths, "ArrayRecord")
        array_record_module(f"ArrayRecord {paths}")
        try:
            self._records = grain.sources.ArrayRecordDataSource(self._paths)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"ArrayRecord {paths}: cannot be read ({error}); write it again."
            ) from error
        if len(self._records) == 0:
            raise UserError(f"ArrayRecord {paths}: holds no record; write it again.")
        # Which record is in which shard, only grain knows: so of all together, as they are now.
        stamps = repr([(os.path.abspath(path), stamp_of(path)) for path in self._paths])
        self._made_of = hashlib.blake2b(stamps.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        name = f"{Path(self._paths[0]).parent.name}[{index}]"
        try:
            record = self._records[index]
        except (OSError, RuntimeError) as error:
            raise CorruptError(f"record {name}", f"cannot be read ({error}).") from error
        return unpack_record(record, name)

    def made_of(self, index: int) -> str | None:
        """The record's number, and the shards with their stamps when they were opened."""
        return f"{self._made_of}[{operator.index(index)}]"


def write_array_record(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes records as one shard for `ArrayRecordSource`, atomically.

    Returns:
        The number of records.

    Raises:
        UserError: ArrayRecord is not installed.
    """
    path = Path(path)
    module = array_record_module(f"the shard {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = os.path.join(folder, path.name)
        # One record a group: a random read then decompresses one record.
        writer = module.ArrayRecordWriter(temporary, "group_size:1")
        count = 0
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        os.replace(temporary, path)
    return count


def array_record_module(what: str) -> Any:
    """The package that reads and writes the files; there is no build of it for Windows.

    Args:
        what: the data that needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        from array_record.python import array_record_module as module
    except ImportError as error:
        raise UserError(
            f"{what} needs the package array_record: run `pip install array_record`. It has no "
            "build for Windows; there use WSL 2, or another data source, such as a folder."
        ) from error
    return module
