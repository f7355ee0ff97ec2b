"""From the config to the networks and the step; :mod:`codi_jax.feed` has the data."""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.directory import INDEX, load_pipeline, read_pipeline, with_adapter
from codi_jax.checkpoint.files import load_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.pipeline import Pipeline, Placement, with_guidance_input, with_params
from codi_jax.checkpoint.store import Store
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.evals.perceptual import load_lpips
from codi_jax.feed import TextFn, build_task, encode_prompt, first_pictures
from codi_jax.methods import (
    DISTILLING,
    Loss,
    check_guidance,
    ema_decays,
    frozen_teacher,
    make_loss,
    make_objective,
)
from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.autoencoders import autoencoder_config, make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.models.configs import UNetConfig
from codi_jax.models.lpips import LPIPS, SMALLEST
from codi_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from codi_jax.parallel.sharding import param_shardings, state_shardings
from codi_jax.train.autoencoder_start import start_autoencoder
from codi_jax.train.objectives import TEACHER
from codi_jax.train.optim import OptimConfig, make_optimizer
from codi_jax.train.state import TrainState, create_state
from codi_jax.train.step import make_step
from codi_jax.typing import Array, UserError, check_choice

INITS = ("pretrained", "random")
#: Crops whose patches are the sample of a linear start.
START_PICTURES = 512


@dataclasses.dataclass(kw_only=True)
class Run:
    """The objects of one training run.

    Attributes:
        pipeline: architecture, without parameters: these are in ``state`` and ``frozen``.
        state, frozen: on the mesh.
        step: jitted; donates the state.
        text: condition entries [1, ...] of ``config.model.prompt``, where the U-Net takes text
            and the prompt is one for all.
        encode_texts: prompts to condition entries, where each picture has its own.
    """

    pipeline: Pipeline
    mesh: jax.sharding.Mesh
    dtype: Any
    state: TrainState
    frozen: Any
    text: dict[str, Any]
    encode_texts: TextFn | None
    step: Any
    key: jax.Array

    def params(self, state: TrainState) -> Any:
        """All parameters, the trained ones from the evaluation average."""
        return trees.merge(state.ema["eval"], self.frozen)

    def encode(self, params: Any, images: Array | np.ndarray) -> Array:
        """Latents of uint8 images [B, H, W, 3]."""
        vae = make_autoencoder(self.pipeline.vae, self.dtype)
        return vae.apply({"params": params["vae"]}, to_signed(jnp.asarray(images)), method="encode")


def compute_dtype(name: str) -> Any:
    """``auto``: bfloat16 on accelerators, float32 on CPUs (which have no fast bfloat16)."""
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype={name!r}: choose auto, float32 or bfloat16.")
    return jnp.dtype(name)


def build_pipeline(config: ConfigDict, dtype: Any) -> Pipeline:
    """The networks of a run, without parameters: pretrained where given, else of the config."""
    model, task = config.model, build_task(config)
    if model.pretrained:
        base = read_pipeline(checkpoint_path(model.pretrained))
    else:
        base = Pipeline(vae=autoencoder_config(model.vae.to_dict()))
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
        latents = base.vae.latent_channels
        network = network.with_adapter(
            model.adapter,
            base.vae.downsampling,
            image_channels=task.image_channels(),
            extra_latents=task.latent_channels(latents) - latents,
        )
    network = dataclasses.replace(network, dtype=dtype, remat=model.remat)
    pipeline = dataclasses.replace(
        base,
        unet=network,
        schedule=schedule,
        prediction_type=kind,
        task=config.task if task.conditional else None,
        scale=task.scale,
        task_options={name: getattr(task, name) for name in task.saved},
    )
    if model.pretrained_adapter:
        return with_adapter(pipeline, checkpoint_path(model.pretrained_adapter))
    return pipeline


def initial_params(
    config: ConfigDict, pipeline: Pipeline, place: Placement | None = None
) -> Pipeline:
    """``pipeline`` with the parameters that the run starts from."""
    check_choice("config.model.init", config.model.init, INITS)
    redraw = ("unet", "adapter") if config.model.init == "random" else ()
    pipeline = with_params(pipeline, jax.random.key(config.seed), place, redraw=redraw)
    if not config.model.time_cond_proj_dim:
        return pipeline
    return with_guidance_input(pipeline, config.model.time_cond_proj_dim, place)


def build_loss(config: ConfigDict, pipeline: Pipeline) -> Loss:
    """The loss of the task and the method, with the options of ``config.loss``.

    Raises:
        UserError: options, networks and start that do not fit together.
    """
    loss = make_loss(config.task, config.method, config.loss.to_dict(), pipeline)
    if config.task == "autoencoder":
        return loss
    network = pipeline.unet
    assert network is not None
    trained = config.model.pretrained if network.adapter == "none" else pipeline.adapter_directory
    if config.method in DISTILLING and not trained:
        raise UserError(
            f"config.method={config.method!r} distils a model that a run has trained for this "
            f"task, and config.model.pretrained={config.model.pretrained!r} is none: set it to "
            "RUN/model."
        )
    check_guidance(loss, bool(config.model.time_cond_proj_dim or network.unet.time_cond_proj_dim))
    return loss


