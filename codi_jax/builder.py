"""The one reader of the config: config -> objects."""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.directory import INDEX, load_pipeline, read_pipeline, with_adapter
from codi_jax.checkpoint.files import load_json
from codi_jax.checkpoint.hub import resolve
from codi_jax.checkpoint.pipeline import Pipeline, with_params
from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.checkpoint.store import Store
from codi_jax.data.degradation import make_degradation
from codi_jax.data.pipeline import eval_batch, train_iterator
from codi_jax.data.sources import SkippingSource, check_source, make_source
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


def checkpoint_path(name: str) -> Path:
    """The directory of a checkpoint: "prior" or "demo" (shipped with the package), a directory,
    or a Hugging Face id, which is fetched.

    Raises:
        UserError: no such directory or repository, or a single file.
    """
    if name in ("prior", "demo"):
        return ASSETS / name
    path = resolve(name)
    if path.is_file():
        raise UserError(
            f"{path} is a single file: make a directory of it first with "
            f"`python -m codi_jax.convert import {path} DIRECTORY`."
        )
    return path


@dataclasses.dataclass(kw_only=True)
class Run:
    """The objects of one training run.

    Attributes:
        pipeline: architecture, without parameters: these are in ``state`` and ``frozen``.
        state, frozen: on the mesh.
        step: jitted; donates the state.
        text: condition entries [1, ...] of ``config.model.prompt``, where the U-Net takes text.
    """

    pipeline: Pipeline
    mesh: jax.sharding.Mesh
    dtype: Any
    state: TrainState
    frozen: Any
    text: dict[str, Any]
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
    """The networks of a run, without parameters: pretrained where given, else of the config."""
    model = config.model
    if model.pretrained:
        base = read_pipeline(checkpoint_path(model.pretrained))
    else:
        base = Pipeline(vae=AutoencoderConfig.from_config(model.vae.to_dict()))
    if config.task == "autoencoder":
        return base
    trained_at = {"sample_size": config.data.size // base.vae.downsampling}
    network = base.unet or AdaptedUNet(
        unet=UNetConfig.from_config(trained_at | model.unet.to_dict())
    )
    schedule, kind = base.schedule, base.prediction_type
    if schedule is None:
        schedule, kind = schedule_from_config(model.scheduler.to_dict()), model.prediction_type
    if network.adapter == "none":
        network = network.with_adapter(model.adapter, base.vae.downsampling)
    network = dataclasses.replace(network, dtype=dtype, remat=model.remat)
    pipeline = dataclasses.replace(
        base,
        unet=network,
        schedule=schedule,
        prediction_type=kind,
        task=config.task if config.task != "prior" else None,
        scale=config.data.scale,
    )
    if model.pretrained_adapter:
        return with_adapter(pipeline, checkpoint_path(model.pretrained_adapter))
    return pipeline


def encode_prompt(config: ConfigDict, pipeline: Pipeline) -> dict[str, Any]:
    """What the U-Net reads of ``config.model.prompt``; the text encoder is not kept."""
    if not pipeline.takes_text:
        return {}
    if pipeline.directory is None:
        raise UserError(
            "config.model.unet has a cross_attention_dim, but without config.model.pretrained "
            "there is no text encoder: set cross_attention_dim to None."
        )
    text: dict[str, Any] = dict(PromptEncoder(pipeline.directory)([config.model.prompt]))
    if "text_embeds" in text:
        side = config.data.size
        text["time_ids"] = jnp.asarray([[side, side, 0, 0, side, side]], jnp.float32)
    return text


def build_objective(
    config: ConfigDict, pipeline: Pipeline, dtype: Any, text: dict[str, Any]
) -> Objective:
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
        return diffusion_objective(pipeline, vae, kind(**common, **options), text)
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
    key = jax.random.key(config.seed)
    pipeline = with_params(build_pipeline(config, dtype), key, partial(param_shardings, mesh))
    trainable, frozen = split_params(config, pipeline.params)
    text = encode_prompt(config, pipeline)
    optimizer = make_optimizer(OptimConfig(**config.optim), config.steps)
    averages = dict(config.ema)
    if "eval" not in averages:
        raise UserError("config.ema has no 'eval': the average that is sampled and exported.")

    def create(p: Any) -> TrainState:
        return create_state(p, optimizer, tuple(averages))

    shardings = state_shardings(mesh, jax.eval_shape(create, trainable))
    frozen_shardings = param_shardings(mesh, frozen)
    step = make_step(
        build_objective(config, pipeline, dtype, text),
        optimizer,
        averages,
        accumulation=config.accumulation,
    )
    return Run(
        pipeline=dataclasses.replace(pipeline, params={}),
        mesh=mesh,
        dtype=dtype,
        # The parameters become the state's: there is no second copy of them.
        state=jax.jit(create, out_shardings=shardings, donate_argnums=0)(trainable),
        frozen=frozen,
        text=text,
        step=jax.jit(
            step,
            in_shardings=(shardings, frozen_shardings, batch_sharding(mesh), replicated(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        ),
        key=key,
    )


def split_params(config: ConfigDict, params: Any) -> tuple[Any, Any]:
    """(trainable, frozen) by ``config.model.trainable``, a regex over whole paths such as
    ``unet/conv_in/kernel``; the predictor "ddim" also keeps the prior itself, as "teacher".
    """
    regex = config.model.trainable
    try:
        trainable, frozen = trees.split(params, regex)
    except re.error as error:
        raise UserError(f"config.model.trainable={regex!r} is no regex: {error}.") from error
    if not trainable:
        raise UserError(
            f"config.model.trainable={regex!r} matches no parameter; the parts are "
            f"{sorted(params)}, for example 'adapter/.*'."
        )
    if config.loss.get("predictor") == "ddim":
        frozen = {**frozen, "teacher": jax.tree.map(jnp.copy, params["unet"])}
    return trainable, frozen


def load_model(name: str | Path) -> Pipeline:
    """The model of a run's workdir, or of a checkpoint (see :func:`checkpoint_path`).

    Of a run that has not finished, the last checkpoint is taken.

    Raises:
        UserError: nothing there, or nothing saved yet.
    """
    workdir = checkpoint_path(str(name))
    if (workdir / INDEX).is_file() or not (workdir / "config.json").is_file():
        return load_pipeline(workdir)
    if (workdir / "model" / INDEX).is_file():
        return load_pipeline(workdir / "model")
    config = ConfigDict(load_json(workdir / "config.json"))
    pipeline = with_params(
        build_pipeline(config, compute_dtype(config.dtype)), jax.random.key(config.seed)
    )
    trainable, frozen = split_params(config, pipeline.params)
    with Store(workdir / "checkpoints", read_only=True) as store:
        step = store.latest_step()
        if step is None:
            raise UserError(
                f"the run in {workdir} has saved no checkpoint yet: wait for the first."
            )
        averages = store.restore(step, {"ema": dict.fromkeys(config.ema, trainable)})["ema"]
    frozen.pop("teacher", None)
    return dataclasses.replace(pipeline, params=trees.merge(averages["eval"], frozen))


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
    check_source(source, data.max_corrupt)
    check_source(held_out, data.max_corrupt)
    iterator = train_iterator(
        SkippingSource(source, data.max_corrupt),
        transforms(config, data.size),
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        num_workers=data.num_workers,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    shown = eval_batch(
        SkippingSource(held_out, data.max_corrupt),
        transforms(config, config.eval.size),
        config.eval.count,
        config.seed,
    )
    return iterator, shown
