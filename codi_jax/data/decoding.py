"""The one reader of pictures: of training, the commands, and PIL images in Python.

A picture is uint8 RGB, channels last, in sRGB. What is read is bounded: a file of
:data:`MAX_BYTES` bytes, a picture of :data:`MAX_PIXELS` pixels. While it is decoded, Pillow holds
at most 4 bytes a pixel beside the result's 3: 1.25 GB for the largest.
"""

import os
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from codi_jax.data.colour import to_srgb
from codi_jax.data.orientation import as_stored, orientation_of, upright_shape
from codi_jax.data.regular_files import (
    MAX_BYTES,
    MAX_PIXELS,
    CorruptError,
    check_regular,
    read_regular,
)

try:
    import pillow_jxl as _jxl  # it makes Pillow read JPEG XL
except ImportError:
    _jxl = None

#: A path, the bytes of an encoded image file, or a picture that Pillow has opened or made.
ImageSource = str | os.PathLike[str] | bytes | Image.Image
#: Image files that are looked for in folders and shards.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
        *((".jxl",) if _jxl else ()),
    }
)
#: What is recognised by its content. Pillow knows more: EPS, for one, which runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
_STRIP = 2**22  # pixels that are converted at once
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: Bytes of a PNG's texts that are read. Deflate packs at most 1032 to 1.
_TEXT_BYTES = 60 * 1024
PngImagePlugin.MAX_TEXT_CHUNK = 64 * 2**20  # colour profiles of printers exceed Pillow's 1 MB


