"""The user's colours for a picture whose autoencoder has changed them a little."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt16

from codi_jax.data.images import resize

FIXES = ("auto", "wavelet", "wavelet_fine", "adain", "none")
#: Levels of the wavelet transform; a level doubles the reach.
LEVELS = {"wavelet": 5, "wavelet_fine": 3}
#: How often the coarse part is corrected. The transform is no projection, and where the picture is
#: cut off at black and white its mean has moved.
PASSES = 3
#: Standard deviation, in levels of 255, of the grain that a small model leaves in smooth areas.
#: Detail that is no stronger is left out, and stronger detail is weakened by Wiener's rule. What is
#: no stronger than the finest detail of the small picture is kept: in photos detail grows weaker
#: towards finer scales, so the model's should not be much weaker than that.
GRAIN = 2.3
#: The most that a model takes out of a clean picture, in levels of 255. Of a noisy one it takes
#: more (docs/sampling.md has figures).
CLEAN = 0.5
#: Deviations of the Gaussian windows in which detail is measured, in pixels of the small picture.
#: It must be strong in both: a speck is so in the first alone.
NEAR, AROUND = 0.7, 2
#: Where 5x5 pixels of the small picture differ by no more than the first (in levels of 255), it
#: is flat, and strong detail is left out, too; from the second on it is kept.
FLAT, SHAPED = 1.0, 4.0
_FIVE = np.ones((5, 5), np.uint8)
_BINOMIAL = np.array((0.25, 0.5, 0.25), np.float32)
_SIGMAS = 4  # how far OpenCV's Gaussian kernel reaches
_ROWS = 512  # of the result that are worked on at once


class _Enlarged(NamedTuple):
    """Rows of the small picture, at the size of the result.

    Attributes:
        coarse: the rows, bicubic, in 16-bit levels.
        shaped: how far they are not flat, in [0, 1].
        finest: the power of their finest octave, in squared 16-bit levels.
    """

    coarse: Float[np.ndarray, "rows width 3"]
    shaped: Float[np.ndarray, "rows width 1"]
    finest: Float[np.ndarray, "rows width 1"]


def fix_colours(
    kind: str,
    picture: UInt16[np.ndarray, "height width 3"],
    small: Shaped[np.ndarray, "small_height small_width 3"],
    scale: int,
) -> UInt16[np.ndarray, "height width 3"]:
    """The picture with the colours of what it was made from.

    "wavelet" takes everything that is coarser than about 30 pixels from the small picture: the
    coarsest part of an à trous wavelet transform (as in StableSR, Wang et al. 2024). Where the
    small picture is smooth it takes grain away, and where it is flat all detail. "wavelet_fine"
    takes all that is coarser than about 8 pixels, with faint texture that the model held for
    noise, and with noise. "auto" is one of these two: "wavelet" where the model has taken much out
    of more than half of the picture, which then counts as noisy. "adain" gives each channel the
    small picture's mean and deviation.

    Args:
        kind: one of `FIXES`.
        picture: the result.
        small: uint8 or uint16, what was enlarged.
        scale: by how much.
    """
    if kind == "auto":
        kind = "wavelet_fine" if taken_out(picture, small, scale) <= CLEAN else "wavelet"
    if kind in LEVELS:
        return np.concatenate([*_wavelet_rows(picture, small, scale, LEVELS[kind])])
    return _adain(picture, small) if kind == "adain" else picture


def taken_out(
    picture: UInt16[np.ndarray, "height width 3"],
    small: Shaped[np.ndarray, "small_height small_width 3"],
    scale: int,
) -> float:
    """Deviation of what a model has taken out of a picture: the median over it, of 255.

    Args:
        picture: the result.
        small: uint8 or uint16, what was enlarged.
        scale: by how much.
    """
    levels = max(1, LEVELS["wavelet"] - round(math.log2(scale)))
    rows = _ROWS // scale or 1
    reduced = [
        cv2.resize(
            picture[top * scale : (top + rows) * scale]
            - _bicubic(*_part(small, top, top + rows, scale), scale),
            (small.shape[1], min(rows, len(small) - top)),
            interpolation=cv2.INTER_AREA,
        )
        for top in range(0, len(small), rows)
    ]
    texture, more = (
        (x - _coarse_part(x, levels)) / np.float32(257)
        for x in (small.astype(np.float32) * _to_16(small), np.concatenate(reduced))
    )
    power, change = (
        cv2.GaussianBlur(_product(texture, x), (0, 0), AROUND) for x in (texture, more)
    )
    power = np.maximum(power, 1e-4)
    return float(np.median(np.sqrt(power) * np.clip(-change / power, 0, 1)))


def _wavelet_rows(
    picture: np.ndarray, small: np.ndarray, scale: int, levels: int
) -> Iterator[np.ndarray]:
    height = picture.shape[0]
    reach = (-(-PASSES * (2**levels - 1) // scale) + _SIGMAS * AROUND) * scale
    rows = _ROWS // scale * scale or scale
    for top in range(0, height, rows):
        end = min(height, top + rows)
        first, last = max(0, top - reach), min(height, end + reach)
        near = picture[first:last].astype(np.float32)
        large = _enlarged(small, first // scale, -(-last // scale), scale)
        for _ in range(PASSES):
            near = np.clip(near + _coarse_part(large.coarse - near, levels), 0, 65535)
        detail = near - large.coarse
        detail *= _kept(detail, large, scale)
        yield _levels((large.coarse + detail)[top - first : end - first])


def _kept(
    detail: Float[np.ndarray, "rows width 3"], large: _Enlarged, scale: int
) -> Float[np.ndarray, "rows width 1"]:
    """How much of the model's detail is kept, in [0, 1]."""
    power = _product(detail, detail) + np.float32(1)  # in 16-bit levels: it cannot be seen
    near, around = (
        cv2.GaussianBlur(power, (0, 0), scale * sigma)[..., None] for sigma in (NEAR, AROUND)
    )
    grain = np.float32(GRAIN * 257) ** 2
    beyond = large.shaped * np.maximum(1 - grain / np.minimum(near, around), 0)
    return np.maximum(beyond, np.sqrt(np.minimum(large.finest / near, 1)))


