"""A folder of image files, with their captions and columns."""

import operator
import os
from pathlib import Path, PurePosixPath

from codi_jax.data import images
from codi_jax.data.regular_files import read_regular, stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import load_column
from codi_jax.data.sources.folder_files import CAPTIONS, FolderFiles, find_folder_files
from codi_jax.data.sources.folder_rows import Row, read_rows
from codi_jax.data.sources.notes import say_some
from codi_jax.typing import UserError

_LONGEST_CAPTION = 2**20


class FolderSource:
    """The image files below a folder, sorted by path.

    Hidden files are left out; links to folders are followed. Captions and columns are in
    `metadata.jsonl` or `metadata.csv` (Hugging Face's ImageFolder) in the folder or any below it;
    paths in it are relative to its own place:
    {"file_name": "relative/path.jpg", "text": "...", "depth_file_name": "depth/path.png"}.
    `X_file_name` is an image, decoded under the key X, as is a column whose every value is the path
    of an image; the files they name are no samples of their own, and if one image has an X, all
    must. Other strings keep their name; values that are no strings are left out. An image without
    a row has its caption in a `.txt` or `.caption` file beside it, if there is one.

    Args:
        path: the folder.
        above: a folder above it, whose metadata is read too.

    Raises:
        UserError: no such folder, no image in it, or a metadata file that is malformed, leaves
            the folder, or leaves an image without an image column.
    """

    def __init__(
        self, path: str | os.PathLike[str], above: str | os.PathLike[str] | None = None
    ) -> None:
        self.root = Path(path)
        found = find_folder_files(self.root)
        self._rows = read_rows(found, None if above is None else Path(above))
        referred = {file for row in self._rows.values() for file in row.files.values()}
        self.names = sorted(found.images - referred)
        self._files = sorted({key for row in self._rows.values() for key in row.files})
        self._strings = sorted({key for row in self._rows.values() for key in row.strings})
        self._texts = _texts_beside(self.names, found)
        self._check(found)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Element:
        name = self.names[operator.index(index)]
        row = self._rows.get(name, Row(""))
        element = {
            "image": images.load_image(self.root / name),
            **dict.fromkeys(self._strings, ""),
            **row.strings,
            "name": images.readable(name),
            "text": self.caption(name),
        }
        if row.captions:
            element["captions"] = row.captions
        for column in self._files:
            path = self.root / row.files[column]  # an absolute path stays as it is
            element[column] = load_column(column, path, str(path))
        return element

    def made_of(self, index: int) -> str | None:
        """The image's row, and its files with their stamps."""
        name = self.names[operator.index(index)]
        row = self._rows.get(name, Row(""))
        files = [name, *(row.files[column] for column in self._files)]
        if name in self._texts:
            files.append(self._texts[name])
        try:
            stamps = [stamp_of(self.root / file) for file in files]
        except OSError:
            return None
        return repr((str(self.root.absolute()), files, stamps, row, self._strings))

    def caption(self, name: str) -> str:
        """The text of one of ``names``; "" where there is none.

        Raises:
            CorruptError: a text file that is no UTF-8.
        """
        row = self._rows.get(name)
        if row is not None and row.strings["text"]:
            return row.strings["text"]
        if name not in self._texts:
            return ""
        path = self.root / self._texts[name]
        try:
            return read_regular(path, str(path), _LONGEST_CAPTION).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise images.CorruptError(str(path), f"is no UTF-8 text ({error}).") from error

    def _check(self, found: FolderFiles) -> None:
        where = f"image folder {images.readable(str(self.root))}"
        if not self.names:
            raise UserError(f"{where}: every image is a column of another one.")
        for column in self._files:
            for name in self.names:
                if column not in self._rows.get(name, Row("")).files:
                    raise UserError(
                        f"{where}: {images.readable(name)!r} has no '{column}_file_name', which "
                        "others have in their metadata; give it to every image or to none."
                    )
        if self._rows or self._texts:
            silent = [
                images.readable(name)
                for name in self.names
                if name not in self._texts
                and not self._rows.get(name, Row("", {"text": ""})).strings["text"]
            ]
            say_some(where, "images have no caption", silent, len(self.names))
        used = {*self._texts.values()}
        others = [images.readable(text) for text in found.texts - used]
        say_some(where, "text files belong to no image", others, len(found.texts))


def _texts_beside(names: list[str], found: FolderFiles) -> dict[str, str]:
    """Image -> the caption file of the same path but for its suffix."""
    if not found.texts:
        return {}
    by_stem: dict[str, str] = {}
    for text in sorted(found.texts, key=lambda t: CAPTIONS.index(PurePosixPath(t).suffix.lower())):
        by_stem.setdefault(os.path.splitext(text)[0], text)
    stems = {name: os.path.splitext(name)[0] for name in names}
    return {name: by_stem[stem] for name, stem in stems.items() if stem in by_stem}
