r"""A prior like the embedded one: an unconditional latent diffusion model, velocity prediction.

Command:   python -m codi_jax.main --config=configs/prior.py --workdir=runs/prior \
               --config.model.pretrained=codec --config.data.source=PHOTOS
Hardware:  two CPU cores (float32), or any accelerator.
Time:      see codi_jax/assets/prior/README.md, which says how long the shipped one took.
Expect:    a falling loss, and samples/step_N.png with pictures from noise.

Convolutions only: attention at high resolution is what costs on a CPU, and without it the model
takes pictures of any size. The first level, at the latents' own size, is where nearly all of the
time goes: it is narrower than the second.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.methods import METHODS, apply_method


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, with commas between.

    They are ``default``, ``tiny`` (the same with small networks, for tests), and the methods
    that need no condition, such as ``progressive``.
    """
    config = base()
    config.task, config.method = "prior", "finetune"
    config.steps, config.batch_size, config.data.size = 2600, 8, 96
    config.model.trainable = "unet/.*"
    config.model.unet = ConfigDict(
        {
            "in_channels": 12,
            "out_channels": 12,
            "down_block_types": ("DownBlock2D",) * 2,
            "up_block_types": ("UpBlock2D",) * 2,
            "mid_block_type": "UNetMidBlock2D",
            "block_out_channels": (96, 192),
            "layers_per_block": 1,
            "cross_attention_dim": None,
        }
    )
    config.model.scheduler = ConfigDict(
        {
            "num_train_timesteps": 1000,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "squaredcos_cap_v2",
            "rescale_betas_zero_snr": True,
        }
    )
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    config.optim.warmup_steps = 100
    config.ema = ConfigDict({"eval": 0.998})
    config.eval.steps = (20,)
    for variant in variants.split(","):
        if variant == "tiny":
            _make_tiny(config)
        elif variant in METHODS:
            apply_method(config, variant)
            config.model.trainable = "unet/.*"
        elif variant != "default":
            known = ", ".join(("default", "tiny", *METHODS))
            raise ValueError(f"unknown variant {variant!r}: choose from {known}")
    return config


def _make_tiny(config: ConfigDict) -> None:
    config.steps, config.batch_size, config.data.size = 4, 2, 32
    config.eval.size = 32
    config.model.unet.block_out_channels = (32, 32)
    config.eval.count, config.eval.steps, config.log_every = 2, (2,), 2
    config.eval.every = config.checkpoint.every = 4
