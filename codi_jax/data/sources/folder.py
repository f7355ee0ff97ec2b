"""A folder of image files, with captions and columns in Hugging Face's metadata.jsonl."""

import json
import operator
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from codi_jax.data import images
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import RESERVED, check_image_column, load_column
from codi_jax.typing import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
_FILE = "_file_name"


class FolderSource:
    """The image files below a folder, sorted by path.

    Hidden files are skipped. A `metadata.jsonl` at the top (Hugging Face's ImageFolder) gives
    captions and columns, one image on each line:
    {"file_name": "relative/path.jpg", "text": "...", "depth_file_name": "depth/path.png"}.
    `X_file_name` is an image, decoded under the key X; the file it names is no sample of its
    own, and if one image has an X, all must. Other strings keep their name; values that are no
    strings are left out.

    Raises:
        UserError: no such folder, no image in it, or a metadata file that is malformed, names a
            file that is not in the folder, or leaves an image without an image column.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path)
        if not self.root.is_dir():
            raise UserError(f"image folder {self.root}: no such folder; check the path.")
        found = frozenset(_image_names(self.root))
        if not found:
            raise UserError(
                f"image folder {self.root}: no image in it; expected "
                f"{' '.join(sorted(SUFFIXES))} files, in subfolders too."
            )
        self._rows = _read_metadata(self.root, found)
        referred = {
            value for row in self._rows.values() for key, value in row.items() if _is_file(key)
        }
        self.names = sorted(found - referred)
        self._columns = sorted({key for row in self._rows.values() for key in row})
        _check_complete(self.root, self.names, self._columns, self._rows)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Element:
        name = self.names[operator.index(index)]
        row = self._rows.get(name, {})
        element = {"image": images.load_image(self.root / name), "text": "", "name": name}
        for key in self._columns:
            if _is_file(key):
                column, path = key.removesuffix(_FILE), self.root / row[key]
                element[column] = load_column(column, path, str(path))
            else:
                element[key] = row.get(key, "")
        return element


def _is_file(key: str) -> bool:
    return key.endswith(_FILE)


def _image_names(root: Path) -> Iterable[str]:
    for folder, _, files in os.walk(root):
        for file in files:
            if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                yield (Path(folder) / file).relative_to(root).as_posix()


def _read_metadata(root: Path, found: frozenset[str]) -> dict[str, dict[str, str]]:
    """File name -> its strings; the values of `X_file_name` are paths below the root."""
    rows: dict[str, dict[str, str]] = {}
    for where, row in _lines(root / "metadata.jsonl"):
        try:
            name = _inside(row.pop("file_name"), found, "file_name", root, where)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{where}: expected {{"file_name": "...", "text": "..."}} ({error!r}).'
            ) from error
        if name in rows:
            raise UserError(f"{where}: {name!r} has a line already; remove one of them.")
        rows[name] = {}
        for key, value in row.items():
            if not isinstance(value, str):
                continue
            if _is_file(key):
                check_image_column(key.removesuffix(_FILE), where)
                rows[name][key] = _inside(value, found, key, root, where)
            elif key == "text" or key not in RESERVED:
                rows[name][key] = value
    return rows


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: expected one JSON object ({error}).") from error


def _inside(name: str, found: frozenset[str], key: str, root: Path, where: str) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise UserError(f"{where}: {key} {name!r} leaves the folder; use a path inside it.")
    if pure.as_posix() not in found:
        raise UserError(f"{where}: {key} {name!r} is no image of {root}; correct or remove it.")
    return pure.as_posix()


def _check_complete(
    root: Path, names: list[str], columns: list[str], rows: dict[str, dict[str, str]]
) -> None:
    if not names:
        raise UserError(f"image folder {root}: every image is a column of another one.")
    for column in filter(_is_file, columns):
        for name in names:
            if column not in rows.get(name, {}):
                raise UserError(
                    f"{root}/metadata.jsonl: {name!r} has no {column!r}, which others have; "
                    "give it to every image or to none."
                )
