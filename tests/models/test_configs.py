import json

import pytest

from codi_jax.models.adapters.controlnet import ControlNetConfig
from codi_jax.models.adapters.t2i import T2IAdapterConfig
from codi_jax.models.configs import AutoencoderConfig, EncoderConfig, UNetConfig
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


#: What newer diffusers wrote for SDXL; the rest is as in NEWER.
SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
}
#: The content of lllyasviel's sd-controlnet-canny, config.json.
CONTROLNET = {
    "_class_name": "ControlNetModel",
    "_diffusers_version": "0.16.0.dev0",
    "_name_or_path": "/home/patrick/controlnet_v1_1/control_v11p_sd15_canny",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "class_embed_type": None,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "upcast_attention": False,
    "use_linear_projection": False,
}
#: What the ControlNets of SDXL have besides.
CONTROLNET_XL = {
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "conditioning_channels": 3,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "global_pool_conditions": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10, 10],
}
#: The content of SDXL's vae/config.json.
VAE_XL = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.20.0.dev0",
    "_name_or_path": "../sdxl-vae/",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
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


def test_sdxl_is_understood():
    config = UNetConfig.from_config(SD21 | NEWER | SDXL)
    assert [config.transformer_layers(level) for level in range(3)] == [1, 2, 10]
    assert config.addition_embed_type == "text_time"
    assert config.added_dim == 1280 + 6 * 256
    assert config.downsampling == 4


def test_controlnets_are_understood():
    config = ControlNetConfig.from_config(CONTROLNET)
    assert config.encoder == UNetConfig().encoder
    assert config.downsampling == 8
    written = config.to_config()
    known = {k: v for k, v in written.items() if k in CONTROLNET}
    assert known == {k: CONTROLNET[k] for k in known}
    fixed = {k for k in CONTROLNET if k.startswith("_") or k in EncoderConfig.FIXED}
    assert set(CONTROLNET) - fixed <= set(written)
    large = ControlNetConfig.from_config(CONTROLNET | CONTROLNET_XL)
    assert large.encoder.addition_time_embed_dim == 256
    # Without an encoder's keys: that of the U-Net it will be used with.
    assert ControlNetConfig.from_config({"conditioning_channels": 1}).encoder is None


@pytest.mark.parametrize("upcast", [True, False])
def test_sdxls_autoencoder_is_understood(upcast):
    config = AutoencoderConfig.from_config(VAE_XL | {"force_upcast": upcast})
    assert config.scaling_factor == 0.13025
    assert config.to_config()["force_upcast"] is upcast


def test_one_text_width_for_all_levels():
    assert UNetConfig.from_config({"cross_attention_dim": [768] * 4}) == UNetConfig()
    # PyTorch's U-Net takes no null here, but it takes one for each level.
    assert UNetConfig(cross_attention_dim=None).to_config()["cross_attention_dim"] == [None] * 4


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig.from_config(SD21),
        UNetConfig(cross_attention_dim=None, transformer_layers_per_block=(1, 2, 1, 1)),
        AutoencoderConfig(shift_factor=0.1, block_out_channels=(32, 64)),
        ControlNetConfig(conditioning_channels=1),
        ControlNetConfig.from_config(CONTROLNET | CONTROLNET_XL),
        T2IAdapterConfig(adapter_type="full_adapter_xl", downscale_factor=16),
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
        (UNetConfig, {"up_block_types": ["UpBlock2D"]}, "1 up_block_types.*4 block_out"),
        (UNetConfig, {"attention_head_dim": [8, 8]}, "2 attention_head_dim.*4 block_out"),
        (UNetConfig, {"transformer_layers_per_block": [[1, 1], 1, 1, 1]}, "wrong type: int"),
        (UNetConfig, {"layers_per_block": [2, 2, 2, 1]}, "layers_per_block=.*one number"),
        (UNetConfig, {"attention_head_dim": 12}, "attention_head_dim=12.*the 320 channels"),
        (UNetConfig, {"mid_block_type": "Odd"}, "'Odd' is not implemented"),
        (UNetConfig, {"block_out_channels": [320, 640, 1280, 1290]}, r"=32.*\[1290\]"),
        (AutoencoderConfig, {"act_fn": "relu"}, "act_fn='relu'"),
        (AutoencoderConfig, {"down_block_types": ["DownBlock2D"] * 4}, "only DownEncoderBlock2D"),
        (AutoencoderConfig, {"use_tiling": True}, "unknown key 'use_tiling'"),
        (ControlNetConfig, {"controlnet_conditioning_channel_order": "gbr"}, "'gbr'.*'bgr'"),
        (ControlNetConfig, CONTROLNET | {"num_control_type": 8}, "unknown key 'num_control_type'"),
        (T2IAdapterConfig, {"adapter_type": "odd"}, "adapter_type='odd'"),
        (T2IAdapterConfig, {"adapter_type": "light_adapter", "channels": [6]}, "multiples of 4"),
        (
            T2IAdapterConfig,
            {"adapter_type": "full_adapter_xl", "channels": [320, 640, 1280, 320]},
            "equal from the third on",
        ),
    ],
)
def test_what_is_not_implemented_is_refused(cls, config, says):
    with pytest.raises(UserError, match=says):
        cls.from_config(config)
