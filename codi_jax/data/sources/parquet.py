"""Parquet files as the `datasets` library writes them."""

import operator
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from codi_jax.data.images import CorruptError, load_image, readable
from codi_jax.data.regular_files import stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import RESERVED, caption_of, check_image_column, load_column
from codi_jax.data.sources.files import find_files
from codi_jax.data.sources.notes import say_left_out
from codi_jax.typing import UserError

if TYPE_CHECKING:
    import pyarrow.parquet


class ParquetSource:
    """Parquet files with a column "image": encoded images, or {"bytes", "path"} of them.

    Where the bytes are null, or the column is of strings, a path is read, relative to the parquet
    file and below its folder. The caption is the column "text", else "caption", a string or a list
    of strings. Other columns of {"bytes", "path"} are image columns, other strings (also of
    categories) stay strings; the rest is left out, and said.

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
        assert schema is not None  # there is a file
        self._image_columns, self._strings, self._captions = _columns(schema, self._paths[0])
        self._start_empty()

    def _start_empty(self) -> None:
        self._kept: tuple[int, pyarrow.Table] | None = None
        self._lock = threading.Lock()
        self._by_path: set[int] = set()  # rows that were seen to name files

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
        path = Path(self._paths[self._groups[group][0]])
        name = f"{readable(path.name)}[{index}]"
        table = self._table(group, name)
        try:
            values = {column: table.column(column)[row].as_py() for column in self._columns}
        except Exception as error:  # a damaged string, for one
            raise CorruptError(name, f"cannot be read ({error}).") from error
        text, captions = caption_of({column: values[column] for column in self._captions})
        element: Element = {
            "image": load_image(self._data(index, values["image"], name, path.parent), name),
            "text": text,
            "name": name,
        }
        if captions:
            element["captions"] = captions
        for column in self._image_columns:
            if column != "image":
                what = f"{name}.{column}"
                data = self._data(index, values[column], what, path.parent)
                element[column] = load_column(column, data, what)
        for column in self._strings:
            element[column] = values[column] or ""
        return element

    def made_of(self, index: int) -> str | None:
        """The row, and its file with its stamp; None where it names files of its own."""
        index = operator.index(index)
        group = int(np.searchsorted(self._ends, index, side="right"))
        path = self._paths[self._groups[group][0]]
        if index in self._by_path:
            return None
        try:
            return repr((os.path.abspath(path), stamp_of(path), index, self._columns))
        except OSError:
            return None

    @property
    def _columns(self) -> list[str]:
        """All that are read."""
        return [*self._image_columns, *self._strings, *self._captions]

    def _data(self, index: int, value: object, name: str, folder: Path) -> bytes | Path:
        data = _data(value, name, folder)
        if isinstance(data, Path):
            self._by_path.add(index)
        return data

    def _table(self, group: int, name: str) -> "pyarrow.Table":
        with self._lock:
            if self._kept is None or self._kept[0] != group:
                number, inside = self._groups[group]
                self._kept = None  # never two groups in memory
                try:
                    table = _open(self._paths[number]).read_row_group(
                        inside, columns=self._columns, use_threads=False
                    )
                except Exception as error:  # pyarrow's errors are of many types
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
    except Exception as error:  # pyarrow's errors are of many types
        problem = " ".join(str(error).split())
        raise UserError(
            f"{readable(path)}: no parquet file ({problem}); write it again."
        ) from error


def _columns(schema: "pyarrow.Schema", path: str) -> tuple[list[str], list[str], list[str]]:
    """(image columns, string columns, captions) that are read."""
    pictures, strings, captions = [], [], []
    left_out: Counter[str] = Counter()
    for field in schema:
        if _is_picture(field.name, field.type):
            if field.name != "image":
                check_image_column(field.name, path)
            pictures.append(field.name)
        elif field.name in ("text", "caption") and _holds_text(field.type):
            captions.append(field.name)
        elif _is_text(field.type) and field.name not in RESERVED:
            strings.append(field.name)
        else:
            left_out[f"column {field.name!r} ({field.type})"] += 1
    if "image" not in pictures:
        raise UserError(
            f"{path}: needs a column 'image' of bytes or {{bytes, path}}; has "
            f"{', '.join(f'{field.name} ({field.type})' for field in schema)}."
        )
    say_left_out(path, left_out)
    return pictures, strings, captions


def _is_picture(name: str, kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        at = {inside: kind.get_field_index(inside) for inside in ("bytes", "path")}
        # A string among the bytes would be taken for a path, and read any file.
        return (at["bytes"] >= 0 and _is_bytes(kind.field(at["bytes"]).type)) and (
            # Of paths that are all missing, pyarrow knows no type.
            at["path"] < 0
            or _is_text(kind.field(at["path"]).type)
            or types.is_null(kind.field(at["path"]).type)
        )
    return name == "image" and (_is_bytes(kind) or _is_text(kind))


def _is_bytes(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):  # categories
        return _is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _holds_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    return _is_text(kind) or (any(a(kind) for a in lists) and _is_text(kind.value_type))


def _data(value: object, name: str, folder: Path) -> bytes | Path:
    """The bytes of an image, or the path of its file below ``folder``."""
    path = value
    if isinstance(value, dict):
        if isinstance(value["bytes"], bytes):
            return value["bytes"]
        path = value.get("path")
    if isinstance(path, bytes):
        return path
    if not isinstance(path, str) or not path:
        raise CorruptError(name, "holds no bytes; save the data set with its images embedded.")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise CorruptError(
            name,
            f"holds no bytes but the path {path!r}, which leaves the folder of its parquet file; "
            "save the data set with its images embedded.",
        )
    return folder / pure
