import json

import pytest

from codi_jax.models.configs import AutoencoderConfig, ControlNetConfig, UNetConfig
from codi_jax.typing import UserError

#: The content of SD 2.1's unet/config.json.
SD21 = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.10.0.dev0",
    "act_fn": "silu",
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "sample_size": 96,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": True,
    "upcast_attention": True,
}
#: What newer diffusers write besides, at the values of the Stable Diffusion family.
NEWER = {
    "_name_or_path": "some/where",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
}


@pytest.mark.parametrize("more", [{}, NEWER], ids=["as published", "saved again"])
def test_sd21_is_understood(more):
    config = UNetConfig.from_config(SD21 | more)
    assert config.cross_attention_dim == 1024
    assert config.use_linear_projection
    assert [config.heads(level) for level in range(4)] == [5, 10, 20, 20]
    assert [config.transformer_layers(level) for level in range(4)] == [1, 1, 1, 1]
    assert config.downsampling == 8
    assert config.to_config()["upcast_attention"] is True  # else float16 overflows in diffusers


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig.from_config(SD21),
        UNetConfig(cross_attention_dim=None, transformer_layers_per_block=(1, 2, 1, 1)),
        AutoencoderConfig(shift_factor=0.1, block_out_channels=(32, 64)),
        ControlNetConfig(conditioning_channels=1),
    ],
    ids=lambda c: type(c).__name__,
)
def test_configs_survive_their_json(config):
    assert type(config).from_config(json.loads(json.dumps(config.to_config()))) == config


def test_defaults_are_sd15s():
    config = UNetConfig()
    assert [config.heads(level) for level in range(4)] == [8] * 4
    assert config.cross_attention_dim == 768
    assert not config.use_linear_projection
    assert AutoencoderConfig().downsampling == 8


@pytest.mark.parametrize(
    ("cls", "config", "says"),
    [
        (UNetConfig, {"bogus_key": 3}, "unknown key 'bogus_key'.*3"),
        (UNetConfig, {"act_fn": "gelu"}, "act_fn='gelu' is not supported.*'silu'"),
        (UNetConfig, {"num_class_embeds": 1000}, "num_class_embeds=1000 is not supported"),
        (UNetConfig, {"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        (UNetConfig, {"block_out_channels": [320, 640]}, "4 down_block_types.*2 block_out"),
        (UNetConfig, {"mid_block_type": "Odd"}, r"\['Odd'\] are not implemented"),
        (UNetConfig, {"block_out_channels": [320, 640, 1280, 1290]}, r"\[1290\].*=32"),
        (AutoencoderConfig, {"act_fn": "relu"}, "act_fn='relu'"),
        (AutoencoderConfig, {"down_block_types": ["DownBlock2D"] * 4}, "only DownEncoderBlock2D"),
        (AutoencoderConfig, {"use_tiling": True}, "unknown key 'use_tiling'"),
    ],
)
def test_what_is_not_implemented_is_refused(cls, config, says):
    with pytest.raises(UserError, match=says):
        cls.from_config(config)
