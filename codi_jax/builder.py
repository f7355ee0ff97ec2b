"""The one reader of the config: config -> objects."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.pipeline import Pipeline, init_vae, load_pipeline
from codi_jax.data.degradation import make_degradation
from codi_jax.data.pipeline import eval_batch, train_iterator
from codi_jax.data.sources import check_source, make_source
from codi_jax.data.transforms import Degrade, RandomCropFlip
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.finetune import DiffusionLoss
from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from codi_jax.parallel.sharding import param_shardings, state_shardings
from codi_jax.train.objectives import autoencoder_objective, diffusion_objective
from codi_jax.train.optim import OptimConfig, make_optimizer
from codi_jax.train.state import TrainState, create_state
from codi_jax.train.step import Objective, make_step
from codi_jax.typing import UserError

TASKS = ("sr", "prior", "autoencoder")
ASSETS = Path(__file__).parent / "assets"


def pretrained_path(name: str) -> Path:
    """``"prior"`` and ``"demo"`` are shipped with the package; all else is a path."""
    return ASSETS / name if name in ("prior", "demo") else Path(name)


@dataclasses.dataclass(kw_only=True)
class Run:
    """The objects of one training run.

    Attributes:
        pipeline: architecture (its ``params`` are the start's, before any step).
        state, frozen: on the mesh.
        step: jitted; donates the state.
    """

    pipeline: Pipeline
    mesh: jax.sharding.Mesh
    dtype: Any
    state: TrainState
    frozen: Any
    step: Any
    key: jax.Array

    def params(self, state: TrainState) -> Any:
        """All parameters, the trained ones from the evaluation average."""
        return trees.merge(state.ema["eval"], self.frozen)


def compute_dtype(name: str) -> Any:
    """``auto``: bfloat16 on accelerators, float32 on CPUs (which have no fast bfloat16)."""
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype={name!r}: choose auto, float32 or bfloat16.")
    return jnp.dtype(name)


def build_pipeline(config: ConfigDict, dtype: Any) -> Pipeline:
    """Networks and their first parameters: pretrained where given, the rest random."""
    model = config.model
    key = jax.random.key(config.seed)
    base = load_pipeline(pretrained_path(model.pretrained)) if model.pretrained else None
    if base is None:
        vae = AutoencoderConfig.from_config(model.vae.to_dict())
        base = Pipeline(vae=vae, params={"vae": init_vae(vae, key)})
    if config.task == "autoencoder":
        return base
    params = dict(base.params)
    network = base.unet
    if network is None:
        network = AdaptedUNet(unet=UNetConfig.from_config(model.unet.to_dict()))
        params |= network.init(key)
    schedule, kind = base.schedule, base.prediction_type
    if schedule is None:
        schedule, kind = schedule_from_config(model.scheduler.to_dict()), model.prediction_type
    new = network.adapter == "none" and model.adapter != "none"
    adapter = model.adapter if new else network.adapter
    network = dataclasses.replace(network, adapter=adapter, dtype=dtype, remat=model.remat)
    if new:
        params = network.adapt({**network.init(key), **params})
    task = config.task if config.task != "prior" else None
    return Pipeline(
        vae=base.vae,
        unet=network,
        schedule=schedule,
        prediction_type=kind,
        task=task,
        scale=config.data.scale,
        params=params,
    )


def build_objective(config: ConfigDict, pipeline: Pipeline, dtype: Any) -> Objective:
    """The loss of the task, on batches of pictures."""
    vae = AutoencoderKL(pipeline.vae, dtype)
    options = config.loss.to_dict()
    try:
        if config.task == "autoencoder":
            return autoencoder_objective(vae, AutoencoderLoss(**options))
        common: dict[str, Any] = {
            "schedule": pipeline.schedule,
            "prediction_type": pipeline.prediction_type,
        }
        kind: Any = DiffusionLoss if config.task == "prior" else CoDiLoss
        return diffusion_objective(pipeline, vae, kind(**common, **options))
    except TypeError as error:
        raise UserError(f"config.loss={options}: {error}.") from error


def build_run(config: ConfigDict) -> Run:
    """Everything but data and files; raises before any long work.

    Raises:
        UserError: whatever in the config does not fit.
    """
    if config.task not in TASKS:
        raise UserError(f"config.task={config.task!r} is unknown; choose one of {TASKS}.")
    mesh = make_mesh(**config.mesh)
    check_batch(mesh, config.batch_size)
    if config.batch_size % (config.accumulation * mesh.size):
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of accumulation="
            f"{config.accumulation} times {mesh.size} devices."
        )
    dtype = compute_dtype(config.dtype)
    pipeline = build_pipeline(config, dtype)
    trainable, frozen = split_params(pipeline.params, config.model.trainable)
    if config.loss.get("predictor") == "ddim":  # the only one that asks the prior itself
        frozen = {**frozen, "teacher": jax.tree.map(jnp.copy, pipeline.params["unet"])}
    optimizer = make_optimizer(OptimConfig(**config.optim), config.steps)
    averages = dict(config.ema)
    if "eval" not in averages:
        raise UserError("config.ema has no 'eval': the average that is sampled and exported.")
    placed = jax.device_put(trainable, param_shardings(mesh, trainable))

    def create(p: Any) -> TrainState:
        return create_state(p, optimizer, tuple(averages))

    shardings = state_shardings(mesh, jax.eval_shape(create, placed))
    frozen_shardings = param_shardings(mesh, frozen)
    step = make_step(
        build_objective(config, pipeline, dtype),
        optimizer,
        averages,
        accumulation=config.accumulation,
    )
    return Run(
        pipeline=pipeline,
        mesh=mesh,
        dtype=dtype,
        state=jax.jit(create, out_shardings=shardings)(placed),
        frozen=jax.device_put(frozen, frozen_shardings),
        step=jax.jit(
            step,
            in_shardings=(shardings, frozen_shardings, batch_sharding(mesh), replicated(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        ),
        key=jax.random.key(config.seed),
    )


def split_params(params: Any, regex: str) -> tuple[Any, Any]:
    """(trainable, frozen) by a regex over whole paths such as ``unet/conv_in/kernel``."""
    try:
        trainable, frozen = trees.split(params, regex)
    except re.error as error:
        raise UserError(f"config.model.trainable={regex!r} is no regex: {error}.") from error
    if not trainable:
        raise UserError(
            f"config.model.trainable={regex!r} matches no parameter; the parts are "
            f"{sorted(params)}, for example 'adapter/.*'."
        )
    return trainable, frozen


def transforms(config: ConfigDict, size: int) -> list:
    """Crop to ``size`` pixels, and for super-resolution degrade."""
    data = config.data
    crop = RandomCropFlip(size)
    if config.task != "sr":
        return [crop]
    return [crop, Degrade(make_degradation(data.degradation), data.scale)]


def build_data(config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The training iterator and the fixed evaluation batch."""
    data = config.data
    source = make_source(data.source, "train")
    held_out = make_source(data.eval_source or data.source, "eval")
    check_source(source)
    check_source(held_out)
    iterator = train_iterator(
        source,
        transforms(config, data.size),
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        num_workers=data.num_workers,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    shown = eval_batch(
        held_out, transforms(config, config.eval.size), config.eval.count, config.seed
    )
    return iterator, shown
