"""Any config with tiny networks: ``--config=tests/tiny_configs.py:NAME,VARIANTS``."""

import importlib

from ml_collections import ConfigDict

from tests.smallest import UNET, shrunk

LATENTS = 4  # of the tiny autoencoders


def get_config(variants: str) -> ConfigDict:
    """The config NAME with the VARIANTS, on one device, of two steps."""
    name, *others = (word for word in variants.split(",") if word != "demo")
    make = importlib.import_module(f"configs.{name}").get_config
    config = make(",".join([*others, "tiny"]))
    if name == "prior":
        sizes = {"in_channels": LATENTS, "out_channels": LATENTS}
        config.model.unet = ConfigDict({**UNET, **sizes})
    elif name != "autoencoder":
        config = shrunk(config)
    config.mesh.data, config.tensorboard = 1, False
    config.steps = config.eval.every = config.checkpoint.every = 2
    config.batch_size, config.eval.count, config.eval.steps = 2, 1, (1,)
    return config
