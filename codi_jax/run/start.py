"""From a plan to arrays on the devices."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax import trees
from codi_jax.checkpoint.parameters import Placement, add_guidance_input, with_params
from codi_jax.evals.perceptual import load_lpips
from codi_jax.model import Model
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.parallel.sharding import param_shardings
from codi_jax.run.data import first_pictures
from codi_jax.run.plan import Plan
from codi_jax.run.prompts import TextFn, encode_prompt
from codi_jax.train.autoencoder_start import linear_start
from codi_jax.train.objectives import NULL_PROMPT, PROMPT, TEACHER
from codi_jax.train.state import TrainState
from codi_jax.typing import Array, Params

#: Crops whose patches are the sample of a linear start.
START_PICTURES = 512


@dataclasses.dataclass(kw_only=True)
class Run:
    """The objects of one training run.

    Attributes:
        plan: what they were made from.
        state, frozen: on the mesh.
        step: jitted; donates the state.
        encode_texts: prompts to condition entries, where each picture has its own.
    """

    plan: Plan
    state: TrainState
    frozen: Params
    step: jax.stages.Wrapped
    encode_texts: TextFn | None

    @property
    def text(self) -> Params:
        """Condition entries [1, ...] of the prompt that all pictures share; else none."""
        return self.frozen.get(PROMPT, {})

    def frozen_hash(self, *, of_the_model: bool = False) -> str:
        """Of the frozen parameters: a run must not go on with others.

        Args:
            of_the_model: leave out the frozen teacher and LPIPS, which are not the model's.
        """
        left_out = {PROMPT, NULL_PROMPT, *((TEACHER, "lpips") if of_the_model else ())}
        parameters = {name: part for name, part in self.frozen.items() if name not in left_out}
        return trees.tree_hash(parameters) if parameters else ""

    def params(self, state: TrainState) -> Params:
        """All parameters, the trained ones from the evaluation average."""
        return trees.merge(state.ema["eval"], self.frozen)

    def encode(self, params: Params, images: Array | np.ndarray) -> Array:
        """Latents of uint8 images [B, H, W, 3]."""
        vae = make_autoencoder(self.plan.model.vae, self.plan.dtype)
        return vae.apply({"params": params["vae"]}, to_signed(jnp.asarray(images)), method="encode")


def start(plan: Plan) -> Run:
    """Make the arrays of a run: parameters that are read or drawn, averages, optimiser's state.

    Raises:
        UserError: weights that are absent or do not fit.
    """
    config, mesh = plan.config, plan.mesh
    place = partial(param_shardings, mesh)
    params = initial_params(plan, place)
    # Here, not in initial_params: a checkpoint that is loaded needs no pictures.
    if config.model.vae_init == "linear":
        pictures = first_pictures(config, plan.task, START_PICTURES)
        params = linear_start(plan.model, params, pictures, place)
    trainable, rest = plan.split(params)
    frozen = dict(rest)
    if plan.lpips is not None:
        _, lpips = load_lpips("vgg", Path(config.model.lpips_weights).expanduser())
        frozen["lpips"] = jax.device_put(lpips, param_shardings(mesh, lpips))
    text, null_text, encode_texts = encode_prompt(config.model.prompt, plan.model, config.data.size)
    prompts = {PROMPT: text, NULL_PROMPT: null_text}
    shardings = plan.frozen_shardings
    frozen |= {
        name: jax.device_put(entries, shardings[name])
        for name, entries in prompts.items()
        if entries
    }
    create = jax.jit(plan.create, out_shardings=plan.state_shardings, donate_argnums=0)
    return Run(
        plan=plan,
        # The parameters become the state's: there is no second copy of them.
        state=create(trainable),
        frozen=frozen,
        step=plan.jit_step(),
        encode_texts=encode_texts,
    )


def initial_params(plan: Plan, place: Placement | None = None) -> Params:
    """The parameters that a run starts from.

    Args:
        plan: of the run.
        place: gives their shardings; by default all are on the first local device.

    Raises:
        UserError: weights that are absent or do not fit.
    """
    redraw = ("unet", "adapter") if plan.config.model.init == "random" else ()
    key = jax.random.key(plan.config.seed)
    params = with_params(plan.base, key, place, redraw=redraw).params
    if plan.model is plan.base or not isinstance(plan.model, Model):
        return params
    return add_guidance_input(params, plan.model, place)
