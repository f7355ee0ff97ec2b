"""TODO."""

from ml_collections import ConfigDict

from configs.shared import CHECKPOINTS, conditional


def get_config(variant: str = "default") -> ConfigDict:
    """The config of one of :data:`configs.shared.VARIANTS`."""
    config = conditional("depth", variant)
    if variant in CHECKPOINTS:
        config.model.prompt, config.data.prompt_dropout = "{text}", 0.1
    else:
        config.data.source = "synthetic:depth"
        config.task_options = ConfigDict({"recovered_by": "haze"})
        config.eval.size = 64
    return config
