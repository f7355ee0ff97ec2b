"""The workdir of a run: which config it belongs to, what evaluates it, where its results are."""

import sys
from pathlib import Path

import jax

from codi_jax import trees
from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.run.config import ConfigDict
from codi_jax.sampling.held_out import Setting, degrades
from codi_jax.tasks.registry import task_class
from codi_jax.typing import Settings, UserError

CONFIG, RESULTS = "config.json", "results.json"
#: Keys that may differ when a run is resumed: they change how long it is and how it is watched.
FREE = {
    *("steps", "log_every", "eval", "checkpoint", "tensorboard", "mesh", "label"),
    *("data.num_workers", "data.max_corrupt"),
}
#: Keys that configs have gained since version 0.1.0, with what older runs did.
ADDED: dict[str, object] = {
    "label": "",
    "model.autoencoder": "",
    "model.vae_init": "random",
    "data.clean_share": 0.0,
    "data.chart_share": 0.0,
}


def as_started(config: ConfigDict, workdir: Path) -> ConfigDict:
    """``config``, in which a run of an older version keeps doing what it did.

    Keys that the workdir's config lacks get the values of :data:`ADDED`.
    """
    path = workdir / CONFIG
    if not path.exists():
        return config
    known = _flat(load_json(path))
    missing = {key: value for key, value in ADDED.items() if key not in known}
    new = _flat(config.to_dict())
    changed = {key: value for key, value in missing.items() if new[key] != value}
    if changed:
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict(changed)
        kept = ", ".join(f"{key}={value!r}" for key, value in changed.items())
        print(f"{workdir} was started by an older version: it goes on with {kept}", file=sys.stderr)
    return config


def check_workdir(config: ConfigDict, workdir: Path) -> None:
    """Hold the config against the one that is in the workdir.

    Raises:
        UserError: the workdir belongs to another config.
    """
    path = workdir / CONFIG
    if not path.exists():
        return
    old, new = {**ADDED, **_flat(load_json(path))}, _flat(config.to_dict())
    differing = [
        f"{key} ({old.get(key)!r} there, {new.get(key)!r} now)"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not FREE & {key, key.split(".")[0]}
    ]
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
