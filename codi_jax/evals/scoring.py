"""All metrics by name: their conventions, and the scores of a set of images."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from codi_jax.evals import distributions, image_metrics
from codi_jax.evals.image_metrics import Images
from codi_jax.evals.perceptual import ClipScore, InceptionFeatures, Lpips
from codi_jax.evals.statistics import bootstrap_interval
from codi_jax.typing import UserError, check_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """What has to be known to compare a number with another paper's."""

    higher_is_better: bool
    convention: str
    paired: bool = True  # compares each image with its reference
    per_image: bool = True  # the set's value is the mean of the images'


_INCEPTION = (
    "whole frame, resized to 299x299 (bilinear, no antialiasing, proportions not kept); 2048 "
    "features of pt_inception-2015-12-05"
)
#: In the order in which they are printed.
METRICS: dict[str, Metric] = {
    "psnr": Metric(
        higher_is_better=True,
        convention="dB, peak 255, MSE over R, G and B of an image, border cut; mean over images",
    ),
    "ssim": Metric(
        higher_is_better=True,
        convention="Gaussian window 11x11, sigma 1.5, inside the frame; K1 0.01, K2 0.03, L 255; "
        "mean of R, G and B, border cut",
    ),
    "psnr_y": Metric(
        higher_is_better=True,
        convention="as psnr, on BT.601 luma (16 to 235, not rounded), peak 255",
    ),
    "ssim_y": Metric(
        higher_is_better=True,
        convention="as ssim, on BT.601 luma (16 to 235, not rounded), L 255",
    ),
    "ms_ssim": Metric(
        higher_is_better=True,
        convention="ssim's window on 5 scales (weights .0448 .2856 .3001 .2363 .1333, 2x2 means "
        "between); mean of R, G and B, border cut; sides of at least 161 px",
    ),
    "gmsd": Metric(
        higher_is_better=False,
        convention="luma (.299 .587 .114) halved by 2x2 means, Prewitt, c 170, border cut",
    ),
    "haarpsi": Metric(
        higher_is_better=True,
        convention="YIQ halved by 2x2 means, C 30, alpha 4.2, border cut",
    ),
    "lpips_alex": Metric(
        higher_is_better=False,
        convention="LPIPS v0.1 with linear heads, AlexNet, RGB, whole frame, no resizing",
    ),
    "lpips_vgg": Metric(
        higher_is_better=False,
        convention="LPIPS v0.1 with linear heads, VGG-16, RGB, whole frame, no resizing",
    ),
    "swd": Metric(
        higher_is_better=False,
        per_image=False,
        convention="x 1000; Laplacian pyramid down to 16 px, 128 patches 7x7 an image and level, "
        "512 projections, seed 0, mean over levels; RGB, whole frame",
    ),
    "fid": Metric(
        higher_is_better=False,
        paired=False,
        per_image=False,
        convention=f"{_INCEPTION}; unbiased covariances",
    ),
    "kid": Metric(
        higher_is_better=False,
        paired=False,
        per_image=False,
        convention=f"{_INCEPTION}; unbiased MMD^2, kernel (x.y/2048 + 1)^3, blocks of 1000, "
        "not multiplied",
    ),
    "clip": Metric(
        higher_is_better=True,
        convention="100 max(cos, 0) of image and caption; shorter side resized (antialiased "
        "bicubic), centre crop",
    ),
}
#: Metric -> its network, where that has another name.
_NETWORK_OF = {"fid": "inception", "kid": "inception"}
#: Those that need no network weights.
WEIGHT_FREE_OF_SETS = ("swd",)
WEIGHT_FREE = (*image_metrics.METRICS, *WEIGHT_FREE_OF_SETS)


