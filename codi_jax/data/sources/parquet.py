"""Parquet files as the `datasets` library writes them."""

import operator
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codi_jax.data.images import CorruptError, load_image
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import RESERVED, check_image_column, load_column
from codi_jax.data.sources.files import find_files
from codi_jax.typing import UserError

if TYPE_CHECKING:
    import pyarrow.parquet


class ParquetSource:
    """Parquet files with a column "image": encoded images, or {"bytes", "path"} of them.

    The caption is the column "text", else "caption". Other columns of {"bytes", "path"} are image
    columns, other strings stay strings, the rest is left out.

    Parquet is compressed by row groups, so one image costs the reading of its group. Each
    process keeps the last group: reading in order is fast, a global shuffle is slow when the
    groups are large. `python -m codi_jax.prepare` makes ArrayRecord shards of it, which are not.

    Args:
        paths: a glob pattern, or the paths themselves; read in sorted order.

    Raises:
        UserError: pyarrow is missing, no such file, no parquet file, files of different columns,
            no image column, or no row.
    """

    def __init__(self, paths: str | Sequence[str | os.PathLike[str]]) -> None:
        self._paths = find_files(paths, "parquet files")
        counts, self._groups = [], []
        schema = None
        for number, path in enumerate(self._paths):
            file = _open(path)
            if schema is not None and not file.schema_arrow.equals(schema):
                raise UserError(f"{path}: has other columns than {self._paths[0]}; split them.")
            schema = file.schema_arrow
            for group in range(file.num_row_groups):
                counts.append(file.metadata.row_group(group).num_rows)
                self._groups.append((number, group))
        self._ends = np.cumsum(counts, dtype=np.int64)
        if len(self) == 0:
            raise UserError(f"parquet files {paths}: hold no row; check the path.")
        self._image_columns, self._strings = _columns(schema, self._paths[0])
        self._caption = next((c for c in ("text", "caption") if c in self._strings), None)
        self._start_empty()

    def _start_empty(self) -> None:
        self._kept: tuple[int, pyarrow.Table] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[group - 1]) if group else 0)
        file = Path(self._paths[self._groups[group][0]]).name
        name = f"{file}[{index}]"
        table = self._table(group, name)
        values = {c: table.column(c)[row].as_py() for c in (*self._image_columns, *self._strings)}
        element: Element = {
            "image": load_image(_data(values["image"], name), name),
            "text": (values[self._caption] or "") if self._caption else "",
            "name": name,
        }
        for column in self._image_columns:
            if column != "image":
                what = f"{name}.{column}"
                element[column] = load_column(column, _data(values[column], what), what)
        for column in self._strings:
            if column not in RESERVED and column != self._caption:
                element[column] = values[column] or ""
        return element

    def _table(self, group: int, name: str) -> "pyarrow.Table":
        with self._lock:
            if self._kept is None or self._kept[0] != group:
                number, inside = self._groups[group]
                self._kept = None  # never two groups in memory
                columns = [*self._image_columns, *self._strings]
                try:
                    table = _open(self._paths[number]).read_row_group(
                        inside, columns=columns, use_threads=False
                    )
                except (OSError, ValueError) as error:
                    raise CorruptError(name, f"its row group cannot be read ({error}).") from error
                self._kept = (group, table)
            return self._kept[1]


def _open(path: str) -> "pyarrow.parquet.ParquetFile":
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"data source {path!r} needs pyarrow; run `pip install pyarrow`."
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise UserError(f"{path}: no parquet file ({error}); write it again.") from error


def _columns(schema: "pyarrow.Schema", path: str) -> tuple[list[str], list[str]]:
    """(image columns, string columns) that are read."""
    from pyarrow import types

    pictures, strings = [], []
    for field in schema:
        kind = field.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            if field.name != "image":
                check_image_column(field.name, path)
            pictures.append(field.name)
        elif field.name == "image" and (types.is_binary(kind) or types.is_large_binary(kind)):
            pictures.append(field.name)
        elif types.is_string(kind) or types.is_large_string(kind):
            strings.append(field.name)
    if "image" not in pictures:
        raise UserError(
            f"{path}: needs a column 'image' of bytes or {{bytes, path}}; has "
            f"{', '.join(f'{field.name} ({field.type})' for field in schema)}."
        )
    return pictures, [s for s in strings if s == "text" or s not in RESERVED]


def _data(value: bytes | dict[str, bytes | None] | None, name: str) -> bytes:
    data = value["bytes"] if isinstance(value, dict) else value
    if data is None:
        raise CorruptError(name, "holds no bytes; save the data set with its images embedded.")
    return data
