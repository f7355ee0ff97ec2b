"""The T2I-Adapter: what it is at the start, and where its features go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.t2i import TYPES, T2IAdapter, T2IAdapterConfig
from codi_jax.models.configs import UNetConfig
from codi_jax.models.embeddings import NO_PROMPT
from codi_jax.models.resnet import pixel_unshuffle
from codi_jax.models.unet import UNetEncoder

#: One level with attention, one without.
TWO = UNetConfig(
    block_out_channels=(4, 4),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    mid_block_type="UNetMidBlock2D",
    up_block_types=("UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=None,
    norm_num_groups=2,
)
T = jnp.array([999, 3], jnp.int32)


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


Z = normal(2, 4, 8, 4, seed=1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_fresh_adapter_is_silent_and_learns(quick_jit, kind):
    """Its features start at exactly zero; soon every parameter gets a gradient."""
    config = T2IAdapterConfig(
        channels=(16, 32), num_res_blocks=1, downscale_factor=2, adapter_type=kind
    )
    model, image = T2IAdapter(config), normal(2, 8, 16, 3, seed=3)
    params = quick_jit(model.init)(jax.random.key(0), image)

    @quick_jit
    def step(params):
        def loss(params):
            features = model.apply(params, image)
            return sum(((f - 1) ** 2).mean() for f in features), features

        (_, features), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return features, gradient, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    features, _, params = step(params)
    assert len(features) == len(config.blocks)
    assert not any(np.any(f) for f in features)
    for _ in config.blocks:
        features, gradient, params = step(params)
    assert all(np.any(f) for f in features)
    jax.tree_util.tree_map_with_path(lambda path, g: np.any(g) or pytest.fail(str(path)), gradient)


def test_unshuffle_orders_channels_as_pytorch():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    ours = np.asarray(pixel_unshuffle(x, 2))
    assert ours.shape == (2, 2, 3, 12)
    for c, dy, dx in np.ndindex(3, 2, 2):
        np.testing.assert_array_equal(ours[..., 4 * c + 2 * dy + dx], x[:, dy::2, dx::2, c])


def test_features_are_added_where_the_decoder_sees_them(quick_jit, random_params):
    """With attention before the downsampler; without it at the block's very end."""
    unet = random_params(AdaptedUNet(unet=TWO).init)["unet"]

    @quick_jit
    def encode(residuals):
        encoder = UNetEncoder(TWO)
        return encoder.apply({"params": unet}, Z, T, NO_PROMPT, residuals=residuals)[0]

    zeros = [jnp.zeros(shape) for shape in ((2, 4, 8, 4), (2, 2, 4, 4), (2, 2, 4, 4))]
    plain = encode(zeros)
    assert len(plain.skips) == 4  # conv_in, one layer, the downsampler, one layer
    first, last, mid = (encode([*zeros[:i], zeros[i] + 1, *zeros[i + 1 :]]) for i in range(3))
    changed = [np.any(a != b) for a, b in zip(first.skips, plain.skips, strict=True)]
    assert changed == [False, True, True, True]
    np.testing.assert_allclose(first.skips[1], plain.skips[1] + 1, atol=1e-6)
    np.testing.assert_allclose(last.skips[3], plain.skips[3] + 1, atol=1e-6)
    assert np.any(last.mid != plain.mid)
    np.testing.assert_allclose(mid.mid, plain.mid + 1, atol=1e-6)
