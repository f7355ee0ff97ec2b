"""LPIPS (Zhang et al. 2018, arXiv:1801.03924), version 0.1, on AlexNet's or VGG-16's features.

Parameters are named as published files name their tensors: ``features_0`` is torchvision's
``features.0``, ``lin0/model_1`` is ``lin0.model.1`` of the published linear heads.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from codi_jax.models.winograd import convolve

#: Constants of the published code, per channel of images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Conv(NamedTuple):
    """A convolution with ReLU; ``place`` is that in torchvision's list ``features``."""

    place: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    tap: bool = False  # whether the result is one of the five compared layers


class Pool(NamedTuple):
    """Maximum over windows, stride 2."""

    window: int


#: torchvision's ``alexnet`` (Krizhevsky 2014) and ``vgg16`` (Simonyan & Zisserman 2015), as far
#: as LPIPS reads them.
BACKBONES: dict[str, tuple[Conv | Pool, ...]] = {
    "alex": (
        Conv(0, 64, kernel=11, stride=4, padding=2, tap=True),
        Pool(3),
        Conv(3, 192, kernel=5, padding=2, tap=True),
        Pool(3),
        Conv(6, 384, tap=True),
        Conv(8, 256, tap=True),
        Conv(10, 256, tap=True),
    ),
    "vgg": (
        Conv(0, 64),
        Conv(2, 64, tap=True),
        Pool(2),
        Conv(5, 128),
        Conv(7, 128, tap=True),
        Pool(2),
        Conv(10, 256),
        Conv(12, 256),
        Conv(14, 256, tap=True),
        Pool(2),
        Conv(17, 512),
        Conv(19, 512),
        Conv(21, 512, tap=True),
        Pool(2),
        Conv(24, 512),
        Conv(26, 512),
        Conv(28, 512, tap=True),
    ),
}
#: Shorter side from which every layer has a pixel.
SMALLEST = 32


class LPIPS(nn.Module):
    """Two images -> their perceptual distance; 0 for equal ones.

    Every compared layer's features are scaled to unit length per pixel, their squared
    differences weighted by the layer's linear head, averaged over the pixels and summed over
    layers (equation 1).

    Args of the call:
        x, y: float32 [B, H, W, 3] in [-1, 1], sides of at least 32 pixels.

    Returns:
        float32 [B].
    """

    backbone: str = "alex"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"], y: Float[Array, "batch height width 3"]
    ) -> Float[Array, " batch"]:
        shift, scale = jnp.asarray(SHIFT, x.dtype), jnp.asarray(SCALE, x.dtype)
        # Each by itself: in training x is a constant, and no gradient goes back through its half.
        h_x, h_y = (x - shift) / scale, (y - shift) / scale
        total, layer = jnp.zeros(len(x), x.dtype), 0
        for item in BACKBONES[self.backbone]:
            if isinstance(item, Pool):
                h_x, h_y = (nn.max_pool(h, (item.window,) * 2, (2, 2)) for h in (h_x, h_y))
                continue
            conv = nn.Conv(
                item.channels,
                (item.kernel,) * 2,
                item.stride,
                item.padding,
                conv_general_dilated=convolve,
                name=f"features_{item.place}",
            )
            h_x, h_y = nn.relu(conv(h_x)), nn.relu(conv(h_y))
            if item.tap:
                total += _Head(name=f"lin{layer}")(_unit(h_x), _unit(h_y)).mean((1, 2))
                layer += 1
        return total


class _Head(nn.Module):
    """The weighted squared difference of two pictures' features: [B, h, w, C] -> [B, h, w]."""

    @nn.compact
    def __call__(
        self,
        a: Float[Array, "batch height width channels"],
        b: Float[Array, "batch height width channels"],
    ) -> Float[Array, "batch height width"]:
        weight = nn.Conv(1, (1, 1), use_bias=False, name="model_1")  # "model.0" is a dropout
        return weight((a - b) ** 2)[..., 0]


def _unit(
    h: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height width channels"]:
    # The square root has no gradient at 0: where all features are silent, there is none.
    square = jnp.sum(h * h, axis=-1, keepdims=True)
    return h / (jnp.sqrt(jnp.maximum(square, 1e-20)) + 1e-10)
