r"""An autoencoder for a prior on small photos: 4 times smaller latents of 12 channels.

Command:   python -m codi_jax.main --config=configs/autoencoder.py --workdir=runs/autoencoder \
               --config.data.source=PHOTOS
Hardware:  two CPU cores (float32), or any accelerator.
Time:      about 20 minutes on two cores that do nothing else.
Expect:    results.json with the PSNR of reconstructions of held-out photos, well above that of the
           linear code that it starts as. After a dip in the first thousand steps it rises until the
           learning rate is down. `python -m benchmarks.codec` scores the model on photos of yours.

It starts as the best linear code of the photos (``model.vae_init``). Every norm is over the
channels of one pixel, so no statistics of the whole picture shift its colours.
"""

from ml_collections import ConfigDict

from configs.base import base


def get_config(variant: str = "default") -> ConfigDict:
    """``default``, or ``tiny``: the same with a small network, for tests."""
    config = base()
    config.task = "autoencoder"
    config.steps, config.batch_size = 6000, 8
    config.model.trainable = "vae/.*"
    config.model.vae_init = "linear"
    config.model.vae = ConfigDict(
        {
            "_class_name": "AutoencoderDC",
            # The finest level has no layers: convolutions of few channels at full resolution are
            # what costs on a CPU, and its width is not used.
            "encoder_block_out_channels": (8, 16, 64),
            "encoder_layers_per_block": (0, 1, 2),
            "encoder_out_shortcut": False,
            "decoder_block_out_channels": (16, 32, 128),
            "decoder_layers_per_block": (0, 1, 2),
            "decoder_in_shortcut": False,
            "latent_channels": 12,
            "scaling_factor": 1.0,
        }
    )
    config.loss = ConfigDict({"pixel": "l1", "edge_weight": 0.0})
    config.data.chart_share = 0.1
    config.optim.learning_rate = 5e-4
    config.optim.warmup_steps = 300
    config.optim.decay = "cosine"
    config.optim.weight_decay = 0.0
    config.ema = ConfigDict({"eval": 0.998})
    config.eval.every, config.checkpoint.every = 500, 500
    config.eval.count = 16
    if variant == "tiny":
        config.steps, config.batch_size, config.data.size = 4, 2, 32
        config.eval.size = 32
        config.model.vae.encoder_block_out_channels = (4, 12, 48)
        config.model.vae.encoder_layers_per_block = (0, 1, 1)
        config.model.vae.decoder_block_out_channels = (8, 28, 112)
        config.model.vae.decoder_layers_per_block = (0, 1, 1)
        config.model.vae.latent_channels = 4
        config.eval.count, config.log_every = 2, 2
        config.eval.every = config.checkpoint.every = 4
    elif variant != "default":
        raise ValueError(f"unknown variant {variant!r}: default or tiny")
    return config
