import io
import os
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from codi_jax.data import decoding
from codi_jax.data.decoding import stored_size
from codi_jax.data.images import CorruptError, load_depth, load_image, load_mask, verify_image
from codi_jax.typing import UserError
from tests.data import icc

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_chunk(png, kind, data):
    """The PNG with another chunk after its header."""
    body = kind + data
    chunk = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(load_image(data), expected)


def test_colours_are_converted_to_srgb():
    swapped = icc.rgb(red=icc.GREEN, green=icc.RED)
    for image_format in ("PNG", "TIFF", "WEBP"):
        lossless = {"lossless": True} if image_format == "WEBP" else {}
        picture = Image.new("RGB", (4, 4), (255, 0, 0))
        data = encoded(picture, image_format, icc_profile=swapped, **lossless)
        assert np.abs(load_image(data)[0, 0].astype(int) - [0, 255, 0]).max() <= 1
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    mixed = load_image(encoded(clear, icc_profile=swapped))[0, 0]
    assert np.abs(mixed.astype(int) - [127, 255, 127]).max() <= 1  # converted, then laid on white
    # A linear grey of 100: 255 (1.055 (100/255)^(1/2.4) - 0.055) = 168.
    linear = icc.grey(1.0)
    assert load_image(encoded(Image.new("L", (1, 1), 100), icc_profile=linear)).max() == 168
    deep = Image.fromarray(np.full((1, 1), 100 * 257, np.uint16))
    assert load_image(encoded(deep, icc_profile=linear)).max() == 168


def test_ink_is_converted_by_its_profile():
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    orange = load_image(encoded(ink, "JPEG", icc_profile=icc.cmyk(padding=200_000)))[0, 0]
    assert orange[0] > 240 and orange[2] < 60  # the profile's, not plain cyan
    assert load_image(encoded(ink, "TIFF"))[0, 0].tolist() == [0, 255, 255]


def test_profiles_that_say_nothing_change_nothing():
    picture = Image.fromarray(RGB)
    kept = [icc.cmyk(), icc.grey(1.0), b"no profile" * 20]
    kept.append(encoded_srgb())
    for profile in kept:
        np.testing.assert_array_equal(load_image(encoded(picture, icc_profile=profile)), RGB)


def encoded_srgb():
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_huge_texts_and_profiles_are_no_fault():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "node " * 600_000)
    texts.add_text("more", "node " * 600_000, zip=True)
    data = encoded(Image.fromarray(RGB), pnginfo=texts)
    bomb = zlib.compress(bytes(66 * 2**20), 6)
    for png in (data, with_chunk(data, b"zTXt", b"bomb\0\0" + bomb)):
        np.testing.assert_array_equal(load_image(png), RGB)
        assert verify_image(png) == (12, 20)
    swapped = icc.rgb(red=icc.GREEN, green=icc.RED)
    large = struct.pack(">I", 3 * 2**20) + swapped[4:]
    large += bytes(3 * 2**20 - len(large))
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert load_image(encoded(red, icc_profile=large))[0, 0, 1] == 255


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_and_huge_exif_does_not_cost_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x010E] = "d" * 3_000_000
    data = encoded(Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(load_image(data), RGB[::-1, ::-1])
    damaged = with_chunk(encoded(Image.fromarray(RGB)), b"eXIf", b"MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(load_image(damaged), RGB)


def test_palettes_may_be_clear():
    picture = Image.fromarray(RGB).quantize(4)
    opacity = bytes([0, 255, 255, 128])
    rgba = np.asarray(
        Image.open(io.BytesIO(encoded(picture, transparency=opacity))).convert("RGBA")
    )
    alpha = rgba[..., 3:].astype(float) / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    read = load_image(encoded(picture, transparency=opacity))
    assert np.abs(read - expected).max() <= 1
    deep = np.array([[7, 700]], np.uint16)
    key = with_chunk(encoded(Image.fromarray(deep)), b"tRNS", struct.pack(">H", 7))
    assert load_image(key)[0, :, 0].tolist() == [255, 3]


def test_strips_are_joined_exactly(monkeypatch):
    gif = encoded(Image.fromarray(RGB).quantize(8), "GIF")
    whole = [load_image(encoded(Image.fromarray(RGB))), load_image(gif)]
    monkeypatch.setattr(decoding, "_STRIP", 50)  # two rows
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(RGB))), whole[0])
    np.testing.assert_array_equal(load_image(gif), whole[1])
    deep = np.arange(240, dtype=np.uint16).reshape(12, 20) * 250
    np.testing.assert_array_equal(load_depth(encoded(Image.fromarray(deep))), deep)


