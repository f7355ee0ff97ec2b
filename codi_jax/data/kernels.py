"""Blur kernels of Real-ESRGAN's degradation model (Wang et al. 2021, sections 3.1 and 3.3).

Kernels live on the grid x, y in {-(k-1)/2, ..., (k-1)/2} and sum to 1. Drawing a kernel
(`sample_kernel`) is apart from computing it (`make_kernel`), so that what was drawn can be
read, counted and repeated.
"""

import dataclasses
import functools
import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np
from scipy.special import j1

#: Blur families, in the order of `KernelConfig.probabilities`.
FAMILIES = (
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
)
#: Share of a kernel's absolute mass that `trim` may drop: under half a level of 255.
TRIM_TOLERANCE = 2e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Distribution of blur kernels; lengths in pixels.

    Attributes:
        sinc_probability: probability of a sinc instead of a blur.
        probabilities: of the six `FAMILIES`; they sum to 1.
        sizes: odd kernel sizes, drawn uniformly.
        sigma: range of the standard deviation along each principal axis.
        beta_generalized: range of the generalized Gaussian's shape.
        beta_plateau: range of the plateau's shape.
    """

    sinc_probability: float = 0.1
    probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: tuple[float, float] = (0.2, 3.0)
    beta_generalized: tuple[float, float] = (0.5, 4.0)
    beta_plateau: tuple[float, float] = (1.0, 2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """One drawn kernel: `family` is one of `FAMILIES` or "sinc"; unused fields stay 0."""

    family: str
    size: int
    sigma_x: float = 0.0
    sigma_y: float = 0.0
    theta: float = 0.0
    beta: float = 0.0
    omega_c: float = 0.0


def sample_kernel(rng: np.random.Generator, config: KernelConfig) -> Kernel:
    """Draws a kernel.

    The shape beta falls half the time below 1 and half above, as in the published code;
    with the plateau's range 1..2 that makes it exactly 1 half the time.
    """
    size = config.sizes[rng.integers(len(config.sizes))]
    if rng.random() < config.sinc_probability:
        # A low cut-off has wide rings, which a small kernel would cut off.
        return sample_sinc(rng, size, math.pi / 3 if size < 13 else math.pi / 5)
    cumulative = list(accumulate(config.probabilities))
    draw = bisect_right(cumulative, rng.random() * cumulative[-1])
    family = FAMILIES[min(draw, len(FAMILIES) - 1)]
    sigma_x = sigma_y = rng.uniform(*config.sigma)
    theta = 0.0
    if family.endswith("aniso"):
        sigma_y = rng.uniform(*config.sigma)
        theta = rng.uniform(-math.pi, math.pi)
    beta = 1.0
    if family.startswith("generalized"):
        beta = _sample_beta(rng, config.beta_generalized)
    elif family.startswith("plateau"):
        beta = _sample_beta(rng, config.beta_plateau)
    return Kernel(
        family=family, size=size, sigma_x=sigma_x, sigma_y=sigma_y, theta=theta, beta=beta
    )


def sample_sinc(rng: np.random.Generator, size: int, omega_min: float) -> Kernel:
    """Draws a sinc kernel with cut-off in [omega_min, pi] radians per pixel."""
    return Kernel(family="sinc", size=size, omega_c=rng.uniform(omega_min, math.pi))


def make_kernel(kernel: Kernel) -> np.ndarray:
    """Computes a drawn kernel.

    Returns:
        float32 that sums to 1: [k] for "iso", which is separable (the kernel is the outer
        product of the vector with itself), else [k, k]. k is at most `kernel.size`: rings
        that hold nearly nothing are trimmed.
    """
    k = kernel
    if k.family == "iso":
        return trim(gaussian(k.size, k.sigma_x))
    if k.family == "sinc":
        return trim(sinc(k.size, k.omega_c))
    if k.family.startswith("plateau"):
        return trim(plateau(k.size, k.sigma_x, k.sigma_y, k.theta, k.beta))
    return trim(generalized_gaussian(k.size, k.sigma_x, k.sigma_y, k.theta, k.beta))


def gaussian(size: int, sigma: float) -> np.ndarray:
    """k(x) ~ exp(-x^2 / (2 sigma^2)): one axis of an isotropic Gaussian. float32 [size]."""
    x = _axis(size)
    return _normalised(np.exp((-0.5 / sigma**2) * x * x))


def generalized_gaussian(
    size: int, sigma_x: float, sigma_y: float, theta: float, beta: float
) -> np.ndarray:
    """k(p) ~ exp(-1/2 (p^T S^-1 p)^beta), S = R(theta) diag(sigma_x^2, sigma_y^2) R(theta)^T.

    beta = 1 is the (anisotropic) Gaussian. float32 [size, size], rows are y.
    """
    return _normalised(np.exp(-0.5 * _form(size, sigma_x, sigma_y, theta) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> np.ndarray:
    """k(p) ~ 1 / (1 + (p^T S^-1 p)^beta), S as above. float32 [size, size]."""
    return _normalised(1.0 / (1.0 + _form(size, sigma_x, sigma_y, theta) ** beta))


def sinc(size: int, omega_c: float) -> np.ndarray:
    """k(x, y) ~ omega_c J1(omega_c r) / (2 pi r), r^2 = x^2 + y^2, with limit omega_c^2 / (4 pi).

    The ideal circular low-pass filter, which rings; J1 is the Bessel function of the first
    kind. float32 [size, size].
    """
    x = _axis(size)
    r = np.hypot(x, x[:, None])
    r[size // 2, size // 2] = 1.0
    kernel = omega_c * j1(omega_c * r) / (2 * math.pi * r)
    kernel[size // 2, size // 2] = omega_c**2 / (4 * math.pi)
    return _normalised(kernel)


def trim(kernel: np.ndarray, tolerance: float = TRIM_TOLERANCE) -> np.ndarray:
    """Drops the outer rings whose absolute mass together is at most `tolerance` of the total.

    A small sigma leaves most of a 21x21 kernel at zero, and filtering costs by size. The
    result is odd, normalised again, and blurs an image in [0, 1] to within 2 x tolerance.
    """
    mass = np.abs(kernel)
    centre = kernel.shape[0] // 2
    limit = tolerance * float(mass.sum())
    inside = slice(None)
    for radius in range(centre - 1, -1, -1):
        smaller = slice(centre - radius, centre + radius + 1)
        window = (smaller,) * kernel.ndim
        if float(mass.sum()) - float(mass[window].sum()) > limit:
            break
        inside = smaller
    return _normalised(kernel[(inside,) * kernel.ndim])


def _sample_beta(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high)


@functools.cache
def _axis(size: int) -> np.ndarray:
    axis = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    axis.flags.writeable = False  # shared by every caller
    return axis


def _form(size: int, sigma_x: float, sigma_y: float, theta: float) -> np.ndarray:
    """p^T S^-1 p: rotate into the principal axes, divide by the standard deviations."""
    x, y = _axis(size), _axis(size)[:, None]
    u = (math.cos(theta) * x + math.sin(theta) * y) / sigma_x
    v = (math.cos(theta) * y - math.sin(theta) * x) / sigma_y
    return u * u + v * v


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(kernel / kernel.sum(dtype=np.float64), dtype=np.float32)
