"""The source that a user names."""

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from codi_jax.data import images
from codi_jax.data.scenes import SceneSource
from codi_jax.data.sources.array_record import ArrayRecordSource
from codi_jax.data.sources.base import Element, Source
from codi_jax.data.sources.folder import FolderSource
from codi_jax.data.sources.notes import say_some
from codi_jax.data.sources.parquet import ParquetSource
from codi_jax.data.sources.skimage import SkimageSource
from codi_jax.data.sources.skipping import too_many
from codi_jax.data.sources.tfds import TfdsSource
from codi_jax.data.sources.webdataset import WebDatasetSource
from codi_jax.typing import UserError

#: Of a folder that is divided: which of its folders is for evaluation.
EVAL_FOLDERS = ("eval", "validation", "val", "valid", "test")
#: Where an image is: a path or an index.
Place = TypeVar("Place")


def make_source(spec: str, split: str, data_dir: str | None = None) -> Source:
    """Makes the source that a user names.

    Args:
        spec: "skimage", "synthetic:depth", a folder, "tfds:NAME", or a glob of ArrayRecord shards
            ("data/*.array_record"), WebDataset shards ("*.tar") or parquet files ("*.parquet").
        split: "train" or "eval"; for tfds any split it has. A folder that has "train" or "eval"
            below it is split by them ("validation", "val", "valid" or "test" stand for a missing
            "eval"); any other folder serves both in whole.
        data_dir: where tfds keeps its data.

    Raises:
        UserError: what is named does not exist or holds no image.
    """
    if not spec:
        raise UserError(
            "data source is empty; use 'skimage', a folder, 'tfds:NAME' or a glob of shards."
        )
    if spec == "skimage":
        return SkimageSource(split)
    if spec == "synthetic:depth":
        return SceneSource(split)
    if spec.startswith("tfds:"):
        return TfdsSource(spec.removeprefix("tfds:"), split, data_dir)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return _folder_source(folder, split)
    file = Path(spec).name
    if ".array_record" in file or ".arrayrecord" in file:
        return ArrayRecordSource(spec)
    if ".tar" in file or file.endswith(".tgz"):
        return WebDatasetSource(spec)
    if file.endswith(".parquet"):
        return ParquetSource(spec)
    return FolderSource(folder)  # says that there is none


class NamedSource:
    """The source of :func:`make_source`, which travels by its name alone.

    Each process opens it once, under the same path. It must find as many images as the first.
    """

    def __init__(self, spec: str, split: str) -> None:
        name = spec.startswith("tfds:") or spec in ("skimage", "synthetic:depth")
        self._spec = spec if name else os.path.abspath(os.path.expanduser(spec))
        self._split = split
        self._count = len(_opened(self._spec, split))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Element:
        source = _opened(self._spec, self._split)
        if len(source) != self._count:
            raise UserError(
                f"{self._spec} has {len(source)} images on {socket.gethostname()} and "
                f"{self._count} where the work was started: all machines must see the same files."
            )
        return source[index]


def _folder_source(folder: Path, split: str) -> FolderSource:
    if not any((folder / name).is_dir() for name in ("train", "eval")):
        return FolderSource(folder)
    names = EVAL_FOLDERS if split == "eval" else (split,)
    part = next((n for n in names if (folder / n).is_dir()), split)
    beside = [p.name for p in folder.iterdir() if p.suffix.lower() in images.SUFFIXES]
    say_some(
        f"image folder {images.readable(str(folder))}",
        f"pictures lie beside {part}/ and are not read",
        [images.readable(name) for name in beside],
        len(beside),
    )
    return FolderSource(folder / part, above=folder)


_opened = functools.cache(make_source)


def check_source(
    source: Source, max_corrupt: int = 0, limit: int = 10_000, decode: int = 4
) -> float:
    """Finds broken images before any long work: reads up to `limit` headers, decodes a few.

    Args:
        source: any source; headers can be read alone in a `FolderSource` only.
        max_corrupt: how many broken images are allowed.
        limit: number of headers.
        decode: number of images, spread over the source, to decode in full.

    Returns:
        Bytes of a decoded image, the mean of these few; 0 where none could be decoded.

    Raises:
        UserError: more broken images than that, named.
    """
    broken = []
    sizes = []

    def decoded(index: int) -> None:
        sizes.append(sum(getattr(value, "nbytes", 0) for value in source[index].values()))

    def check(read: Callable[[Place], object], what: Place) -> None:
        try:
            read(what)
        except images.CorruptError as error:
            if not max_corrupt:
                raise
            broken.append(str(error))
            if len(set(broken)) > max_corrupt:
                raise too_many(list(dict.fromkeys(broken)), max_corrupt) from error

    if isinstance(source, FolderSource):
        for name in source.names[:limit]:
            check(images.verify_image, source.root / name)
    for index in np.linspace(0, len(source) - 1, min(decode, len(source))).astype(int):
        check(decoded, int(index))
    return float(np.mean(sizes)) if sizes else 0.0
