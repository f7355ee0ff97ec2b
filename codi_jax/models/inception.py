"""Inception-v3 as FID reads it: the network of Heusel et al. 2017 in its PyTorch conversion.

Szegedy et al. 2016 (arXiv:1512.00567), with three deviations of the TensorFlow graph of
2015-12-05 that FID was defined by: average pooling leaves the padding out of its mean, the last
block pools by maximum, and there are 1008 classes (which are not computed here). Parameters are
named as in ``pt_inception-2015-12-05`` of mseitzer/pytorch-fid.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: Side to which images are resized; features per image.
SIDE, FEATURES = 299, 2048
#: Smallest side that the layers themselves take.
SMALLEST = 75
_EPS = 1e-3

max_pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


def _smooth(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height width channels"]:
    """Mean of each 3x3 window, of the pixels that are inside."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


class _FrozenBatchNorm(nn.Module):
    """Batch norm in evaluation; the running statistics are parameters like the others."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.param("running_mean", nn.initializers.zeros, shape)
        variance = self.param("running_var", nn.initializers.ones, shape)
        return (x - mean) * jax.lax.rsqrt(variance + _EPS) * scale + bias


class _Conv(nn.Module):
    """``BasicConv2d``: convolution, batch norm, ReLU. Stride 2 comes without padding."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        padding = self.padding if self.stride == 1 else "VALID"
        conv = nn.Conv(
            self.channels, self.kernel, self.stride, padding, use_bias=False, name="conv"
        )
        return nn.relu(_FrozenBatchNorm(name="bn")(conv(x)))


class _BlockA(nn.Module):
    pool_channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        a = _Conv(64, name="branch1x1")(x)
        b = _Conv(48, name="branch5x5_1")(x)
        b = _Conv(64, (5, 5), name="branch5x5_2")(b)
        c = _Conv(64, name="branch3x3dbl_1")(x)
        c = _Conv(96, (3, 3), name="branch3x3dbl_2")(c)
        c = _Conv(96, (3, 3), name="branch3x3dbl_3")(c)
        d = _Conv(self.pool_channels, name="branch_pool")(_smooth(x))
        return jnp.concatenate([a, b, c, d], -1)


class _BlockB(nn.Module):
    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        a = _Conv(384, (3, 3), 2, name="branch3x3")(x)
        b = _Conv(64, name="branch3x3dbl_1")(x)
        b = _Conv(96, (3, 3), name="branch3x3dbl_2")(b)
        b = _Conv(96, (3, 3), 2, name="branch3x3dbl_3")(b)
        return jnp.concatenate([a, b, max_pool(x)], -1)


class _BlockC(nn.Module):
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        n = self.width
        a = _Conv(192, name="branch1x1")(x)
        b = _Conv(n, name="branch7x7_1")(x)
        b = _Conv(n, (1, 7), name="branch7x7_2")(b)
        b = _Conv(192, (7, 1), name="branch7x7_3")(b)
        c = _Conv(n, name="branch7x7dbl_1")(x)
        c = _Conv(n, (7, 1), name="branch7x7dbl_2")(c)
        c = _Conv(n, (1, 7), name="branch7x7dbl_3")(c)
        c = _Conv(n, (7, 1), name="branch7x7dbl_4")(c)
        c = _Conv(192, (1, 7), name="branch7x7dbl_5")(c)
        d = _Conv(192, name="branch_pool")(_smooth(x))
        return jnp.concatenate([a, b, c, d], -1)


class _BlockD(nn.Module):
    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        a = _Conv(192, name="branch3x3_1")(x)
        a = _Conv(320, (3, 3), 2, name="branch3x3_2")(a)
        b = _Conv(192, name="branch7x7x3_1")(x)
        b = _Conv(192, (1, 7), name="branch7x7x3_2")(b)
        b = _Conv(192, (7, 1), name="branch7x7x3_3")(b)
        b = _Conv(192, (3, 3), 2, name="branch7x7x3_4")(b)
        return jnp.concatenate([a, b, max_pool(x)], -1)


class _BlockE(nn.Module):
    pool_by_maximum: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        a = _Conv(320, name="branch1x1")(x)
        b = _Conv(384, name="branch3x3_1")(x)
        b1 = _Conv(384, (1, 3), name="branch3x3_2a")(b)
        b2 = _Conv(384, (3, 1), name="branch3x3_2b")(b)
        c = _Conv(448, name="branch3x3dbl_1")(x)
        c = _Conv(384, (3, 3), name="branch3x3dbl_2")(c)
        c1 = _Conv(384, (1, 3), name="branch3x3dbl_3a")(c)
        c2 = _Conv(384, (3, 1), name="branch3x3dbl_3b")(c)
        pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME") if self.pool_by_maximum else _smooth(x)
        d = _Conv(192, name="branch_pool")(pooled)
        return jnp.concatenate([a, b1, b2, c1, c2, d], -1)


class InceptionV3(nn.Module):
    """Images -> the 2048 features after the last pooling.

    Args of the call:
        x: float32 [B, H, W, 3] in [-1, 1]; FID's side is 299, the layers take 75 and more.

    Returns:
        float32 [B, 2048].
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch 2048"]:
        x = _Conv(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = _Conv(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x)
        x = max_pool(_Conv(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = _Conv(80, name="Conv2d_3b_1x1")(x)
        x = max_pool(_Conv(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x))
        for name, channels in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = _BlockA(channels, name=f"Mixed_{name}")(x)
        x = _BlockB(name="Mixed_6a")(x)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = _BlockC(width, name=f"Mixed_{name}")(x)
        x = _BlockD(name="Mixed_7a")(x)
        x = _BlockE(False, name="Mixed_7b")(x)
        x = _BlockE(True, name="Mixed_7c")(x)
        return x.mean((1, 2))
