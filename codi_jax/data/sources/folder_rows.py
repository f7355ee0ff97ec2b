"""Captions and columns of a folder's images, from its metadata files."""

import csv
import dataclasses
import io
import json
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from codi_jax.data.images import readable
from codi_jax.data.regular_files import read_regular
from codi_jax.data.sources.columns import RESERVED, caption_of, check_image_column
from codi_jax.data.sources.folder_files import METADATA, FolderFiles
from codi_jax.data.sources.notes import say, say_some
from codi_jax.typing import UserError

_FILE = "_file_name"
_MOST_BYTES = 2**31


@dataclasses.dataclass
class Row:
    """What is known of one image.

    Attributes:
        where: file and line.
        strings: by column, "text" among them.
        captions: several captions to draw from, else ().
        files: by image column, a path below the folder or, from metadata above it, absolute.
    """

    where: str
    strings: dict[str, str] = dataclasses.field(default_factory=dict)
    captions: tuple[str, ...] = ()
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def read_rows(found: FolderFiles, above: Path | None = None) -> dict[str, Row]:
    """Image -> its row, of every metadata file in the folder and of the one above it.

    Args:
        found: the folder's files.
        above: a folder whose metadata names the images from there ("train/a.png").

    Raises:
        UserError: a metadata file that is malformed, or names a file elsewhere.
    """
    places = [_Place(found, PurePosixPath(name), found.root / name) for name in found.metadata]
    if above is not None:
        inside = found.root.relative_to(above)
        places += [
            _Place(found, PurePosixPath(name), above / name, inside.as_posix(), above)
            for name in METADATA
            if (above / name).is_file()
        ]
    rows: dict[str, Row] = {}
    for place in places:
        for name, row in place.rows().items():
            if name in rows and rows[name] != dataclasses.replace(row, where=rows[name].where):
                raise UserError(
                    f"{row.where}: {readable(name)!r} has another row in {rows[name].where}; "
                    "remove one of them."
                )
            rows.setdefault(name, row)
    return rows


@dataclasses.dataclass
class _Place:
    """A metadata file and what its paths are relative to.

    Attributes:
        found: the images.
        name: the file's path below the folder.
        path: the file.
        split: of a file above the folder, the folder's path from there; else "".
        above: the folder of such a file.
    """

    found: FolderFiles
    name: PurePosixPath
    path: Path
    split: str = ""
    above: Path | None = None

    def rows(self) -> dict[str, Row]:
        """Image -> row; what names no image is counted and said."""
        raw = list(_lines(self.path))
        columns = self._picture_columns([row for _, row in raw])
        rows: dict[str, Row] = {}
        absent: list[str] = []
        for where, values in raw:
            given = self._file_name(values, where)
            name = self.resolve(given, where)
            if name is None:
                # It may be of the other split.
                if self.above is None or not (self.above / given).is_file():
                    absent.append(given)
            elif name in rows:
                raise UserError(f"{where}: {given!r} has a line already; remove one of them.")
            else:
                rows[name] = self._row(where, values, columns)
        say_some(readable(str(self.path)), "rows name no image of the folder", absent, len(raw))
        return rows

    def resolve(self, given: str, where: str) -> str | None:
        """The image that a path of this file names, below the folder; None where there is none.

        Raises:
            UserError: an absolute path, or one that leaves the folder.
        """
        pure = PurePosixPath(given)
        if pure.is_absolute() or ".." in pure.parts:
            raise UserError(f"{where}: {given!r} leaves the folder; use a path inside it.")
        for spelling in (given, given.replace("\\", "/")):
            path = PurePosixPath(spelling)
            if self.split and not path.is_relative_to(self.split):
                continue
            path = path.relative_to(self.split) if self.split else self.name.parent / path
            if path.as_posix() in self.found.images:
                return path.as_posix()
            # A Mac writes é as two characters.
            for form in ("NFC", "NFD"):
                name = unicodedata.normalize(form, path.as_posix())
                if name in self.found.images:
                    return name
        return None

    def _file_name(self, values: dict[str, Any], where: str) -> str:
        given = values.get("file_name", values.get("image"))
        if not isinstance(given, str) or not given:
            raise UserError(
                f'{where}: expected {{"file_name": "...", "text": "..."}}, without \'file_name\' '
                f"there are {', '.join(map(repr, values))}."
            )
        return given

    def _picture_columns(self, rows: list[dict[str, Any]]) -> list[str]:
        """Columns without the suffix, such as "conditioning_image", that hold images' paths."""
        if not rows:
            return []
        columns = [
            key
            for key, value in rows[0].items()
            if isinstance(value, str)
            and key not in {"file_name", *RESERVED}
            and not key.endswith(_FILE)
        ]
        for key in columns.copy():
            values = [row.get(key) for row in rows]
            if not all(isinstance(v, str) and v and self._is_image(v) for v in values):
                columns.remove(key)
        if columns:
            listed = ", ".join(map(repr, columns))
            say(f"{readable(str(self.path))}: {listed} are read as pictures, not as strings")
        return columns

    def _is_image(self, given: str) -> bool:
        try:
            return self.resolve(given, "") is not None
        except UserError:
            return False

    def _row(self, where: str, values: dict[str, Any], pictures: Collection[str]) -> Row:
        row = Row(where)
        row.strings["text"], row.captions = caption_of(values)
        for key, value in values.items():
            if not isinstance(value, str) or key in ("file_name", "image", "text", "caption"):
                continue
            if key in pictures or key.endswith(_FILE):
                column = key.removesuffix(_FILE)
                check_image_column(column, where)
                row.files[column] = self._column_file(key, value, where)
            elif key not in RESERVED:
                row.strings[key] = value
        return row

    def _column_file(self, key: str, value: str, where: str) -> str:
        name = self.resolve(value, f"{where}: {key}")
        if name is not None:
            return name
        if self.above is not None and (self.above / value).is_file():
            return str(self.above / value)
        raise UserError(
            f"{where}: {key} {value!r} is no image of {readable(str(self.found.root))}; correct or "
            "remove it."
        )


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    name = readable(str(path))
    try:
        # utf-8-sig: Windows' editors begin a file with a mark.
        text = read_regular(path, name, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: no UTF-8 text ({error}); save it as UTF-8.") from error
    if path.suffix == ".csv":
        yield from _csv_lines(text, name)
        return
    # Not splitlines: a JSON string may hold U+2028, which it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{name}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: expected one JSON object ({error}).") from error
            if not isinstance(row, dict):
                raise UserError(f"{where}: expected one JSON object, this is {line[:40]!r}.")
            yield where, row


def _csv_lines(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            where = f"{name}, line {reader.line_num}"
            if None in row:
                raise UserError(f"{where}: more cells than the first line names; quote the commas.")
            yield where, {key: value for key, value in row.items() if value}
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: no CSV ({error}).") from error
