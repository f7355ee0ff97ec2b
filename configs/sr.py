"""Real-world x4 super-resolution, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
Hardware:  two CPU cores, no accelerator.
Time:      4 minutes with compilation and evaluation.
Expect:    at 4 steps "codi" about 5 dB of PSNR above "start" (results.json, and printed).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same road with small random networks, under a minute: for tests
           pe        parameter-efficient: the prior is frozen, only the adapter trains
           demo      how the shipped "demo" model was made (needs --config.data.source=PHOTOS)

Your own photos: --config.data.source=DIR (folders are searched recursively).
"""

from ml_collections import ConfigDict

from configs.base import base

VARIANTS = ("default", "tiny", "pe", "demo")


def get_config(variant: str = "default") -> ConfigDict:
    """The config of one of :data:`VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = base()
    config.task = "sr"
    config.steps, config.batch_size = 240, 16
    config.model.pretrained, config.model.adapter = "prior", "mix"
    config.loss = ConfigDict({"predictor": "prev", "data_weight": 1.0, "dt": 20})
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    config.optim.mu_multiplier = 20.0
    config.ema = ConfigDict({"target": 0.95, "eval": 0.98})
    config.eval.every = config.checkpoint.every = 120
    if variant == "pe":
        config.model.trainable = "adapter/.*"
    if variant == "demo":
        config.steps, config.batch_size = 480, 16
        config.ema = ConfigDict({"target": 0.95, "eval": 0.995})
    if variant == "tiny":
        _make_tiny(config)
    return config


def _make_tiny(config: ConfigDict) -> None:
    config.steps, config.batch_size, config.data.size = 8, 8, 32
    config.eval.count, config.eval.size, config.log_every = 2, 32, 2
    config.eval.every = config.checkpoint.every = 4
    config.model.pretrained = ""
    config.model.vae = ConfigDict(
        {
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "scaling_factor": 1.0,
        }
    )
    config.model.unet = ConfigDict(
        {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "norm_num_groups": 8,
            "cross_attention_dim": None,
        }
    )
    config.model.scheduler = ConfigDict(
        {
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "rescale_betas_zero_snr": True,
        }
    )
