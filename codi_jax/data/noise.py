"""Noise for degradations: fast, and a function of the generator that is given alone."""

import functools
import math

import cv2
import numpy as np
from scipy.special import gammaln

_QUANTILE_BITS = 12


def standard_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Standard normal noise, float32.

    OpenCV's generator is five times as fast as numpy's Philox. Its state belongs to the calling
    thread and is seeded from `rng` here, so the result depends on `rng` alone.
    """
    noise = np.empty(shape, np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
    # As one channel: given three, OpenCV would give noise to the first alone.
    cv2.randn(noise.reshape(shape[0], -1), np.zeros(1), np.ones(1))
    return noise


def poisson(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson(v x) / v - x for x = levels / 255; float32, with the shape of `levels`.

    As published, v is the number of distinct levels in the whole image, rounded up to a power of
    two. There are only 256 rates, so a table of each rate's quantiles replaces a draw per pixel.
    """
    count = np.count_nonzero(cv2.calcHist([levels.reshape(-1)], [0], None, [256], [0, 256]))
    table = _poisson_table(2 ** math.ceil(math.log2(count)))
    index = levels.astype(np.intp)
    index <<= _QUANTILE_BITS
    index |= rng.integers(1 << _QUANTILE_BITS, size=levels.shape, dtype=np.uint16)
    return table.take(index)


@functools.cache  # the power of two is at most 256: nine tables of 4 MB
def _poisson_table(v: int) -> np.ndarray:
    """n / v - level / 255 at mid-bin quantiles of n ~ Poisson(v level / 255).

    float32, [256, 4096] flattened.
    """
    table = np.empty((256, 1 << _QUANTILE_BITS), np.float32)
    middles = (np.arange(table.shape[1]) + 0.5) / table.shape[1]
    n = np.arange(v + 10 * math.isqrt(v) + 20)
    table[0] = 0.0
    for level in range(1, 256):
        rate = v * level / 255
        cdf = np.cumsum(np.exp(n * math.log(rate) - rate - gammaln(n + 1.0)))
        table[level] = np.searchsorted(cdf, middles) / v - level / 255
    return table.reshape(-1)
