"""Full-reference metrics of restored images, on the host.

All take two RGB images of one shape, in [0, 255], resize nothing and return a float. They
compare the *whole* frame unless the caller cuts a border off (``border`` of
:func:`scores_per_image`). PSNR and SSIM work on RGB, ``psnr_y`` and ``ssim_y`` on luma: numbers
of papers that use luma, or cut a border, are higher. All are symmetric. GMSD and HaarPSI are
perceptual metrics without network weights.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage
from skimage.metrics import structural_similarity

from codi_jax.typing import UserError, check_choice

#: Images that are compared, of any sizes: in memory, or files that are read when asked for.
Images = Sequence[UInt8[np.ndarray, "_ _ 3"]] | UInt8[np.ndarray, "_ _ _ 3"]

# SSIM's window is 11x11 (sigma 1.5 cut at 3.5 sigma), the largest of the single-scale metrics.
_SMALLEST = 11
# Weights of MS-SSIM's scales, finest first (Wang et al. 2003, section 4).
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: Shorter side from which MS-SSIM's window fits in the fifth scale, four (upward) halvings on.
MS_SMALLEST = (_SMALLEST - 1) * 2 ** (len(_MS_WEIGHTS) - 1) + 1
# Rows: Y, I, Q (NTSC), as the authors of GMSD and HaarPSI use them.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# Luma of ITU-R BT.601 in studio range, 16 to 235, as MATLAB's rgb2ycbcr has it.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255


def psnr(a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]) -> float:
    """Peak signal-to-noise ratio over RGB in dB: 10 log10(255^2 / MSE); inf if identical."""
    _check(a, b)
    return _psnr(a.astype(np.float64), b.astype(np.float64))


def psnr_y(a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]) -> float:
    """PSNR on luma (BT.601, 16 to 235, not rounded), with peak 255 all the same."""
    _check(a, b)
    return _psnr(luma(a), luma(b))


def ssim(a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]) -> float:
    """Structural similarity (Wang et al. 2004), averaged over R, G and B; 1 if identical.

    With that paper's constants: Gaussian window of sigma 1.5 cut to 11x11 and kept inside the
    frame, K1 = 0.01, K2 = 0.03, L = 255, population (not sample) covariances.
    """
    _check(a, b)
    return _ssim(a, b)


def ssim_y(a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]) -> float:
    """SSIM on luma (BT.601, 16 to 235, not rounded), with L = 255 all the same."""
    _check(a, b)
    return _ssim(luma(a)[..., None], luma(b)[..., None])


def ms_ssim(
    a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Multi-scale SSIM (Wang et al. 2003), averaged over R, G and B; 1 if identical.

    Five scales with that paper's weights, SSIM's window and constants on each; contrast and
    structure of all scales, luminance of the last. Between scales means of 2x2 blocks, a last
    odd row or column repeated. A negative contrast term counts as 0.

    Raises:
        UserError: also for a side below 161 pixels, where the window does not fit scale 5.
    """
    _check(a, b)
    if min(a.shape[:2]) < MS_SMALLEST:
        raise UserError(
            f"an image of {a.shape[0]}x{a.shape[1]} is too small for ms_ssim: give images of at "
            f"least {MS_SMALLEST}x{MS_SMALLEST}, or leave it out."
        )
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(_MS_WEIGHTS):
        luminance, contrast = _ssim_terms(x, y)
        last = scale == len(_MS_WEIGHTS) - 1
        term = np.mean(luminance * contrast if last else contrast, axis=(0, 1))
        product *= np.maximum(term, 0) ** weight
        x, y = _block_means(x), _block_means(y)
    return float(product.mean())


def gmsd(a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014) on luma; 0 is best.

    Equations 1 to 6 there: luma averaged over 2x2 blocks, Prewitt gradient magnitudes m (each
    filter's weights are 1/3), similarity (2 m_a m_b + c) / (m_a^2 + m_b^2 + c) with c = 170,
    and its standard deviation over the pixels. Outside the frame is black, as in the authors'
    code.
    """
    _check(a, b)

    def gradient(image: np.ndarray) -> np.ndarray:
        luma = _halve(image.astype(np.float64) @ _YIQ[0])
        along = [ndimage.prewitt(luma, axis=axis, mode="constant") / 3 for axis in (0, 1)]
        return np.hypot(*along)

    return float(np.std(_similarity(gradient(a), gradient(b), 170.0)))


def haarpsi(
    a: UInt8[np.ndarray, "height width 3"], b: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Haar wavelet-based perceptual similarity (Reisenhofer et al. 2018), in (0, 1]; 1 is best.

    The colour version, section 2.2 there, with C = 30 and alpha = 4.2, on YIQ halved in size:
    similarities of luma's horizontal and vertical Haar coefficients at scales 1 and 2, and of
    the 2x2 means of I and Q, pass through the logistic function, are averaged with the larger
    of the two images' coefficients at scale 3 as weights, and pass back.
    """
    _check(a, b)
    c, alpha = 30.0, 4.2
    yiq = [np.moveaxis(x.astype(np.float64) @ _YIQ.T, 2, 0) for x in (a, b)]
    (y_a, *chroma_a), (y_b, *chroma_b) = ([_halve(plane) for plane in x] for x in yiq)

    maps, weights = [], []
    for axis in (0, 1):
        haar = [(_haar(y_a, scale, axis), _haar(y_b, scale, axis)) for scale in (1, 2, 3)]
        maps.append(np.mean([_similarity(p, q, c**2) for p, q in haar[:2]], axis=0))
        weights.append(np.maximum(*haar[2]))
    blurred = [
        (np.abs(_mean2x2(p)), np.abs(_mean2x2(q))) for p, q in zip(chroma_a, chroma_b, strict=True)
    ]
    maps.append(np.mean([_similarity(p, q, c**2) for p, q in blurred], axis=0))
    weights.append(np.mean(weights, axis=0))

    logistic = 1 / (1 + np.exp(-alpha * np.stack(maps)))
    # Two black images have no weight anywhere; they are alike everywhere.
    mean = np.average(logistic, weights=np.stack(weights) + np.finfo(np.float64).eps)
    return float((np.log(mean / (1 - mean)) / alpha) ** 2)


#: The metrics of this module, by name.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "ms_ssim": ms_ssim,
    "gmsd": gmsd,
    "haarpsi": haarpsi,
}
#: Quick ones, without luma's: what a run and the study score.
DEFAULT = ("psnr", "ssim", "gmsd", "haarpsi")


