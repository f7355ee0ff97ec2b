"""The files that a pattern names."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from codi_jax.typing import UserError

_MOST = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def find_files(paths: str | Sequence[str | os.PathLike[str]], kind: str) -> list[str]:
    """Sorted paths: of a pattern, or those given.

    A pattern has ``*``, ``?``, ``[...]``, ``**`` (any folders) and braces, ``{000..127}`` or
    ``{a,b}``, as web-scale sets are named. A file whose name is the pattern itself wins.

    Raises:
        UserError: nothing matches, or one does not exist or is no regular file; `kind` says of
            what.
    """
    if isinstance(paths, str):
        found = [p for one in expand_braces(os.path.expanduser(paths)) for p in _matching(one)]
    else:
        found = [os.fspath(p) for p in paths]
    absent = [p for p in found if not os.path.isfile(p)]
    if absent or not found:
        name = absent[0] if absent else paths
        problem = "no regular file" if os.path.exists(os.fspath(str(name))) else "no such file"
        raise UserError(f"{kind} {name}: {problem}; check the path.")
    return sorted(dict.fromkeys(found))


def expand_braces(pattern: str) -> list[str]:
    """``x{00..02}`` -> x00, x01, x02; ``{a,b}`` -> a, b. Other braces stay, as do those of a file.

    Raises:
        UserError: more than a million.
    """
    if os.path.exists(pattern):
        return [pattern]
    braces = next((m for m in _BRACES.finditer(pattern) if _items(m[1]) is not None), None)
    if braces is None:
        return [pattern]
    items = _items(braces[1]) or ()
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    rest = expand_braces(after)
    if len(items) * len(rest) > _MOST:
        raise UserError(f"{pattern}: stands for more than {_MOST} files; use * instead.")
    return [f"{before}{item}{end}" for item in items for end in rest]


def _items(inside: str) -> Sequence[str] | None:
    """What braces stand for; None where they stand for themselves."""
    numbers = _NUMBERS.fullmatch(inside)
    if numbers is None:
        return inside.split(",") if "," in inside else None
    first, last = int(numbers[1]), int(numbers[2])
    if last - first > _MOST:
        raise UserError(f"{{{inside}}} stands for more than {_MOST} files; use * instead.")
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return [f"{n:0{width}d}" for n in range(first, last + 1)]


def _matching(path: str) -> list[str]:
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    return [p for p in find_paths(path) if not os.path.isdir(p)]


def find_paths(pattern: str) -> list[str]:
    """What a pattern matches, as `glob.glob` has it.

    But ``**`` enters each folder once, by its own path before any link's: where links lead in a
    circle, glob goes round for ever.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return glob.glob(pattern)
    first = parts.index("**")
    above, rest = os.path.join("", *parts[:first], ""), parts[first + 1 :] or ["*"]
    if pattern.startswith(os.sep):
        above = os.sep + above
    found: dict[str, None] = {}
    for top in glob.glob(above) if above else [""]:
        for folder in folders_below(top):
            if folder.entries is not None:
                inside = os.path.join(glob.escape(folder.path), *rest)
                found |= dict.fromkeys(find_paths(inside))
    return [*found]


class Folder(NamedTuple):
    """A folder that was read.

    Attributes:
        path: its path.
        linked: whether the path ends in a link that was followed.
        entries: in the order of their names; None where it may not be read.
    """

    path: str
    linked: bool
    entries: list[os.DirEntry[str]] | None


def folders_below(top: str) -> Iterator[Folder]:
    """``top`` ("" for the current folder) and the folders below it, links followed.

    Each is read once, by its own path before any link's; hidden ones are left out.
    """
    read, links = set[tuple[int, int]](), [top]
    while links:
        link = links.pop(0)
        folders = [link]
        while folders:
            path = folders.pop()
            linked = path == link != top
            try:
                here = os.stat(path or os.curdir)
                if (here.st_dev, here.st_ino) in read:
                    continue
                read.add((here.st_dev, here.st_ino))
                with os.scandir(path or os.curdir) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                yield Folder(path, linked, None)
                continue
            yield Folder(path, linked, entries)
            for entry in entries:
                if entry_is(entry.is_dir) and not entry.name.startswith("."):
                    below = os.path.join(path, entry.name)
                    (links if entry.is_symlink() else folders).append(below)


def entry_is(kind: Callable[[], bool]) -> bool:
    """What an entry of a folder is, links followed. A link that cannot be followed is nothing.

    Args:
        kind: the entry's ``is_dir`` or ``is_file``.
    """
    try:
        return kind()
    except OSError:
        return False
