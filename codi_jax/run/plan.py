"""The plan of a run: everything that can be known of it before there is an array.

``plan(config)`` refuses whatever does not fit; :func:`codi_jax.run.start.start` then makes the
arrays. Nothing is downloaded: an id of Hugging Face must have been fetched.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from codi_jax import trees
from codi_jax.checkpoint.parameters import with_guidance_input
from codi_jax.data.transforms import prompts_differ
from codi_jax.evals.weights import find_weights
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.lpips import LPIPS, SMALLEST
from codi_jax.models.remat import remat_policy
from codi_jax.models.winograd import convolutions_for
from codi_jax.parallel.compiling import compiler_options
from codi_jax.parallel.gather import gather
from codi_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from codi_jax.parallel.platform import compute_dtype
from codi_jax.parallel.sharding import param_shardings, state_shardings
from codi_jax.run.config import ConfigDict, build_task
from codi_jax.run.methods import (
    DISTILLING,
    Loss,
    check_guidance,
    ema_decays,
    frozen_teacher,
    make_loss,
    make_objective,
    vae_parts,
)
from codi_jax.run.prompts import check_text, prompt_shapes
from codi_jax.run.ranges import check_ranges, check_sizes, check_steps
from codi_jax.sampling.architecture import build_architecture
from codi_jax.tasks.base import Task
from codi_jax.train.autoencoder_start import check_autoencoder_start
from codi_jax.train.flops import jaxpr_flops
from codi_jax.train.objectives import NULL_PROMPT, PROMPT, TEACHER
from codi_jax.train.optim import OptimConfig, make_optimizer
from codi_jax.train.state import TrainState, create_state
from codi_jax.train.step import Decay, StepFn, make_step
from codi_jax.typing import Params, PyTree, UserError, check_choice

INITS = ("pretrained", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run without arrays.

    Attributes:
        config: what was planned.
        task: what the model is for.
        mesh: the devices; their shape is what counts until the run starts.
        base: the architecture whose parameters are read or drawn.
        model: the architecture that is trained: ``base``, perhaps with a guidance scale to read.
        loss: what is minimised.
        averages: moving averages by name, with their decays.
        optimizer: of the trainable parameters.
        lpips: the network behind "lpips" distances, if the loss asks for it.
        step_fn: the training step, not jitted.
    """

    config: ConfigDict
    task: Task
    mesh: jax.sharding.Mesh
    base: AutoencoderModel
    model: AutoencoderModel
    loss: Loss
    averages: Mapping[str, Decay]
    optimizer: optax.GradientTransformation
    lpips: LPIPS | None
    step_fn: StepFn

    @property
    def dtype(self) -> DTypeLike:
        """Of the networks' computation."""
        return compute_dtype(self.config.dtype)

    @property
    def key(self) -> jax.Array:
        """The root of all randomness of the steps."""
        return jax.random.key(self.config.seed)

    @functools.cached_property
    def state(self) -> TrainState:
        """Shapes of the training state."""
        return jax.eval_shape(self.create, self._split_shapes[0])

    @functools.cached_property
    def frozen(self) -> Params:
        """Shapes of what does not train: parameters, and what the U-Net reads of the prompt."""
        frozen = dict(self._split_shapes[1])
        if self.lpips is not None:
            frozen["lpips"] = _lpips_shapes(self.lpips)
        prompt = prompt_shapes(self.model)
        if prompt:
            frozen[NULL_PROMPT] = prompt
            if not prompts_differ(self.config.model.prompt):
                frozen[PROMPT] = prompt
        return frozen

    @functools.cached_property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch on the devices; where pictures have their own prompts, these too."""
        size = self.config.batch_size
        shapes = {
            name: jax.ShapeDtypeStruct((size, *shape), jnp.dtype(dtype))
            for name, (shape, dtype) in self.task.shapes(self.config.data.size).items()
        }
        if prompts_differ(self.config.model.prompt):
            shapes |= {
                name: jax.ShapeDtypeStruct((size, *shape.shape[1:]), shape.dtype)
                for name, shape in prompt_shapes(self.model).items()
            }
        return shapes

    @functools.cached_property
    def _split_shapes(self) -> tuple[Params, Params]:
        params = self.model.shapes
        regex = self.config.model.trainable
        try:
            shapes = jax.eval_shape(self.split, params)
        except re.error as error:
            raise UserError(f"config.model.trainable={regex!r} is no regex: {error}.") from error
        if not shapes[0]:
            raise UserError(
                f"config.model.trainable={regex!r} matches no parameter; the parts are "
                f"{sorted(params)}, for example 'adapter/.*'."
            )
        return shapes

    @property
    def state_shardings(self) -> PyTree:
        """Where each leaf of the state lives."""
        return state_shardings(self.mesh, self.state)

    @property
    def frozen_shardings(self) -> PyTree:
        """Where each frozen parameter lives; prompts are on every device."""
        prompts = {name: self.frozen[name] for name in (PROMPT, NULL_PROMPT) if name in self.frozen}
        parts = {name: part for name, part in self.frozen.items() if name not in prompts}
        everywhere = jax.tree.map(lambda _: replicated(self.mesh), prompts)
        return {**param_shardings(self.mesh, parts), **everywhere}

    def jit_step(self) -> jax.stages.Wrapped:
        """The training step for the mesh; it donates the state."""
        state, here = self.state_shardings, replicated(self.mesh)
        device = self.mesh.devices.flat[0]
        return jax.jit(
            convolutions_for(device.platform)(self.step_fn),
            in_shardings=(state, self.frozen_shardings, batch_sharding(self.mesh), here),
            out_shardings=(state, here),
            donate_argnums=0,
            compiler_options=compiler_options(device),
        )

    @functools.cached_property
    def traced(self) -> jax.stages.Traced:
        """The training step on shapes. It takes seconds: who counts and who compiles share it."""
        key = jax.eval_shape(lambda: self.key)
        return self.jit_step().trace(self.state, self.frozen, self.batch, key)

    @property
    def recomputes(self) -> bool:
        """Whether something is computed again for the gradient."""
        return self.task.diffuses and remat_policy(self.config.model.remat) != "none"

    @functools.cached_property
    def needed_flops(self) -> float:
        """FLOPs of a step on all devices, without what is computed again: traced once more."""
        if not self.recomputes:
            return jaxpr_flops(self.traced.jaxpr)
        config = ConfigDict(self.config.to_dict())
        config.model.remat = "none"
        return jaxpr_flops(plan(config, self.mesh).traced.jaxpr)

    def split(self, params: Params) -> tuple[Params, Params]:
        """(trainable, frozen), the teacher's own parameters among the latter."""
        trainable, frozen = trees.split(params, self.config.model.trainable)
        return trainable, {**frozen, **frozen_teacher(self.loss, trainable)}

    def create(self, trainable: Params) -> TrainState:
        """The state before the first step."""
        return create_state(trainable, self.optimizer, tuple(self.averages))


