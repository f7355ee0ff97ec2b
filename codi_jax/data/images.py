"""Image files in (by `decoding`) and out, and the one place where images are resized.

Every image in this package is RGB, channels last, uint8 in [0, 255] and sRGB, until the device
normalises it.
"""

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from codi_jax.data.decoding import (
    SUFFIXES,
    ImageSource,
    eight_bits,
    load_depth,
    load_image,
    load_mask,
    verify_image,
)
from codi_jax.data.regular_files import (
    MAX_BYTES,
    MAX_PIXELS,
    CorruptError,
    readable,
    replacing,
)
from codi_jax.typing import UserError

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIXES",
    "CorruptError",
    "ImageSource",
    "eight_bits",
    "load_depth",
    "load_image",
    "load_mask",
    "readable",
    "resize",
    "save_image",
    "to_float",
    "unit_to_uint8",
    "usm_sharpen",
    "verify_image",
]

_CV2_MODES = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
_PIL_MODES = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def save_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes an image atomically (temporary file in the same folder, then rename).

    Args:
        path: destination; its suffix names the format.
        array: uint8 [H, W, 3] RGB or [H, W] grey.

    Raises:
        UserError: a suffix that names no image format, or a folder that cannot be written.
        TypeError: an array that is not uint8.
    """
    path = Path(path)
    if array.dtype != np.uint8:
        raise TypeError(f"save_image needs uint8 in [0, 255], got {array.dtype}")
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format is None:
        raise UserError(f"{path}: no image format has this suffix; use .png, .jpg or .webp.")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(replacing(path))
        except OSError as error:
            raise UserError(
                f"{path}: cannot write here ({error}); choose another folder."
            ) from error
        Image.fromarray(array).save(file, format=image_format)


def resize(
    image: np.ndarray, size_hw: tuple[int, int], mode: str, *, antialias: bool = True
) -> np.ndarray:
    """Resizes an image. Pixel centres are at half integers (`align_corners=False`).

    With `antialias` (Pillow) the filter widens with the reduction factor, as in MATLAB's
    `imresize` and as super-resolution test images are made; bicubic has a = -0.5. Without
    it (OpenCV) bilinear and bicubic (a = -0.75) read only the nearest 2 or 4 pixels, as
    torch's `interpolate` does: that aliasing is part of Real-ESRGAN's degradations. Area
    averages the pixels that an output pixel covers, either way.

    Args:
        image: uint8 [H, W, C] or [H, W] in [0, 255], or float32 of any range. Bicubic
            overshoots: uint8 is clipped, float32 is not.
        size_hw: output (height, width).
        mode: "area", "bilinear" or "bicubic"; with `antialias` also "lanczos", of 3 lobes.
        antialias: see above.

    Returns:
        Same dtype and channels, [size_hw[0], size_hw[1], ...].
    """
    modes = _PIL_MODES if antialias else _CV2_MODES
    if mode not in modes:
        raise UserError(f"resize mode {mode!r} is unknown; use one of {', '.join(modes)}.")
    height, width = size_hw
    if image.shape[:2] == (height, width):
        return image.copy()
    if not antialias:
        return cv2.resize(image, (width, height), interpolation=_CV2_MODES[mode])
    if image.dtype == np.uint8:
        resized = Image.fromarray(image).resize((width, height), _PIL_MODES[mode])
        return np.array(resized)
    if image.ndim == 2:
        return np.array(Image.fromarray(image).resize((width, height), _PIL_MODES[mode]))
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
            (width, height), _PIL_MODES[mode]
        )
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def usm_sharpen(image: np.ndarray, weight: float = 0.5, threshold: float = 10.0) -> np.ndarray:
    """Unsharp masking of the ground truth, as Real-ESRGAN (Wang et al. 2021) trains.

    residual = x - G x; sharp = clip(x + weight residual); the result mixes x and `sharp`
    by the blurred mask |residual| > threshold / 255. G is a Gaussian of 51 pixels, sigma 8.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        weight: how much of the residual is added.
        threshold: the least residual that is sharpened, in levels of 255.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    size, sigma = (51, 51), 8.0
    residual = image - cv2.GaussianBlur(image, size, sigma)
    strong = (np.abs(residual) > threshold / 255.0).astype(np.float32)
    mask = cv2.GaussianBlur(strong, size, sigma)
    sharp = np.clip(image + np.float32(weight) * residual, 0.0, 1.0)
    return image + mask * (sharp - image)


def unit_to_uint8(image: np.ndarray) -> np.ndarray:
    """Rounds float32 in [0, 1] to uint8, clipping what is outside. One pass."""
    return cv2.addWeighted(image, 255.0, image, 0.0, 0.0, dtype=cv2.CV_8U)


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return np.multiply(image, np.float32(1.0 / 255.0), dtype=np.float32)
