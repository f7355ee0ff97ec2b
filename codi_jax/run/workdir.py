"""The workdir of a run: which config it belongs to, what evaluates it, where its results are."""

import contextlib
import dataclasses
import fcntl
import math
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from codi_jax import trees
from codi_jax.checkpoint.files import TEMPORARY, load_json, save_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.parallel.processes import agreed
from codi_jax.run.config import ConfigDict
from codi_jax.sampling.held_out import Setting, degrades
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.tasks.registry import task_class
from codi_jax.train.optim import OptimConfig, make_schedule
from codi_jax.typing import Settings, UserError

CONFIG, RESULTS, LOCK = "config.json", "results.json", ".lock"
#: Keys that may differ when a run is resumed, for they change nothing of what it learns.
FREE = {
    *("log_every", "eval", "checkpoint", "tensorboard", "mesh", "label"),
    *("data.num_workers", "data.max_corrupt", "data.cache", "data.cache_gb"),
    *("model.remat", "model.vae_batch", "model.lpips_weights"),
}
#: Keys that may differ, too, with a line that says so: they change how it goes on, and some
#: message names them as its remedy. docs/runs.md lists both kinds.
FREE_IF_SAID = {
    *("steps", "accumulation", "optim.learning_rate", "optim.clip_norm"),
    *("data.source", "data.eval_source"),
}
#: Keys that configs have gained since version 0.1.0, with what older runs did.
ADDED: dict[str, object] = {
    "label": "",
    "model.autoencoder": "",
    "model.vae_init": "random",
    "data.clean_share": 0.0,
    "data.chart_share": 0.0,
    "loss.lpips_weight": 0.0,
}


def as_started(config: ConfigDict, workdir: Path) -> ConfigDict:
    """``config``, in which a run of an older version keeps doing what it did.

    Keys that the workdir's config lacks get the values of :data:`ADDED`.
    """
    known = saved_config(workdir)
    if not known:
        return config
    new = _flat(config.to_dict())
    missing = {key: value for key, value in ADDED.items() if key in new and key not in known}
    changed = {key: value for key, value in missing.items() if new[key] != value}
    if changed:
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict(changed)
        kept = ", ".join(f"{key}={value!r}" for key, value in changed.items())
        print(f"{workdir} was started by an older version: it goes on with {kept}", file=sys.stderr)
    return config


def saved_config(workdir: Path) -> dict[str, object]:
    """The flat config of the run in ``workdir``; empty where no run has saved anything yet.

    Such a workdir belongs to no config: whoever was out of memory at the first step may lower the
    batch.
    """
    checkpoints = workdir / CHECKPOINTS
    steps = checkpoints.iterdir() if checkpoints.is_dir() else ()
    saved = (workdir / RESULTS).exists() or any(path.name.isdigit() for path in steps)
    return _flat(load_json(workdir / CONFIG)) if saved and (workdir / CONFIG).exists() else {}


