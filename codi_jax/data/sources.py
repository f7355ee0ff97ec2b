"""Where images come from: random-access sources.

A source has `__len__` and `__getitem__(i) -> {"image": uint8 [H, W, 3] RGB, "text": str,
"name": str}`; "text" is the caption, "" where there is none. Sources are pickled into
worker processes, so they hold paths rather than open files or decoded images.
"""

import glob
import importlib.util
import json
import operator
import os
import tempfile
import textwrap
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypedDict, runtime_checkable

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from codi_jax.data import images
from codi_jax.data.scenes import SceneSource
from codi_jax.typing import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})

#: The photos inside scikit-image, with captions. The two motorcycle images are one scene
#: seen by two cameras, so they stay on one side.
SKIMAGE_PHOTOS: dict[str, dict[str, str]] = {
    "train": {
        "astronaut.png": "a portrait of an astronaut in an orange suit",
        "hubble_deep_field.jpg": "galaxies in deep space",
        "ihc.png": "stained tissue under a microscope",
        "motorcycle_left.png": "a motorcycle in a garage",
        "motorcycle_right.png": "a motorcycle in a garage",
        "retina.jpg": "the retina of a human eye",
        "rocket.jpg": "a rocket on its launch pad",
    },
    "eval": {
        "chelsea.png": "the face of a tabby cat",
        "coffee.png": "a cup of coffee on a wooden table",
    },
}
_CACHE_BYTES = 256 * 2**20


class Element(TypedDict):
    """One image: uint8 [H, W, 3] RGB in [0, 255], its caption and what to call it."""

    image: np.ndarray
    text: str
    name: str


