"""NIQE: how far a picture is from natural ones, without its ground truth; lower is better.

Mittal, Soundararajan & Bovik 2013, as the authors' MATLAB program computes it. The brightness of
the picture, in whole levels, is divided by its local contrast (section III-A there). Of each block
of 96x96 pixels, and of 48x48 of the picture at half its size, 18 features are taken: parameters
of asymmetric generalised Gaussians that are fitted to the values and to the products of neighbours
(III-B). Mean and covariance of the blocks' features are compared with those of natural pictures
(equation 10). The latter come with the package, see ``assets/niqe``.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage
from scipy.special import gamma

from codi_jax.checkpoint.files import open_tensors
from codi_jax.evals.image_metrics import Images, luma
from codi_jax.typing import UserError

#: Side of the blocks in pixels; what is left over at the right and below is cut off.
BLOCK = 96
#: The parameters.
NATURAL = Path(__file__).parents[1] / "assets" / "niqe" / "natural.safetensors"
#: MATLAB's rgb2gray: the row of luma in the inverse of NTSC's matrix.
GREY = np.array([0.298936021293776, 0.587043074451121, 0.114020904255103])
# Neighbours whose products are looked at: right, below, and the two diagonals.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
# MATLAB's imresize by one half: a = -0.5, and as much wider as the picture gets smaller.
_HALVE = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875]) / 2
# Below this, in levels, a difference from the mean is what rounding leaves of zero.
_ZERO = 1e-9


def niqe(image: UInt8[np.ndarray, "height width 3"]) -> float:
    """NIQE of the grey picture (MATLAB's ``rgb2gray``), as its authors take it.

    Args:
        image: RGB; the whole frame counts, as far as it holds blocks.

    Returns:
        The distance, 0 or more; not a number where fewer than two blocks have structure.

    Raises:
        UserError: a picture of fewer than two blocks.
    """
    return _distance(_whole_levels(image.astype(np.float64) @ GREY))


def niqe_y(image: UInt8[np.ndarray, "height width 3"]) -> float:
    """The same of luma (BT.601, 16 to 235), as BasicSR takes it."""
    return _distance(_whole_levels(luma(image)))


#: The metrics of this module, by name.
METRICS: dict[str, Callable[[np.ndarray], float]] = {"niqe": niqe, "niqe_y": niqe_y}


def scores_per_image(
    images: Images, metrics: Sequence[str]
) -> dict[str, float | Float[np.ndarray, " images"]]:
    """Each metric of each image, by name; float64.

    Raises:
        UserError: as :func:`niqe`, before any is computed.
    """
    for image in images:
        _check_size(image)
    rows = [[METRICS[name](image) for name in metrics] for image in images]
    return dict(zip(metrics, np.array(rows, np.float64).T, strict=True))


def _check_size(image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if (height // BLOCK) * (width // BLOCK) < 2:  # a covariance needs two
        raise UserError(
            f"an image of {height}x{width} is too small for NIQE, which compares blocks of "
            f"{BLOCK}x{BLOCK}: give images of at least {BLOCK}x{2 * BLOCK}, or leave it out."
        )


def _whole_levels(values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Rounded as MATLAB does: halves away from zero."""
    return np.floor(values + 0.5)


def _distance(grey: Float[np.ndarray, "height width"]) -> float:
    _check_size(grey)
    rows, columns = (n // BLOCK for n in grey.shape)
    grey = grey[: rows * BLOCK, : columns * BLOCK]
    scales = ((grey, BLOCK), (_half(grey), BLOCK // 2))
    features = np.concatenate([_features(_normalised(x), side) for x, side in scales], axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return float("nan")
    natural_mean, natural_covariance = _natural()
    difference = natural_mean - np.nanmean(features, axis=0)
    covariance = (natural_covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(covariance) @ difference))


@functools.cache
def _natural() -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, "features features"]]:
    """Mean and covariance of natural pictures' features, from the authors' 125 photos."""
    with open_tensors(NATURAL) as file:
        return file.read("mean"), file.read("covariance")


def _normalised(image: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Equation 1: (I - mu) / (sigma + 1), in a Gaussian window of 7x7 pixels, sigma 7/6."""
    taps = np.exp(-((np.arange(-3, 4) / (7 / 6)) ** 2) / 2)
    taps /= taps.sum()

    def window(x: np.ndarray) -> np.ndarray:
        along = ndimage.correlate1d(x, taps, axis=0, mode="nearest")
        return ndimage.correlate1d(along, taps, axis=1, mode="nearest")

    mean = window(image)
    contrast = np.sqrt(np.abs(window(image**2) - mean**2))
    difference = image - mean
    difference[np.abs(difference) < _ZERO] = 0
    return difference / (contrast + 1)


def _half(image: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "half_height half_width"]:
    """The picture at half its size; beyond its borders it is mirrored."""
    taps = np.concatenate([_HALVE, _HALVE[::-1]])
    for _ in range(2):  # rows; then columns, which have become the rows
        padded = np.pad(image, ((3, 3), (0, 0)), mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=0)
        image = (windows[::2] @ taps).T
    return image


def _features(
    image: Float[np.ndarray, "height width"], block: int
) -> Float[np.ndarray, "blocks 18"]:
    """The features of each block, row by row."""
    rows, columns = (n // block for n in image.shape)
    blocks = image.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(-1, block, block)
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for neighbour in _NEIGHBOURS:
        shape, left, right = _fit(blocks * np.roll(blocks, neighbour, axis=(1, 2)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # equation 8
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


@functools.cache
def _shapes() -> tuple[Float[np.ndarray, " shapes"], Float[np.ndarray, " shapes"]]:
    """Shapes of the generalised Gaussian, and the ratio E|x|^2 / E[x^2] of each, which grows."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def _fit(
    blocks: Float[np.ndarray, "blocks side side"],
) -> tuple[
    Float[np.ndarray, " blocks"], Float[np.ndarray, " blocks"], Float[np.ndarray, " blocks"]
]:
    """Shape, left and right scale of the asymmetric generalised Gaussian of each block.

    By matching moments (Lasmar et al. 2009); not a number where a block has no values of a sign.
    """
    axes = (1, 2)
    squares = blocks**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt(np.sum(squares, axes, where=side) / np.sum(side, axes))
            for side in (blocks < 0, blocks > 0)
        )
        skew = left / right
        ratio = np.mean(np.abs(blocks), axes) ** 2 / np.mean(squares, axes)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _shapes()
    nearest = np.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio)
    shape = np.where(np.isnan(ratio), np.nan, shapes[np.minimum(nearest, len(shapes) - 1)])
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
