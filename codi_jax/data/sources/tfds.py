"""TensorFlow Datasets."""

import operator
import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image

from codi_jax.data.images import eight_bits, load_image
from codi_jax.data.regular_files import stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.data.sources.columns import caption_of
from codi_jax.typing import UserError


class TfdsSource:
    """A TensorFlow Datasets image data set, through its random-access `data_source`.

    Args:
        name: data set, with its configuration if any ("div2k/bicubic_x4").
        split: tfds's split ("train", "validation", "train[:80%]"); "eval" means "validation"
            where there is one, else "test". A data set that has "train" alone ("tf_flowers") is
            divided: "eval" is its last tenth, "train" the rest.
        data_dir: where tfds keeps it; its default otherwise. Missing data is downloaded.

    The caption is the feature "text" or "caption", the image "image" or, for DIV2K, "hr".
    """

    def __init__(self, name: str, split: str, data_dir: str | None = None) -> None:
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise UserError(
                f"data source 'tfds:{name}' needs tensorflow_datasets; "
                "run `pip install -e '.[tfds]'` in the folder of this repository."
            ) from error
        self._name = name
        try:
            # Prepared data need not be known by name any more: tfds reads it as it lies.
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
            self._data = builder.as_data_source(split=_resolve(split, builder.info.splits))
        except Exception as error:  # tfds raises many types for a wrong name, split or file format
            raise UserError(
                f"data source 'tfds:{name}', split {split!r}: "
                # For an unknown name tfds lists all it has.
                f"{textwrap.shorten(str(error), 300)}; check its name and split."
            ) from error
        # Prepared data are never changed: tfds makes their folder anew.
        self._made_of = repr((str(builder.data_dir), split, stamp_of(builder.data_dir)))

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
        name = f"{self._name}[{index}]"
        image = _rgb(np.asarray(record[key]), f"data source 'tfds:{self._name}'", name)
        text, captions = caption_of({k: _strings(record.get(k)) for k in ("text", "caption")})
        element: Element = {"image": image, "text": text, "name": name}
        return {**element, "captions": captions} if captions else element

    def made_of(self, index: int) -> str | None:
        """The record's number, and the folder of the prepared data with its stamp."""
        return f"{self._made_of}[{operator.index(index)}]"


def _rgb(image: np.ndarray, where: str, name: str) -> np.ndarray:
    """As the reader of files makes it: 16 bits become 8, alpha is laid on white."""
    if image.dtype == np.uint16:
        image = eight_bits(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 2, 3, 4):
        raise UserError(
            f"{where}: images are {image.dtype} {list(image.shape)}; they must be uint8 or uint16 "
            "[height, width, 1 to 4 channels]."
        )
    if image.shape[-1] == 3:
        return image
    modes = {1: "L", 2: "LA", 4: "RGBA"}
    pixels = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image)
    return load_image(Image.fromarray(pixels, modes[image.shape[-1]]), name)


def _strings(value: object) -> object:
    """What tfds has as bytes, alone or in a list, as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | list | tuple):
        return [_strings(item) for item in value]
    return value


def _resolve(split: str, splits: Collection[str]) -> str:
    if split == "eval":
        return next((s for s in ("validation", "test") if s in splits), "train[90%:]")
    if split == "train" and "validation" not in splits and "test" not in splits:
        return "train[:90%]"
    return split
