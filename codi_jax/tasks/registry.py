"""Tasks by name: the files of this package, or ``module:Class`` elsewhere."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from codi_jax.model import AutoencoderModel, Model
from codi_jax.tasks.base import Task
from codi_jax.typing import Settings, UserError, check_fields

_NO_TASKS = ("base", "registry")
#: ``module:Class`` names that the user named; see :func:`trust_task`.
_TRUSTED: set[str] = set()


@functools.cache
def task_names() -> tuple[str, ...]:
    """Names of the tasks in this package."""
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(name for name in names if name not in _NO_TASKS)


def trust_task(name: str) -> None:
    """Allow a task of one's own, ``module:Class``, for this process.

    Its module is imported, which runs its code. So only a person may name it, in a config (which
    is a program anyway) or by the flag --task_module, and never a file of a checkpoint or workdir.
    """
    _TRUSTED.add(name)


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Args:
        name: a file of this package, or ``module:Class`` that was given to :func:`trust_task`.

    Raises:
        UserError: there is none of this name, or it is not trusted.
    """
    if not isinstance(name, str):
        raise UserError(f"task={name!r} is no name; choose one of {task_names()}.")
    if name in task_names():
        return importlib.import_module(f"codi_jax.tasks.{name}").TASK
    if name not in _TRUSTED:
        raise UserError(
            f"task={name!r} is none of {', '.join(task_names())}. If it is a class of your own, "
            f"allow its code to run by --task_module={name} (in Python: "
            "codi_jax.tasks.registry.trust_task)."
        )
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
    options = _hashable(options)
    return _checked(lambda: kind.from_config(options, data), "config.task_options", options)


def task_of(model: AutoencoderModel) -> Task:
    """The task that a model was made for.

    Raises:
        UserError: a task that is not installed here.
    """
    if not isinstance(model, Model):
        return task_class("autoencoder")()
    if model.task is None:
        return task_class("prior")()
    kind, options = task_class(model.task), _hashable(model.task_options)
    return _checked(lambda: kind(scale=model.scale, **options), "task_options", options)


def _hashable(options: Settings) -> Settings:
    """Lists as the tuples that fields hold: JSON has no tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _checked(make: Callable[[], Task], name: str, options: Settings) -> Task:
    """The task, whose options may come from any file."""
    try:
        task = make()
        check_fields(task, f"{name}.")
        return task
    except TypeError as error:
        raise UserError(f"{name}={dict(options)}: {error}.") from error