def sampled_by(pipeline: Pipeline, loss: Loss) -> Pipeline:
    """``pipeline`` with the sampler that ``loss`` trains for, not the prior's own."""
    if isinstance(loss, AutoencoderLoss):
        return pipeline
    return dataclasses.replace(pipeline, sampler=loss.sampler)


def build_lpips(config: ConfigDict, loss: Loss) -> tuple[LPIPS | None, dict[str, Any]]:
    """LPIPS on VGG's features, as in training losses usual, and its frozen parameters; neither
    where the loss does not ask for it.

    Raises:
        UserError: weights that are absent, or crops that are too small.
    """
    if isinstance(loss, AutoencoderLoss) or not loss.perceptual:
        return None, {}
    if config.data.size < SMALLEST:
        raise UserError(
            f"config.data.size={config.data.size} is too small for LPIPS: at least {SMALLEST}."
        )
    model, params = load_lpips("vgg", Path(config.model.lpips_weights).expanduser())
    return model, {"lpips": params}


def build_run(config: ConfigDict) -> Run:
    """Everything but data and files; raises before any long work.

    Raises:
        UserError: whatever in the config does not fit.
    """
    build_task(config)
    mesh = make_mesh(**config.mesh)
    check_batch(mesh, config.batch_size)
    if config.batch_size % (config.accumulation * mesh.size):
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of accumulation="
            f"{config.accumulation} times {mesh.size} devices."
        )
    dtype = compute_dtype(config.dtype)
    pipeline = build_pipeline(config, dtype)
    loss = build_loss(config, pipeline)
    pipeline = sampled_by(pipeline, loss)
    averages = ema_decays(dict(config.ema), loss)
    lpips, lpips_params = build_lpips(config, loss)
    place = partial(param_shardings, mesh)
    pipeline = initial_params(config, pipeline, place)
    # Here, not in initial_params: a checkpoint that is loaded needs no pictures.
    pictures = partial(first_pictures, config, START_PICTURES)
    pipeline = start_autoencoder(config.model.vae_init, pipeline, pictures, place)
    trainable, frozen = split_params(config, pipeline.params)
    frozen |= frozen_teacher(loss, trainable)
    if lpips_params:
        frozen |= jax.device_put(lpips_params, param_shardings(mesh, lpips_params))
    text, null_text, encode_texts = encode_prompt(config, pipeline)
    optimizer = make_optimizer(OptimConfig(**config.optim), config.steps)

    def create(p: Any) -> TrainState:
        return create_state(p, optimizer, tuple(averages))

    shardings = state_shardings(mesh, jax.eval_shape(create, trainable))
    frozen_shardings = param_shardings(mesh, frozen)
    step = make_step(
        make_objective(loss, pipeline, dtype, text, null_text, lpips),
        optimizer,
        averages,
        accumulation=config.accumulation,
        target=TEACHER if TEACHER in averages else "target",
    )
    return Run(
        pipeline=dataclasses.replace(pipeline, params={}),
        mesh=mesh,
        dtype=dtype,
        # The parameters become the state's: there is no second copy of them.
        state=jax.jit(create, out_shardings=shardings, donate_argnums=0)(trainable),
        frozen=frozen,
        text=text,
        encode_texts=encode_texts,
        step=jax.jit(
            step,
            in_shardings=(shardings, frozen_shardings, batch_sharding(mesh), replicated(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        ),
        key=jax.random.key(config.seed),
    )


def split_params(config: ConfigDict, params: Any) -> tuple[Any, Any]:
    """(trainable, frozen) by ``config.model.trainable``, a regex over whole paths such as
    ``unet/conv_in/kernel``.
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
    pipeline = build_pipeline(config, compute_dtype(config.dtype))
    loss = build_loss(config, pipeline)
    averages = dict.fromkeys(ema_decays(dict(config.ema), loss))
    pipeline = initial_params(config, sampled_by(pipeline, loss))
    trainable, frozen = split_params(config, pipeline.params)
    with Store(workdir / "checkpoints", read_only=True) as store:
        step = store.latest_step()
        if step is None:
            raise UserError(
                f"the run in {workdir} has saved no checkpoint yet: wait for the first."
            )
        templates = {"ema": dict.fromkeys(averages, trainable)}
        ema = store.restore(step, templates)["ema"]
    return dataclasses.replace(pipeline, params=trees.merge(ema["eval"], frozen))
