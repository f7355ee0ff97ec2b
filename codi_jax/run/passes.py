"""What a training step costs in U-Net passes: the unit in which methods get equal budgets.

A pass is one forward call of the plain U-Net for one picture. Everything that a step computes is
counted in it, by FLOPs: backward passes (about two each), target networks, teachers, adapters and
the autoencoder.
"""

import dataclasses

import jax
import jax.numpy as jnp

from codi_jax.model import Model
from codi_jax.run.plan import Plan
from codi_jax.run.prompts import prompt_shapes
from codi_jax.train.flops import count_flops


def pass_flops(plan: Plan) -> float | None:
    """FLOPs of one pass at the size of the plan's crops; None for an autoencoder alone."""
    model = plan.model
    if not isinstance(model, Model):
        return None
    network = dataclasses.replace(model.network.without_adapter(), remat="none")
    side = plan.config.data.size // model.vae.downsampling
    z_t = jax.ShapeDtypeStruct((1, side, side, model.vae.latent_channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    scale = {"guidance_scale": jax.ShapeDtypeStruct((1,), jnp.float32)}
    return count_flops(network.predict, model.shapes, z_t, t, {**prompt_shapes(model), **scale})


def step_passes(plan: Plan) -> float:
    """Passes of one training step, all pictures of the batch together.

    What ``remat`` computes again is not counted: it saves memory, and teaches nothing.
    """
    flops = pass_flops(plan)
    assert flops is not None  # every stage of a study trains a U-Net
    return plan.needed_flops / flops
