"""A user's picture of any kind, read: colours, opacity, depth, profile and camera data."""

import cv2
import numpy as np
from PIL import ExifTags, Image

from codi_jax.data.colour import to_srgb
from codi_jax.data.decoding import (
    broken,
    by_strips,
    check_range_known,
    grey_uint16,
    open_image,
    read_bytes,
)
from codi_jax.data.orientation import orientation_of, upright
from codi_jax.data.regular_files import MAX_PIXELS
from codi_jax.sampling.user_pictures import PictureSource, UserPicture, from_array
from codi_jax.typing import UserError

#: Of a TIFF, whose EXIF also says how its pixels are stored, only this is kept.
_TIFF_EXIF = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.Copyright, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo),
)
_GREY_MODES = ("1", "L", "LA", "La")


def read_picture(source: PictureSource | bytes) -> UserPicture:
    """A picture as the command line and :class:`Sampler` read it.

    As :func:`codi_jax.data.decoding.load_image`, but nothing is lost: transparency and 16 bits are
    kept, and RGB and grey pictures keep their numbers and their colour profile.

    Args:
        source: a path, a file's content, a PIL image, or an array (see `from_array`).

    Raises:
        UserError: it is no picture, or one whose numbers have no known range.
    """
    if isinstance(source, np.ndarray):
        return from_array(source)
    data = b""
    if isinstance(source, Image.Image):
        image, name = open_image(source, None, MAX_PIXELS)
    else:
        given = "standard input" if isinstance(source, bytes) else None
        data, name = read_bytes(source, given)
        image = open_image(data, name, MAX_PIXELS)[0]
    try:
        return _of_image(image, name, data)
    except UserError:
        raise
    except Exception as error:  # for example a palette that is too short
        raise broken(name, error) from error


def _of_image(image: Image.Image, name: str, data: bytes) -> UserPicture:
    profile = image.info.get("icc_profile") or None
    frames, exif = getattr(image, "n_frames", 1), _exif(image)
    check_range_known(image, name)
    orientation = orientation_of(image, name)
    deep = None
    if _is_deep(image, data):
        image.close()  # OpenCV needs the memory
        deep = _deep_channels(data, image.mode)
        if deep is None:
            image = open_image(data, name, MAX_PIXELS)[0]
    if deep is None and not image.mode.startswith("I"):
        picture = from_array(_eight_bits(image, name, profile)).map(np.ascontiguousarray)
        if image.mode == "CMYK":
            profile = None  # the numbers are sRGB now
    else:
        picture = _deep_grey(image, name) if deep is None else from_array(deep)
        picture = picture.map(lambda values: upright(values, orientation))
    space = b"GRAY" if picture.grey else b"RGB "
    kept = profile if profile is not None and profile[16:20] == space else None
    return UserPicture(
        colour=picture.colour,
        alpha=picture.alpha,
        grey=picture.grey,
        icc=kept,
        exif=exif,
        frames=frames,
    )


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether a file has 16 bits and several channels, which Pillow reduces to 8 bits."""
    if image.format == "PNG":
        return data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x04", b"\x06")
    if image.format == "TIFF" and data:
        bits = getattr(image, "tag_v2", {}).get(258, ())
        return len(bits) >= 3 and set(bits) == {16}
    return False


def _deep_channels(data: bytes, mode: str) -> np.ndarray | None:
    """The pixels of such a file, of Pillow's ``mode``; None if OpenCV does not read them."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    if mode == "LA":
        return np.ascontiguousarray(pixels[..., [0, pixels.shape[-1] - 1]])
    for row in pixels:  # from OpenCV's BGR, without a copy of the whole
        row[:, :3] = row[:, 2::-1].copy()
    return pixels


def _deep_grey(image: Image.Image, name: str) -> UserPicture:
    values = grey_uint16(image, name)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return from_array(values)
    opacity = np.where(values == clear, 0, 65535).astype(np.uint16)
    return from_array(np.stack([values, opacity], axis=-1))


def _eight_bits(image: Image.Image, name: str, profile: bytes | None) -> np.ndarray:
    """The upright picture, uint8 with 1 to 4 channels."""
    grey = image.mode in _GREY_MODES

    def numbers(strip: Image.Image, name: str) -> np.ndarray:
        if image.mode == "CMYK":
            return np.asarray(to_srgb(strip, profile))
        if not image.has_transparency_data:
            return np.atleast_3d(np.asarray(strip.convert("L" if grey else "RGB")))
        # Pillow has no way from some modes to LA.
        return np.asarray(strip.convert("RGBA"))[..., 2 * grey :]

    channels = (1 if grey else 3) + (image.mode != "CMYK" and image.has_transparency_data)
    return by_strips(image, name, (channels,), np.uint8, numbers)


def _exif(image: Image.Image) -> bytes | None:
    """What the camera said, without the orientation."""
    exif = Image.Exif()
    try:
        exif.load(image.getexif().tobytes())  # a copy: the image is the user's
        exif.pop(ExifTags.Base.Orientation, None)
        if image.format == "TIFF":
            for tag in [*exif]:
                if tag not in _TIFF_EXIF:
                    del exif[tag]
        return exif.tobytes() if len(exif) else None
    except Exception:  # damaged, as orientation_of has warned
        return None
