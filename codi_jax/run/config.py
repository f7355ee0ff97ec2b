"""The config of a run: where its file is, its flag, and the task that it names."""

import importlib.util
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_from_config, trust_task
from codi_jax.typing import UserError

__all__ = ["ConfigDict", "build_task", "define_config_flag", "find_config"]


def define_config_flag(text: str) -> None:
    """Define --config, and with it --config.KEY for every key.

    Raises:
        UserError: a config file that does not exist.
    """
    sys.argv[:] = _with_found_config(sys.argv)
    config_flags.DEFINE_config_file("config", None, text)
    flags.declare_key_flag("config")


def find_config(name: str) -> str:
    """The file of a config: the user's own, else the one that travels with the package.

    Args:
        name: a path such as "configs/sr.py", perhaps with variants, "configs/sr.py:tiny".

    Raises:
        UserError: no such file in either place, or one that is no config.
    """
    path, colon, variants = name.partition(":")
    if Path(path).is_file():
        if not _is_config(Path(path)):
            raise UserError(
                f"--config={name}: {path} has no function get_config(), so it is no config. "
                "Copy one that travels with the package, for example configs/sr.py."
            )
        return name
    folders = packaged_configs()
    for folder in folders:
        found = folder / Path(path).name
        if Path(path).parent == Path("configs") and found.is_file() and _is_config(found):
            return f"{found}{colon}{variants}"
    files = [file for folder in folders for file in folder.glob("*.py") if _is_config(file)]
    known = sorted({f"configs/{file.name}" for file in files})
    raise UserError(
        f"--config={name}: {path} does not exist. Give the path of a config file; these travel "
        f"with the package: {', '.join(known)}."
    )


def _is_config(file: Path) -> bool:
    return b"get_config" in file.read_bytes()  # defined there, or imported


def packaged_configs() -> list[Path]:
    """The folders of the configs that travel with the package."""
    spec = importlib.util.find_spec("configs")
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _with_found_config(arguments: list[str]) -> list[str]:
    found = list(arguments)
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[i] = f"{flag}={find_config(value)}"
        elif i + 1 < len(arguments):
            found[i + 1] = find_config(arguments[i + 1])
    return found


def build_task(config: ConfigDict) -> Task:
    """The task of a config, which may be a class of the user's own, with its options.

    Raises:
        UserError: an unknown task or option.
    """
    trust_task(config.task)  # whoever runs a config runs its code
    return task_from_config(config.task, config.task_options.to_dict(), config.data.to_dict())
