import numpy as np
import pytest
import scipy.stats

from codi_jax.data import noise as noises


@pytest.mark.parametrize(("level", "levels"), [(3, 256), (40, 256), (200, 256), (17, 16)])
def test_poisson_noise_has_the_poisson_distribution(level, levels):
    image = np.full((300, 300), level, np.uint8)
    image[0, :levels] = np.linspace(0, 255, levels).astype(np.uint8)  # sets the number of levels
    noise = noises.poisson(image, np.random.default_rng(0))
    counts = np.rint((noise[1:] + level / 255) * levels).astype(int).ravel()
    rate = levels * level / 255
    assert counts.mean() == pytest.approx(rate, rel=0.01)
    assert counts.var() == pytest.approx(rate, rel=0.03)
    n = np.arange(int(rate + 6 * rate**0.5) + 5)
    histogram = np.bincount(counts, minlength=len(n))[: len(n)] / counts.size
    np.testing.assert_allclose(histogram, scipy.stats.poisson.pmf(n, rate), atol=0.005)
