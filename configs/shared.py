"""What the configs of the conditional tasks share. Not a config itself."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.base import base
from configs.methods import METHODS, apply_method

#: Hugging Face ids of the priors.
CHECKPOINTS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "stabilityai/stable-diffusion-2-1",
}
VARIANTS = ("default", "tiny", *CHECKPOINTS)


def conditional(
    task: str,
    variants: str,
    *,
    steps: int = 300,
    batch_size: int = 16,
    scale: int = 1,
    clean_share: float = 0.0,
    data_weight: float = 1.0,
    own: Mapping[str, Callable[[ConfigDict], None]] | None = None,
) -> ConfigDict:
    """CoDi of ``task`` with the embedded prior in minutes on a CPU, or changes of that.

    Args:
        task: ``config.task``.
        variants: one of :data:`VARIANTS` or of the methods, or several with commas between.
        steps: of the default.
        batch_size: of the default.
        scale: ``config.data.scale``.
        clean_share: ``config.data.clean_share``.
        data_weight: ``config.loss.data_weight`` of the embedded prior's runs.
        own: variants of this task alone, changes of a config.

    Raises:
        ValueError: no such variant.
    """
    config = base()
    config.task = task
    config.data.scale, config.data.clean_share = scale, clean_share
    config.steps, config.batch_size = steps, batch_size
    config.model.pretrained, config.model.adapter = "prior", "mix"
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    config.optim.mu_multiplier = 20.0
    config.ema.eval = 0.98
    config.eval.every = config.checkpoint.every = steps // 2
    # For runs of minutes. A few hundred draws of one t per batch are few; and the plain d_x, which
    # is in latents, leaves the last sampling steps untrained (docs/study.md).
    config.loss = ConfigDict(
        {"time_per": "sample", "min_snr_gamma": 5.0, "data_weight": data_weight}
    )
    apply_method(config, "codi")
    own = own or {}
    for variant in variants.split(","):
        if variant in METHODS:
            apply_method(config, variant)
        elif variant in own:
            own[variant](config)
        elif variant == "tiny":
            _make_tiny(config)
        elif variant in CHECKPOINTS:
            _make_full_size(config, CHECKPOINTS[variant])
        elif variant != "default":
            known = ", ".join((*VARIANTS, *own, *METHODS))
            raise ValueError(f"unknown variant {variant!r}: choose from {known}")
    return config


def with_text(variants: str) -> bool:
    """Whether a prior with a text encoder is among ``variants``."""
    return any(variant in CHECKPOINTS for variant in variants.split(","))


def _make_full_size(config: ConfigDict, checkpoint: str) -> None:
    config.model.pretrained, config.model.remat = checkpoint, "blocks"
    config.steps, config.batch_size = 50_000, 64
    config.data.size = config.eval.size = 512
    if config.method == "codi":
        config.loss.dt, config.loss.time_per = 1, "batch"
        config.loss.data_weight, config.loss.min_snr_gamma = 1.0, placeholder(float)
    config.optim.learning_rate, config.optim.warmup_steps = 1e-5, 1000
    config.optim.decay = "constant"
    config.ema.eval = 0.9995
    config.eval.every, config.checkpoint.every, config.log_every = 5_000, 1_000, 50


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
