import io
import os
import stat

import numpy as np
import pytest
from PIL import Image

from codi_jax.data import images
from codi_jax.typing import UserError


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def gradient():
    y, x = np.mgrid[0:24, 0:40]
    return np.stack([x * 6, y * 10, 255 - x * 6], axis=-1).astype(np.uint8)


def test_rgb_is_read_exactly_and_is_writable(gradient, tmp_path):
    images.save_image(tmp_path / "sub" / "a.png", gradient)
    loaded = images.load_image(tmp_path / "sub" / "a.png")
    np.testing.assert_array_equal(loaded, gradient)
    assert loaded.dtype == np.uint8 and loaded.flags.writeable and loaded.flags.c_contiguous


def test_grey_palette_and_bilevel(gradient):
    grey = Image.fromarray(gradient[..., 0])
    loaded = images.load_image(encoded(grey))
    np.testing.assert_array_equal(loaded, np.repeat(gradient[..., :1], 3, axis=-1))
    palette = Image.fromarray(gradient).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(images.load_image(encoded(palette)), expected)
    bilevel = images.load_image(encoded(grey.convert("1")))
    assert set(np.unique(bilevel)) == {0, 255} and bilevel.shape == (24, 40, 3)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(image_format):
    deep = np.array([[0, 128, 129, 257, 30_000, 65_535]], np.uint16)
    loaded = images.load_image(encoded(Image.fromarray(deep), image_format))
    np.testing.assert_array_equal(loaded[0, :, 0], np.round(deep[0] / 257))
    assert loaded.shape == (1, 6, 3)


def test_depth_and_masks_keep_their_numbers(gradient):
    deep = np.array([[0, 255, 256, 65_535]], np.uint16)
    loaded = images.load_depth(encoded(Image.fromarray(deep)))
    np.testing.assert_array_equal(loaded, deep)
    eight = images.load_depth(encoded(Image.fromarray(gradient[..., 0])))
    assert loaded.dtype == eight.dtype == np.uint16
    np.testing.assert_array_equal(eight, gradient[..., 0])
    with pytest.raises(UserError, match="far: depth must be grey.*this is RGB"):
        images.load_depth(encoded(Image.fromarray(gradient)), "far")
    mask = images.load_mask(encoded(Image.fromarray(gradient[..., 1])))
    np.testing.assert_array_equal(mask, gradient[..., 1])


def test_cmyk_jpeg():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    loaded = images.load_image(encoded(cyan, "JPEG", quality=95))
    assert np.abs(loaded.astype(int) - [0, 255, 255]).max() <= 4


def test_alpha_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 128, 255)
    expected = [[255, 255, 255], [227, 127, 127], [200, 0, 0]]
    loaded = images.load_image(encoded(Image.fromarray(rgba)))
    assert np.abs(loaded[0].astype(int) - expected).max() <= 1
    grey_alpha = Image.fromarray(np.array([[[50, 0]]], np.uint8), "LA")
    assert images.load_image(encoded(grey_alpha)).tolist() == [[[255, 255, 255]]]


def test_transparent_palette_colour():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    loaded = images.load_image(encoded(palette, transparency=0))
    assert loaded.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_exif_orientation_is_applied(gradient):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    data = encoded(Image.fromarray(gradient), "PNG", exif=exif)
    np.testing.assert_array_equal(images.load_image(data), np.rot90(gradient, -1))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_truncated_file_is_named(gradient, tmp_path, image_format):
    path = tmp_path / f"cut.{image_format.lower()}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"cut\.{image_format.lower()}.*(replace|convert|remove)"):
        images.load_image(path)


def test_other_faults_are_named(gradient, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image at all")
    for check in (images.load_image, images.verify_image):
        with pytest.raises(UserError, match=r"empty\.png.*empty \(0 bytes\)"):
            check(tmp_path / "empty.png")
        with pytest.raises(UserError, match=r"text\.jpg: not an image"):
            check(tmp_path / "text.jpg")
        with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
            check(tmp_path / "gone.png")
        with pytest.raises(UserError, match=r"record 3: too large, 40x24 is above 900"):
            check(encoded(Image.fromarray(gradient)), name="record 3", max_pixels=900)
    with pytest.raises(UserError, match="floating-point"):
        images.load_image(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


def test_decompression_bomb_is_an_error_not_a_crash(monkeypatch, gradient):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="photo: too large"):
        images.load_image(encoded(Image.fromarray(gradient)), name="photo")


def test_a_suffix_that_lies_does_not_matter(gradient, tmp_path):
    path = tmp_path / "really_png.jpg"
    path.write_bytes(encoded(Image.fromarray(gradient)))
    np.testing.assert_array_equal(images.load_image(path), gradient)
    assert images.verify_image(path) == (24, 40)


def test_save_is_atomic_and_readable_by_others(gradient, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.save_image(path, gradient)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        images.save_image(path, gradient[::-1].copy())
    monkeypatch.undo()
    np.testing.assert_array_equal(images.load_image(path), gradient)
    assert os.listdir(tmp_path) == ["a.png"]
    with pytest.raises(UserError, match=r"a\.pgn: no image format"):
        images.save_image(tmp_path / "a.pgn", gradient)
    with pytest.raises(TypeError, match="float32"):
        images.save_image(path, gradient.astype(np.float32))


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_keeps_a_ramp(mode, dtype):
    """A linear ramp sampled at pixel centres stays linear away from the border."""
    ramp = np.broadcast_to((np.arange(64) * 3)[None, :, None], (8, 64, 3)).astype(dtype)
    for antialias in (True, False):
        small = images.resize(ramp, (4, 32), mode, antialias=antialias)
        assert small.dtype == dtype and small.shape == (4, 32, 3)
        expected = (np.arange(32) * 2 + 0.5) * 3
        np.testing.assert_allclose(
            small[2, 4:-4, 1], expected[4:-4], atol=0.01 if dtype == np.float32 else 1
        )


def test_antialiasing_is_what_it_says():
    stripes = np.zeros((32, 32, 3), np.float32)
    stripes[:, ::4] = 1
    smooth = images.resize(stripes, (8, 8), "bicubic")
    np.testing.assert_allclose(smooth[2:-2, 2:-2], 0.25, atol=0.02)
    aliased = images.resize(stripes, (8, 8), "bicubic", antialias=False)
    assert np.abs(aliased[2:-2, 2:-2] - 0.25).min() > 0.05
    plane = images.resize(stripes[..., 0].copy(), (8, 8), "bicubic")
    np.testing.assert_allclose(plane, smooth[..., 0], atol=1e-6)
    with pytest.raises(UserError, match="'nearest'.*area, bilinear, bicubic, lanczos"):
        images.resize(stripes, (8, 8), "nearest")
    with pytest.raises(UserError, match="'lanczos'.*area, bilinear, bicubic"):
        images.resize(stripes, (8, 8), "lanczos", antialias=False)


def test_uint8_and_float_convert_back_and_forth():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    np.testing.assert_array_equal(
        images.unit_to_uint8(images.to_float(levels)).ravel(), levels.ravel()
    )
    outside = np.array([[-0.5, 1.7, 0.5]], np.float32)
    assert images.unit_to_uint8(outside).ravel().tolist() == [0, 255, 128]
