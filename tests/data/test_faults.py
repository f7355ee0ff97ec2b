"""The table of docs/data.md: what becomes of each kind of odd or broken file."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from codi_jax.data import pipeline, sources, transforms
from codi_jax.typing import UserError

Y, X = np.mgrid[0:16, 0:24]
RGB = np.stack([X * 10, Y * 15, 255 - X * 10], axis=-1).astype(np.uint8)


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a hundred bytes or so."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def good_files():
    """Name -> (bytes, expected pixels, tolerance)."""
    picture = Image.fromarray(RGB)
    cmyk = Image.new("CMYK", (24, 16), (0, 255, 0, 0))
    magenta = np.broadcast_to(np.array([255, 0, 255], np.uint8), RGB.shape)
    deep = (X.astype(np.uint16) * 2800 + 77)[:16]
    deep_rgb = np.repeat(np.uint8((deep.astype(int) + 128) // 257)[..., None], 3, axis=-1)
    palette = picture.quantize(8)
    alpha = np.dstack([RGB, np.where(X < 12, 255, 0).astype(np.uint8)])
    on_white = np.where((X < 12)[..., None], RGB, 255)
    frames = [picture, Image.fromarray(255 - RGB)]
    animated = {"save_all": True, "append_images": frames[1:]}
    turned = np.rot90(RGB, -1)
    return {
        "cmyk.jpg": (encoded(cmyk, "JPEG", quality=95), magenta, 4),
        "sixteen_bits.png": (encoded(Image.fromarray(deep), "PNG"), deep_rgb, 0),
        "palette.png": (encoded(palette, "PNG"), np.asarray(palette.convert("RGB")), 0),
        "alpha.png": (encoded(Image.fromarray(alpha), "PNG"), on_white, 0),
        "exif.jpg": (encoded(picture, "JPEG", quality=95, exif=exif(6)), turned, 24),
        "animated.webp": (encoded(picture, "WEBP", lossless=True, **animated), RGB, 0),
        "animated.png": (encoded(picture, "PNG", **animated), RGB, 0),
        "pages.tif": (encoded(picture, "TIFF", **animated), RGB, 0),
        "png_named.jpg": (encoded(picture, "PNG"), RGB, 0),
        "gif_named.png": (encoded(palette, "GIF"), np.asarray(palette.convert("RGB")), 0),
    }


def broken_files():
    """Name -> (bytes, what the message says)."""
    whole = encoded(Image.fromarray(np.tile(RGB, (8, 8, 1))), "JPEG")
    return {
        "truncated.jpg": (whole[: len(whole) // 2], "broken image file"),
        "empty.png": (b"", "empty"),
        "bomb.png": (bomb(), "too large"),
        "text_named.png": (b"no image at all", "not an image"),
        "float.tif": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating"),
    }


@pytest.mark.parametrize("name", good_files())
def test_odd_files_are_read(name, tmp_path):
    data, expected, tolerance = good_files()[name]
    (tmp_path / name).write_bytes(data)
    source = sources.FolderSource(tmp_path)
    sources.check_source(source)
    image = source[0]["image"]
    assert image.shape == expected.shape and image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_are_named(name, tmp_path):
    data, message = broken_files()[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: .*{message}"):
        sources.check_source(sources.FolderSource(tmp_path))


def test_all_together_train_within_the_limit(tmp_path):
    for name, (data, *_) in {**good_files(), **broken_files()}.items():
        (tmp_path / name).write_bytes(data)
    Image.fromarray(RGB).save(tmp_path / "logo.ico")  # no suffix that a folder reads
    source = sources.FolderSource(tmp_path)
    assert len(source) == len(good_files()) + len(broken_files())

    def epoch(max_corrupt):
        sources.check_source(source, max_corrupt)
        iterator = pipeline.train_iterator(
            sources.SkippingSource(source, max_corrupt),
            [transforms.RandomCropFlip(8)],
            batch_size=len(source),
            seed=0,
            num_workers=0,
        )
        return set(next(iterator)["name"])

    assert epoch(len(broken_files())) == good_files().keys()
    with pytest.raises(UserError, match=r"5 corrupt images.*max_corrupt=4") as error:
        epoch(len(broken_files()) - 1)
    assert all(name in str(error.value) for name in broken_files())
