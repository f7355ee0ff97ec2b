"""The smallest config of a run: one level, convolutions alone, one device."""

from typing import Any

from ml_collections import ConfigDict

from configs import sr

UNET = {
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "mid_block_type": "UNetMidBlock2D",
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "cross_attention_dim": None,
}
VAE = {
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "scaling_factor": 1.0,
}


def get_config(variants: str = "codi") -> ConfigDict:
    """:func:`smallest` for the command line: ``--config=tests/smallest.py``."""
    return smallest(variants)


def smallest(variants: str = "codi", **changes: Any) -> ConfigDict:
    """Super-resolution with tiny random networks.

    Args:
        variants: methods of ``configs/methods.py``, with commas between.
        changes: keys of the config with ``__`` for the dots.
    """
    config = shrunk(sr.get_config(f"tiny,{variants}"))
    for key, value in changes.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        assert last in node, key
        node[last] = value
    return config


def shrunk(config: ConfigDict) -> ConfigDict:
    """The config of any conditional task with the smallest networks, on one device."""
    config.mesh.data, config.tensorboard = 1, False
    config.model.unet, config.model.vae = ConfigDict(UNET), ConfigDict(VAE)
    return config
