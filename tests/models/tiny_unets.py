"""U-Nets of two tiny levels with every adapter, and inputs for them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.controlnet import ControlNet, ControlNetConfig
from codi_jax.models.adapters.mix import Mix
from codi_jax.models.adapters.none import NoAdapter
from codi_jax.models.adapters.t2i import T2I, T2IAdapterConfig
from codi_jax.models.configs import UNetConfig

TEXT = UNetConfig(
    block_out_channels=(4, 8),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=6,
    norm_num_groups=2,
)
NO_TEXT = dataclasses.replace(TEXT, cross_attention_dim=None)
#: One level without attention, for what must be compiled as a whole.
PLAIN = dataclasses.replace(
    NO_TEXT,
    block_out_channels=(4,),
    down_block_types=("DownBlock2D",),
    mid_block_type="UNetMidBlock2D",
    up_block_types=("UpBlock2D",),
)
HINT = ControlNetConfig(conditioning_embedding_out_channels=(2, 4))
PYRAMID = T2IAdapterConfig(channels=(4, 8), num_res_blocks=1, downscale_factor=2)
ADAPTERS = {
    "none": NoAdapter(),
    "mix": Mix(),
    "controlnet": ControlNet(config=HINT),
    "t2i": T2I(config=PYRAMID),
}
#: SDXL's way to read the prompt.
POOLED = dataclasses.replace(
    TEXT,
    addition_embed_type="text_time",
    addition_time_embed_dim=2,
    projection_class_embeddings_input_dim=17,
)
ENCODER = {"conv_in", "time_embedding", "mid_block", "down_blocks_0", "down_blocks_1"}


def network(kind, config=TEXT, **kwargs):
    return AdaptedUNet(unet=config, adapter=ADAPTERS[kind], **kwargs)


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


Z = normal(2, 4, 6, 4, seed=1)
T = jnp.array([999, 3], jnp.int32)
IDS = jnp.ones((2, 6), jnp.int32)
COND = {
    "latents": normal(2, 4, 6, 4, seed=2),
    "image": normal(2, 8, 12, 3, seed=3),
    "text": normal(2, 5, 6, seed=4),
}


def cond_for(config):
    return COND if config is TEXT else {k: v for k, v in COND.items() if k != "text"}


def with_mu(tree, mu):
    return {**tree, "adapter": {**tree["adapter"], "mu": np.float32(mu)}}


def predict(model, *args):
    """Not compiled as a whole: the tests share one set of small compiled operations."""
    return np.asarray(model.predict(*args))
