"""The config of a run: its flag, and the task that it names."""

from absl import flags
from ml_collections import ConfigDict, config_flags

from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_from_config

__all__ = ["ConfigDict", "build_task", "define_config_flag"]


def define_config_flag(text: str) -> None:
    """Define --config, and with it --config.KEY for every key."""
    config_flags.DEFINE_config_file("config", None, text)
    flags.declare_key_flag("config")


def build_task(config: ConfigDict) -> Task:
    """The task, with its options.

    Raises:
        UserError: an unknown task or option.
    """
    return task_from_config(config.task, config.task_options.to_dict(), config.data.to_dict())
