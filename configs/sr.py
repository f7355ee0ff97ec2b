"""Real-world x4 super-resolution, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
Hardware:  two CPU cores, no accelerator.
Time:      4 to 5 minutes with compilation and evaluation.
Expect:    at 4 steps "codi" about 6 dB of PSNR above "start" (results.json, and printed).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same road with small random networks, under a minute: for tests
           demo      how the shipped "demo" model was made (needs --config.data.source=PHOTOS)
           sd15      Stable Diffusion 1.5 (epsilon) to 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v at 768 px) to 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi, finetune, cm, progressive, ...

Several, one after the other: --config=configs/sr.py:sd15,pe_codi

Your own photos: --config.data.source=DIR (folders are searched recursively).

Stable Diffusion, 128 -> 512 px:

    python -m codi_jax.main --config=configs/sr.py:sd21 --workdir=runs/sd21 \
        --config.data.source='photos/*.array_record' --config.data.num_workers=16 \\
        --config.mesh.fsdp=8

The checkpoint is fetched from Hugging Face; --config.model.pretrained=DIR takes a directory in
diffusers' format. Memory: float32 parameters, two averages and two Adam moments of 1.22 B numbers
are 24 GB, and 5 GB of gradients come on top; --config.mesh.fsdp=N shares them over N devices. So
fsdp=8 on a TPU v5e-8 or v4-8, fsdp=1 or 2 on GPUs of 80 GB. --config.model.trainable='adapter/.*'
(parameter-efficient) needs less than half. --config.accumulation=N divides the activations by N;
blocks are recomputed in the backward pass (remat) already. These two variants have not been run
to the end by us: only their shapes, and shortened runs of small networks of the same kind.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.methods import METHODS, apply_method

#: Hugging Face ids of the priors.
CHECKPOINTS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "stabilityai/stable-diffusion-2-1",
}
VARIANTS = ("default", "tiny", "demo", *CHECKPOINTS)


def get_config(variants: str = "default") -> ConfigDict:
    """The config of one of :data:`VARIANTS` or of a method, or of several with commas between."""
    config = base()
    config.task = "sr"
    config.steps, config.batch_size = 240, 16
    config.model.pretrained, config.model.adapter = "prior", "mix"
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    config.optim.mu_multiplier = 20.0
    config.ema.eval = 0.98
    config.eval.every = config.checkpoint.every = 120
    apply_method(config, "codi")
    for variant in variants.split(","):
        _apply(config, variant)
    return config


def _apply(config: ConfigDict, variant: str) -> None:
    if variant in METHODS:
        apply_method(config, variant)
    elif variant == "demo":
        config.steps, config.data.degradation = 1900, "bicubic"
        config.ema.eval = 0.995
        config.eval.every, config.checkpoint.every = 1000, 500
    elif variant == "tiny":
        make_tiny(config)
    elif variant in CHECKPOINTS:
        make_full_size(config, CHECKPOINTS[variant])
    elif variant != "default":
        known = ", ".join((*VARIANTS, *METHODS))
        raise ValueError(f"unknown variant {variant!r}: choose from {known}")


def make_full_size(config: ConfigDict, checkpoint: str) -> None:
    config.model.pretrained, config.model.remat = checkpoint, True
    config.steps, config.batch_size = 50_000, 64
    config.data.size = config.eval.size = 512
    if config.method == "codi":
        config.loss.dt = 1
    config.optim.learning_rate, config.optim.warmup_steps = 1e-5, 1000
    config.optim.decay = "constant"
    config.ema.eval = 0.9995
    config.eval.every, config.checkpoint.every, config.log_every = 5_000, 1_000, 50


def make_tiny(config: ConfigDict) -> None:
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
