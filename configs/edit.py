"""TODO."""

from ml_collections import ConfigDict

from configs.shared import conditional


def get_config(variant: str = "default") -> ConfigDict:
    """The config of one of :data:`configs.shared.VARIANTS`."""
    return conditional("edit", variant)
