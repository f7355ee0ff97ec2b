"""Pictures of every kind: what of them is kept, and that files hold it again."""

import io
import json

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from codi_jax.sampling.picture_formats import FORMATS, SETTINGS_KEY, check_fits, encode
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.user_pictures import UserPicture, from_array
from codi_jax.typing import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY, ALPHA = RGB[..., 0].copy(), RGB[..., 1].copy()
DEEP = RNG.integers(0, 65536, (5, 7, 4)).astype(np.uint16)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_eight_bits_of_every_mode():
    for image, grey, alpha in (
        (Image.fromarray(RGB), False, None),
        (Image.fromarray(GREY), True, None),
        (Image.fromarray(np.stack([GREY, ALPHA], -1)), True, ALPHA),
        (Image.fromarray(np.concatenate([RGB, ALPHA[..., None]], -1)), False, ALPHA),
    ):
        expected = np.repeat(GREY[..., None], 3, -1) if grey else RGB
        for source in (image, stored(image)):
            read = read_picture(source)
            np.testing.assert_array_equal(read.colour, expected)
            assert read.grey == grey and read.colour.dtype == np.uint8
            assert (read.alpha is None) == (alpha is None)
            assert alpha is None or (read.alpha == alpha).all()
            assert read.as_pil().mode == image.mode
    palette = Image.fromarray(RGB // 64 * 64).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(read_picture(palette).colour, np.asarray(palette.convert("RGB")))
    clear = read_picture(stored(palette, transparency=0))
    assert clear.alpha is not None
    np.testing.assert_array_equal(clear.alpha == 0, np.asarray(palette) == 0)
    cmyk = read_picture(stored(Image.fromarray(RGB).convert("CMYK"), "JPEG"))
    assert cmyk.colour.shape == RGB.shape and cmyk.as_pil().mode == "RGB"
    bits = read_picture(Image.fromarray(GREY > 99))
    assert bits.grey and {*np.unique(bits.colour)} <= {0, 255}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_come_back_from_files(kind, channels):
    deep = DEEP[..., :channels]
    picture = from_array(deep)
    read = read_picture(encode(picture, kind, 95, {}))
    assert read.deep and read.grey == (channels == 1)
    np.testing.assert_array_equal(read.colour, picture.colour)
    if channels in (2, 4):
        np.testing.assert_array_equal(read.alpha, picture.alpha)


def test_sixteen_bits_of_other_programs():
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP[..., :3], photometric="rgb")
    np.testing.assert_array_equal(read_picture(file.getvalue()).colour, DEEP[..., :3])
    png = cv2.imencode(".png", DEEP[..., 2::-1])[1].tobytes()
    np.testing.assert_array_equal(read_picture(png).colour, DEEP[..., :3])
    grey = Image.fromarray(DEEP[..., 0])
    read = read_picture(stored(grey))
    np.testing.assert_array_equal(read.colour[..., 0], DEEP[..., 0])
    assert read.grey and read.as_pil().mode == "I;16"


def test_sixteen_bits_that_opencv_does_not_read_become_eight(monkeypatch):
    data = encode(from_array(DEEP[..., :3]), "png", 90, {})
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    read = read_picture(data)
    assert not read.deep and read.frames == 1
    np.testing.assert_allclose(read.colour, DEEP[..., :3] / 257, atol=1)


def test_upright_with_profile_and_camera_data():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Model] = "a camera"
    image = Image.fromarray(RGB)
    for kind in ("PNG", "TIFF"):
        options = {"exif": exif, "icc_profile": SRGB}
        read = read_picture(stored(image, kind, **options))
        np.testing.assert_array_equal(read.colour, np.rot90(RGB, -1))
        for name in FORMATS:
            with Image.open(io.BytesIO(encode(read, name, 95, {}))) as again:
                assert again.size == (5, 7) and again.info["icc_profile"] == SRGB
                assert again.getexif()[ExifTags.Base.Model] == "a camera"
                assert again.getexif().get(ExifTags.Base.Orientation, 1) == 1
    rotated = read_picture(stored(Image.fromarray(DEEP[..., 0]), exif=exif))
    assert rotated.size == (7, 5) and rotated.deep
    colours = read_picture(encode(from_array(DEEP), "png", 95, {}))
    assert colours.icc is None
    deep = encode(
        UserPicture(colour=DEEP[..., :3], icc=SRGB, exif=exif.tobytes()), "png", 95, {"seed": 1}
    )
    with Image.open(io.BytesIO(deep)) as again:
        assert again.info["icc_profile"] == SRGB
        assert again.getexif()[ExifTags.Base.Model] == "a camera"
        assert json.loads(again.text[SETTINGS_KEY]) == {"seed": 1}


def test_a_users_image_stays_as_it_is():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    with Image.open(io.BytesIO(stored(Image.fromarray(RGB), exif=exif))) as image:
        first, second = read_picture(image), read_picture(image)
    np.testing.assert_array_equal(first.colour, second.colour)
    np.testing.assert_array_equal(first.colour, RGB[::-1, ::-1])


def test_of_several_frames_the_first():
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    moving = stored(frames[0], "PNG", save_all=True, append_images=frames[1:])
    read = read_picture(moving)
    assert read.frames == 2
    np.testing.assert_array_equal(read.colour, RGB)


def test_what_formats_do_not_have():
    clear = from_array(np.concatenate([RGB, np.zeros((5, 7, 1), np.uint8)], -1))
    jpeg = np.asarray(Image.open(io.BytesIO(encode(clear, "jpg", 95, {}))))
    assert (jpeg >= 254).all()  # what is transparent is white
    webp = Image.open(io.BytesIO(encode(from_array(DEEP), "webp", 95, {})))
    assert webp.mode == "RGBA"
    check_fits("png", 100_000, 1)
    with pytest.raises(UserError, match="16383 on a side: use --format=png"):
        check_fits("webp", 1, 16_384)


def test_arrays():
    for array in (GREY, RGB, DEEP, DEEP[..., :2], GREY > 9, (DEEP / 65535).astype(np.float32)):
        back = read_picture(array).as_array(array)
        assert back.shape == array.shape
        if array.dtype != bool:
            assert back.dtype == array.dtype
            np.testing.assert_allclose(back, array, atol=1e-6)
    for wrong, said in (
        (RGB.astype(np.int32), r"int32\[5, 7, 3\]; give bool, uint8, uint16, or floats"),
        (RGB.astype(np.float32), "values from .* to 2..; give floats in"),
        (np.full((2, 2), np.nan), "values from nan"),
        (RGB[None], r"uint8\[1, 5, 7, 3\]"),
        (np.zeros((2, 2, 5), np.uint8), "several grey pictures as a list"),
        (np.zeros((0, 2), np.uint8), r"uint8\[0, 2\]"),
    ):
        with pytest.raises(UserError, match=said):
            read_picture(wrong)


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path / "b.png", b"x"):
        with pytest.raises(UserError, match=r"a\.png|b\.png|standard input"):
            read_picture(source)
    with pytest.raises(UserError, match="floating-point"):
        read_picture(Image.fromarray(np.ones((2, 2), np.float32)))
    cut = stored(Image.fromarray(RGB))
    cut = cut[: len(cut) - 60]
    with pytest.raises(UserError, match="broken image file"):
        read_picture(cut)
