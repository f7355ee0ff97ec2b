import cv2
import numpy as np
import pytest
from scipy import ndimage, stats
from skimage import data

from codi_jax.evals import distributions
from codi_jax.evals.distributions import laplacian_pyramid, swd
from codi_jax.typing import UserError


@pytest.fixture(scope="module")
def crops():
    photo = data.astronaut()
    return [photo[y : y + 64, x : x + 64] for y in (0, 150, 300) for x in (0, 150, 300)]


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
    assert swd(crops[:4], crops[4:8]) == swd(crops[:4], crops[4:8])
    assert swd(crops[:4], crops[4:8]) != swd(crops[:4], crops[4:8], seed=1)


def test_swd_ignores_the_contrast_of_a_whole_set(crops):
    """Patches are normalised: halved contrast is seen only as far as it is rounded."""
    halved = [x // 2 for x in crops]
    assert swd(halved, crops) < 0.1 * swd([ndimage.median_filter(x, 5) for x in crops], crops)


def test_sliced_distance_of_shifted_gaussians():
    """W1 of projections on u is |<u, shift>|; its mean over directions has a closed form."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 5)).astype(np.float32)
    shift = np.array([3, 0, 4, 0, 0], np.float32)
    # E|u_1| on the unit sphere of R^d is Gamma(d/2) / (sqrt(pi) Gamma((d + 1)/2)); here 3/8.
    expected = 5 * 3 / 8
    got = distributions._sliced(a + shift, a, np.random.default_rng(1))
    assert got == pytest.approx(expected, rel=0.1)


def test_sliced_distance_against_scipy(monkeypatch):
    monkeypatch.setattr(distributions, "PROJECTIONS", distributions._CHUNK)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 40, 3)).astype(np.float32)
    u = np.random.default_rng(4).normal(size=(3, distributions._CHUNK))
    u /= np.linalg.norm(u, axis=0)
    expected = np.mean([stats.wasserstein_distance(a @ v, b @ v) for v in u.T])
    assert distributions._sliced(a, b, np.random.default_rng(4)) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(
    ("n", "m", "size", "says"),
    [(2, 1, 32, "2 images against 1"), (0, 0, 32, "0 images"), (1, 1, 15, "15x15 is too small")],
)
def test_unfit_sets_are_named(n, m, size, says):
    image = np.zeros((size, size, 3), np.uint8)
    with pytest.raises(UserError, match=says):
        swd([image] * n, [image] * m)
