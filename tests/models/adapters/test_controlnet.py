"""The ControlNet: its hint, and the encoder that its config describes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.controlnet import (
    ControlNet,
    ControlNetConfig,
    HintEmbedding,
    ZeroConvs,
)
from codi_jax.models.configs import UNetConfig
from codi_jax.models.unet import Features
from codi_jax.typing import UserError

UNET = UNetConfig(
    block_out_channels=(4, 8),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=6,
    norm_num_groups=2,
)
HINT = ControlNetConfig(conditioning_embedding_out_channels=(2, 4))
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3)), jnp.float32)


def test_it_describes_its_whole_encoder():
    config = AdaptedUNet(unet=UNET, adapter=ControlNet(config=HINT)).adapter.config
    assert config.encoder == UNET.encoder
    assert config.to_config()["cross_attention_dim"] == 6
    assert config.to_config()["conditioning_embedding_out_channels"] == [2, 4]


def test_an_encoder_of_its_own():
    small = dataclasses.replace(UNET.encoder, down_block_types=("DownBlock2D",) * 2)
    own = dataclasses.replace(HINT, encoder=small)
    model = AdaptedUNet(unet=UNET, adapter=ControlNet(config=own))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert "attentions_0" in shapes["unet"]["down_blocks_0"]
    assert "attentions_0" not in shapes["adapter"]["down_blocks_0"]
    with pytest.raises(UserError, match="cannot start as its copy"):
        model.copy_encoder(shapes)


def test_the_channels_of_a_bgr_hint_are_swapped(random_params):
    rgb = HintEmbedding(HINT, 4)
    params = random_params(rgb.init, IMAGE)
    bgr = HintEmbedding(
        dataclasses.replace(HINT, controlnet_conditioning_channel_order="bgr"), channels=4
    )
    swapped = rgb.apply(params, IMAGE[..., ::-1])
    np.testing.assert_allclose(bgr.apply(params, IMAGE), swapped, rtol=1e-5, atol=1e-5)


def test_pooled_residuals_are_the_means(random_params):
    features = Features((IMAGE,), IMAGE)
    params = random_params(ZeroConvs().init, features)
    whole, pooled = (ZeroConvs(pool).apply(params, features) for pool in (False, True))
    assert pooled.mid.shape == (2, 1, 1, 3)
    np.testing.assert_allclose(pooled.mid[:, 0, 0], np.mean(whole.mid, (1, 2)), rtol=1e-5)