@runtime_checkable
class Source(Protocol):
    """Random access to images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Element: ...


class FolderSource:
    """The image files below a folder, sorted by path.

    Hidden files are skipped. A `metadata.jsonl` at the top (Hugging Face's ImageFolder)
    gives captions: {"file_name": "relative/path.jpg", "text": "..."} on each line.

    Raises:
      UserError: no such folder, no image in it, or a metadata file that is malformed or
        names a file that is not in the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = Path(path)
        if not self.root.is_dir():
            raise UserError(f"image folder {self.root}: no such folder; check the path.")
        self.names = sorted(_image_names(self.root))
        if not self.names:
            raise UserError(
                f"image folder {self.root}: no image in it; expected "
                f"{' '.join(sorted(SUFFIXES))} files, in subfolders too."
            )
        self._texts = _read_captions(self.root, frozenset(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Element:
        name = self.names[operator.index(index)]
        image = images.load_image(self.root / name)
        return {"image": image, "text": self._texts.get(name, ""), "name": name}


class SkimageSource:
    """Photos that come with scikit-image: an embedded data set that needs no download.

    Args:
      split: "train" or "eval"; no photo is in both.
    """

    def __init__(self, split: str) -> None:
        if split not in SKIMAGE_PHOTOS:
            raise UserError(f"split {split!r} is unknown; use one of {', '.join(SKIMAGE_PHOTOS)}.")
        # Found without importing scikit-image, which takes a second in every worker.
        spec = importlib.util.find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                "data source 'skimage' needs scikit-image; run `pip install scikit-image`."
            )
        self.root = Path(spec.submodule_search_locations[0]) / "data"
        self._photos = sorted(SKIMAGE_PHOTOS[split].items())
        missing = [name for name, _ in self._photos if not (self.root / name).is_file()]
        if missing:
            raise UserError(
                f"data source 'skimage': {', '.join(missing)} not in {self.root}; "
                "run `pip install 'scikit-image>=0.26'` or give a folder of images."
            )

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> Element:
        name, text = self._photos[operator.index(index)]
        return {"image": images.load_image(self.root / name), "text": text, "name": name}


class ArrayRecordSource:
    """ArrayRecord shards whose records are encoded image files (PNG, JPEG, ...).

    Args:
      paths: a glob pattern, or the paths themselves; read in sorted order.

    Raises:
      UserError: no such file, or shards that hold no record.
    """

    def __init__(self, paths: str | Sequence[str | os.PathLike[str]]) -> None:
        found = glob.glob(paths) if isinstance(paths, str) else [os.fspath(p) for p in paths]
        absent = [p for p in found if not os.path.isfile(p)]
        if absent or not found:
            raise UserError(
                f"ArrayRecord {absent[0] if absent else paths}: no such file; check the path."
            )
        self._paths = sorted(found)
        try:
            self._records = grain.sources.ArrayRecordDataSource(self._paths)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"ArrayRecord {paths}: cannot be read ({error}); write it again."
            ) from error
        if len(self._records) == 0:
            raise UserError(f"ArrayRecord {paths}: holds no record; write it again.")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        name = f"{Path(self._paths[0]).parent.name}[{index}]"
        image = images.load_image(self._records[index], name=f"record {name}")
        return {"image": image, "text": "", "name": name}


class TfdsSource:
    """A TensorFlow Datasets image data set, through its random-access `data_source`.

    Args:
      name: data set, with its configuration if any ("div2k/bicubic_x4").
      split: tfds's split ("train", "validation", "train[:90%]"); "eval" means "validation"
        where there is one, else "test".
      data_dir: where tfds keeps it; its default otherwise. Missing data is downloaded.

    The caption is the feature "text" or "caption", the image "image" or, for DIV2K, "hr".
    """

    def __init__(self, name: str, split: str, data_dir: str | None = None) -> None:
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise UserError(
                f"data source 'tfds:{name}' needs tensorflow_datasets; "
                "run `pip install tensorflow-datasets`."
            ) from error
        self._name = name
        # Given a data_dir, tfds would write TFRecords, which have no random access.
        options: dict[str, Any] = {
            "data_dir": data_dir,
            "builder_kwargs": {"file_format": "array_record"},
        }
        try:
            if split == "eval":
                splits = tfds.data_source(name, **options)
                split = "validation" if "validation" in splits else "test"
                self._data = splits[split]
            else:
                self._data = tfds.data_source(name, split=split, **options)
        except Exception as error:  # tfds raises many types for a wrong name, split or file format
            raise UserError(
                f"data source 'tfds:{name}', split {split!r}: "
                # For an unknown name tfds lists all it has.
                f"{textwrap.shorten(str(error), 300)}; check its name and split."
            ) from error

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        record: dict[str, Any] = self._data[index]
        key = next((k for k in ("image", "hr") if k in record), None)
        if key is None:
            raise UserError(
                f"data source 'tfds:{self._name}': has no feature 'image', only "
                f"{', '.join(record)}; use an image data set."
            )
        image = np.asarray(record[key])
        if image.dtype != np.uint8:
            raise UserError(
                f"data source 'tfds:{self._name}': images are {image.dtype}, not uint8."
            )
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        text = record.get("text", record.get("caption", ""))
        text = text.decode() if isinstance(text, bytes) else str(text)
        return {"image": image, "text": text, "name": f"{self._name}[{index}]"}


class CachedSource:
    """Keeps decoded images in memory until `max_bytes` are used; what came first stays.

    Under a shuffle every image is as likely to come next as any other, so replacing one
    by another would win nothing. Each process has a cache of its own, empty at its start.
    """

    def __init__(self, source: Source, max_bytes: int = _CACHE_BYTES) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._start_empty()

    def _start_empty(self) -> None:
        self._kept: dict[int, Element] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source, "_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_empty()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        element = self._kept.get(index)
        if element is None:
            element = self._source[index]
            element["image"].flags.writeable = False  # shared by all that ask for it
            size = element["image"].nbytes
            with self._lock:
                if index not in self._kept and self._bytes + size <= self._max_bytes:
                    self._kept[index] = element
                    self._bytes += size
        return element.copy()


def make_source(spec: str, split: str, data_dir: str | None = None) -> Source:
    """Makes the source that a user names.

    Args:
      spec: "skimage", "synthetic:depth", a folder, a glob of ArrayRecord files
        ("data/*.array_record") or "tfds:NAME".
      split: "train" or "eval"; for tfds any split it has. A folder that has "train" or
        "eval" below it is split by them; any other folder serves both in whole.
      data_dir: where tfds keeps its data.

    Raises:
      UserError: what is named does not exist or holds no image.
    """
    if not spec:
        raise UserError("data source is empty; use 'skimage', a folder, a glob or 'tfds:NAME'.")
    if spec == "skimage":
        return CachedSource(SkimageSource(split))
    if spec == "synthetic:depth":
        return SceneSource(split)
    if spec.startswith("tfds:"):
        return TfdsSource(spec.removeprefix("tfds:"), split, data_dir)
    if ".array_record" in Path(spec).name or ".arrayrecord" in Path(spec).name:
        return ArrayRecordSource(spec)
    is_split = any((Path(spec) / name).is_dir() for name in ("train", "eval"))
    return FolderSource(Path(spec) / split if is_split else spec)


def check_source(source: Source, limit: int = 10_000, decode: int = 4) -> None:
    """Finds broken images before any long work: reads up to `limit` headers, decodes a few.

    Args:
      source: any source; headers can be read alone in a `FolderSource` only.
      limit: number of headers.
      decode: number of images, spread over the source, to decode in full.

    Raises:
      UserError: the first broken image, named.
    """
    if isinstance(source, FolderSource):
        for name in source.names[:limit]:
            images.verify_image(source.root / name)
    for index in np.linspace(0, len(source) - 1, min(decode, len(source))).astype(int):
        source[int(index)]


def write_array_record(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes encoded image files as one shard for `ArrayRecordSource`, atomically.

    Returns:
      The number of records.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = os.path.join(folder, path.name)
        # One record a group: a random read then decompresses one record.
        writer = ArrayRecordWriter(temporary, "group_size:1")
        count = 0
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        os.replace(temporary, path)
    return count


def _image_names(root: Path) -> Iterable[str]:
    for folder, _, files in os.walk(root):
        for file in files:
            if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                yield (Path(folder) / file).relative_to(root).as_posix()


def _read_captions(root: Path, names: frozenset[str]) -> dict[str, str]:
    path = root / "metadata.jsonl"
    if not path.is_file():
        return {}
    captions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{where}: expected {{"file_name": "...", "text": "..."}} ({error!r}).'
            ) from error
        pure = PurePosixPath(str(name))
        if pure.is_absolute() or ".." in pure.parts:
            raise UserError(f"{where}: file_name {name!r} leaves the folder; use a path inside it.")
        if pure.as_posix() not in names:
            raise UserError(
                f"{where}: file_name {name!r} is no image of {root}; correct or remove it."
            )
        captions[pure.as_posix()] = str(text)
    return captions
