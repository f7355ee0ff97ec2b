"""The user's colours for a picture whose autoencoder has changed them a little."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt16

from codi_jax.data.images import resize

FIXES = ("wavelet", "adain", "none")
#: Levels of the wavelet transform; a level doubles the reach.
LEVELS = 5
#: How often the coarse part is corrected. The transform is no projection, and where the picture is
#: cut off at black and white its mean has moved.
PASSES = 3
_REACH = PASSES * (2**LEVELS - 1)
#: Where 5x5 pixels of the small picture differ by no more than the first (in levels of 255), it
#: is flat and the model's detail is left out; from the second on all of it is kept.
FLAT, SHAPED = 1.0, 4.0
_AROUND = np.ones((5, 5), np.uint8)
_ROWS = 512  # of the result that are worked on at once


def fix_colours(
    kind: str,
    picture: UInt16[np.ndarray, "height width 3"],
    small: Shaped[np.ndarray, "small_height small_width 3"],
    scale: int,
) -> UInt16[np.ndarray, "height width 3"]:
    """The picture with the colours of what it was made from.

    "wavelet" takes everything that is coarser than about 30 pixels from the small picture: the
    coarsest part of an à trous wavelet transform (as in StableSR, Wang et al. 2024), and all of it
    where the small picture is flat. "adain" gives each channel the small picture's mean and
    deviation.

    Args:
        kind: one of `FIXES`.
        picture: the result.
        small: uint8 or uint16, what was enlarged.
        scale: by how much.
    """
    if kind == "wavelet":
        return np.concatenate([*_wavelet_rows(picture, small, scale)])
    return _adain(picture, small) if kind == "adain" else picture


def _wavelet_rows(picture: np.ndarray, small: np.ndarray, scale: int) -> Iterator[np.ndarray]:
    height = picture.shape[0]
    reach = -(-_REACH // scale) * scale
    rows = _ROWS // scale * scale or scale
    for top in range(0, height, rows):
        end = min(height, top + rows)
        first, last = max(0, top - reach), min(height, end + reach)
        near = picture[first:last].astype(np.float32)
        coarse, shaped = _enlarged(small, first // scale, -(-last // scale), scale)
        for _ in range(PASSES):
            near = np.clip(near + _coarse_part(coarse - near), 0, 65535)
        yield _levels((coarse + shaped * (near - coarse))[top - first : end - first])


def _coarse_part(picture: Float[np.ndarray, "rows width 3"]) -> Float[np.ndarray, "rows width 3"]:
    for level in range(LEVELS):
        kernel = np.zeros(2 ** (level + 1) + 1, np.float32)
        kernel[:: 2**level] = (0.25, 0.5, 0.25)
        picture = cv2.sepFilter2D(
            picture, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE
        )
    return picture


def _enlarged(
    small: np.ndarray, first: int, last: int, scale: int
) -> tuple[Float[np.ndarray, "rows width 3"], Float[np.ndarray, "rows width 1"]]:
    """Rows ``first`` to ``last`` of the small picture, enlarged, and how far they are not flat.

    The first is bicubic and in 16-bit levels, the second is in [0, 1].
    """
    above, below = max(0, first - 4), min(len(small), last + 4)
    part = small[above:below].astype(np.float32) * _to_16(small)
    contrast = (cv2.dilate(part, _AROUND) - cv2.erode(part, _AROUND)).max(axis=-1) / 257
    shaped = np.clip((contrast - FLAT) / (SHAPED - FLAT), 0, 1)
    size = (len(part) * scale, part.shape[1] * scale)
    rows = slice((first - above) * scale, (last - above) * scale)
    coarse = np.clip(resize(part, size, "bicubic")[rows], 0, 65535)
    return coarse, resize(shaped, size, "bilinear")[rows, :, None]


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
