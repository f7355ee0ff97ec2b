"""Low-resolution images from high-resolution ones: Real-ESRGAN's second-order degradation.

Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", section 3; the numbers are those of its published x4 training. A degradation
is a value: `SecondOrder` or `Bicubic`, applied by `degrade`.

Every random choice but the noise itself is drawn first (`sample_parameters`), then applied
(`apply_parameters`). Images are float32 in [0, 1], RGB, between the steps; nothing is
float64, and the border is reflected without repeating its pixel, as in the published code.
"""

import dataclasses
import math

import cv2
import numpy as np

from codi_jax.data import images, kernels
from codi_jax.data.noise import poisson, standard_normal
from codi_jax.typing import UserError

RESIZE_MODES = ("area", "bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One order of the degradation: blur, resize, noise, JPEG.

    Attributes:
        kernel: distribution of the blur kernel.
        blur_probability: probability of blurring at all.
        resize_probabilities: of going up, down, or keeping the size.
        resize_range: smallest and largest factor.
        gaussian_probability: probability of Gaussian noise; Poisson noise otherwise.
        gaussian_sigma: range of its standard deviation, in levels of 255.
        poisson_scale: range of the factor on the Poisson noise.
        grey_probability: probability that the three channels share their noise.
        jpeg_quality: range of the quality, both ends included.
    """

    kernel: kernels.KernelConfig = kernels.KernelConfig()
    blur_probability: float = 1.0
    resize_probabilities: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: tuple[float, float] = (0.15, 1.5)
    gaussian_probability: float = 0.5
    gaussian_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    grey_probability: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)


_SECOND = StageConfig(
    kernel=kernels.KernelConfig(sigma=(0.2, 1.5)),
    blur_probability=0.8,
    resize_probabilities=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecondOrder:
    """Real-ESRGAN's degradation: two stages, then a sinc filter with `final_sinc_probability`.

    The second stage's JPEG is part of the ending: half the time it comes after the resize
    to the output size and the sinc, half the time before.
    """

    first: StageConfig = StageConfig()
    second: StageConfig = _SECOND
    final_sinc_probability: float = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bicubic:
    """Plain antialiased bicubic reduction, the classical super-resolution benchmark."""


Degradation = SecondOrder | Bicubic
DEGRADATIONS: dict[str, Degradation] = {"realesrgan": SecondOrder(), "bicubic": Bicubic()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageParameters:
    """What was drawn for one stage. `noise` is a sigma of 255, or the Poisson scale."""

    kernel: kernels.Kernel | None
    resize_factor: float
    resize_mode: str
    noise_kind: str
    noise: float
    grey: bool
    jpeg_quality: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """What was drawn for one image."""

    first: StageParameters
    second: StageParameters
    final_sinc: kernels.Kernel | None
    final_mode: str
    jpeg_last: bool


def make_degradation(name: str) -> Degradation:
    """Looks up a degradation by name: "realesrgan" or "bicubic"; else raises `UserError`."""
    if name not in DEGRADATIONS:
        raise UserError(f"degradation {name!r} is unknown; use one of {', '.join(DEGRADATIONS)}.")
    return DEGRADATIONS[name]


def degrade(
    hr: np.ndarray, rng: np.random.Generator, config: Degradation, scale: int = 4
) -> np.ndarray:
    """Makes the low-resolution image.

    Args:
        hr: float32 [H, W, 3] in [0, 1], RGB; H and W are multiples of `scale`. Not changed.
        rng: the only source of randomness: an equal state gives an equal image.
        config: which degradation.
        scale: ratio of the sizes.

    Returns:
        uint8 [H / scale, W / scale, 3] in [0, 255], RGB.
    """
    if isinstance(config, Bicubic):
        return bicubic_degrade(hr, scale)
    return apply_parameters(hr, sample_parameters(rng, config), rng, scale)


def bicubic_degrade(hr: np.ndarray, scale: int = 4) -> np.ndarray:
    """Antialiased bicubic reduction of uint8 or float32-in-[0, 1] `hr`; shapes as `degrade`."""
    lr = images.resize(hr, _low_size(hr, scale), "bicubic")
    return lr if lr.dtype == np.uint8 else images.unit_to_uint8(lr)


def sample_parameters(rng: np.random.Generator, config: SecondOrder) -> Parameters:
    """Draws everything but the noise."""
    first = _sample_stage(rng, config.first)
    second = _sample_stage(rng, config.second)
    final_sinc = None
    if rng.random() < config.final_sinc_probability:
        sizes = config.second.kernel.sizes
        size = sizes[rng.integers(len(sizes))]
        final_sinc = kernels.sample_sinc(rng, size, math.pi / 3)
    return Parameters(
        first=first,
        second=second,
        final_sinc=final_sinc,
        final_mode=_sample_mode(rng),
        jpeg_last=bool(rng.random() < 0.5),
    )


def apply_parameters(
    hr: np.ndarray, drawn: Parameters, rng: np.random.Generator, scale: int = 4
) -> np.ndarray:
    """Applies what was drawn; `rng` makes the noise. Shapes and ranges as in `degrade`."""
    low_size = _low_size(hr, scale)
    x = hr
    if drawn.first.kernel is not None:
        x = blur(x, drawn.first.kernel)
    height, width = hr.shape[:2]
    x = _resize(x, _scaled((height, width), drawn.first.resize_factor), drawn.first.resize_mode)
    x = add_noise(x, rng, drawn.first)
    x = images.to_float(jpeg(images.unit_to_uint8(x), drawn.first.jpeg_quality))

    if drawn.second.kernel is not None:
        x = blur(x, drawn.second.kernel)
    # The second factor is relative to the output's size, as published.
    x = _resize(x, _scaled(low_size, drawn.second.resize_factor), drawn.second.resize_mode)
    x = add_noise(x, rng, drawn.second)

    if not drawn.jpeg_last:
        x = images.to_float(jpeg(images.unit_to_uint8(x), drawn.second.jpeg_quality))
    x = _resize(x, low_size, drawn.final_mode)
    if drawn.final_sinc is not None:
        x = blur(x, drawn.final_sinc)
    lr = images.unit_to_uint8(x)
    return jpeg(lr, drawn.second.jpeg_quality) if drawn.jpeg_last else lr


def blur(image: np.ndarray, kernel: kernels.Kernel) -> np.ndarray:
    """Filters float32 [H, W, 3] with a drawn kernel; same shape."""
    weights = kernels.make_kernel(kernel)
    if weights.ndim == 1:
        return cv2.sepFilter2D(image, -1, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    return cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REFLECT_101)


def add_noise(image: np.ndarray, rng: np.random.Generator, drawn: StageParameters) -> np.ndarray:
    """Adds Gaussian or Poisson noise to float32 [H, W, 3]; the result is clipped to [0, 1]."""
    noise: np.ndarray
    if drawn.noise_kind == "gaussian":
        shape = image.shape[:2] if drawn.grey else image.shape
        noise, strength = standard_normal(shape, rng), drawn.noise / 255.0
    else:
        signal = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if drawn.grey else image
        noise, strength = poisson(images.unit_to_uint8(signal), rng), drawn.noise
    if drawn.grey:
        noise = cv2.merge([noise, noise, noise])
    noisy = cv2.scaleAdd(noise, strength, image)
    return np.clip(noisy, 0.0, 1.0, out=noisy)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compresses and decompresses uint8 [H, W, 3] RGB (4:2:0); quality in 1..100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # we encoded it ourselves
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _sample_stage(rng: np.random.Generator, config: StageConfig) -> StageParameters:
    kernel = None
    if rng.random() < config.blur_probability:
        kernel = kernels.sample_kernel(rng, config.kernel)
    up, down, _ = config.resize_probabilities
    draw, factor = rng.random(), 1.0
    if draw < up:
        factor = rng.uniform(1.0, config.resize_range[1])
    elif draw < up + down:
        factor = rng.uniform(config.resize_range[0], 1.0)
    gaussian = rng.random() < config.gaussian_probability
    return StageParameters(
        kernel=kernel,
        resize_factor=factor,
        resize_mode=_sample_mode(rng),
        noise_kind="gaussian" if gaussian else "poisson",
        noise=rng.uniform(*(config.gaussian_sigma if gaussian else config.poisson_scale)),
        grey=bool(rng.random() < config.grey_probability),
        jpeg_quality=int(rng.integers(*config.jpeg_quality, endpoint=True)),
    )


def _sample_mode(rng: np.random.Generator) -> str:
    return RESIZE_MODES[rng.integers(len(RESIZE_MODES))]


def _scaled(size_hw: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size_hw[0] * factor)), max(1, int(size_hw[1] * factor))


def _resize(image: np.ndarray, size_hw: tuple[int, int], mode: str) -> np.ndarray:
    if image.shape[:2] == size_hw:
        return image
    return images.resize(image, size_hw, mode, antialias=False)


def _low_size(hr: np.ndarray, scale: int) -> tuple[int, int]:
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise UserError(
            f"image size {height}x{width} is not a multiple of the scale {scale}; crop it first."
        )
    return height // scale, width // scale
