"""All metrics by name: which way is better, what is measured, and how tables show them."""

import dataclasses

from codi_jax.evals import image_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """What must be known to compare a number with another paper's.

    Attributes:
        higher_is_better: the direction.
        convention: what is measured, and how.
        heading: the name in tables.
        decimals: in tables.
        paired: whether each image is compared with its reference.
        per_image: whether the set's value is the mean of the images' values.
        reference: whether ground truth is needed at all.
    """

    higher_is_better: bool
    convention: str
    heading: str
    decimals: int = 4
    paired: bool = True
    per_image: bool = True
    reference: bool = True

    @property
    def title(self) -> str:
        """The heading with an arrow that says which way is better."""
        return f"{self.heading} {'↑' if self.higher_is_better else '↓'}"


_INCEPTION = (
    "whole frame, resized to 299x299 (bilinear, no antialiasing, proportions not kept); 2048 "
    "features of pt_inception-2015-12-05"
)
_NIQE = (
    "in whole levels, whole frame cut to blocks of 96x96 at the right and below; authors' "
    "parameters; second scale by MATLAB's bicubic, halved"
)
#: In the order in which they are printed.
METRICS: dict[str, Metric] = {
    "psnr": Metric(
        heading="PSNR",
        decimals=2,
        higher_is_better=True,
        convention="dB, peak 255, MSE over R, G and B of an image, border cut; mean over images",
    ),
    "ssim": Metric(
        heading="SSIM",
        decimals=3,
        higher_is_better=True,
        convention="Gaussian window 11x11, sigma 1.5, inside the frame; K1 0.01, K2 0.03, L 255; "
        "mean of R, G and B, border cut",
    ),
    "psnr_y": Metric(
        heading="PSNR-Y",
        decimals=2,
        higher_is_better=True,
        convention="as psnr, on BT.601 luma (16 to 235, not rounded), peak 255",
    ),
    "ssim_y": Metric(
        heading="SSIM-Y",
        decimals=3,
        higher_is_better=True,
        convention="as ssim, on BT.601 luma (16 to 235, not rounded), L 255",
    ),
    "ms_ssim": Metric(
        heading="MS-SSIM",
        higher_is_better=True,
        convention="ssim's window on 5 scales (weights .0448 .2856 .3001 .2363 .1333, 2x2 means "
        "between); mean of R, G and B, border cut; sides of at least 161 px",
    ),
    "gmsd": Metric(
        heading="GMSD",
        higher_is_better=False,
        convention="luma (.299 .587 .114) halved by 2x2 means, Prewitt, c 170, border cut",
    ),
    "haarpsi": Metric(
        heading="HaarPSI",
        higher_is_better=True,
        convention="YIQ halved by 2x2 means, C 30, alpha 4.2, border cut",
    ),
    "lpips_alex": Metric(
        heading="LPIPS",
        higher_is_better=False,
        convention="LPIPS v0.1 with linear heads, AlexNet, RGB, whole frame, no resizing",
    ),
    "lpips_vgg": Metric(
        heading="LPIPS-VGG",
        higher_is_better=False,
        convention="LPIPS v0.1 with linear heads, VGG-16, RGB, whole frame, no resizing",
    ),
    "dists": Metric(
        heading="DISTS",
        higher_is_better=False,
        convention="DISTS with the published alpha and beta, VGG-16, RGB, whole frame, no resizing",
    ),
    "swd": Metric(
        heading="SWD",
        decimals=1,
        higher_is_better=False,
        per_image=False,
        convention="x 1000; Laplacian pyramid down to 16 px, 128 patches 7x7 an image and level, "
        "512 projections, seed 0, mean over levels; RGB, whole frame",
    ),
    "fid": Metric(
        heading="FID",
        decimals=2,
        higher_is_better=False,
        paired=False,
        per_image=False,
        convention=f"{_INCEPTION}; unbiased covariances",
    ),
    "kid": Metric(
        heading="KID",
        decimals=5,
        higher_is_better=False,
        paired=False,
        per_image=False,
        convention=f"{_INCEPTION}; unbiased MMD^2, kernel (x.y/2048 + 1)^3, blocks of 1000, "
        "not multiplied",
    ),
    "clip": Metric(
        heading="CLIP",
        decimals=2,
        higher_is_better=True,
        reference=False,
        convention="100 max(cos, 0) of image and caption; shorter side resized (antialiased "
        "bicubic), centre crop",
    ),
    "niqe": Metric(
        heading="NIQE",
        decimals=3,
        higher_is_better=False,
        paired=False,
        reference=False,
        convention=f"grey as MATLAB's rgb2gray, {_NIQE}",
    ),
    "niqe_y": Metric(
        heading="NIQE-Y",
        decimals=3,
        higher_is_better=False,
        paired=False,
        reference=False,
        convention=f"BT.601 luma (16 to 235), {_NIQE}",
    ),
}
#: Those that need no network weights.
WEIGHT_FREE_OF_SETS = ("swd",)
WEIGHT_FREE = (*image_metrics.METRICS, *WEIGHT_FREE_OF_SETS)
