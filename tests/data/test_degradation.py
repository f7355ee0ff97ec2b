import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from codi_jax.data import degradation, images
from codi_jax.data.degradation import Bicubic, SecondOrder, degrade
from codi_jax.typing import UserError


@pytest.fixture(scope="module")
def photo():
    noise = np.random.default_rng(0).random((96, 64, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def stage(**changes):
    values = {
        "kernel": None,
        "resize_factor": 1.0,
        "resize_mode": "bilinear",
        "noise_kind": "gaussian",
        "noise": 0.0,
        "grey": False,
        "jpeg_quality": 95,
    }
    return degradation.StageParameters(**{**values, **changes})


@pytest.mark.parametrize("scale", [2, 4])
def test_shape_dtype_and_purity(photo, scale):
    before = photo.copy()
    for seed in range(25):
        lr = degrade(photo, np.random.default_rng(seed), SecondOrder(), scale)
        assert lr.shape == (96 // scale, 64 // scale, 3) and lr.dtype == np.uint8
        cv2.setRNGSeed(123)  # OpenCV's hidden state must not matter
        again = degrade(photo, np.random.default_rng(seed), SecondOrder(), scale)
        np.testing.assert_array_equal(lr, again)
        other = degrade(photo, np.random.default_rng(seed + 1000), SecondOrder(), scale)
        assert (lr != other).any()
    np.testing.assert_array_equal(photo, before)


def test_it_stays_the_same_image():
    """Averaged over draws, the degraded image is close to the reduced one, per channel."""
    y, x = np.mgrid[0:96, 0:64].astype(np.float32)
    smooth = np.stack([0.2 + x / 128, 0.2 + y / 192, 0.7 - x / 128], axis=-1)
    clean = images.resize(smooth, (24, 16), "area") * 255
    mean = np.mean(
        [degrade(smooth, np.random.default_rng(s), SecondOrder()) for s in range(200)], axis=0
    )
    assert np.abs(mean - clean).mean() < 4
    assert np.abs((mean - clean).mean(axis=(0, 1))).max() < 2  # no step darkens or tints


def test_stage_frequencies_of_the_table():
    rng = np.random.default_rng(0)
    drawn = [degradation.sample_parameters(rng, SecondOrder()) for _ in range(6000)]

    def share(condition):
        return pytest.approx(np.mean([condition(p) for p in drawn]), abs=0.025)

    assert share(lambda p: p.first.kernel is not None) == 1.0
    assert share(lambda p: p.second.kernel is not None) == 0.8
    assert share(lambda p: p.final_sinc is not None) == 0.8
    assert share(lambda p: p.jpeg_last) == 0.5
    expected = {"first": (0.2, 0.7, 0.15, 1.5, 30, 3), "second": (0.3, 0.4, 0.3, 1.2, 25, 2.5)}
    for name, (up, down, smallest, largest, sigma, poisson) in expected.items():
        stages = [getattr(p, name) for p in drawn]
        factors = np.array([s.resize_factor for s in stages])
        assert (factors > 1).mean() == pytest.approx(up, abs=0.025)
        assert (factors < 1).mean() == pytest.approx(down, abs=0.025)
        assert smallest <= factors.min() < smallest + 0.02
        assert largest - 0.02 < factors.max() <= largest
        assert np.mean([s.grey for s in stages]) == pytest.approx(0.4, abs=0.025)
        qualities = {s.jpeg_quality for s in stages}
        assert qualities == set(range(30, 96))
        for kind, low, high in (("gaussian", 1, sigma), ("poisson", 0.05, poisson)):
            strengths = np.array([s.noise for s in stages if s.noise_kind == kind])
            assert len(strengths) / len(stages) == pytest.approx(0.5, abs=0.025)
            assert low <= strengths.min() < low + 0.1 and high - 0.1 < strengths.max() <= high
        for mode in degradation.RESIZE_MODES:
            modes = [s.resize_mode == mode for s in stages]
            assert np.mean(modes) == pytest.approx(1 / 3, abs=0.025)
    second = [p.second.kernel for p in drawn if p.second.kernel and p.second.kernel.sigma_x]
    assert 1.45 < max(k.sigma_x for k in second) <= 1.5
    assert min(p.final_sinc.omega_c for p in drawn if p.final_sinc) >= np.pi / 3


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_moments(grey):
    flat = np.full((200, 200, 3), 0.5, np.float32)
    drawn = stage(noise=20.0, grey=grey)
    noise = (degradation.add_noise(flat, np.random.default_rng(0), drawn) - flat) * 255
    for c in range(3):
        assert noise[..., c].std() == pytest.approx(20, rel=0.02)
        assert noise[..., c].mean() == pytest.approx(0, abs=0.4)
    same = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert same == pytest.approx(1.0 if grey else 0.0, abs=0.03)


def test_noise_is_clipped():
    white = np.ones((32, 32, 3), np.float32)
    for kind in ("gaussian", "poisson"):
        noisy = degradation.add_noise(
            white, np.random.default_rng(0), stage(noise_kind=kind, noise=3.0)
        )
        assert noisy.max() <= 1.0 and noisy.min() < 1.0


def test_second_resize_is_relative_to_the_output(photo, monkeypatch):
    sizes = []
    resize = images.resize

    def spy(image, size_hw, mode, *, antialias=True):
        sizes.append(size_hw)
        return resize(image, size_hw, mode, antialias=antialias)

    monkeypatch.setattr(images, "resize", spy)
    drawn = degradation.Parameters(
        first=stage(resize_factor=0.5),
        second=stage(resize_factor=1.2),
        final_sinc=None,
        final_mode="area",
        jpeg_last=True,
    )
    degradation.apply_parameters(photo, drawn, np.random.default_rng(0))
    assert sizes == [(48, 32), (28, 19), (24, 16)]


def test_jpeg_keeps_the_channel_order_and_follows_the_quality(photo):
    image = images.unit_to_uint8(photo)
    errors = {
        q: np.abs(degradation.jpeg(image, q).astype(int) - image).mean() for q in (30, 60, 95)
    }
    assert errors[95] < errors[60] < errors[30] < 12
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    assert np.abs(degradation.jpeg(red, 95).astype(int) - red).max() < 8
    # The luma weights differ by channel: with R and B exchanged the result is another.
    swapped = degradation.jpeg(image[..., ::-1].copy(), 30)[..., ::-1]
    assert (swapped != degradation.jpeg(image, 30)).any()


def test_bicubic_is_pillows(photo):
    image = images.unit_to_uint8(photo)
    expected = np.asarray(Image.fromarray(image).resize((16, 24), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(degradation.bicubic_degrade(image), expected)
    from_float = degrade(images.to_float(image), np.random.default_rng(0), Bicubic())
    assert np.abs(from_float.astype(int) - expected).max() <= 1


def test_sharpening_raises_edges_only():
    edge = np.full((80, 80, 3), 0.3, np.float32)
    edge[:, 40:] = 0.7
    sharp = images.usm_sharpen(edge)
    assert sharp[40, 39, 0] < 0.25 and sharp[40, 40, 0] > 0.75
    assert sharp.min() >= 0 and sharp.max() <= 1
    faint = np.full((80, 80, 3), 0.5, np.float32)
    faint[:, 40:] = 0.52
    np.testing.assert_array_equal(images.usm_sharpen(faint), faint)


def test_names_and_sizes_that_are_wrong(photo):
    assert degradation.make_degradation("bicubic") == Bicubic()
    with pytest.raises(UserError, match="'bicubik'.*realesrgan, bicubic"):
        degradation.make_degradation("bicubik")
    for config in (SecondOrder(), Bicubic()):
        with pytest.raises(UserError, match="95x64.*scale 4"):
            degrade(photo[:95], np.random.default_rng(0), config)


def test_config_is_a_value():
    mild = dataclasses.replace(SecondOrder(), final_sinc_probability=0.0)
    drawn = [degradation.sample_parameters(np.random.default_rng(s), mild) for s in range(50)]
    assert all(p.final_sinc is None for p in drawn)
