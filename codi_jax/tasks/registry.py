"""Tasks by name: the files of this package, or ``module:Class`` elsewhere."""

import functools
import importlib
import pkgutil
from pathlib import Path

from codi_jax.model import AutoencoderModel, Model
from codi_jax.tasks.base import Task
from codi_jax.typing import Settings, UserError

_NO_TASKS = ("base", "registry")


@functools.cache
def task_names() -> tuple[str, ...]:
    """Names of the tasks in this package."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(name for name in names if name not in _NO_TASKS)


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Args:
        name: a file of this package, or ``module:Class`` of an importable module.

    Raises:
        UserError: there is none of this name.
    """
    if name in task_names():
        return importlib.import_module(f"codi_jax.tasks.{name}").TASK
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"task={name!r}: {error}; is its folder in PYTHONPATH?") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(
            f"task={name!r} is unknown; choose one of {task_names()}, or the class of your own "
            "as module:Class."
        )
    return found


def task_from_config(name: str, options: Settings, data: Settings) -> Task:
    """The task of a training run, see :meth:`Task.from_config`.

    Raises:
        UserError: an unknown task or option.
    """
    kind = task_class(name)
    try:
        return kind.from_config(options, data)
    except TypeError as error:
        raise UserError(f"config.task_options={dict(options)}: {error}.") from error


def task_of(model: AutoencoderModel) -> Task:
    """The task that a model was made for.

    Raises:
        UserError: a task that is not installed here.
    """
    if not isinstance(model, Model):
        return task_class("autoencoder")()
    if model.task is None:
        return task_class("prior")()
    return task_class(model.task)(scale=model.scale, **model.task_options)
