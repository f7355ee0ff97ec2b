"""Image files in and out, and the one place where images are resized.

Every image in this package is RGB, channels last, uint8 in [0, 255] until the device
normalises it. Colour profiles (ICC) are ignored: values are taken as sRGB.
"""

import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from codi_jax.typing import UserError

#: Decoding bound in pixels (0.5 GB as uint8 RGB), where Pillow too sees a decompression bomb.
MAX_PIXELS = 178_956_970


class CorruptError(UserError):
    """An image that cannot be used: its name, and what is wrong with it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_CV2_MODES = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
_PIL_MODES = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def load_image(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes an image file to RGB.

    The EXIF orientation is applied; grey, palette and CMYK images become RGB; 16 bits
    become 8 by rounding (x / 257); alpha is composited on white; of several frames the
    first is taken.

    Args:
        source: a path, or the bytes of an encoded image file.
        name: what error messages call the image; the path by default.
        max_pixels: largest accepted width x height, checked before decoding.

    Returns:
        uint8 [H, W, 3] in [0, 255], RGB, C-contiguous and writable.

    Raises:
        CorruptError: missing, empty, truncated, not an image, too large, or floating point.
    """
    return _to_rgb(*_decode(source, name, max_pixels))


def load_mask(source: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """Decodes an image file to its brightness: as `load_image`, but uint8 [H, W].

    Grey values are kept exactly; colours become their luma.
    """
    return cv2.cvtColor(load_image(source, name), cv2.COLOR_RGB2GRAY)


def load_depth(source: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """Decodes a grey image of 8 or 16 bits, without scaling its values.

    Returns:
        uint16 [H, W]: the numbers that are stored, up to 255 for 8 bits.

    Raises:
        CorruptError: as `load_image`, and for an image with more than one channel.
    """
    image, name = _decode(source, name, MAX_PIXELS)
    if image.mode == "L":
        return np.array(image).astype(np.uint16)
    if not image.mode.startswith("I"):
        raise CorruptError(
            name, f"depth must be grey with 8 or 16 bits, this is {image.mode}; convert it."
        )
    return _uint16(image, name)


def verify_image(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """Checks an image's header, without decoding its pixels.

    Returns:
        (height, width) as stored, before the EXIF orientation.

    Raises:
        CorruptError: missing, empty, not an image, too large, or a header that is damaged. A
            file that is cut short inside its pixel data can pass; `load_image` names it then.
    """
    data, name = _read(source, name)
    with _open(data, name, max_pixels) as image:
        size = image.size
        try:
            image.verify()
        except _DECODE_ERRORS as error:
            raise CorruptError(
                name, f"broken image file ({error}); replace it or remove it."
            ) from error
    return size[1], size[0]


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(f"{path}: cannot write here ({error}); choose another folder.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(array).save(file, format=image_format)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
        mode: "area", "bilinear" or "bicubic".
        antialias: see above.

    Returns:
        Same dtype and channels, [size_hw[0], size_hw[1], ...].
    """
    if mode not in _PIL_MODES:
        raise UserError(f"resize mode {mode!r} is unknown; use one of {', '.join(_PIL_MODES)}.")
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


def _read(source: str | os.PathLike[str] | bytes, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        data, name = source, name or "image"
    else:
        name = name or os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise CorruptError(
                name, f"cannot be read ({error.strerror}); check the path."
            ) from error
    if not data:
        raise CorruptError(name, "the file is empty (0 bytes); replace it or remove it.")
    return data, name


def _decode(
    source: str | os.PathLike[str] | bytes, name: str | None, max_pixels: int
) -> tuple[Image.Image, str]:
    """The image, upright, in the mode of its file, and its name."""
    data, name = _read(source, name)
    with _open(data, name, max_pixels) as image:
        try:
            image.load()
            return ImageOps.exif_transpose(image), name
        except _DECODE_ERRORS as error:
            raise CorruptError(
                name, f"broken image file ({error}); replace it or remove it."
            ) from error


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise CorruptError(name, f"too large ({error}); scale it down first.") from error
    except _DECODE_ERRORS as error:
        raise CorruptError(
            name, "not an image that Pillow can read; convert it to PNG, or remove it."
        ) from error
    if width * height > max_pixels:
        raise CorruptError(
            name,
            f"too large, {width}x{height} is above {max_pixels} pixels; "
            "scale it down or cut it into tiles first.",
        )
    return image


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise CorruptError(
            name, "floating-point pixels have no known range; save it with 8 or 16 bits."
        )
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        grey = ((_uint16(image, name).astype(np.int64) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _uint16(image: Image.Image, name: str) -> np.ndarray:
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise CorruptError(name, "32-bit pixels; save it with 8 or 16 bits.")
    return grey.astype(np.uint16)
