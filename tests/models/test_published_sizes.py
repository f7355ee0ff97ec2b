"""Parameter counts, names and shapes of the published architectures, without allocating them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax import trees
from codi_jax.checkpoint.names import to_torch, torch_name
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.t2i import T2IAdapter, T2IAdapterConfig
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.configs import AutoencoderConfig, UNetConfig

pytestmark = pytest.mark.xdist_group("parameters")

KEY = jax.random.key(0)
SD21 = UNetConfig(
    attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
)


def init_shapes(config, adapter="none"):
    return jax.eval_shape(AdaptedUNet(unet=config).with_adapter(adapter, 8).init, KEY)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def torch_shapes(tree):
    """{PyTorch name: shape}; a stride-0 array stands for the values."""
    flat = trees.flatten(tree)
    return {
        torch_name(path): to_torch(path, np.broadcast_to(np.float32(0), leaf.shape)).shape
        for path, leaf in flat.items()
    }


@pytest.fixture(scope="module")
def sd21():
    return {adapter: init_shapes(SD21, adapter) for adapter in ("mix", "controlnet")}


def test_counts_of_sd21(sd21):
    for shapes in sd21.values():
        assert count(shapes["unet"]) == 865_910_724
    assert count(sd21["mix"]["adapter"]) == 351_662_081
    assert count(sd21["mix"]["adapter"]["mu"]) == 1
    assert count(sd21["mix"]) == 1_217_572_805  # the paper's 1.22B
    assert count(sd21["controlnet"]["adapter"]) == 364_228_240  # the paper's 364M
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(sd21))


def test_count_of_sd15():
    shapes = init_shapes(UNetConfig())
    assert set(shapes) == {"unet"}
    assert count(shapes) == 859_520_964
    names = torch_shapes(shapes["unet"])
    assert len(names) == 686
    assert names["down_blocks.0.attentions.0.proj_in.weight"] == (320, 320, 1, 1)
    assert names["mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"] == (1280, 768)


@pytest.mark.slow
def test_count_of_sdxl():
    config = UNetConfig(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    shapes = init_shapes(config)["unet"]
    assert count(shapes) == 2_567_463_684
    names = torch_shapes(shapes)
    assert len(names) == 1680
    assert names["add_embedding.linear_1.weight"] == (1280, 2816)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("full_adapter", {}, 77_369_280),
        ("full_adapter_xl", {"downscale_factor": 16}, 79_028_160),
        ("light_adapter", {"channels": (320, 640, 1280), "num_res_blocks": 4}, 18_689_200),
    ],
)
def test_counts_of_t2i_adapters(kind, options, expected):
    config = T2IAdapterConfig(adapter_type=kind, **options)
    model, side = T2IAdapter(config), config.downsampling
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, side, side, 3)))["params"]
    assert count(shapes) == expected
    names = torch_shapes(shapes)
    assert names["adapter.body.2.in_conv.weight"][0] == (320 if config.light else 1280)
    assert "adapter.body.3.resnets.1.block2.bias" in names


TRANSFORMER = "down_blocks.0.attentions.1.transformer_blocks.0"


def test_diffusers_names_of_sd21(sd21):
    names = torch_shapes(sd21["mix"]["unet"])
    assert len(names) == 686
    expected = {
        "conv_in.weight": (320, 4, 3, 3),
        "conv_in.bias": (320,),
        "time_embedding.linear_1.weight": (1280, 320),
        "time_embedding.linear_2.bias": (1280,),
        "down_blocks.0.resnets.0.norm1.weight": (320,),
        "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
        "down_blocks.0.resnets.0.time_emb_proj.weight": (320, 1280),
        "down_blocks.1.resnets.0.conv_shortcut.weight": (640, 320, 1, 1),
        "down_blocks.0.attentions.0.norm.bias": (320,),
        "down_blocks.0.attentions.0.proj_in.weight": (320, 320),
        "down_blocks.0.attentions.0.proj_out.bias": (320,),
        f"{TRANSFORMER}.norm1.weight": (320,),
        f"{TRANSFORMER}.attn1.to_q.weight": (320, 320),
        f"{TRANSFORMER}.attn1.to_out.0.weight": (320, 320),
        f"{TRANSFORMER}.attn1.to_out.0.bias": (320,),
        f"{TRANSFORMER}.attn2.to_k.weight": (320, 1024),
        f"{TRANSFORMER}.ff.net.0.proj.weight": (2560, 320),
        f"{TRANSFORMER}.ff.net.2.weight": (320, 1280),
        f"{TRANSFORMER}.norm3.bias": (320,),
        "down_blocks.2.downsamplers.0.conv.weight": (1280, 1280, 3, 3),
        "down_blocks.3.resnets.1.conv2.weight": (1280, 1280, 3, 3),
        "mid_block.resnets.1.norm2.bias": (1280,),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight": (1280, 1024),
        "up_blocks.0.resnets.2.conv_shortcut.weight": (1280, 2560, 1, 1),
        "up_blocks.0.upsamplers.0.conv.bias": (1280,),
        "up_blocks.1.resnets.2.conv1.weight": (1280, 1920, 3, 3),
        "up_blocks.3.resnets.0.conv1.weight": (320, 960, 3, 3),
        "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_v.weight": (320, 320),
        "conv_norm_out.weight": (320,),
        "conv_out.weight": (4, 320, 3, 3),
    }
    assert {name: names.get(name) for name in expected} == expected
    for absent in (
        "down_blocks.3.attentions",
        "down_blocks.3.downsamplers",
        "up_blocks.0.attentions",
        "up_blocks.3.upsamplers",
        f"{TRANSFORMER}.attn1.to_q.bias",
    ):
        assert not [name for name in names if name.startswith(absent)]


def test_diffusers_names_of_the_controlnet(sd21):
    names = torch_shapes(sd21["controlnet"]["adapter"])
    expected = {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "controlnet_cond_embedding.blocks.0.weight": (16, 16, 3, 3),
        "controlnet_cond_embedding.blocks.5.weight": (256, 96, 3, 3),
        "controlnet_cond_embedding.conv_out.weight": (320, 256, 3, 3),
        "controlnet_down_blocks.0.weight": (320, 320, 1, 1),
        "controlnet_down_blocks.11.bias": (1280,),
        "controlnet_mid_block.weight": (1280, 1280, 1, 1),
        "mid_block.attentions.0.proj_in.weight": (1280, 1280),
    }
    assert {name: names.get(name) for name in expected} == expected
    assert "controlnet_down_blocks.12.bias" not in names
    assert "conv_out.weight" not in names


def test_stable_diffusions_autoencoder():
    model = AutoencoderKL(AutoencoderConfig())
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 8, 8, 3)), KEY)["params"]
    assert count(shapes) == 83_653_863
    names = torch_shapes(shapes)
    assert len(names) == 248
    expected = {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": (256, 128, 1, 1),
        "encoder.down_blocks.2.downsamplers.0.conv.weight": (512, 512, 3, 3),
        "encoder.mid_block.attentions.0.group_norm.weight": (512,),
        "encoder.mid_block.attentions.0.to_q.bias": (512,),
        "decoder.mid_block.attentions.0.to_out.0.weight": (512, 512),
        "decoder.up_blocks.0.resnets.2.conv2.bias": (512,),
        "decoder.up_blocks.2.upsamplers.0.conv.weight": (256, 256, 3, 3),
        "decoder.conv_norm_out.bias": (128,),
        "quant_conv.weight": (8, 8, 1, 1),
        "post_quant_conv.bias": (4,),
    }
    assert {name: names.get(name) for name in expected} == expected
