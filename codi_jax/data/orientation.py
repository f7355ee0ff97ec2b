"""How the camera was held, by EXIF, and undoing it."""

import numpy as np
from absl import logging
from PIL import ExifTags, Image

from codi_jax.data.regular_files import readable


def orientation_of(image: Image.Image, name: str) -> int:
    """How the camera was held: EXIF's orientation, 1 to 8."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # EXIF is often damaged where the pixels are not
        logging.log_first_n(
            logging.WARNING,
            "%s: its EXIF cannot be read (%s): taken as upright",
            10,
            *(readable(name), error),
        )
        return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes EXIF's orientation."""
    height, width = pixels.shape[:2]
    if orientation not in range(2, 9):
        return np.ascontiguousarray(pixels)
    result = np.empty((*upright_shape(height, width, orientation), *pixels.shape[2:]), pixels.dtype)
    as_stored(result, orientation)[:] = pixels
    return result


def upright_shape(height: int, width: int, orientation: int) -> tuple[int, int]:
    """(height, width) of a stored picture when it is upright."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an upright picture in which it lies as the file has it: for writing it there."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return pixels
