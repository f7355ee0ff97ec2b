"""Pictures, maps and masks as users give them: objects, files and folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from codi_jax.data.sources import FolderSource
from codi_jax.typing import UserError

Picture = Image.Image | np.ndarray


def as_picture(picture: Picture) -> np.ndarray:
    """uint8 [h, w, 3]. Raises UserError for an array that is none."""
    array = np.asarray(picture.convert("RGB")) if isinstance(picture, Image.Image) else picture
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(
            f"an image is {array.dtype}{list(array.shape)}; give uint8 [height, width, 3]."
        )
    return array


def as_map(picture: Picture) -> np.ndarray:
    """[h, w] of any dtype, 16-bit images among them. Raises UserError for a picture in colour."""
    array = np.asarray(picture)
    if array.ndim != 2:
        raise UserError(
            f"a depth map is {array.dtype}{list(array.shape)}; give [height, width], or a 16-bit "
            "grey image."
        )
    return array


def as_mask(mask: Picture) -> np.ndarray:
    """uint8 [h, w] of a picture, or of a uint8 or bool array. Raises UserError for others."""
    array = np.asarray(mask.convert("L")) if isinstance(mask, Image.Image) else mask
    array = array * np.uint8(255) if array.dtype == bool else array
    if array.dtype != np.uint8 or array.ndim != 2:
        raise UserError(f"a mask is {array.dtype}{list(array.shape)}; give uint8 [height, width].")
    return array


def input_files(path: Path) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of a file or of all images in a folder."""
    if path.is_dir():
        return [(path / name, Path(name)) for name in FolderSource(path).names]
    if not path.exists():
        raise UserError(f"--input {path} does not exist; give an image or a folder of images.")
    return [(path, Path(path.name))]


def mask_files(path: Path, inputs: list[tuple[Path, Path]]) -> list[Path]:
    """The mask of each input: one file for all, or of a folder the file of the same name."""
    masks = [path / name if path.is_dir() else path for _, name in inputs]
    for mask in masks:
        if not mask.is_file():
            raise UserError(f"--mask {mask} does not exist; give a mask for each input.")
    return masks