def check_workdir(config: ConfigDict, workdir: Path, *, finished: bool = False) -> None:
    """Hold the config against that of the run in the workdir.

    Args:
        config: of the run that is about to begin or to go on.
        workdir: of the run.
        finished: the results are wanted as they are: :data:`FREE_IF_SAID` must agree, too.

    Raises:
        UserError: the workdir belongs to another config.
    """
    saved = saved_config(workdir)
    if not saved:
        return
    new = _flat(config.to_dict())
    old = {key: value for key, value in ADDED.items() if key in new} | saved
    changed = {
        key: f"{key} ({old.get(key)!r} there, {new.get(key)!r} now)"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not FREE & {key, key.split(".")[0]}
    }
    said = [text for key, text in changed.items() if key in FREE_IF_SAID and not finished]
    differing = [text for text in changed.values() if text not in said]
    if said and not differing and jax.process_index() == 0:
        print(f"{workdir} goes on with another {'; '.join(said)}", file=sys.stderr)
    if differing:
        raise UserError(
            f"{workdir} holds a run of another config: {'; '.join(differing[:3])}. "
            "Use another --workdir, or the config of that run."
        )


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Write ``config.json``; the first process alone does."""
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        save_json(workdir / CONFIG, config.to_dict())


def changed_rate(saved: Mapping[str, object], config: ConfigDict, step: int) -> str:
    """What a changed config makes of the learning rate at ``step``; "" if nothing.

    Args:
        saved: of :func:`saved_config`.
        config: with which the run goes on.
        step: of the checkpoint that it goes on from.
    """
    now = OptimConfig(**config.optim)
    fields = {field.name for field in dataclasses.fields(OptimConfig)}
    known: dict[str, Any] = {
        name: saved[f"optim.{name}"] for name in fields if f"optim.{name}" in saved
    }
    before = dataclasses.replace(now, **known) if known else now
    steps = saved.get("steps", config.steps)
    assert isinstance(steps, int)
    old, new = (
        float(make_schedule(optim, total)(step))
        for optim, total in ((before, steps), (now, config.steps))
    )
    if math.isclose(old, new, rel_tol=1e-6):
        return ""
    return (
        f"learning rate at step {step}: {new:.4g}, where the run as it was started "
        f"(steps={steps}, optim.decay={before.decay!r}) would have {old:.4g}"
    )


def remove_leftovers(workdir: Path) -> None:
    """Remove the temporary files of a run that was killed; orbax removes those of checkpoints.

    The first process alone does: the others' are in use by then.
    """
    if jax.process_index() != 0:
        return
    for path in [*workdir.glob(TEMPORARY), *workdir.glob(f"*/{TEMPORARY}")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keep other runs out of ``workdir``, made if need be.

    The first process holds the lock for all, and all are refused together.

    Raises:
        UserError: another run is at work there.
    """
    refused: UserError | None = None
    with contextlib.ExitStack() as stack:
        try:
            if jax.process_index() == 0:
                stack.enter_context(_locked(workdir))
        except UserError as error:
            refused = error
        if agreed(refused is not None):
            raise refused or UserError(f"a run is at work in {workdir}: process 0 says which.")
        yield


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """The operating system holds the lock, so that of a run that was killed is gone with it.

    Host and process stand in the file for the message.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"a run is at work in {workdir}: {file.read().strip() or 'it does not say which'}. "
                "Wait for its end, stop it, or use another --workdir."
            ) from None
        except OSError as error:
            print(
                f"{workdir} cannot be locked ({error.strerror}): see to it that no other run "
                "writes there.",
                file=sys.stderr,
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _flat(config: Settings) -> dict[str, object]:
    """``{"data.size": 64, ...}``; tuples as the lists that JSON makes of them."""
    return {
        path.replace("/", "."): list(value) if isinstance(value, tuple) else value
        for path, value in trees.flatten(config).items()
    }


def method_name(config: Settings) -> str:
    """What the results of a run are called."""
    return config.get("label") or config.get("method", "")


def run_method(checkpoint: str) -> str:
    """The method of the run whose workdir this is; "" for other checkpoints."""
    config = _run_config(checkpoint)
    return method_name(config) if config else ""


def run_setting(checkpoint: str) -> Setting:
    """What a run evaluated itself on, from its workdir; the defaults for other checkpoints."""
    config = _run_config(checkpoint)
    if not config:
        return Setting()
    data = config["data"]
    return Setting(
        source=data["eval_source"] or data["source"],
        count=config["eval"]["count"],
        crop=config["eval"]["size"],
        degradation=data["degradation"] if degrades(task_class(config["task"])) else None,
        seed=config["seed"],
        prompt=config["model"]["prompt"],
        task_options=config["task_options"],
    )


def _run_config(checkpoint: str) -> Settings:
    """The config of the run whose workdir this is; {} for other checkpoints."""
    path = checkpoint_path(checkpoint) / CONFIG
    config = load_json(path) if path.is_file() else {}
    return config if "data" in config else {}
