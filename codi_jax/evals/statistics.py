"""How certain a mean over images is."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import special

from codi_jax.typing import UserError

RESAMPLES = 2000
#: Resampled values that are in memory at a time.
_AT_ONCE = 2**22


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " images"], seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13) of a mean.

    Of equal images PSNR is infinite. Their mean is, and so is the upper end of its interval where
    more than 2.5% of the resamples have one of them.

    Args:
        values: one number per image, perhaps infinite.
        seed: of the 2,000 resamples.
        level: of confidence, in (0, 1).

    Returns:
        (low, high).

    Raises:
        UserError: no values, or a level outside (0, 1).
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or not 0 < level < 1:
        raise UserError(
            f"a bootstrap interval of level {level} for values of shape {array.shape}: give a "
            "level in (0, 1) and one number per image."
        )
    if array.size == 1:  # scipy asks for two
        return float(array[0]), float(array[0])
    if not np.isfinite(array).all():
        return _interval_with_infinite(array, seed, level)
    from scipy import stats  # a fifth of the time that all imports take

    result = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _AT_ONCE // array.size),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def jackknife_interval(
    difference: float, left_out: Sequence[float] | Float[np.ndarray, " groups"], level: float = 0.95
) -> tuple[float, float]:
    """Interval of a difference between two sets' measures (delete-a-group jackknife, Kott 2001).

    Args:
        difference: with all images.
        left_out: the differences without each group of images, at least two.
        level: of confidence, in (0, 1).

    Returns:
        (low, high), by Student's t with a degree of freedom less than there are groups.
    """
    found = np.asarray(left_out, np.float64)
    groups = len(found)
    error = math.sqrt((groups - 1) / groups * float(np.sum((found - found.mean()) ** 2)))
    reach = float(special.stdtrit(groups - 1, (1 + level) / 2)) * error
    return difference - reach, difference + reach


def _interval_with_infinite(
    array: Float[np.ndarray, " images"], seed: int, level: float
) -> tuple[float, float]:
    """The same by resamples of our own: scipy interpolates between means, infinite ones too."""
    rng = np.random.default_rng(seed)
    means = np.array(
        [array[rng.integers(0, array.size, array.size)].mean() for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)