def test_what_pillow_would_run_is_not_read(monkeypatch):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    monkeypatch.setattr(subprocess, "Popen", None)  # Ghostscript
    with pytest.raises(CorruptError, match="not an image that is read here"):
        load_image(eps, "photo.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_the_stored_size_needs_the_header_alone(ending, tmp_path):
    path, noise = tmp_path / f"a.{ending}", np.random.default_rng(0).bytes(300 * 500 * 3)
    Image.frombytes("RGB", (500, 300), noise).save(path, compression=None)
    assert stored_size(path) == verify_image(path) == (300, 500)
    if ending in ("png", "jpg"):
        path.write_bytes(path.read_bytes()[:1000])
        assert stored_size(path) == (300, 500)
    path.write_bytes(b"no picture")
    with pytest.raises(CorruptError, match=f"a.{ending}: not an image"):
        stored_size(path)


def test_pipes_devices_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "zero.png", "folder.png"):
        for read in (load_image, verify_image, load_depth, load_mask, stored_size):
            with pytest.raises(CorruptError, match=rf"{name}: no regular file"):
                read(tmp_path / name)
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(2**40)
    for read in (load_image, stored_size):
        with pytest.raises(CorruptError, match=r"sparse\.png: 1099511627776 bytes, above"):
            read(tmp_path / "sparse.png")
    with pytest.raises(CorruptError, match="cannot be read"):
        load_image("null\0byte.png")


def test_memory_is_bounded():
    program = """
import io, resource, numpy as np
from PIL import Image
from codi_jax.data import decoding
from codi_jax.data.images import load_image
decoding._STRIP = 2**18
buffer = io.BytesIO()
Image.new("P", (3000, 3000)).save(buffer, "PNG", compress_level=1)  # 9 million pixels
alpha = io.BytesIO()
Image.new("RGBA", (3000, 3000)).save(alpha, "PNG", compress_level=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in (buffer, alpha):
    load_image(data.getvalue())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # Making the pictures took 4 bytes a pixel of the peak before.
    assert int(done.stdout) * 1024 < 9e6 * 5 + 20e6


def test_names_that_are_not_utf8_are_readable(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    with open(name, "wb") as file:
        file.write(b"nope")
    with pytest.raises(CorruptError, match=r"caf\\xe9\.png: not an image") as caught:
        load_image(name)
    str(caught.value).encode()  # it can be printed and written


def test_pil_images_are_read_as_their_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)
    files = {
        "turned.jpg": (Image.fromarray(RGB), {"exif": exif}),
        "grey16.png": (Image.fromarray(deep), {}),
        "clear.png": (Image.fromarray(np.dstack([RGB, RGB[..., :1] // 2])), {}),
        "wide.png": (Image.fromarray(RGB), {"icc_profile": icc.rgb(gamma=1.0)}),
        "ink.jpg": (Image.new("CMYK", (9, 7), (9, 99, 0, 0)), {"icc_profile": icc.cmyk()}),
        "palette.gif": (Image.fromarray(RGB).quantize(16), {"transparency": 3}),
        "bits.tif": (Image.fromarray(RGB).convert("1"), {}),
    }
    for name, (picture, options) in files.items():
        picture.save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            np.testing.assert_array_equal(load_image(opened), load_image(tmp_path / name), name)
            np.testing.assert_array_equal(load_mask(opened), load_mask(tmp_path / name), name)
    with Image.open(tmp_path / "grey16.png") as opened:
        np.testing.assert_array_equal(load_depth(opened), deep)
        assert load_depth(opened).dtype == np.uint16
    with Image.open(tmp_path / "turned.jpg") as opened, pytest.raises(UserError, match="depth"):
        load_depth(opened)


def test_threads_share_a_profile():
    data = encoded(Image.fromarray(RGB), icc_profile=icc.rgb(gamma=1.2))
    expected, wrong = load_image(data), []

    def read():
        wrong.extend(not np.array_equal(load_image(data), expected) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_flipped_bytes_raise_one_kind_of_error():
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif, "icc_profile": icc.rgb()}
    files = [
        *(encoded(Image.fromarray(RGB), f, **options) for f in ("PNG", "JPEG", "WEBP", "TIFF")),
        *(encoded(Image.fromarray(RGB).quantize(9), f) for f in ("GIF", "BMP", "PNG")),
        *(encoded(Image.fromarray(RGB), f) for f in ("AVIF", "PPM", "JPEG2000")),
    ]
    broken = 0
    for data in files:
        for _ in range(40):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), rng.integers(1, 6)):
                damaged[at] = rng.integers(256)
            for read in (load_image, load_depth, verify_image):
                try:
                    read(bytes(damaged[: rng.integers(1, 2 * len(data))]))
                except CorruptError:
                    broken += 1
    assert broken > 200