def _product(
    one: Float[np.ndarray, "rows width 3"], other: Float[np.ndarray, "rows width 3"]
) -> Float[np.ndarray, "rows width"]:
    return np.einsum("yxc,yxc->yx", one, other) / np.float32(3)


def _coarse_part(
    picture: Float[np.ndarray, "rows width 3"], levels: int
) -> Float[np.ndarray, "rows width 3"]:
    for level in range(levels):
        kernel = np.zeros(2 ** (level + 1) + 1, np.float32)
        kernel[:: 2**level] = (0.25, 0.5, 0.25)
        picture = cv2.sepFilter2D(
            picture, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE
        )
    return picture


def _enlarged(small: np.ndarray, first: int, last: int, scale: int) -> _Enlarged:
    part, rows = _part(small, first, last, scale)
    contrast = (cv2.dilate(part, _FIVE) - cv2.erode(part, _FIVE)).max(axis=-1) / 257
    shaped = np.clip((contrast - FLAT) / (SHAPED - FLAT), 0, 1)
    octave = part - cv2.sepFilter2D(part, cv2.CV_32F, _BINOMIAL, _BINOMIAL)
    finest = cv2.GaussianBlur(_product(octave, octave), (0, 0), NEAR)
    size = (len(part) * scale, part.shape[1] * scale)
    return _Enlarged(
        _bicubic(part, rows, scale),
        resize(shaped, size, "bilinear")[rows, :, None],
        resize(finest, size, "bilinear")[rows, :, None],
    )


def _part(small: np.ndarray, first: int, last: int, scale: int) -> tuple[np.ndarray, slice]:
    """Rows of the small picture with what filters read around, and their place when enlarged."""
    last = min(last, len(small))
    above, below = max(0, first - 4), min(len(small), last + 4)
    part = small[above:below].astype(np.float32) * _to_16(small)
    return part, slice((first - above) * scale, (last - above) * scale)


def _bicubic(part: np.ndarray, rows: slice, scale: int) -> Float[np.ndarray, "rows width 3"]:
    size = (len(part) * scale, part.shape[1] * scale)
    return np.clip(resize(part, size, "bicubic")[rows], 0, 65535)


def _adain(picture: np.ndarray, small: np.ndarray) -> np.ndarray:
    # At the small picture's size: what the model adds beyond is not to be flattened.
    reduced = cv2.resize(picture, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    own = reduced.astype(np.float64).reshape(-1, 3)
    wanted = small.astype(np.float64).reshape(-1, 3) * _to_16(small)
    gain = wanted.std(0) / np.maximum(own.std(0), 1e-6)
    gain = np.where(own.std(0) > 0.5, gain, 1.0)
    mean = np.float32(wanted.mean(0) - own.mean(0) * gain)
    return np.concatenate(
        [
            _levels(picture[top : top + _ROWS] * np.float32(gain) + mean)
            for top in range(0, len(picture), _ROWS)
        ]
    )


def _to_16(values: np.ndarray) -> np.float32:
    return np.float32(1 if values.dtype == np.uint16 else 257)


def _levels(values: np.ndarray) -> UInt16[np.ndarray, "*shape"]:
    return np.clip(np.round(values), 0, 65535).astype(np.uint16)
