"""Distances between two sets of images, on the host: sliced Wasserstein, FID, KID.

Lower is better. They compare sets and not pairs: the order of the images has no meaning. FID and
KID take features [N, D] of any network, here Inception's, see :mod:`codi_jax.evals.perceptual`.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from codi_jax.evals.image_metrics import Images
from codi_jax.typing import UserError

#: With fewer images than this, FID says little: it is biased upwards, the more the fewer they are.
FEW = 1000
#: Karras et al. 2018, section 5: patches per image and level, their side, random projections.
PATCHES, PATCH, PROJECTIONS = 128, 7, 512
#: The coarsest level of a pyramid has a shorter side of this many pixels or up to twice that.
COARSEST = 16
#: Projections at a time: memory is images x PATCHES x this, in float32.
_CHUNK = 64
#: Of a jackknife over the images.
GROUPS = 16
#: Channels that deviate by less, in levels of 255, are flat but for rounding.
_FLAT = 1e-3
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def swd(images: Images, references: Images, seed: int = 0) -> float:
    """Sliced Wasserstein distance on Laplacian pyramids, times 1000 (Karras et al. 2018, 5).

    Of every image and pyramid level, 128 patches of 7x7 RGB pixels at random places; each set's
    patches are normalised per level by the mean and deviation of each channel; the distance of a
    level is the mean over 512 random directions of the 1-D Wasserstein-1 distance of the
    projections; the result is the mean over levels. Levels are halvings by the 5x5 binomial
    filter, mirrored at the frame, from full size down to a shorter side of at least 16 pixels;
    the last one is the Gaussian residual. Unlike there, image i of both sets gives patches from
    the same places where their sizes agree, so that a set has distance 0 to itself.

    Args:
        images: RGB images, whose sizes may differ; the smallest of both sets determines the
            number of levels.
        references: as many images.
        seed: of the places and the directions.

    Raises:
        UserError: no images, unequal numbers, an image that is not uint8 RGB or is smaller than
            16 pixels.
    """
    if len(images) != len(references) or not len(images):
        raise UserError(
            f"{len(images)} images against {len(references)}: the sliced Wasserstein distance "
            "needs equally many on both sides, and at least one."
        )
    everything = np.ones(len(images), bool)
    return float(_distances(images, references, seed, PROJECTIONS // _CHUNK, [everything])[0])


def swd_left_out(
    images: Images, references: Images, seed: int = 0, groups: int = GROUPS
) -> Float[np.ndarray, " groups"]:
    """:func:`swd` without each of some groups of pairs in turn, for jackknife intervals.

    Pair i is in group i modulo ``groups``. An eighth of the directions is used, the same for all
    groups and all sets of images: what they get wrong falls out of a difference.

    Args:
        images: see :func:`swd`.
        references: see there.
        seed: see there.
        groups: as many as there are pairs, if there are fewer.

    Raises:
        UserError: see :func:`swd`; or a single pair.
    """
    if len(images) < 2:
        raise UserError("a jackknife of one image: give at least two.")
    group = np.arange(len(images)) % min(groups, len(images))
    kept = [group != left_out for left_out in range(group.max() + 1)]
    return _distances(images, references, seed, 1, kept)


def _distances(
    images: Images, references: Images, seed: int, chunks: int, subsets: Sequence[np.ndarray]
) -> Float[np.ndarray, " subsets"]:
    """Sliced Wasserstein distances times 1000 of subsets of the pairs.

    Args:
        images: all of them.
        references: likewise.
        seed: of the places and the directions.
        chunks: of :data:`_CHUNK` directions each.
        subsets: masks of pairs, bool [N].
    """
    smallest = min(_shorter_side(image) for image in (*images, *references))
    levels = int(math.log2(smallest / COARSEST)) + 1
    rng = np.random.default_rng((seed, 1))
    found = np.zeros(len(subsets))
    for p, q in zip(*(_patches(x, levels, seed) for x in (images, references)), strict=True):
        centre = q.mean((0, 1, 3, 4), dtype=np.float64).astype(np.float32)
        both = [_Points(x, centre) for x in (p, q)]
        for _ in range(chunks):
            directions = _directions(p[0, 0].size, rng)
            projected = [points.projected(directions, subsets) for points in both]
            for i, (x, y) in enumerate(zip(*projected, strict=True)):
                found[i] += np.abs(x - y).mean() / (levels * chunks)
    return 1000 * found


def frechet_distance(
    mean_a: Float[np.ndarray, " features"],
    covariance_a: Float[np.ndarray, "features features"],
    mean_b: Float[np.ndarray, " features"],
    covariance_b: Float[np.ndarray, "features features"],
) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al. 2017, equation 6), float64.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). The last trace is taken as that of
    (R C_b R)^(1/2) with R = C_a^(1/2): both roots are of symmetric matrices, so that singular
    covariances (fewer images than features) need no addition to their diagonals, and no
    imaginary parts have to be dropped.

    Args:
        mean_a: mean of the first.
        covariance_a: its covariance.
        mean_b: mean of the second.
        covariance_b: its covariance.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.trace(covariance_a) + np.trace(covariance_b)
    distance = np.sum((mean_a - mean_b) ** 2) + trace - 2 * np.sqrt(np.maximum(mixed, 0)).sum()
    return float(max(distance, 0.0))


def fid(
    features: Float[np.ndarray, "images features"],
    references: Float[np.ndarray, "reference_images features"],
) -> float:
    """Frechet inception distance of two sets of features, with unbiased covariances.

    Raises:
        UserError: fewer than two images in a set.
    """
    _check_features(features, references)
    a, b = features.astype(np.float64), references.astype(np.float64)
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    return frechet_distance(*moments[0], *moments[1])


def kid(
    features: Float[np.ndarray, "images features"],
    references: Float[np.ndarray, "reference_images features"],
    block: int = 1000,
) -> float:
    """Kernel inception distance (Binkowski et al. 2018, section 4), not multiplied by anything.

    The unbiased squared MMD with the kernel (x.y / D + 1)^3, hence below zero at times. Each
    set is cut into equally many blocks of at most ``block`` images, in their order; the mean over
    pairs of blocks is returned (the original draws its blocks at random). For sets of up to
    ``block`` images that is the estimate from all of them.

    Args:
        features: of the images.
        references: of the images that they are compared with.
        block: bounds memory (block^2 numbers) and time.

    Raises:
        UserError: fewer than two images in a set.
    """
    _check_features(features, references)
    n = max(1, min(len(features), len(references)) // block)
    parts = [np.array_split(x.astype(np.float64), n) for x in (features, references)]
    return float(np.mean([_mmd2(a, b) for a, b in zip(*parts, strict=True)]))


def _mmd2(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        k = kernel(x, x)
        return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def _check_features(features: np.ndarray, references: np.ndarray) -> None:
    if min(len(features), len(references)) < 2:
        raise UserError(
            f"FID and KID of {len(features)} images against {len(references)}: give at least two "
            "on each side (and for FID at least 1,000)."
        )


def laplacian_pyramid(
    image: Float[np.ndarray, "height width channels"], levels: int
) -> list[Float[np.ndarray, "_ _ channels"]]:
    """``levels`` bands of an image, finest first; the last is the Gaussian residual."""
    bands, current = [], image
    for _ in range(levels - 1):
        smaller = _smooth(current)[::2, ::2]
        up = np.zeros_like(current)
        up[::2, ::2] = 4 * smaller
        bands.append(current - _smooth(up))
        current = smaller
    return [*bands, current]


def _smooth(x: np.ndarray) -> np.ndarray:
    rows = ndimage.convolve1d(x, _BINOMIAL, axis=0, mode="mirror")
    return ndimage.convolve1d(rows, _BINOMIAL, axis=1, mode="mirror")


def _patches(images: Images, levels: int, seed: int) -> list[np.ndarray]:
    """Per level the patches of a set, float32 [N, PATCHES, 3, 7, 7]."""
    rng = np.random.default_rng((seed, 0))
    places = rng.random((len(images), levels, PATCHES, 2))
    drawn: list[list[np.ndarray]] = [[] for _ in range(levels)]
    for image, at in zip(images, places, strict=True):
        for level, band in enumerate(laplacian_pyramid(image.astype(np.float32), levels)):
            windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH, PATCH), (0, 1))
            y, x = (at[level] * windows.shape[:2]).astype(int).T
            drawn[level].append(windows[y, x])  # [PATCHES, 3, 7, 7]
    return [np.stack(patches) for patches in drawn]


def _directions(size: int, rng: np.random.Generator) -> np.ndarray:
    """Random unit vectors, float32 [size, _CHUNK]."""
    drawn = rng.normal(size=(size, _CHUNK))
    return (drawn / np.linalg.norm(drawn, axis=0)).astype(np.float32)


class _Points:
    """A level's patches of a set, to be normalised and projected.

    The mean and deviation of a channel are those of the patches that are kept. To normalise is
    linear for each channel, so it is done to projections, which are computed once for all subsets.

    Args:
        patches: float32 [N, PATCHES, 3, 7, 7].
        centre: taken off both sets before, which keeps the projections exact; float32 [3].
    """

    def __init__(self, patches: np.ndarray, centre: np.ndarray):
        self.x = (patches - centre[:, None, None]).reshape(*patches.shape[:3], -1)
        self.sums, self.squares = (
            y.sum((1, 3), dtype=np.float64) for y in (self.x, np.square(self.x))
        )

    def projected(
        self, directions: np.ndarray, subsets: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Sorted projections [_CHUNK, points] of the normalised patches of each subset."""
        x = self.x
        channels = directions.reshape(x.shape[2], -1, _CHUNK)
        parts = np.moveaxis(x, 2, 0) @ channels[:, None]  # [3, N, PATCHES, _CHUNK]
        for kept in subsets:
            numbers = kept.sum() * x[0, :, 0].size
            mean = self.sums[kept].sum(0) / numbers
            deviation = np.sqrt(np.maximum(self.squares[kept].sum(0) / numbers - mean**2, 0))
            # A channel that is flat in the whole set has only its mean: 0 after the subtraction.
            scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > _FLAT)
            shift = (mean * scale) @ channels.sum(1)
            points = np.tensordot(scale.astype(np.float32), parts[:, kept], 1)
            yield np.sort((points.reshape(-1, _CHUNK) - shift.astype(np.float32)).T, axis=1)


def _shorter_side(image: np.ndarray) -> int:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(
            f"an image is {image.dtype}{list(image.shape)}: give uint8 RGB images [H, W, 3]."
        )
    if min(image.shape[:2]) < COARSEST:
        raise UserError(
            f"an image of {image.shape[0]}x{image.shape[1]} is too small for the sliced "
            f"Wasserstein distance: give images of at least {COARSEST}x{COARSEST}."
        )
    return min(image.shape[:2])
