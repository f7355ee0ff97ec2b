r"""Real-world x4 super-resolution, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
Hardware:  two CPU cores, no accelerator.
Time:      4 to 5 minutes with compilation and evaluation.
Expect:    at 4 steps a PSNR of "codi" about 8 dB above that of "start" (printed,
           and in results.json).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same with small random networks, in under a minute, for tests
           demo      how the shipped "demo" model was made (needs --config.data.source=PHOTOS)
           sd15      Stable Diffusion 1.5 (epsilon) to 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v at 768 px) to 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi, finetune, cm, progressive, ...

Several variants are joined by commas: --config=configs/sr.py:sd15,pe_codi

Your own photos: --config.data.source=DIR (subfolders are read too).

Stable Diffusion, 128 -> 512 px:

    python -m codi_jax.main --config=configs/sr.py:sd21 --workdir=runs/sd21 \
        --config.data.source='photos/*.array_record' --config.data.num_workers=16 \
        --config.mesh.fsdp=8

The checkpoint is fetched from Hugging Face; --config.model.pretrained=DIR takes a directory in
diffusers' format. Memory: float32 parameters, two averages and two Adam moments of 1.22 B numbers
are 24 GB, and 5 GB of gradients come on top; --config.mesh.fsdp=N shares them over N devices. So
fsdp=8 on a TPU v5e-8 or v4-8, fsdp=1 or 2 on GPUs of 80 GB. --config.model.trainable='adapter/.*'
(parameter-efficient) needs less than half. --config.accumulation=N divides the activations by N;
blocks are recomputed in the backward pass (remat="blocks") already, and remat="everything" keeps
less. We have not run these two variants to
their end, only checked their shapes and run small networks of the same kind for a few steps.
"""

from ml_collections import ConfigDict

from configs.shared import CHECKPOINTS, conditional


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`; "demo" is one more."""
    own = {"demo": _make_demo}
    names = variants.split(",")
    # Tiny runs are held against old ones. In a short run a consistency term of full weight teaches
    # the network to repeat the grain of its own first predictions (docs/study.md).
    clean, weight = (0.0, 1.0) if "tiny" in names else (0.3, 5.0)
    config = conditional(
        "sr",
        variants,
        steps=240,
        batch_size=8,
        scale=4,
        clean_share=clean,
        data_weight=weight,
        own=own,
    )
    if not {"tiny", "demo", *CHECKPOINTS} & set(names):
        config.eval.beside = "demo"
    return config


def _make_demo(config: ConfigDict) -> None:
    config.steps, config.batch_size, config.data.size = 4000, 8, 96
    config.data.clean_share = 0.5  # it is to enlarge clean photos and harmed ones
    config.loss.data_weight = 1.0  # a long run: its grain goes
    config.optim.warmup_steps, config.ema.eval = 100, 0.998
    config.eval.every, config.checkpoint.every = 2000, 400
