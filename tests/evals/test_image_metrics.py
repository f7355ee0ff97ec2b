import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import color, data, metrics

from codi_jax.evals import image_metrics
from codi_jax.evals.image_metrics import (
    gmsd,
    haarpsi,
    ms_ssim,
    psnr,
    psnr_y,
    scores_per_image,
    ssim,
    ssim_y,
)
from codi_jax.typing import UserError

METRICS = (psnr, ssim, psnr_y, ssim_y, gmsd, haarpsi)


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()[:128, 160:288]


def blur(image, sigma):
    return ndimage.gaussian_filter(image, (sigma, sigma, 0))


def flat(value, size=16):
    return np.full((size, size, 3), value, np.uint8)


@pytest.mark.parametrize("offset", [1, 16, 255])
def test_psnr_of_a_constant_offset(offset):
    expected = 20 * math.log10(255 / offset)
    assert psnr(flat(0), flat(offset)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_psnr_averages_the_squared_error_over_channels():
    b = flat(10)
    b[..., 1] += 30
    assert psnr(flat(10), b) == pytest.approx(10 * math.log10(255**2 / 300))


@pytest.mark.parametrize("value", [0, 200])
def test_identity(photo, value):
    for image in (photo, flat(value)):
        assert psnr(image, image) == math.inf
        assert ssim(image, image) == pytest.approx(1, abs=1e-12)
        assert gmsd(image, image) == pytest.approx(0, abs=1e-12)
        assert haarpsi(image, image) == pytest.approx(1, abs=1e-9)


def test_ssim_of_two_flat_images_is_its_luminance_term():
    c1 = (0.01 * 255) ** 2
    expected = (2 * 50 * 90 + c1) / (50**2 + 90**2 + c1)
    assert ssim(flat(50), flat(90)) == pytest.approx(expected, rel=1e-9)


def test_all_fall_with_blur_and_are_symmetric(photo):
    blurred = [blur(photo, sigma) for sigma in (0.5, 1, 2, 4)]
    for metric in METRICS:
        values = [metric(photo, x) for x in blurred]
        assert values == sorted(values, reverse=metric is not gmsd)
        assert len(set(values)) == len(values)
        assert metric(blurred[2], photo) == pytest.approx(values[2], rel=1e-12)


def test_gmsd_by_hand():
    """A black frame against one white pixel block: every gradient is known.

    Halved, it is 8x8 and has one pixel of 240. Prewitt's gradient over 3 is (80, 80) at its 4
    corner neighbours, 80 in one direction at its 4 edge neighbours, and 0 at the pixel itself.
    """
    a, b = flat(0), flat(0)
    b[8:10, 8:10] = 240
    c = 170.0
    similarity = np.ones(64)
    similarity[:4] = c / (80**2 + 80**2 + c)
    similarity[4:8] = c / (80**2 + c)
    assert gmsd(a, b) == pytest.approx(float(np.std(similarity)), rel=1e-9)


def slow_haarpsi(a, b):
    """The paper's formulas with loops over shifted windows, luma and chroma as written there."""

    def windows(x, n):
        """[H, W, n, n]: out[i, j] covers rows i - n/2 + 1 .. i + n/2, black outside."""
        before, after = n // 2 - 1, n // 2
        padded = np.pad(x, (before, after))
        return np.lib.stride_tricks.sliding_window_view(padded, (n, n))

    def planes(image):
        r, g, b = np.moveaxis(image.astype(float), 2, 0)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        i = 0.596 * r - 0.274 * g - 0.322 * b
        q = 0.211 * r - 0.523 * g + 0.312 * b
        return [windows(x, 2).mean((2, 3))[::2, ::2] for x in (y, i, q)]

    def coefficient(x, j, vertical):
        n = 2**j
        w = windows(x, n)
        w = w if vertical else w.swapaxes(2, 3)
        return np.abs(w[:, :, : n // 2].sum((2, 3)) - w[:, :, n // 2 :].sum((2, 3))) / n

    def alike(p, q):
        return (2 * p * q + 900) / (p * p + q * q + 900)

    (ya, ia, qa), (yb, ib, qb) = planes(a), planes(b)
    total = norm = 0.0
    all_weights = []
    for vertical in (True, False):
        local = sum(
            alike(coefficient(ya, j, vertical), coefficient(yb, j, vertical)) for j in (1, 2)
        )
        weight = np.maximum(coefficient(ya, 3, vertical), coefficient(yb, 3, vertical))
        all_weights.append(weight)
        total += (weight / (1 + np.exp(-4.2 * local / 2))).sum()
        norm += weight.sum()
    chroma = sum(
        alike(*(np.abs(windows(x, 2).mean((2, 3))) for x in pair)) for pair in ((ia, ib), (qa, qb))
    )
    weight = sum(all_weights) / 2
    total += (weight / (1 + np.exp(-4.2 * chroma / 2))).sum()
    norm += weight.sum()
    p = total / norm
    return (math.log(p / (1 - p)) / 4.2) ** 2


def test_haarpsi_against_loops_over_windows(photo):
    shifted = np.roll(photo, 20, axis=2)  # other colours, other edges
    for other in (blur(photo, 1.5), shifted):
        odd = photo[:61, :47], other[:61, :47]
        assert haarpsi(*odd) == pytest.approx(slow_haarpsi(*odd), rel=1e-9)


def test_haarpsi_sees_colour():
    # Equal luma to within rounding: only I and Q can tell them apart.
    a, b = flat(128, 32), flat(128, 32)
    a[...] = (180, 110, 85)
    assert haarpsi(a, b) < 0.9


def test_every_pair_has_its_score(photo):
    images = [blur(photo, 1), blur(photo, 3)]
    result = image_metrics.scores_per_image(images, [photo, photo])
    assert list(result) == ["psnr", "ssim", "gmsd", "haarpsi"]
    for metric in (psnr, ssim, gmsd, haarpsi):
        expected = [metric(image, photo) for image in images]
        assert list(result[metric.__name__]) == expected


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (flat(0, 16), flat(0, 20), r"\(16, 16, 3\) and \(20, 20, 3\)"),
        (flat(0).astype(np.float32), flat(0), "float32"),
        (flat(0)[..., 0], flat(0)[..., 0], r"\(16, 16\)"),
        (flat(0, 8), flat(0, 8), "8x8 is too small"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfit_images_are_named(metric, a, b, says):
    with pytest.raises(UserError, match=says):
        metric(a, b)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (0, 0)])
def test_scores_need_pairs(n, m):
    with pytest.raises(UserError, match=f"{n} images to score against {m}"):
        image_metrics.scores_per_image([flat(0)] * n, [flat(0)] * m)


def test_luma_metrics_against_scikit_image(photo):
    other = blur(photo, 1.5)
    y = [color.rgb2ycbcr(x)[..., 0] for x in (photo, other)]
    assert psnr_y(photo, other) == pytest.approx(
        metrics.peak_signal_noise_ratio(*y, data_range=255), rel=1e-6
    )
    expected = metrics.structural_similarity(
        *y, data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    assert ssim_y(photo, other) == pytest.approx(expected, rel=1e-6)
    # Black is 16 and white 235.
    assert psnr_y(flat(0), flat(255)) == pytest.approx(20 * math.log10(255 / 219))


def test_psnr_and_ssim_against_scikit_image(photo):
    other = blur(photo, 1.5)
    expected = metrics.peak_signal_noise_ratio(photo, other)
    assert psnr(photo, other) == pytest.approx(expected, rel=1e-12)
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 2}
    expected = metrics.structural_similarity(photo, other, **settings)
    assert ssim(photo, other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("kind", "golden"), [("blur", 0.9500721), ("noise", 0.8413321)])
def test_ms_ssim_against_tensorflow(kind, golden):
    """Golden values: tf.image.ssim_multiscale of TensorFlow 2.21, on these images."""
    a = data.astronaut()[:181, 100:300]  # odd sides at several scales
    noise = np.random.default_rng(0).normal(0, 25, a.shape)
    noisy = np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8)
    b = blur(a, 2) if kind == "blur" else noisy
    assert ms_ssim(a, b) == pytest.approx(golden, abs=1e-5)
    assert ms_ssim(b, a) == pytest.approx(golden, abs=1e-5)
    assert ms_ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_ms_ssim_needs_room_for_five_scales():
    assert ms_ssim(flat(50, 161), flat(50, 161)) == pytest.approx(1)
    with pytest.raises(UserError, match="160x160 is too small for ms_ssim"):
        ms_ssim(flat(50, 160), flat(50, 160))


def test_scores_per_image_cut_the_border(photo):
    framed = photo.copy()
    framed[:4] = framed[-4:] = 0
    framed[:, :4] = framed[:, -4:] = 0
    names = ("psnr", "ssim_y", "gmsd")
    scores = scores_per_image([framed, framed], [photo, blur(photo, 1)], names, border=4)
    assert list(scores) == list(names)
    inner = np.s_[4:-4, 4:-4]
    for metric in (psnr, ssim_y, gmsd):
        expected = [metric(photo[inner], x[inner]) for x in (photo, blur(photo, 1))]
        assert scores[metric.__name__] == pytest.approx(expected)
    with pytest.raises(UserError, match="border=-1"):
        scores_per_image([photo], [photo], names, border=-1)
    with pytest.raises(UserError, match="too small to score"):
        scores_per_image([photo], [photo], names, border=60)
    with pytest.raises(UserError, match="metric='lpip' is unknown"):
        scores_per_image([photo], [photo], ["lpip"])
