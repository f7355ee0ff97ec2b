"""DISTS (Ding et al. 2020, arXiv:2004.07728): structure and texture similarity on VGG-16.

Parameters are named as published files name their tensors: ``features_0`` is torchvision's
``features.0``; ``alpha`` and ``beta`` weigh texture and structure of each channel.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from codi_jax.models.lpips import BACKBONES, Pool

#: Of ImageNet's pictures, in [0, 1].
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
#: Channels of the compared layers: the picture itself, and VGG's five.
CHANNELS = (3, 64, 128, 256, 512, 512)
# Keeps the two similarities finite (c_1 and c_2 of equations 5 and 6).
_SMALL = 1e-6


class DISTS(nn.Module):
    """Two images -> their distance; 0 for equal ones.

    The means of a channel are its texture, the correlation of the two images in it is its
    structure (equations 5 to 7); alpha and beta are scaled to the sum 1. VGG's maxima over
    windows are replaced by :func:`l2_pool`.

    Args of the call:
        x, y: float32 [B, H, W, 3] in [0, 1].

    Returns:
        float32 [B].
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"], y: Float[Array, "batch height width 3"]
    ) -> Float[Array, " batch"]:
        ones = nn.initializers.ones
        weights = [self.param(name, ones, (sum(CHANNELS),)) for name in ("alpha", "beta")]
        total = sum(weight.sum() for weight in weights)
        layers = self._layers(jnp.concatenate([x, y]))
        similarity, start = jnp.zeros(len(x), x.dtype), 0
        for h in layers:
            alpha, beta = (weight[start : start + h.shape[-1]] / total for weight in weights)
            texture, structure = _similarities(h)
            similarity += (alpha * texture + beta * structure).sum(-1)
            start += h.shape[-1]
        return 1 - similarity

    def _layers(
        self, x: Float[Array, "doubled height width 3"]
    ) -> list[Float[Array, "doubled _ _ _"]]:
        """The picture, and the layers of VGG-16 that are compared."""
        h = (x - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(DEVIATION, x.dtype)
        layers = [x]
        for item in BACKBONES["vgg"]:
            if isinstance(item, Pool):
                h = l2_pool(h)
                continue
            kernel = (item.kernel,) * 2
            name = f"features_{item.place}"
            h = nn.relu(nn.Conv(item.channels, kernel, padding=item.padding, name=name)(h))
            if item.tap:
                layers.append(h)
        return layers


def l2_pool(
    h: Float[Array, "batch height width channels"],
) -> Float[Array, "batch half_height half_width channels"]:
    """Root of the mean square in a Hanning window of 3x3, at every second pixel.

    An odd side is halved upwards; beyond the borders is zero.
    """
    h = h**2
    for axis in (1, 2):
        padding = [(0, 0)] * 4
        padding[axis] = (1, 1)
        padded = jnp.pad(h, padding)
        half = -(-h.shape[axis] // 2)
        before, at, after = (
            jnp.take(padded, 2 * jnp.arange(half) + i, axis=axis) for i in range(3)
        )
        h = before / 4 + at / 2 + after / 4
    return jnp.sqrt(h + 1e-12)


def _similarities(
    h: Float[Array, "doubled height width channels"],
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels"]]:
    """Texture and structure (equations 5 and 6) of the two halves of a batch."""
    means = h.mean((1, 2), keepdims=True)
    variance_a, variance_b = jnp.split(((h - means) ** 2).mean((1, 2)), 2)
    a, b = jnp.split(h - means, 2)
    covariance = (a * b).mean((1, 2))
    mean_a, mean_b = jnp.split(means[:, 0, 0], 2)
    texture = (2 * mean_a * mean_b + _SMALL) / (mean_a**2 + mean_b**2 + _SMALL)
    structure = (2 * covariance + _SMALL) / (variance_a + variance_b + _SMALL)
    return texture, structure
