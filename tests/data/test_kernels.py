import collections

import numpy as np
import pytest
import scipy.integrate
import scipy.ndimage

from codi_jax.data import kernels


def covariance_form(size, sigma_x, sigma_y, theta):
    """p^T S^-1 p through the matrices, in float64."""
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    inverse = np.linalg.inv(rotation @ np.diag([sigma_x**2, sigma_y**2]) @ rotation.T)
    axis = np.arange(size) - (size - 1) / 2
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    return np.einsum("yxi,ij,yxj->yx", points, inverse, points)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_generalized_gaussian_is_the_matrix_formula(beta):
    expected = np.exp(-0.5 * covariance_form(9, 2.5, 0.8, 0.7) ** beta)
    actual = kernels.generalized_gaussian(9, 2.5, 0.8, 0.7, beta)
    np.testing.assert_allclose(actual, expected / expected.sum(), atol=1e-6)


def test_plateau_is_the_matrix_formula():
    expected = 1 / (1 + covariance_form(11, 2.0, 1.1, -1.2) ** 1.6)
    actual = kernels.plateau(11, 2.0, 1.1, -1.2, 1.6)
    np.testing.assert_allclose(actual, expected / expected.sum(), atol=1e-6)


def test_iso_is_separable():
    line = kernels.gaussian(13, 1.7)
    plane = kernels.generalized_gaussian(13, 1.7, 1.7, 0.3, 1.0)
    np.testing.assert_allclose(np.outer(line, line), plane, atol=1e-6)


@pytest.mark.parametrize("omega_c", [np.pi / 5, 2.0])
def test_sinc_is_the_inverse_transform_of_a_disc(omega_c):
    """k(r) = 1 / (2 pi) int_0^omega_c J0(w r) w dw, J0 by its own integral (no j1)."""
    size = 7
    angles = (np.arange(2000) + 0.5) * np.pi / 2000
    expected = np.empty((size, size))
    for y in range(size):
        for x in range(size):
            r = np.hypot(x - 3, y - 3)
            value, _ = scipy.integrate.quad(
                lambda w, r=r: np.cos(w * r * np.sin(angles)).mean() * w, 0, omega_c
            )
            expected[y, x] = value / (2 * np.pi)
    np.testing.assert_allclose(kernels.sinc(size, omega_c), expected / expected.sum(), atol=1e-5)


def test_every_drawn_kernel_is_odd_normalised_and_symmetric():
    rng = np.random.default_rng(0)
    config = kernels.KernelConfig(sinc_probability=0.2)
    for _ in range(300):
        drawn = kernels.sample_kernel(rng, config)
        kernel = kernels.make_kernel(drawn)
        assert kernel.dtype == np.float32
        assert kernel.ndim == (1 if drawn.family == "iso" else 2)
        assert set(kernel.shape) == {kernel.shape[0]}
        assert kernel.shape[0] % 2 == 1 and kernel.shape[0] <= drawn.size
        assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(kernel, np.flip(kernel), atol=1e-6)


def test_trim_changes_a_blurred_image_by_less_than_a_level():
    image = np.random.default_rng(0).integers(0, 2, (40, 40)).astype(np.float64)
    full = kernels.generalized_gaussian(21, 0.9, 1.4, 0.4, 0.8)
    small = kernels.trim(full)
    assert small.shape[0] < 21
    exact = scipy.ndimage.convolve(image, full)
    assert np.abs(scipy.ndimage.convolve(image, small) - exact).max() < 1 / 255


def test_frequencies_and_ranges_of_the_table():
    rng = np.random.default_rng(1)
    config = kernels.KernelConfig()
    drawn = [kernels.sample_kernel(rng, config) for _ in range(20_000)]
    counts = collections.Counter(k.family for k in drawn)
    assert counts["sinc"] / len(drawn) == pytest.approx(0.1, abs=0.01)
    blurs = len(drawn) - counts["sinc"]
    for family, probability in zip(kernels.FAMILIES, config.probabilities, strict=True):
        assert counts[family] / blurs == pytest.approx(probability, abs=0.012), family
    sizes = collections.Counter(k.size for k in drawn)
    assert sorted(sizes) == list(range(7, 22, 2))
    assert max(sizes.values()) < 1.15 * min(sizes.values())
    sigmas = [k.sigma_x for k in drawn if k.family != "sinc"]
    assert 0.2 <= min(sigmas) < 0.22 and 2.98 < max(sigmas) <= 3.0
    for family, low, high in (("generalized", 0.5, 4.0), ("plateau", 1.0, 2.0)):
        betas = np.array([k.beta for k in drawn if k.family.startswith(family)])
        assert low <= betas.min() < low + 0.05 and high - 0.05 < betas.max() <= high
        assert (betas <= 1).mean() == pytest.approx(0.5, abs=0.03)
    for small, omega_min in ((True, np.pi / 3), (False, np.pi / 5)):
        cuts = [k.omega_c for k in drawn if k.family == "sinc" and (k.size < 13) == small]
        assert omega_min <= min(cuts) < omega_min + 0.05 and 3.1 < max(cuts) <= np.pi
