"""Grain transforms of one element: crop, flip, degrade. Images stay uint8 to the device.

An element is what a source gives: {"image": uint8 [H, W, 3], "text": str, "name": str}.
"""

import dataclasses

import grain
import numpy as np

from codi_jax.data import images
from codi_jax.data.degradation import Degradation, degrade
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True)
class RandomCropFlip(grain.transforms.RandomMap):
    """A uniformly placed square crop, mirrored left to right half the time.

    An image with a side below `size` is first scaled up (bicubic, aspect kept) until its
    shorter side is `size`; larger images are never scaled.
    """

    size: int

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """uint8 [H, W, 3] to [size, size, 3]."""
        image = _at_least(element["image"], self.size)
        top = int(rng.integers(image.shape[0] - self.size + 1))
        left = int(rng.integers(image.shape[1] - self.size + 1))
        crop = image[top : top + self.size, left : left + self.size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return {**element, "image": np.ascontiguousarray(crop)}


@dataclasses.dataclass(frozen=True)
class CutToMultiple(grain.transforms.Map):
    """The whole image, its right and lower edge cut to sides that `multiple` divides."""

    multiple: int

    def map(self, element: dict) -> dict:
        """uint8 [H, W, 3] to at most that."""
        height, width = (n // self.multiple * self.multiple for n in element["image"].shape[:2])
        if not height or not width:
            raise UserError(
                f"{element['name']}: {element['image'].shape[:2]} pixels, less than the scale "
                f"{self.multiple}; use larger images."
            )
        return {**element, "image": element["image"][:height, :width]}


@dataclasses.dataclass(frozen=True)
class Degrade(grain.transforms.RandomMap):
    """Adds the low-resolution image "lr": uint8 [H / scale, W / scale, 3].

    Attributes:
      config: which degradation.
      scale: ratio of the sizes.
      sharpen: sharpen the ground truth first (USM); "image" is then the sharpened one.
    """

    config: Degradation
    scale: int = 4
    sharpen: bool = False

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """uint8 "image" [H, W, 3] to the same and "lr"."""
        hr = images.to_float(element["image"])
        image = element["image"]
        if self.sharpen:
            hr = images.usm_sharpen(hr)
            image = images.to_uint8(hr)
        try:
            lr = degrade(hr, rng, self.config, self.scale)
        except UserError as error:
            raise UserError(f"{element['name']}: {error}") from error
        return {**element, "image": image, "lr": lr}


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter >= size:
        return image
    # The shorter side is `size` exactly: rounding must not leave it one pixel short.
    larger = (max(size, round(height * size / shorter)), max(size, round(width * size / shorter)))
    return images.resize(image, larger, "bicubic")
