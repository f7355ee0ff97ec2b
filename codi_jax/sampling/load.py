"""Loading the model that a user names: a run's workdir, a directory, an id."""

import dataclasses
from pathlib import Path
from typing import Any

from codi_jax import trees
from codi_jax.checkpoint.diffusers_format import load_config
from codi_jax.checkpoint.directory import INDEX, load_directory, no_model
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.store import Store
from codi_jax.model import AutoencoderModel
from codi_jax.sampling import old_workdirs
from codi_jax.sampling.origin import ORIGIN, Origin
from codi_jax.typing import UserError

#: In a workdir: the finished model, and the checkpoints of an unfinished one.
MODEL, CHECKPOINTS = "model", "checkpoints"


def find(path: Path) -> str:
    """What a directory is: "model", "run" (finished), "unfinished", "old" (likewise) or "network".

    Raises:
        UserError: nothing of these.
    """
    if (path / INDEX).is_file():
        return "model"
    if (path / MODEL / INDEX).is_file():
        return "run"
    if (path / ORIGIN).is_file():
        return "unfinished"
    if old_workdirs.is_one(path):
        return "network" if {"_class_name", "architectures"} & {*load_config(path)} else "old"
    raise no_model(path)


def load_model(name: str | Path) -> AutoencoderModel:
    """The model of a run's workdir, or of a checkpoint (see :func:`checkpoint_path`).

    The last checkpoint is taken of a run that has not finished.

    Raises:
        UserError: there is no model, or the run has saved nothing yet.
    """
    path = checkpoint_path(str(name))
    kind = find(path)
    if kind == "unfinished":
        return _load_unfinished(path, *Origin.read(path))
    if kind == "old":
        return _load_unfinished(path, *old_workdirs.translate(path))
    if kind == "network":
        raise UserError(
            f"{path} is one network, a {network_class(path)}: give the directory of the whole "
            "model. An adapter is given as --config.model.pretrained_adapter."
        )
    return load_directory(path if kind == "model" else path / MODEL)


def network_class(path: Path) -> str:
    """The class of the network in a directory that holds one, as its config names it."""
    config = load_config(path)
    return str(config.get("_class_name") or config.get("architectures"))


def _load_unfinished(workdir: Path, origin: Origin, model: AutoencoderModel) -> AutoencoderModel:
    params = origin.params(model)
    trainable, frozen = trees.split(params, origin.trainable)
    if origin.frozen and trees.tree_hash(frozen) != origin.frozen:
        raise UserError(
            f"the frozen parameters of the run in {workdir} came from {origin.pretrained!r}, which "
            "has changed since: put that checkpoint back."
        )
    with Store(workdir / CHECKPOINTS, read_only=True) as store:
        step = store.newest_whole()
        if step is None:
            raise UserError(
                f"the run in {workdir} has saved no checkpoint yet: wait for the first."
            )
        averages: dict[str, Any] = dict.fromkeys(origin.averages, trainable)
        ema = store.restore(step, {"ema": averages})["ema"]
    directory = checkpoint_path(origin.pretrained) if origin.pretrained else None
    return dataclasses.replace(model, params=trees.merge(ema["eval"], frozen), directory=directory)
