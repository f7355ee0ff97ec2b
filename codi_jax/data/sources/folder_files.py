"""What lies in a folder of pictures, linked folders included."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from codi_jax.data.images import SUFFIXES, readable
from codi_jax.data.sources.files import entry_is, folders_below
from codi_jax.data.sources.notes import say, say_left_out
from codi_jax.typing import UserError

METADATA = ("metadata.jsonl", "metadata.csv")
#: Captions beside their images, as kohya's trainers keep them.
CAPTIONS = (".txt", ".caption")


@dataclasses.dataclass
class FolderFiles:
    """Paths below a folder, with "/" between.

    Attributes:
        root: the folder.
        images: files with one of `SUFFIXES`.
        texts: files with one of `CAPTIONS`.
        metadata: files of the names `METADATA`.
        left_out: kind of file -> how many.
    """

    root: Path
    images: set[str] = dataclasses.field(default_factory=set)
    texts: set[str] = dataclasses.field(default_factory=set)
    metadata: list[str] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, entry: os.DirEntry[str], name: str) -> None:
        """Sort one entry that is no folder."""
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            self.left_out["hidden"] += 1
        elif not entry_is(entry.is_file):
            self.left_out["broken links, pipes or devices"] += 1
        elif suffix in SUFFIXES:
            self.images.add(name)
        elif entry.name in METADATA:
            self.metadata.append(name)
        elif suffix in CAPTIONS:
            self.texts.add(name)
        else:
            self.left_out[readable(suffix) if suffix else "without a suffix"] += 1

    def say(self) -> None:
        """Say once what is not read; a text that belongs to no image is none of it."""
        say_left_out(f"image folder {readable(str(self.root))}", self.left_out)


def find_folder_files(root: Path) -> FolderFiles:
    """All files below ``root``. Folders are read once, by their own path before any link's.

    Raises:
        UserError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise UserError(f"image folder {readable(str(root))}: no such folder; check the path.")
    found, top, linked = FolderFiles(root), str(root), 0
    for folder in folders_below(top):
        linked += folder.linked
        if folder.entries is None:
            found.left_out["folders that may not be read"] += 1
            continue
        inside = folder.path.removeprefix(top).replace(os.sep, "/").lstrip("/")
        for entry in folder.entries:
            if not entry_is(entry.is_dir):
                found.add(entry, f"{inside}/{entry.name}" if inside else entry.name)
            elif entry.name.startswith("."):
                found.left_out["hidden"] += 1
    if not found.images:
        raise UserError(_nothing(found))
    found.say()
    if linked:
        say(f"image folder {readable(str(root))}: {linked} links to folders are followed")
    return found


def _nothing(found: FolderFiles) -> str:
    expected = f"no image in it; expected {' '.join(sorted(SUFFIXES))} files, in subfolders too"
    shards = [k for k in (".tar", ".parquet", ".array_record") if k in found.left_out]
    remedy = f". Shards are named by a pattern: {found.root}/*{shards[0]}" if shards else ""
    kinds = f" (there are {', '.join(sorted(found.left_out))})" if found.left_out else ""
    return f"image folder {readable(str(found.root))}: {expected}{kinds}{remedy}."
