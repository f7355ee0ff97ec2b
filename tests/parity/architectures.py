"""Reduced U-Nets of the Stable Diffusion family, and inputs for them."""

import numpy as np

SD15 = {
    "block_out_channels": (16, 24),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
SD21 = SD15 | {"attention_head_dim": (2, 6), "use_linear_projection": True}
SDXL = SD21 | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 46,  # 6 * 6 + 10
}


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs(config):
    """(z_t, t, cond): oblong latents of 16x8, times at both ends, the prompt."""
    z = normal(2, 16, 8, config.in_channels, seed=1)
    cond = {}
    if config.cross_attention_dim is not None:
        cond["text"] = normal(2, 7, config.cross_attention_dim, seed=2)
    if config.addition_embed_type is not None:
        pooled = config.added_dim - 6 * config.addition_time_embed_dim
        cond["text_embeds"] = normal(2, pooled, seed=3)
        sizes = [[1024, 768, 0, 16, 1024, 1024], [64, 48, 8, 0, 512, 640]]
        cond["time_ids"] = np.array(sizes, np.int32)
    if config.time_cond_proj_dim is not None:
        cond["guidance_scale"] = np.array([1.0, 7.5], np.float32)
    return z, np.array([999, 3], np.int32), cond