class Networks:
    """The networks that metrics need, loaded when this is made: before any long work.

    Args:
        metrics: names out of :data:`METRICS`; None for those that need no weights.
        weights: folder of converted files, see :mod:`codi_jax.evals.weights`.
        clip: directory or Hugging Face id of a CLIP.
        skip_missing: leave out a metric without weights, with a warning, instead of raising.

    Attributes:
        metrics: the names of those that can be computed; None as above.
        warnings: which ones cannot.

    Raises:
        UserError: an unknown metric; weights that are absent, unless they may be.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None,
        weights: Path,
        clip: str = "",
        skip_missing: bool = False,
    ):
        for name in metrics or ():
            check_choice("metric", name, METRICS)
        self.warnings: list[str] = []
        self._makers: dict[str, Callable[[], Any]] = {
            "lpips_alex": lambda: Lpips("alex", weights),
            "lpips_vgg": lambda: Lpips("vgg", weights),
            "inception": lambda: InceptionFeatures(weights),
            "clip": lambda: ClipScore(clip),
        }
        self._loaded: dict[str, Any] = {}
        self.metrics: tuple[str, ...] | None = None
        if metrics is not None:
            wanted = [name for name in METRICS if name in metrics]
            self.metrics = tuple(name for name in wanted if self._load(name, skip_missing))
            if not self.metrics:
                raise UserError(f"metrics {', '.join(metrics) or '(none)'}: nothing to compute.")

    def __getitem__(self, metric: str) -> Any:
        """The network of a metric; FID and KID share one."""
        return self._loaded[_NETWORK_OF.get(metric, metric)]

    def _load(self, metric: str, skip_missing: bool) -> bool:
        network = _NETWORK_OF.get(metric, metric)
        if network not in self._makers or network in self._loaded:
            return True
        try:
            self._loaded[network] = self._makers[network]()
        except UserError as error:
            if not skip_missing:
                raise
            self.warnings.append(f"{metric} is left out: {error}")
            return False
        return True


class Scorer:
    """Scores of sets of images against one set of references.

    Args:
        references: RGB images; read anew for every metric, so that they can be
            files.
        networks: says which metrics. If it names none, those that need no weights and that
            images of this size allow.
        border: pixels cut off each side for the metrics of :mod:`codi_jax.evals.image_metrics`.
        texts: captions of the images, for "clip".
        paired: whether the references are the right results; if not, and ``networks`` names no
            metric, only sets are compared.

    Attributes:
        metrics: the names of those that are computed.
        warnings: what the reader of the scores must know.
    """

    def __init__(
        self,
        references: Images,
        networks: Networks,
        border: int = 0,
        texts: Sequence[str] | None = None,
        paired: bool = True,
    ):
        self.references, self.border, self.texts = references, border, texts
        self.warnings = list(networks.warnings)
        self._networks = networks
        self._reference_features: np.ndarray | None = None
        self.metrics = networks.metrics or (self._default() if paired else WEIGHT_FREE_OF_SETS)
        if "fid" in self.metrics:
            self._warn_if_few(len(references), "references")

    def _default(self) -> tuple[str, ...]:
        smallest = min(min(image.shape[:2]) for image in self.references) - 2 * self.border
        if smallest >= image_metrics.MS_SMALLEST:
            return WEIGHT_FREE
        self.warnings.append(
            f"ms_ssim is left out: the smallest image has {smallest} of the "
            f"{image_metrics.MS_SMALLEST} pixels a side that it needs"
        )
        return tuple(name for name in WEIGHT_FREE if name != "ms_ssim")

    def _warn_if_few(self, n: int, what: str) -> None:
        text = (
            f"fid of {n} {what}: below {distributions.FEW:,} images it is inaccurate and biased "
            "upwards; compare it only between sets of one size"
        )
        if n < distributions.FEW and text not in self.warnings:
            self.warnings.append(text)

    def __call__(self, images: Images) -> dict[str, "Score"]:
        """The score of each metric, in the order of :data:`METRICS`.

        Raises:
            UserError: images that do not fit the references, or a metric.
        """
        host = [name for name in self.metrics if name in image_metrics.METRICS]
        values: dict[str, Any] = {}
        if host:
            values |= image_metrics.scores_per_image(images, self.references, host, self.border)
        for name in ("lpips_alex", "lpips_vgg"):
            if name in self.metrics:
                values[name] = self._networks[name](images, self.references)
        if "swd" in self.metrics:
            values["swd"] = distributions.swd(images, self.references)
        if "clip" in self.metrics:
            values["clip"] = self._networks["clip"](images, self.texts or [""] * len(images))
        if "fid" in self.metrics or "kid" in self.metrics:
            values |= self._feature_distances(images)
        return {name: Score.of(values[name]) for name in self.metrics}

    def _feature_distances(self, images: Images) -> dict[str, float]:
        network = self._networks["fid"]
        if self._reference_features is None:
            self._reference_features = network(self.references)
        features = network(images)
        if "fid" in self.metrics:
            self._warn_if_few(len(images), "images")
        distances = {"fid": distributions.fid, "kid": distributions.kid}
        return {
            name: distance(features, self._reference_features)
            for name, distance in distances.items()
            if name in self.metrics
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """A value of a set, and for means over images their 95% bootstrap interval."""

    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: float | Float[np.ndarray, " images"]) -> "Score":
        """From one number per image, or from the set's."""
        if not isinstance(values, np.ndarray):
            return cls(value=float(values))
        finite = bool(np.isfinite(values).all())  # PSNR of identical images is not
        interval = bootstrap_interval(values) if finite else None
        return cls(value=float(values.mean(dtype=np.float64)), interval=interval)
