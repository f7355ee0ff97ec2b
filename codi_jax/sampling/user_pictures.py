"""Pictures, maps and masks as users give them, PIL images or arrays, as checked arrays."""

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from codi_jax.data.images import load_depth, load_image, load_mask
from codi_jax.typing import UserError

Picture = Image.Image | np.ndarray


def as_picture(picture: Picture) -> UInt8[np.ndarray, "height width 3"]:
    """The picture as an array; PIL images are read as their files are.

    Raises:
        UserError: the array is no uint8 picture.
    """
    array = load_image(picture) if isinstance(picture, Image.Image) else picture
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(
            f"an image is {array.dtype}{list(array.shape)}; give uint8 [height, width, 3]."
        )
    return array


def as_map(picture: Picture) -> Shaped[np.ndarray, "height width"]:
    """The map as an array of its own dtype; PIL images may have 16 bits.

    Raises:
        UserError: the picture is in colour, or the array has other axes.
    """
    if isinstance(picture, Image.Image) and picture.mode != "F":
        return load_depth(picture, "a depth map")
    array = np.asarray(picture)
    if array.ndim != 2:
        raise UserError(
            f"a depth map is {array.dtype}{list(array.shape)}; give [height, width], or a 16-bit "
            "grey image."
        )
    return array


def as_mask(mask: Picture) -> UInt8[np.ndarray, "height width"]:
    """The mask as an array; True becomes 255, and PIL images become grey.

    Raises:
        UserError: the array is neither uint8 nor bool, or has other axes.
    """
    array = load_mask(mask) if isinstance(mask, Image.Image) else mask
    array = array * np.uint8(255) if array.dtype == bool else array
    if array.dtype != np.uint8 or array.ndim != 2:
        raise UserError(f"a mask is {array.dtype}{list(array.shape)}; give uint8 [height, width].")
    return array
