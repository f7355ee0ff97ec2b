"""The embedded prior's KL autoencoder: 4 times smaller latents of 12 channels.

Command:   python -m codi_jax.main --config=configs/autoencoder.py --workdir=runs/autoencoder \
               --config.data.source=PHOTOS
Hardware:  two CPU cores (float32), or any accelerator.
Time:      see the model card of the shipped weights, which says how long on what.
Expect:    results.json with the PSNR of reconstructions of held-out photos.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config(variant: str = "default") -> ConfigDict:
    """``default``, or ``tiny``: the same road with a small network, for tests."""
    config = base()
    config.task = "autoencoder"
    config.steps, config.batch_size = 4600, 8
    config.model.trainable = "vae/.*"
    config.model.vae = ConfigDict(
        {
            "block_out_channels": (16, 32, 64),
            "layers_per_block": 1,
            "latent_channels": 12,
            # Few groups: a GroupNorm takes the mean of each group away, and with it colour.
            "norm_num_groups": 2,
            "mid_block_add_attention": False,
            "scaling_factor": 1.0,
        }
    )
    config.loss = ConfigDict({"kl_weight": 1e-6, "edge_weight": 1.0})
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 50
    config.optim.decay = "cosine"
    config.optim.weight_decay = 0.0
    config.ema = ConfigDict({"eval": 0.995})
    config.eval.every, config.checkpoint.every = 1000, 1000
    if variant == "tiny":
        config.steps, config.batch_size, config.data.size = 4, 2, 32
        config.eval.size = 32
        config.model.vae.block_out_channels = (8, 8, 16)
        config.model.vae.latent_channels = 4
        config.eval.count, config.log_every = 2, 2
        config.eval.every = config.checkpoint.every = 4
    elif variant != "default":
        raise ValueError(f"unknown variant {variant!r}: default or tiny")
    return config
