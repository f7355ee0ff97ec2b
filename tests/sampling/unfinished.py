"""What a run leaves that was stopped after a checkpoint, without training one."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.files import save_json
from codi_jax.checkpoint.store import Store
from codi_jax.model import AutoencoderModel
from codi_jax.run.plan import Plan, plan
from codi_jax.run.start import start
from codi_jax.run.train import write_origin
from codi_jax.run.workdir import write_config
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.typing import Params

#: The keys of a config of version 0.1.0, as it was released.
OLD_KEYS = {
    "": "task task_options method seed steps batch_size accumulation dtype model loss optim ema "
    "data mesh eval checkpoint log_every tensorboard",
    "model": "pretrained init adapter pretrained_adapter trainable vae unet scheduler "
    "prediction_type prompt time_cond_proj_dim lpips_weights remat",
    "data": "source eval_source size scale degradation num_workers prompt_dropout encoded "
    "max_corrupt",
}


def leave_unfinished(config: ConfigDict, workdir: Path, *, old: bool = False) -> Params:
    """Write the workdir; the parameters that its model has.

    Args:
        config: of the run.
        workdir: made here.
        old: as version 0.1.0 left it, which wrote no origin and knew fewer keys.
    """
    with jax.numpy_dtype_promotion("standard"):
        run = start(plan(config))
        state = run.state
        # Each average is another one, as after training; "eval" is what counts.
        moved = {
            name: jax.tree.map(lambda x, n=n: x + 0.25 * n, average)
            for n, (name, average) in enumerate(sorted(state.ema.items()), 1)
        }
    if old:
        save_json(workdir / "config.json", old_config(config))
    else:
        write_config(config, workdir)
        write_origin(run, workdir)
    with Store(workdir / CHECKPOINTS) as store:
        store.save(
            4,
            trainable=state.trainable,
            ema=moved,
            opt=state.opt,
            data_state={"next_index": 4},
            meta={"frozen": run.frozen_hash()},
            force=True,
        )
    params = run.params(dataclasses.replace(state, ema=moved))
    return {part: params[part] for part in ("vae", "unet", "adapter") if part in params}


def old_config(config: ConfigDict) -> dict[str, Any]:
    """The config as version 0.1.0 wrote it."""
    content = config.to_dict()
    top = {key: content[key] for key in OLD_KEYS[""].split()}
    sections = {
        name: {key: content[name][key] for key in OLD_KEYS[name].split()}
        for name in ("model", "data")
    }
    return top | sections


def architecture(model: AutoencoderModel) -> AutoencoderModel:
    """The model without what depends on where and how it is used."""
    changes: dict[str, Any] = {"directory": None, "vae_directory": None, "params": {}}
    if hasattr(model, "network"):
        plain = type(model.network)(unet=model.network.unet, adapter=model.network.adapter)
        changes |= {"network": plain, "adapter_directory": None}
    return dataclasses.replace(model, **changes)


def origin_of(planned: Plan, workdir: Path, frozen: str = "") -> Any:
    """The origin that a run of this plan writes; no array is made."""
    from types import SimpleNamespace

    from codi_jax.sampling.origin import Origin

    run: Any = SimpleNamespace(plan=planned, frozen_hash=lambda of_the_model: frozen)
    write_origin(run, workdir)
    return Origin.read(workdir)[0]


def assert_equal(found: Params, expected: Params) -> None:
    """Bit for bit the same parameters."""
    assert trees.tree_hash(found) == trees.tree_hash(expected)
