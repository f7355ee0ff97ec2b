"""The work of `prepare` on a range of images: look at them, or write a shard of them.

Each is a function of the source, the config and the range alone, so a range may be done again,
by any process, with the same result.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import cv2
import numpy as np

from codi_jax.data import images
from codi_jax.data.depth import DepthEstimator
from codi_jax.data.duplicates import MAX_DISTANCE, perceptual_hash
from codi_jax.data.sources import Element, Source, pack_record
from codi_jax.data.transforms import ENCODED
from codi_jax.typing import UserError, check_choice

FORMATS = ("png", "jpeg")
_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_CANNY_THRESHOLDS = (100, 200)
#: Samples -> the same with further arrays; it must pickle.
Encode = Callable[[Sequence[Element]], list[Element]]
_BATCH = 16  # of what is encoded at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What is made of the images. Everything here changes the result.

    Attributes:
        min_size: images whose shorter side is below are left out.
        resize: images whose shorter side is above are reduced to it (bicubic, antialiased); 0:
            none.
        crop: cut into squares of this side, smaller images are left out; 0: whole images.
        stride: distance of the squares; the last ones end at the border. 0: `crop`.
        near_duplicates: an image with an earlier one within this distance is left out (bits of a
            64-bit perceptual hash); -1: all stay.
        image_format: "png", or "jpeg" of quality 95 without subsampling; columns are always PNG.
        canny: add a column of Canny edges.
        depth: add a column of estimated depth by this transformers model; "": none.
        latents, embeddings: checkpoints that the columns of `transforms.ENCODED` are made with; "":
            none. Latents need a crop.
        shard_images: images of the source that make one shard.
    """

    min_size: int = 0
    resize: int = 0
    crop: int = 0
    stride: int = 0
    near_duplicates: int = 3
    image_format: str = "png"
    canny: bool = False
    depth: str = ""
    latents: str = ""
    embeddings: str = ""
    shard_images: int = 1000

    def __post_init__(self) -> None:
        for name, low in (("min_size", 0), ("resize", 0), ("crop", 0), ("stride", 0)):
            if getattr(self, name) < low:
                raise UserError(f"{name}={getattr(self, name)} is negative; 0 turns it off.")
        if self.shard_images < 1:
            raise UserError(f"shard_images={self.shard_images}; it must be at least 1.")
        if not -1 <= self.near_duplicates <= MAX_DISTANCE:
            raise UserError(f"near_duplicates={self.near_duplicates} is not in -1..{MAX_DISTANCE}.")
        if 0 < self.resize < self.crop:
            raise UserError(f"resize={self.resize} is below crop={self.crop}: nothing to cut.")
        if self.stride and not self.crop:
            raise UserError(f"stride={self.stride} needs a crop.")
        if self.latents and not self.crop:
            raise UserError("latents are for training on whole records: give the size by crop.")
        check_choice("image_format", self.image_format, FORMATS)

    @property
    def shortest(self) -> int:
        """Shorter side of the smallest images that stay."""
        return max(self.min_size, self.crop, 1)


class Scan(TypedDict):
    """What is found of N images."""

    hash: np.ndarray  #: uint64 [N]
    small: np.ndarray  #: bool [N], whether the image is too small.
    corrupt: dict[int, str]  #: by index, what is wrong with the image.


def scan(source: Source, indices: range, config: PrepareConfig) -> Scan:
    """Decodes a range of images, and looks at each."""
    hashes = np.zeros(len(indices), np.uint64)
    small = np.zeros(len(indices), bool)
    corrupt: dict[int, str] = {}
    for i, index in enumerate(indices):
        try:
            element = source[index]
        except images.CorruptError as error:
            corrupt[index] = " ".join(str(error).split())
            continue
        _check_sizes(element)
        small[i] = min(element["image"].shape[:2]) < config.shortest
        hashes[i] = perceptual_hash(element["image"])
    return {"hash": hashes, "small": small, "corrupt": corrupt}


def records(
    source: Source, indices: list[int], config: PrepareConfig, encode: Encode | None = None
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Makes the records of the images that stay, and each one's (height, width)."""
    samples = _samples(source, indices, config)
    while batch := list(itertools.islice(samples, _BATCH)):
        for sample in encode(batch) if encode else batch:
            yield pack_record(_encoded(sample, config)), sample["image"].shape[:2]


def _samples(source: Source, indices: list[int], config: PrepareConfig) -> Iterator[Element]:
    estimate = _estimator(config.depth) if config.depth else None
    for index in indices:
        element = _resized(source[index], config.resize)
        for name in ENCODED:  # of an earlier preparation: the pictures may change now
            element.pop(name, None)
        if config.canny:
            grey = cv2.cvtColor(element["image"], cv2.COLOR_RGB2GRAY)
            element["canny"] = cv2.Canny(grey, *_CANNY_THRESHOLDS)
        if estimate is not None:
            element["depth"] = estimate(element["image"])
        yield from _crops(element, config)


_estimator = functools.cache(DepthEstimator)  # loaded once a process


def _check_sizes(element: Element) -> None:
    size = element["image"].shape[:2]
    for key, value in element.items():
        if is_picture(value) and value.shape[:2] != size:
            raise UserError(
                f"{element['name']}: column {key!r} has the size {value.shape[:2]}, the image "
                f"{size}; make them equal first."
            )


def _resized(element: Element, shorter: int) -> Element:
    size = element["image"].shape[:2]
    if not shorter or min(size) <= shorter:
        return dict(element)
    # The shorter side is exact: rounding must not leave it one pixel short.
    height, width = (max(shorter, round(side * shorter / min(size))) for side in size)
    target = (height, width)
    resized = dict(element)
    for key, value in element.items():
        if is_picture(value):
            resized[key] = (
                images.resize(value, target, "bicubic")
                if value.ndim == 3
                # A mean of two depths is neither: maps take the pixel in the middle.
                else value[np.ix_(_middles(size[0], height), _middles(size[1], width))]
            )
    return resized


def _middles(old: int, new: int) -> np.ndarray:
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _crops(element: Element, config: PrepareConfig) -> Iterator[Element]:
    side = config.crop
    if not side:
        yield element
        return
    height, width = element["image"].shape[:2]
    for top in _starts(height, side, config.stride or side):
        for left in _starts(width, side, config.stride or side):
            crop = {
                key: value[top : top + side, left : left + side] if is_picture(value) else value
                for key, value in element.items()
            }
            yield {**crop, "name": f"{element['name']}@{top},{left}"}


def _starts(length: int, side: int, stride: int) -> list[int]:
    starts = list(range(0, length - side + 1, stride))
    return starts if starts[-1] == length - side else [*starts, length - side]


def _encoded(sample: Element, config: PrepareConfig) -> Element:
    return {
        key: _encode(value, config.image_format if key == "image" else "png")
        if is_picture(value)
        else value
        for key, value in sample.items()
    }


def _encode(image: np.ndarray, image_format: str) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    options = _JPEG if image_format == "jpeg" else ()
    _, data = cv2.imencode(f".{image_format}", bgr, options)
    return data.tobytes()


def is_picture(value: object) -> bool:
    """Whether a column's value is a picture or a map, which is cut and stored as an image file."""
    return isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.uint16)