def load_image(
    source: ImageSource, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Reads a picture as RGB.

    The EXIF orientation is applied; a colour profile is converted to sRGB; grey, palette and CMYK
    images become RGB; 16 bits become 8 (grey by rounding x / 257, colours by their upper byte);
    alpha is composited on white; of several frames the first is taken.

    Args:
        source: a path, the bytes of an encoded image file, or a PIL image.
        name: what error messages call the image; the path by default.
        max_pixels: largest accepted width x height, checked before decoding.

    Returns:
        uint8 [H, W, 3] in [0, 255], RGB, C-contiguous and writable.

    Raises:
        CorruptError: missing, no regular file, empty, truncated, not an image, too large, or
            floating point.
    """
    image, name = open_image(source, name, max_pixels)
    check_range_known(image, name)
    return by_strips(image, name, (3,), np.uint8, _rgb_strip)


def load_mask(source: ImageSource, name: str | None = None) -> np.ndarray:
    """Reads a picture's brightness: as `load_image`, but uint8 [H, W].

    Grey values without a colour profile are kept exactly; colours become their luma.
    """
    return cv2.cvtColor(load_image(source, name), cv2.COLOR_RGB2GRAY)


def load_depth(source: ImageSource, name: str | None = None) -> np.ndarray:
    """Reads a grey image of 8 or 16 bits, without scaling its values; it has no colours to manage.

    Returns:
        uint16 [H, W]: the numbers that are stored, up to 255 for 8 bits.

    Raises:
        CorruptError: as `load_image`, and for an image with more than one channel.
    """
    image, name = open_image(source, name, MAX_PIXELS)
    if image.mode != "L" and not image.mode.startswith("I"):
        raise CorruptError(
            name, f"depth must be grey with 8 or 16 bits, this is {image.mode}; convert it."
        )
    return by_strips(image, name, (), np.uint16, grey_uint16)


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of an image file as stored, of which no more than the header is read.

    Raises:
        CorruptError: missing, no regular file, not an image, or too large.
    """
    name = os.fspath(path)
    check_regular(path, name)
    with _parsed(name, name, MAX_PIXELS) as image:
        return image.height, image.width


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
    data, name = read_bytes(source, name)
    with _open(data, name, max_pixels) as image:
        size = image.size
        try:
            image.verify()
        except Exception as error:
            raise broken(name, error) from error
    return size[1], size[0]


def eight_bits(values: np.ndarray) -> np.ndarray:
    """uint16 to uint8 of the same shape, by rounding x / 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def read_bytes(source: str | os.PathLike[str] | bytes, name: str | None) -> tuple[bytes, str]:
    """The content of an image file, and its name; raises CorruptError if there is none."""
    if isinstance(source, bytes):
        data, name = source, name or "image"
    else:
        name = name or os.fspath(source)
        data = read_regular(source, name)
    if not data:
        raise CorruptError(name, "the file is empty (0 bytes); replace it or remove it.")
    return data, name


def open_image(source: ImageSource, name: str | None, max_pixels: int) -> tuple[Image.Image, str]:
    """The image, in the mode of its file and not yet upright, and its name."""
    if isinstance(source, Image.Image):
        image, name = source, name or getattr(source, "filename", "") or "image"
        _check_size(image, name, max_pixels)
    else:
        data, name = read_bytes(source, name)
        image = _open(data, name, max_pixels)
    try:
        image.load()
    except Exception as error:
        raise broken(name, error) from error
    return image, name


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise CorruptError(name, f"{len(data)} bytes, above {MAX_BYTES}; scale it down first.")
    return _parsed(BytesIO(_without_long_texts(data)), name, max_pixels)


def _parsed(file: str | BytesIO, name: str, max_pixels: int) -> Image.Image:
    """An image of which the header is read, and checked."""
    if not Image.OPEN.keys() >= {*_FORMATS}:
        Image.init()
    formats = [kind for kind in (*_FORMATS, "JXL") if kind in Image.OPEN]
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise CorruptError(name, f"too large ({error}); scale it down first.") from error
    except Exception as error:  # Pillow raises many types for damaged files
        raise CorruptError(
            name, "not an image that is read here; convert it to PNG, or remove it."
        ) from error
    _check_size(image, name, max_pixels)
    return image


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise CorruptError(
            name,
            f"too large, {width}x{height} is above {max_pixels} pixels; "
            "scale it down or cut it into tiles first."
            if width * height
            else f"has no pixels ({width}x{height}); remove it.",
        )


def check_range_known(image: Image.Image, name: str) -> None:
    """Raises CorruptError for pixels of floats, whose black and white nobody knows."""
    if image.mode == "F":
        raise CorruptError(
            name, "floating-point pixels have no known range; save it with 8 or 16 bits."
        )


def broken(name: str, error: Exception) -> CorruptError:
    """What is raised for a file that cannot be decoded."""
    return CorruptError(name, f"broken image file ({error}); replace it or remove it.")


def _without_long_texts(data: bytes) -> bytes:
    """A PNG without the texts beyond the first 60 KiB; other files as they are.

    Programs store whole workflows in them, which Pillow refuses to read.
    """
    if not data.startswith(_PNG):
        return data
    kept, start, at, texts = [], 0, len(_PNG), 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in _PNG_TEXTS:
            texts += end - at
            if texts > _TEXT_BYTES:
                kept.append(data[start:at])
                start = end
        at = end
    return b"".join([*kept, data[start:]]) if kept else data


def by_strips(
    image: Image.Image,
    name: str,
    channels: tuple[int, ...],
    dtype: type[np.generic],
    convert: Callable[[Image.Image, str], np.ndarray],
) -> np.ndarray:
    """The upright picture, [H, W, *channels]; a copy of the whole is never beside it.

    Args:
        image: decoded, as its file has it.
        name: what error messages call it.
        channels: (), or their number.
        dtype: of the result.
        convert: from a strip of the image to the result's numbers.

    Raises:
        CorruptError: it cannot be converted.
    """
    width, height = image.size
    orientation = orientation_of(image, name)
    pixels = np.empty((*upright_shape(height, width, orientation), *channels), dtype)
    stored = as_stored(pixels, orientation)
    rows = max(1, _STRIP // width)
    try:
        for top in range(0, height, rows):
            box = (0, top, width, min(top + rows, height))
            strip = image if rows >= height else image.crop(box)
            stored[top : top + rows] = convert(strip, name)
    except CorruptError:
        raise
    except Exception as error:  # for example a palette that is too short
        raise broken(name, error) from error
    return pixels


def _rgb_strip(image: Image.Image, name: str) -> np.ndarray:
    profile = image.info.get("icc_profile") or None
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        deep = grey_uint16(image, name)
        grey = to_srgb(Image.fromarray(eight_bits(deep)), profile)
        if not isinstance(clear, int):
            return np.asarray(grey)
        return np.where((deep == clear)[..., None], np.uint8(255), np.asarray(grey))
    if not image.has_transparency_data:
        return np.asarray(to_srgb(image, profile))
    rgba = image.convert("RGBA")
    grey_or_rgb = image.convert("LA").getchannel("L") if image.mode in ("L", "LA", "La") else rgba
    colours = to_srgb(grey_or_rgb.convert("L" if grey_or_rgb.mode == "L" else "RGB"), profile)
    colours.putalpha(rgba.getchannel("A"))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))


def grey_uint16(image: Image.Image, name: str) -> np.ndarray:
    """The numbers of a grey picture [H, W]; raises CorruptError if 16 bits do not hold them."""
    grey = np.asarray(image)
    if grey.dtype != np.uint8 and grey.size and (grey.min() < 0 or grey.max() > 65535):
        raise CorruptError(name, "32-bit pixels; save it with 8 or 16 bits.")
    return grey.astype(np.uint16)
