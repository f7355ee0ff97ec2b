"""Checksums of a checkpoint's files, by which a damaged disk or an interrupted copy is found."""

import functools
import json
import shutil
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codi_jax.checkpoint.files import load_object, save_json
from codi_jax.typing import UserError

#: The item of the checksums, and its file.
SUMS, CHECKSUMS = "checksums", "checksums.json"
#: The end of the name that a damaged checkpoint is given.
DAMAGED = ".damaged"
#: Bytes that are read at once.
CHUNK = 1 << 20


def write_checksums(root: Path, folders: Sequence[str], target: Path) -> None:
    """Write size and CRC-32 of every file in ``folders`` of ``root`` to a file in ``target``."""
    names = [
        file.relative_to(root).as_posix()
        for folder in folders
        for file in sorted((root / folder).rglob("*"))
        if file.is_file()
    ]
    with ThreadPoolExecutor() as threads:
        sums = threads.map(functools.partial(_size_and_crc, root), names)
        save_json(target / CHECKSUMS, dict(zip(names, sums, strict=True)))


def checkpoint_damage(root: Path) -> str:
    """What is wrong with the checkpoint ``root``, in a few words; "" if nothing is.

    Each file is read once. One core sums about 4 GB/s: it is the disk that takes time.
    """
    if (root / SUMS).is_dir():
        return _difference(root, root / SUMS / CHECKSUMS)
    # Of a version without checksums: the small items are read, orbax checks the others.
    try:
        meta = json.loads((root / "meta" / "metadata").read_text())
        states = [json.loads(file.read_text()) for file in (root / "data").glob("process_*")]
    except (OSError, ValueError):
        meta, states = {}, []
    return "" if meta and states and all(states) else "data or meta is missing or not JSON"


def set_aside(path: Path, damage: str, *, rename: bool) -> None:
    """Say on standard error that the checkpoint ``path`` is damaged, and perhaps rename it."""
    kept = ""
    if rename:
        moved = path.with_name(path.name + DAMAGED)
        shutil.rmtree(moved, ignore_errors=True)
        path.rename(moved)
        kept = f". It is kept as {moved.name} and can be deleted"
    print(f"checkpoint {path} is damaged: {damage}{kept}", file=sys.stderr)


def _difference(root: Path, path: Path) -> str:
    try:
        known = load_object(path)
    except UserError:
        known = {}
    if not known:
        return f"{path.name} cannot be read"
    for name in known:
        if not (root / name).is_file():
            return f"{name} is missing"
    with ThreadPoolExecutor() as threads:
        found = threads.map(functools.partial(_size_and_crc, root), known)
        for (name, expected), now in zip(known.items(), found, strict=True):
            if now != expected:
                same_size = now[:1] == expected[:1] if isinstance(expected, list) else True
                return f"{name} has {'other bytes' if same_size else 'another size'}"
    return ""


def _size_and_crc(root: Path, name: str) -> list[int]:
    size, crc = 0, 0
    try:
        with open(root / name, "rb") as file:
            while chunk := file.read(CHUNK):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    except OSError:
        return [-1, 0]  # a file that cannot be read is a damaged one
    return [size, crc]
