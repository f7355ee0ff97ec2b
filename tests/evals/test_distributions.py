import cv2
import numpy as np
import pytest
from scipy import linalg, ndimage, stats
from skimage import data

from codi_jax.evals import distributions
from codi_jax.evals.distributions import (
    fid,
    frechet_distance,
    kid,
    laplacian_pyramid,
    swd,
    swd_left_out,
)
from codi_jax.typing import UserError


@pytest.fixture(scope="module")
def crops():
    photo = data.astronaut()
    return [photo[y : y + 64, x : x + 64] for y in (0, 200) for x in (0, 150, 300)]


def test_pyramid_adds_up_and_agrees_with_opencv():
    image = data.chelsea()[:75, :102].astype(np.float32)
    *bands, residual = laplacian_pyramid(image, 3)
    assert [b.shape for b in (*bands, residual)] == [(75, 102, 3), (38, 51, 3), (19, 26, 3)]
    smaller = cv2.pyrDown(image)
    np.testing.assert_allclose(residual, cv2.pyrDown(smaller), atol=1e-3)
    up = cv2.pyrUp(smaller, dstsize=(102, 75))
    inner = np.s_[4:-4, 4:-4]  # at the frame OpenCV's pyrUp repeats pixels
    np.testing.assert_allclose((bands[0] + up)[inner], image[inner], atol=1e-3)


def test_swd_falls_to_zero_and_grows_with_blur(crops):
    assert swd(crops, crops) == 0
    values = [
        swd([ndimage.gaussian_filter(x, (sigma, sigma, 0)) for x in crops], crops)
        for sigma in (0.7, 1.5, 3)
    ]
    assert 0 < values[0] < values[1] < values[2]
    assert swd(crops[:2], crops[2:4]) == swd(crops[:2], crops[2:4])
    assert swd(crops[:2], crops[2:4]) != swd(crops[:2], crops[2:4], seed=1)


def test_swd_ignores_the_contrast_of_a_whole_set(crops):
    """Patches are normalised: halved contrast is seen only as far as it is rounded."""
    halved = [x // 2 for x in crops]
    assert swd(halved, crops) < 0.1 * swd([ndimage.median_filter(x, 5) for x in crops], crops)


def test_sliced_distances_against_scipy(crops):
    """Patches of the images' only level, normalised by hand, and scipy's 1-D distances."""
    a, b = ([x[:20, :20] for x in images] for images in (crops[:3], crops[3:]))
    flat = [np.dstack([np.full((20, 20), 7, np.uint8), x[..., 1:]]) for x in a]
    u = np.random.default_rng((0, 1)).normal(size=(3 * 7 * 7, distributions._CHUNK))
    u /= np.linalg.norm(u, axis=0)
    subsets = [np.arange(3) != left_out for left_out in (None, 0, 2)]
    expected = []
    for kept in subsets:
        projected = []
        for images in (flat, b):
            patches = distributions._patches(images, 1, 0)[0].astype(np.float64)
            channels = np.moveaxis(patches[kept], 2, -1).reshape(-1, 49, 3)
            mean, deviation = channels.mean((0, 1)), channels.std((0, 1))
            channels = (channels - mean) / np.where(deviation > 0, deviation, 1)
            projected.append(np.moveaxis(channels, 2, 1).reshape(len(channels), -1) @ u)
        pairs = zip(*(points.T for points in projected), strict=True)
        expected.append(1000 * np.mean([stats.wasserstein_distance(*pair) for pair in pairs]))
    found = distributions._distances(flat, b, 0, 1, subsets)
    assert found == pytest.approx(expected, rel=1e-5)


def test_groups_are_left_out_in_turn(crops):
    """Without a group the distance is that of the others, up to the directions and places."""
    spoilt = [ndimage.median_filter(x, 5) if i % 3 == 0 else x for i, x in enumerate(crops)]
    without = swd_left_out(spoilt, crops, groups=3)
    assert without.shape == (3,) and without[0] == 0 < without[1:].min()
    every = swd_left_out(spoilt, crops)  # as many groups as images
    assert every.shape == (6,)
    expected = [swd(spoilt[:i] + spoilt[i + 1 :], crops[:i] + crops[i + 1 :]) for i in range(6)]
    assert every == pytest.approx(expected, rel=0.2)
    with pytest.raises(UserError, match="at least two"):
        swd_left_out(spoilt[:1], crops[:1])


@pytest.mark.parametrize(
    ("n", "m", "size", "says"),
    [(2, 1, 32, "2 images against 1"), (0, 0, 32, "0 images"), (1, 1, 15, "15x15 is too small")],
)
@pytest.mark.usefixtures("unchecked")
def test_unfit_sets_are_named(n, m, size, says):
    image = np.zeros((size, size, 3), np.uint8)
    with pytest.raises(UserError, match=says):
        swd([image] * n, [image] * m)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_frechet_distance_of_commuting_gaussians():
    """Equal axes: |m_a - m_b|^2 + sum (s_a - s_b)^2, also where a variance is 0."""
    axes = np.linalg.qr(normal(4, 4))[0]
    s_a, s_b, shift = np.array([[3, 1, 0, 2], [1, 1, 2, 0], [1, 0, 2, 0.5]])
    a, b = ((axes * s**2) @ axes.T for s in (s_a, s_b))
    expected = np.sum(shift**2) + np.sum((s_a - s_b) ** 2)
    assert frechet_distance(shift, a, np.zeros(4), b) == pytest.approx(expected, rel=1e-7)


def test_frechet_distance_against_a_matrix_square_root():
    x, y = normal(50, 6), normal(40, 6, seed=1) @ normal(6, 6, seed=2) + 1
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)
    assert fid(x, y) == pytest.approx(expected, rel=1e-9)
    assert fid(y, x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [5, 300])  # fewer images than features: a singular covariance
def test_fid_of_a_set_with_itself_is_zero(n):
    x = normal(n, 40)
    assert fid(x, x) == pytest.approx(0, abs=1e-5)
    assert fid(x, x[::-1]) == pytest.approx(0, abs=1e-5)
    assert fid(x, x + 0.1) == pytest.approx(0.4, abs=1e-5)


def test_kid_by_sums_over_pairs():
    x, y = normal(5, 3), normal(6, 3, seed=1) + 0.5

    def k(u, v):
        return (u @ v / 3 + 1) ** 3

    within = [
        np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j])
        for s in (x, y)
    ]
    across = np.mean([k(u, v) for u in x for v in y])
    assert kid(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kid_is_unbiased_and_its_blocks_agree():
    """E k = E (u + 1)^3 with u = x.y / D has a closed form for Gaussians, here 0 for equal ones."""
    x, y = normal(1000, 4), normal(1000, 4, seed=1)
    assert kid(x, y) == pytest.approx(0, abs=0.05)
    # k(x, y) of N(m, 1) and N(m', 1) in one dimension: E (xy + 1)^3 by moments.
    m = 0.7
    x, y = normal(1800, 1), normal(1800, 1, seed=1) + m

    def expected(p, q):
        third = (p**3 + 3 * p) * (q**3 + 3 * q)
        return third + 3 * (p**2 + 1) * (q**2 + 1) + 3 * p * q + 1

    truth = expected(0, 0) + expected(m, m) - 2 * expected(0, m)
    assert kid(x, y) == pytest.approx(truth, rel=0.15)
    assert kid(x, y, block=900) == pytest.approx(kid(x, y), rel=0.1)


@pytest.mark.parametrize("metric", [fid, kid])
def test_one_image_is_no_distribution(metric):
    with pytest.raises(UserError, match="1 images against 3"):
        metric(normal(1, 4), normal(3, 4))
