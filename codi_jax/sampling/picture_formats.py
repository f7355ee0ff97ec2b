"""Pictures as the content of files: PNG, JPEG, WebP, TIFF; what travels beside the pixels."""

import io
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from codi_jax.data.regular_files import replacing
from codi_jax.sampling.user_pictures import UserPicture
from codi_jax.typing import Settings, UserError

#: Format -> the ending of its files' names.
FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}
_ENDINGS = {**{end: name for name, end in FORMATS.items()}, ".jpeg": "jpg", ".tif": "tiff"}
#: Endings of pictures that are read here and not written.
_UNWRITTEN = (".bmp", ".gif", ".avif", ".jxl", ".jfif", ".jp2", ".ppm", ".pgm")
#: The longest side that a format can have; PNG's and TIFF's are beyond any picture.
_LONGEST = {"jpg": 65_500, "webp": 16_383}
#: The key of the settings among a PNG's texts.
SETTINGS_KEY = "codi_jax"
_PNG_START = 8 + 25  # signature and IHDR


def format_of(path: Path) -> str | None:
    """The format that a file's name ends in; None for a name that is no picture's.

    Raises:
        UserError: a picture's ending that is not written.
    """
    ending = path.suffix.lower()
    if ending in _UNWRITTEN:
        raise UserError(f"{path}: {ending} is not written; end it in {', '.join(_ENDINGS)}.")
    return _ENDINGS.get(ending)


def check_fits(picture_format: str, height: int, width: int) -> None:
    """Check that a format can hold a picture of this size.

    Raises:
        UserError: it is too long.
    """
    longest = _LONGEST.get(picture_format)
    if longest is not None and max(height, width) > longest:
        raise UserError(
            f"the result is {width}x{height} pixels, and {picture_format} holds {longest} on a "
            "side: use --format=png, or --max_megapixels."
        )


def encode(picture: UserPicture, picture_format: str, quality: int, settings: Settings) -> bytes:
    """A picture as a file's content.

    Colour profile and EXIF are in every format (but a TIFF with 16-bit colours has no EXIF), 16
    bits and transparency where the format has them: JPEG and WebP have 8 bits, and JPEG shows what
    is transparent on white. Grey with 16 bits and transparency is written as RGBA.

    Args:
        picture: what is written.
        picture_format: one of `FORMATS`.
        quality: of JPEG and WebP, 1 to 100.
        settings: how the picture was made; a text in a PNG.
    """
    if picture_format == "png":
        return _png(picture, settings)
    if picture_format == "tiff" and picture.beyond_pillow:
        return _deep_tiff(picture)
    if picture_format == "jpg":
        picture = picture.on_white()
    if picture_format in ("jpg", "webp"):
        picture = picture.eight_bits()
    image, beside = picture.as_pil(), picture.metadata
    if picture_format == "jpg":
        fine = {"subsampling": 0} if quality >= 90 and not picture.grey else {}
        return _saved(image, "JPEG", quality=quality, **fine, **beside)
    if picture_format == "webp":
        return _saved(image, "WEBP", quality=quality, exact=True, **beside)
    return _saved(image, "TIFF", compression="tiff_adobe_deflate", **beside)


def _saved(image: Image.Image, pillow_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=pillow_format, **options)
    return file.getvalue()


def _png(picture: UserPicture, settings: Settings) -> bytes:
    text = json.dumps(dict(settings), ensure_ascii=False)
    if picture.beyond_pillow:
        return _deep_png(picture, text)
    info = PngImagePlugin.PngInfo()
    info.add_itxt(SETTINGS_KEY, text)
    return _saved(picture.as_pil(), "PNG", pnginfo=info, **picture.metadata)


def _deep_png(picture: UserPicture, text: str) -> bytes:
    colour = picture.colour[..., ::-1]
    if picture.alpha is not None:
        colour = np.concatenate([colour, picture.alpha[..., None]], axis=-1)
    made, encoded = cv2.imencode(".png", colour)
    assert made
    data = encoded.tobytes()
    chunks = [(b"iTXt", SETTINGS_KEY.encode() + bytes(5) + text.encode())]
    if picture.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    added = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:_PNG_START] + added + data[_PNG_START:]


def _deep_tiff(picture: UserPicture) -> bytes:
    colour, alpha = picture.colour, picture.alpha
    if alpha is not None:
        colour = np.concatenate([colour, alpha[..., None]], axis=-1)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        colour,
        photometric="rgb",
        compression="zlib",
        extrasamples=None if alpha is None else ["unassalpha"],
        iccprofile=picture.icc,
        metadata=None,
        software=False,
    )
    return file.getvalue()


def write(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file as a whole or not at all.

    Args:
        path: the file; its folder is made.
        data: its content.
        replace: whether a file may be there already.

    Raises:
        UserError: it cannot be written, or is there already.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)
            file.flush()
            if not replace:
                with open(path, "xb"):  # so that another program's file is not replaced either
                    pass
    except FileExistsError as error:
        raise UserError(f"{path} has come to be there meanwhile: it is left as it is.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}).") from error
