"""How large a result is to be, and what is resampled for that."""

import dataclasses
import math
import re

import cv2
import numpy as np
from jaxtyping import Shaped

from codi_jax.data.images import resize
from codi_jax.sampling.colours import FIXES
from codi_jax.sampling.user_pictures import UserPicture
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError, check_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizing:
    """The size of results and their colours.

    Attributes:
        outscale: how many times larger the result is than the input; the model's own result is
            resampled to it.
        size: of the result in pixels, WIDTHxHEIGHT, or one number for its longer side.
        max_megapixels: an input whose result would be larger is reduced first.
        color_fix: keeps the input's colours; auto, super-resolution's default, is one of the
            wavelets.
    """

    outscale: float | None = None
    size: str | None = None
    max_megapixels: float | None = None
    color_fix: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are `UserError`."""
        if self.color_fix is not None:
            check_choice("color_fix", self.color_fix, FIXES)
        if self.outscale is not None and self.size is not None:
            raise UserError(f"outscale={self.outscale} and size={self.size}: give one of them.")
        for name in ("outscale", "max_megapixels"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"{name}={value}: give a number above 0.")
        if self.size is not None and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", self.size):
            raise UserError(f"size={self.size!r}: give WIDTHxHEIGHT, or one number of pixels.")

    def fix_of(self, task: Task) -> str:
        """The colour fix for a task.

        Raises:
            UserError: the task's result has no colours of the input.
        """
        enlarges = "grey" in task.keeps and task.scale > 1
        if self.color_fix not in (None, "none") and not enlarges:
            raise UserError(
                f"color_fix={self.color_fix}: a model for {task.name} is to change colours; leave "
                "it out."
            )
        return self.color_fix or ("auto" if enlarges else "none")

    def input_size(self, size: tuple[int, int], scale: int) -> tuple[int, int]:
        """Height and width that an input is reduced to, so that the model's result fits."""
        return self._limited(size, scale)

    def result_size(self, size: tuple[int, int], scale: int) -> tuple[int, int]:
        """Height and width of the result.

        Args:
            size: of the input, before it is reduced.
            scale: how many times larger the model makes it.
        """
        height, width = size
        if self.outscale is not None:
            wanted = height * self.outscale, width * self.outscale
        elif self.size is None:
            reduced = self.input_size(size, scale)
            return reduced[0] * scale, reduced[1] * scale
        elif "x" in self.size:
            across, down = self.size.split("x")
            wanted = float(down), float(across)
        else:
            longer = int(self.size) / max(size)
            wanted = height * longer, width * longer
        return self._limited((max(1, round(wanted[0])), max(1, round(wanted[1]))), 1)

    def exact(self) -> tuple[int, int] | None:
        """Height and width for a picture from noise.

        Raises:
            UserError: what needs an input.
        """
        if self.outscale is not None or self.color_fix is not None:
            raise UserError("--outscale and --color_fix belong to an input picture: give one.")
        if self.size is None:
            return None
        across, _, down = self.size.partition("x")
        return self._limited((int(down or across), int(across)), 1)

    def _limited(self, size: tuple[int, int], scale: int) -> tuple[int, int]:
        """``size``, reduced so that ``scale`` times it has no more than ``max_megapixels``."""
        height, width = size
        if self.max_megapixels is None:
            return size
        limit = self.max_megapixels * 1e6 / scale**2
        if height * width <= limit:
            return size
        factor = math.sqrt(limit / (height * width))
        return max(1, int(height * factor)), max(1, int(width * factor))


def resampled(
    array: Shaped[np.ndarray, "height width *channels"], size: tuple[int, int]
) -> Shaped[np.ndarray, "new_height new_width *channels"]:
    """A picture or map at another size, bicubically, with a filter as wide as a reduction needs.

    Args:
        array: uint8, uint16 or floats.
        size: height and width.
    """
    if array.shape[:2] == size:
        return array
    if array.dtype == np.uint8:
        return resize(array, size, "bicubic")
    planes = array.reshape(*array.shape[:2], -1)
    made = np.empty((*size, planes.shape[-1]), array.dtype)
    for channel in range(planes.shape[-1]):  # one after the other: floats take much memory
        plane = resize(np.ascontiguousarray(planes[..., channel], np.float32), size, "bicubic")
        if array.dtype == np.uint16:
            plane = np.clip(np.round(plane), 0, 65535)
        made[..., channel] = plane
    return made.reshape(*size, *array.shape[2:])


def resampled_picture(picture: UserPicture, size: tuple[int, int]) -> UserPicture:
    """A picture at another size, with its opacity as a channel of its own."""
    return picture.map(lambda values: resampled(values, size))


def resampled_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size: what is partly white is filled."""
    if mask.shape == size:
        return mask
    covered = cv2.resize(
        np.where(mask > 127, 255, 0).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA
    )
    return np.where(covered > 0, 255, 0).astype(np.uint8)