def scores_per_image(
    images: Images,
    references: Images,
    metrics: Sequence[str] = DEFAULT,
    border: int = 0,
) -> dict[str, Float[np.ndarray, " images"]]:
    """Each metric of each pair, by name; float64.

    Args:
        images: RGB images.
        references: as many, of the same sizes.
        metrics: names out of :data:`METRICS`.
        border: pixels to cut off on each of the four sides before comparing.

    Raises:
        UserError: the sequences are empty or differ in length, a pair differs in shape, an
            unknown metric, or nothing is left within the border.
    """
    if len(images) != len(references) or not len(images):
        raise UserError(
            f"{len(images)} images to score against {len(references)} references: "
            "give one reference per image, and at least one pair."
        )
    for name in metrics:
        check_choice("metric", name, METRICS)
    if border < 0:
        raise UserError(f"border={border}: give the number of pixels to cut off, 0 or more.")
    rows = []
    for a, b in zip(images, references, strict=True):
        _check(a, b)  # before the cut: afterwards two shapes may agree
        pair = [x[border : x.shape[0] - border, border : x.shape[1] - border] for x in (a, b)]
        rows.append([METRICS[name](*pair) for name in metrics])
    return dict(zip(metrics, np.array(rows, np.float64).T, strict=True))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise UserError(
            f"images of shapes {a.shape} and {b.shape} cannot be compared: "
            "resize or crop one to the other first."
        )
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 3 or a.shape[2] != 3:
        raise UserError(
            f"metrics need uint8 RGB images [H, W, 3], got {a.dtype} and {b.dtype} of shape "
            f"{a.shape}: convert them first."
        )
    if min(a.shape[:2]) < _SMALLEST:
        raise UserError(
            f"an image of {a.shape[0]}x{a.shape[1]} is too small to score: "
            f"give images of at least {_SMALLEST}x{_SMALLEST}."
        )


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a - b) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def luma(image: np.ndarray) -> np.ndarray:
    """Luma of BT.601, 16 to 235, not rounded; float64 [H, W] of uint8 RGB."""
    return 16 + image.astype(np.float64) @ _LUMA


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    value = structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def _ssim_terms(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM's luminance, and its contrast times structure, where the window is in the frame."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def window(x: np.ndarray) -> np.ndarray:
        inner = slice(_SMALLEST // 2, -(_SMALLEST // 2))
        return ndimage.gaussian_filter(x, 1.5, truncate=3.5, axes=(0, 1))[inner, inner]

    mean_a, mean_b = window(a), window(b)
    variances = window(a * a) - mean_a**2 + window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    return _similarity(mean_a, mean_b, c1), (2 * covariance + c2) / (variances + c2)


def _block_means(x: np.ndarray) -> np.ndarray:
    x = np.pad(x, [(0, n % 2) for n in x.shape[:2]] + [(0, 0)], mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def _similarity(p: np.ndarray, q: np.ndarray, c: float) -> np.ndarray:
    return (2 * p * q + c) / (p**2 + q**2 + c)


def _separable(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    x = ndimage.convolve1d(x, rows, axis=0, mode="constant")
    return ndimage.convolve1d(x, columns, axis=1, mode="constant")


def _mean2x2(x: np.ndarray) -> np.ndarray:
    half = np.full(2, 0.5)
    return _separable(x, half, half)


def _halve(x: np.ndarray) -> np.ndarray:
    """Means of the 2x2 blocks: the resolution at which the image is seen."""
    return _mean2x2(x)[::2, ::2]


def _haar(x: np.ndarray, scale: int, axis: int) -> np.ndarray:
    """Magnitudes of the Haar coefficients with 2^scale taps whose step runs along ``axis``."""
    box = np.ones(2**scale)
    step = np.repeat([-1.0, 1.0], 2 ** (scale - 1))
    filters = (step, box) if axis == 0 else (box, step)
    return np.abs(_separable(x, *filters)) / 2**scale
