import numpy as np
import pytest
from scipy import stats

from codi_jax.evals.statistics import bootstrap_interval, jackknife_interval
from codi_jax.typing import UserError


def test_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    half = 1.645 * values.std() / np.sqrt(400)
    expected = values.mean() - half, values.mean() + half
    low, high = bootstrap_interval(values, level=0.9)
    assert (low, high) == pytest.approx(expected, abs=0.01)
    assert bootstrap_interval(values, level=0.9) == (low, high)
    assert bootstrap_interval(values, seed=1, level=0.9) != (low, high)


def test_jackknife_of_a_mean_is_students_interval():
    """Leaving out one value at a time, the error of a mean is its standard error."""
    values = np.random.default_rng(0).normal(3, 2, 12)
    left_out = [np.delete(values, i).mean() for i in range(12)]
    low, high = jackknife_interval(values.mean(), left_out)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_interval_of_equal_values_is_a_point():
    assert bootstrap_interval([2.5] * 7) == (2.5, 2.5)
    assert bootstrap_interval([2.5]) == (2.5, 2.5)


@pytest.mark.parametrize(("values", "level"), [([], 0.9), ([1.0], 1.0), ([[1.0]], 0.9)])
@pytest.mark.usefixtures("unchecked")
def test_unfit_values_are_named(values, level):
    with pytest.raises(UserError, match="one number per image"):
        bootstrap_interval(values, level=level)
