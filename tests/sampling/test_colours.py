"""The user's colours, and sizes of results."""

import itertools

import cv2
import numpy as np
import pytest

from codi_jax.sampling import colours
from codi_jax.sampling.colours import fix_colours
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.sizing import Sizing, resampled, resampled_mask
from codi_jax.tasks.canny import Canny
from codi_jax.tasks.sr import SuperResolution
from codi_jax.typing import UserError

RNG = np.random.default_rng(0)
SR = SuperResolution(scale=4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["wavelet", "wavelet_fine", "adain"])
def test_flat_colours_come_back(kind, dtype):
    top = np.iinfo(dtype).max
    small = np.zeros((150, 9, 3), dtype)
    small[...] = np.array([0, top, top // 3], dtype)
    made = np.full((600, 36, 3), 9000, np.uint16)
    fixed = fix_colours(kind, made, small, 4)
    assert np.abs(fixed.astype(float) - small[0, 0] * (65535 / top)).max() <= 1
    assert fix_colours("none", made, small, 4) is made


def test_wavelets_take_what_is_coarse_and_leave_what_is_fine():
    fine = np.tile(np.array([[0, 8000], [8000, 0]]), (300, 40))[..., None].repeat(3, -1)
    ramp = np.linspace(0, 40000, 150)[:, None, None] * np.ones((1, 20, 3))
    small = (15000 + ramp).astype(np.uint16)
    made = (12000 + fine).astype(np.uint16)
    fixed = fix_colours("wavelet", made, small, 4)
    inner = fixed[64:-64, 32:-32].astype(float)
    texture = np.abs(np.diff(inner, axis=1))
    kept = 1 - (colours.GRAIN * 257 / 4000) ** 2  # as Wiener's filter: its deviation is 4000
    np.testing.assert_allclose(texture, 8000 * kept, atol=60)
    means = inner.reshape(-1, 2, *inner.shape[1:]).mean((1, 2, 3))
    expected = np.repeat(small[16:-16, 0, 0].astype(float), 2)
    np.testing.assert_allclose(means, expected, atol=80)  # a step of the ramp is 134
    # Rows are worked on in parts: there is no edge between them.
    assert np.abs(np.diff(means)).max() < 200


def grainy(colour, amplitude, shape=(160, 144)):
    """A result with grain, cut off at black and white."""
    grain = RNG.normal(size=(*shape, 3)) * amplitude
    return np.clip(257 * (np.array(colour) + grain), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("colour", [(0, 0, 255), (255, 0, 128), (0, 255, 0), (255, 255, 255)])
def test_what_is_flat_and_saturated_stays_so(colour):
    small = np.full((40, 36, 3), colour, np.uint8)
    fixed = fix_colours("wavelet", grainy(colour, 30), small, 4) / 257
    assert np.abs(fixed - colour).max() <= 1
    # Beside it the picture is not flat: there is detail, and the mean is held all the same.
    small[::2, 18:] = np.abs(small[::2, 18:].astype(int) - 6)
    fixed = fix_colours("wavelet", grainy(colour, 30), small, 4) / 257
    assert np.abs(fixed[:, :52] - colour).max() <= 1
    textured = fixed[32:-32, 96:]
    assert textured.std((0, 1)).max() > 5
    wanted = small[:, 24:].astype(float).mean((0, 1))
    assert np.abs(textured.mean((0, 1)) - wanted).max() <= 3


def test_grain_goes_where_the_input_is_smooth_and_stays_where_it_is_as_strong():
    slope = np.linspace(60, 180, 80).round().astype(np.uint8)
    small = np.tile(slope[None, :, None], (80, 1, 3))
    noisy = (small + RNG.normal(size=small.shape) * 8).round().astype(np.uint8)
    grain = RNG.normal(size=(320, 320, 3)) * 2 * 257
    for given, left in ((small, 0.35), (noisy, 0.9)):
        large = colours._enlarged(given, 0, 80, 4).coarse
        made = np.clip(large + grain, 0, 65535).round().astype(np.uint16)
        fixed = fix_colours("wavelet", made, given, 4)
        ratio = (fixed - large)[64:-64, 64:-64].std() / grain.std()
        assert ratio < left if given is small else ratio > left, ratio


def test_a_speck_goes_and_an_edge_stays():
    small = np.full((80, 80, 3), 90, np.uint8)
    small[:, 40:] = 190
    small[::2] += 4  # not flat
    large = colours._enlarged(small, 0, 80, 4).coarse
    made = large.copy()
    made[100:103, 60:63] += 14 * 257
    made[:, 158:160] -= 20 * 257
    made[:, 160:162] += 20 * 257
    detail = made - large
    kept = fix_colours("wavelet", made.round().astype(np.uint16), small, 4) - large
    assert kept[101, 61].max() < 0.6 * detail[101, 61].max()
    assert kept[120, 160].max() > 0.9 * detail[120, 160].max()


@pytest.mark.parametrize(("kind", "left"), [("wavelet", 0.1), ("wavelet_fine", 0.9)])
def test_texture_that_the_model_wiped_comes_back_where_it_is_asked_for(kind, left):
    # A period of 8 pixels of the input is 32 of the result.
    wave = 20 * np.sin(np.arange(80) * np.pi / 4)
    small = np.tile((128 + wave).round().astype(np.uint8)[None, :, None], (80, 1, 3))
    wiped = np.full((320, 320, 3), 128 * 257, np.uint16)
    fixed, large = fix_colours(kind, wiped, small, 4), colours._enlarged(small, 0, 80, 4).coarse
    ratio = fixed[64:-64, 64:-64].std() / large[64:-64, 64:-64].std()
    assert ratio > left if kind == "wavelet_fine" else ratio < left, ratio


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_what_is_taken_out_is_its_deviation_and_tells_which_fix_it_is(kept, monkeypatch):
    noise = RNG.normal(size=(90, 100, 3)) * 20
    small = (128 + noise).round().astype(np.uint8)
    large = colours._enlarged(small, 0, 90, 4).coarse
    made = (128 * 257 + kept * (large - 128 * 257)).round().astype(np.uint16)
    out = colours.taken_out(made, small, 4)
    # The bicubic picture, averaged again, has less than all of white noise.
    reduced = cv2.resize(large, (100, 90), interpolation=cv2.INTER_AREA).astype(np.float64)
    shared = np.mean((reduced - 128 * 257) * noise) / (257 * np.mean(noise**2))
    assert out == pytest.approx((1 - kept) * shared * noise.std(), rel=0.05, abs=1e-3)
    monkeypatch.setattr(colours, "_ROWS", 64)
    assert colours.taken_out(made, small, 4) == pytest.approx(out, rel=1e-4, abs=1e-4)
    kind = "wavelet_fine" if kept == 1 else "wavelet"
    np.testing.assert_array_equal(
        fix_colours("auto", made, small, 4), fix_colours(kind, made, small, 4)
    )


@pytest.mark.parametrize("kind", colours.LEVELS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_parts_of_a_picture_are_as_the_whole(scale, kind, monkeypatch):
    small = RNG.integers(0, 256, (600 // scale, 24, 3), np.uint8)
    small[:, :12] //= 32
    made = RNG.integers(0, 65536, (600 // scale * scale, 24 * scale, 3), np.uint16)
    whole = fix_colours(kind, made, small, scale)
    monkeypatch.setattr(colours, "_ROWS", 96)
    parts = fix_colours(kind, made, small, scale)
    assert np.abs(parts.astype(int) - whole).max() <= 1  # of 65,535


@pytest.mark.slow
def test_saturated_colours_of_the_shipped_model():
    """Its autoencoder alone moves the worst of them by more than 40 of 255."""
    sampler, off = Sampler.load("demo"), {"none": 0.0, "wavelet": 0.0}
    for colour in itertools.product((0, 128, 255), repeat=3):
        for kind in off:
            made = sampler(np.full((16, 16, 3), colour, np.uint8), steps=4, color_fix=kind)
            off[kind] = max(off[kind], np.abs(made.astype(int) - colour).max())
    assert off["wavelet"] <= 3 and off["none"] > 10, off


def test_nearly_flat_is_nearly_smooth_without_an_edge():
    small = np.full((40, 80, 3), 128, np.uint8)
    small[20, ::6] += np.linspace(0, 7, 14).round().astype(np.uint8)[:, None]
    fixed = fix_colours("wavelet", grainy((128,) * 3, 10, (160, 320)), small, 4) / 257
    deviation = [fixed[72:92, x : x + 32].std() for x in range(0, 320, 32)]
    assert deviation[0] < 1 and deviation[-1] > 7
    assert np.diff(deviation).min() > -1 and np.diff(deviation).max() < 5


def test_adain_has_mean_and_deviation():
    small = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    made = small.repeat(4, 0).repeat(4, 1) * np.uint16(100) + np.uint16(9000)
    fixed = fix_colours("adain", made, small, 4)
    np.testing.assert_allclose(fixed[::4, ::4], small * 257.0, atol=2)


def test_sizes():
    assert Sizing().result_size((10, 20), 4) == (40, 80)
    assert Sizing(outscale=2.5).result_size((10, 21), 4) == (25, 52)
    assert Sizing(size="30x50").result_size((10, 20), 4) == (50, 30)
    assert Sizing(size="50").result_size((10, 20), 4) == (25, 50)
    limit = Sizing(max_megapixels=0.0004)
    assert limit.input_size((10, 20), 4) == (3, 7) and limit.result_size((10, 20), 4) == (12, 28)
    assert limit.input_size((5, 5), 4) == (5, 5)
    assert Sizing(max_megapixels=1e-9).result_size((1, 7000), 4) == (4, 4)
    assert Sizing(size="30x50").exact() == (50, 30) and Sizing().exact() is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outscale": 0}, "outscale=0: give a number above 0"),
        ({"max_megapixels": float("inf")}, "max_megapixels=inf"),
        ({"size": "30x"}, "size='30x': give WIDTHxHEIGHT"),
        ({"size": "0"}, "size='0'"),
        ({"size": "1", "outscale": 2.0}, "give one of them"),
        ({"color_fix": "gamma"}, "color_fix='gamma' is unknown"),
    ],
)
def test_sizes_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        Sizing(**options)


def test_colours_are_fixed_where_they_are_to_stay():
    assert Sizing().fix_of(SR) == "auto" and Sizing().fix_of(Canny()) == "none"
    assert Sizing(color_fix="none").fix_of(Canny()) == "none"
    with pytest.raises(UserError, match="a model for canny is to change colours"):
        Sizing(color_fix="adain").fix_of(Canny())
    with pytest.raises(UserError, match="belong to an input picture"):
        Sizing(outscale=2.0).exact()


def test_resampling_keeps_the_dtype_and_the_range():
    for dtype in (np.uint8, np.uint16, np.float64):
        array = np.zeros((8, 8, 2), dtype)
        array[:, 4:] = 255
        assert resampled(array, (8, 8)) is array
        large = resampled(array, (20, 12))
        assert large.shape == (20, 12, 2) and large.dtype == dtype
        assert large[:, 0].max() <= 1 and np.abs(large[:, -1] - 255.0).max() <= 1
    mask = np.zeros((8, 8), np.uint8)
    mask[3, 3] = 255
    assert (resampled_mask(mask, (4, 4)) == 255).sum() == 1