def plan(config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> Plan:
    """Plan the run of ``config``.

    Args:
        config: see ``configs/base.py``.
        mesh: by default ``config.mesh`` of this machine's devices.

    Raises:
        UserError: whatever in the config does not fit.
    """
    check_ranges(config)
    task = build_task(config)
    mesh = mesh or make_mesh(**config.mesh)
    check_batch(mesh, config.batch_size)
    if config.batch_size % (config.accumulation * mesh.size):
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of accumulation="
            f"{config.accumulation} times {mesh.size} devices."
        )
    check_choice("config.model.init", config.model.init, INITS)
    dtype = compute_dtype(config.dtype)
    base = build_architecture(config.model.to_dict(), task, config.data.size)
    loss = make_loss(task, config.method, config.loss.to_dict(), base)
    if isinstance(base, Model) and loss.sampler is not None:
        network = dataclasses.replace(base.network, dtype=dtype)
        base = dataclasses.replace(base, network=network, sampler=loss.sampler)
    _check_sizes(config, task, base)
    check_autoencoder_start(config.model.vae_init, base)
    model = _read_by(base, config, loss)
    check_text(model)
    averages = ema_decays(dict(config.ema), loss)
    optimizer = make_optimizer(OptimConfig(**config.optim), config.steps)
    lpips = _lpips(config, loss)
    planned = Plan(
        config=config,
        task=task,
        mesh=mesh,
        base=base,
        model=model,
        loss=loss,
        averages=averages,
        optimizer=optimizer,
        lpips=lpips,
        step_fn=make_step(
            make_objective(loss, model, task, dtype, lpips, vae_parts(config, mesh.size)),
            optimizer,
            averages,
            accumulation=config.accumulation,
            target=TEACHER if TEACHER in averages else "target",
            gather=functools.partial(gather, mesh=mesh, dtype=dtype),
        ),
    )
    _ = planned.state_shardings, planned.frozen_shardings  # each parameter must have its place
    return planned


def _check_sizes(config: ConfigDict, task: Task, base: AutoencoderModel) -> None:
    """Whether the networks can read the sizes, and the schedule has as many steps."""
    factors = {"the scale": task.scale, "the autoencoder": base.vae.downsampling}
    if isinstance(base, Model):
        halvings = base.network.unet.downsampling
        factors["the autoencoder and the U-Net"] = base.vae.downsampling * halvings
        check_steps(config.eval.steps, base.schedule.num_train_timesteps)
    check_sizes(config, factors)


def _read_by(base: AutoencoderModel, config: ConfigDict, loss: Loss) -> AutoencoderModel:
    """``base`` with a guidance scale to read, where the config asks for it."""
    if not isinstance(base, Model):
        return base
    pretrained = config.model.pretrained
    trained = base.adapter_directory if base.network.has_adapter else pretrained
    if config.method in DISTILLING and not trained:
        raise UserError(
            f"config.method={config.method!r} distils a model that a run has trained for this "
            f"task, and config.model.pretrained={pretrained!r} is none: set it to RUN/model."
        )
    dim = config.model.time_cond_proj_dim
    check_guidance(loss, bool(dim or base.network.unet.time_cond_proj_dim))
    return with_guidance_input(base, dim) if dim else base


def _lpips(config: ConfigDict, loss: Loss) -> LPIPS | None:
    """LPIPS on VGG's features, which training losses use; None where the loss asks for none.

    Raises:
        UserError: weights that are absent, or crops that are too small.
    """
    if not loss.needs.perceptual:
        return None
    if config.data.size < SMALLEST:
        raise UserError(
            f"config.data.size={config.data.size} is too small for LPIPS: at least {SMALLEST}."
        )
    find_weights("vgg", Path(config.model.lpips_weights).expanduser())
    return LPIPS("vgg")


def _lpips_shapes(lpips: LPIPS) -> Params:
    pictures = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lpips.init, key, pictures, pictures)["params"]
