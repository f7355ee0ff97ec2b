"""Pictures, maps and masks as users give them: files, PIL images of any mode, arrays."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from codi_jax.data.images import eight_bits, load_depth, load_mask
from codi_jax.typing import UserError

#: A picture in memory.
Picture = Image.Image | np.ndarray
#: A picture in memory, or the file of one.
PictureSource = str | os.PathLike[str] | Picture


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class UserPicture:
    """A picture and what must not be lost on its way to the result.

    Attributes:
        colour: [h, w, 3] uint8 or uint16, upright: the file's numbers, in the space of ``icc``.
        alpha: opacity [h, w] of the same dtype; None where there is none.
        grey: whether it is a grey picture: the three channels are equal.
        icc: the colour profile; None for sRGB.
        exif: camera data without the orientation, which is applied.
        frames: how many pictures its file has; this is the first.
    """

    colour: Shaped[np.ndarray, "height width 3"]
    alpha: Shaped[np.ndarray, "height width"] | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    frames: int = 1

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits."""
        return self.colour.dtype == np.uint16

    @property
    def beyond_pillow(self) -> bool:
        """Whether it has 16 bits and several channels, which Pillow has no mode for."""
        return self.deep and (not self.grey or self.alpha is not None)

    @property
    def metadata(self) -> dict[str, bytes]:
        """What is beside the pixels, by Pillow's names."""
        found = {"icc_profile": self.icc, "exif": self.exif}
        return {name: value for name, value in found.items() if value}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.colour.shape[0], self.colour.shape[1]

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "UserPicture":
        """With ``function`` of the colours and of the opacity."""
        alpha = None if self.alpha is None else function(self.alpha)
        return dataclasses.replace(self, colour=function(self.colour), alpha=alpha)

    def eight_bits(self) -> "UserPicture":
        """With uint8."""
        return self.map(eight_bits) if self.deep else self

    def on_white(self) -> "UserPicture":
        """Without transparency: white shines through."""
        if self.alpha is None:
            return self
        top = np.float32(np.iinfo(self.colour.dtype).max)
        opacity = self.alpha[..., None] / top
        mixed = np.round(top + opacity * (self.colour.astype(np.float32) - top))
        return dataclasses.replace(self, colour=mixed.astype(self.colour.dtype), alpha=None)

    def as_pil(self) -> Image.Image:
        """As PIL has it: L, LA, RGB, RGBA or, of 16 bits, I;16. Other 16-bit pictures get 8."""
        if self.beyond_pillow:
            return self.eight_bits().as_pil()
        channels = self.channels()
        image = Image.fromarray(channels[..., 0] if channels.shape[-1] == 1 else channels)
        image.info.update(self.metadata)
        return image

    def channels(self) -> Shaped[np.ndarray, "height width channels"]:
        """One to four channels: grey or RGB, and opacity if there is any."""
        colour = self.colour[..., :1] if self.grey else self.colour
        if self.alpha is None:
            return colour
        return np.concatenate([colour, self.alpha[..., None]], axis=-1)

    def as_array(self, like: np.ndarray) -> np.ndarray:
        """With the dtype of the array ``like``, and without a channel axis where it has none.

        Floats are in [0, 1].
        """
        channels = self.channels()
        channels = channels[..., 0] if like.ndim == 2 and channels.shape[-1] == 1 else channels
        if like.dtype.kind != "f":
            return channels
        top = np.iinfo(channels.dtype).max
        return (channels.astype(np.float64) / top).astype(like.dtype)


def from_array(array: np.ndarray) -> UserPicture:
    """The picture of an array.

    Args:
        array: [h, w] or [h, w, 1] grey, [h, w, 2] grey with opacity, [h, w, 3] RGB or [h, w, 4]
            RGBA; bool, uint8, uint16, or floats in [0, 1], which keep 16 bits.

    Raises:
        UserError: another shape, dtype or range.
    """
    values = array[..., None] if array.ndim == 2 else array
    if values.ndim != 3 or values.shape[-1] not in (1, 2, 3, 4) or 0 in values.shape:
        raise UserError(
            f"a picture is {array.dtype}{list(array.shape)}; give [height, width] or [height, "
            "width, channels] with 1 to 4 channels, and several grey pictures as a list."
        )
    values = _levels(values, "a picture")
    count = values.shape[-1]
    grey, alpha = count < 3, values[..., -1] if count in (2, 4) else None
    colour = np.repeat(values[..., :1], 3, axis=-1) if grey else values[..., :3]
    return UserPicture(colour=colour, alpha=alpha, grey=grey)


def _levels(values: np.ndarray, what: str) -> np.ndarray:
    """As uint8 or uint16."""
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind != "f":
        raise UserError(
            f"{what} is {values.dtype}{list(values.shape)}; give bool, uint8, uint16, or floats in "
            "[0, 1]."
        )
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also not a number
        raise UserError(
            f"{what} of floats has values from {low:g} to {high:g}; give floats in [0, 1], or "
            "round it to uint8."
        )
    return np.round(values.astype(np.float64) * 65535).astype(np.uint16)


def as_map(picture: PictureSource) -> Shaped[np.ndarray, "height width"]:
    """The map as an array of its own dtype; files and PIL images may have 16 bits.

    Raises:
        UserError: the picture is in colour, or the array has other axes.
    """
    if isinstance(picture, str | os.PathLike):
        return load_depth(picture)
    if isinstance(picture, Image.Image) and picture.mode != "F":
        return load_depth(picture, "a depth map")
    array = np.asarray(picture)
    if array.ndim != 2:
        raise UserError(
            f"a depth map is {array.dtype}{list(array.shape)}; give [height, width], or a 16-bit "
            "grey image."
        )
    return array


def as_mask(mask: PictureSource) -> UInt8[np.ndarray, "height width"]:
    """The mask's brightness; True becomes 255.

    Raises:
        UserError: a file that cannot be read, or an array of other axes or another dtype.
    """
    if isinstance(mask, str | os.PathLike | Image.Image):
        return load_mask(mask)
    if mask.ndim != 2:
        raise UserError(f"a mask is {mask.dtype}{list(mask.shape)}; give [height, width].")
    levels = _levels(mask, "a mask")
    return eight_bits(levels) if levels.dtype == np.uint16 else levels
