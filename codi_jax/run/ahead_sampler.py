"""The sampler of a run's model, compiled for one device that is not there."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.model import Model
from codi_jax.models.winograd import convolutions_for
from codi_jax.parallel.compiling import compiler_options, device_memory
from codi_jax.parallel.mesh import make_mesh, replicated
from codi_jax.parallel.sharding import bytes_a_device
from codi_jax.run.ahead import Ahead, told_ahead
from codi_jax.run.plan import Plan
from codi_jax.run.prompts import prompt_shapes
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.train.flops import jaxpr_flops
from codi_jax.typing import Cond, Params, UserError


def sampler_ahead(
    planned: Plan,
    steps: int,
    batch_size: int = 1,
    quick: bool = False,
    schedules: Path | None = None,
) -> Ahead:
    """Count the sampling of pictures and, unless ``quick``, compile it for one device.

    It is all that :class:`PictureSampler` does for a batch: condition, ``steps`` calls of the
    network, decoding. The parameters are float32, as they are when a model is loaded.

    Args:
        planned: of the run whose model samples; pictures have its ``config.data.size``.
        steps: of sampling.
        batch_size: pictures at a time.
        quick: as for :func:`compile_ahead`.
        schedules: as there.

    Raises:
        UserError: the run trains an autoencoder, which does not sample.
    """
    model = planned.model
    if not isinstance(model, Model):
        raise UserError("this config trains an autoencoder alone: there is no sampler.")
    mesh = make_mesh(data=1, fsdp=1, devices=[planned.mesh.devices.flat[0]])
    network = dataclasses.replace(model.network, dtype=planned.dtype, remat="none")
    pictures = PictureSampler(
        dataclasses.replace(model, network=network), planned.dtype, planned.task, jitted=False
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = model.shapes
    arrays = _arrays(planned, model, batch_size)

    def sample(params: Params, arrays: dict[str, Any], text: Cond, key: Any) -> Any:
        words = GuidedCondition(cond=text)
        if "noise" in arrays:
            return pictures.generate(params, arrays["noise"], steps, words)
        return pictures.conditional(params, arrays, key, steps, words)

    here, device = replicated(mesh), mesh.devices.flat[0]
    sample, options = convolutions_for(device.platform)(sample), compiler_options(device)
    jitted = jax.jit(sample, in_shardings=here, out_shardings=here, compiler_options=options)
    traced = jitted.trace(params, arrays, prompt_shapes(model), key)
    flops = jaxpr_flops(traced.jaxpr)
    everywhere = jax.tree.map(lambda _: here, (params, arrays))
    known = Ahead(
        what=f"sample of {steps} steps",
        devices=1,
        device_kind=mesh.devices.flat[0].device_kind,
        batch_size=batch_size,
        flops=flops,
        needed_flops=flops,
        arguments=bytes_a_device((params, arrays), everywhere),
        memory=device_memory(mesh.devices.flat[0]),
        passes=1,
    )
    return told_ahead(known, traced, quick, schedules)


def _arrays(planned: Plan, model: Model, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what is sampled from: what the task reads, or a prior's noise."""
    if model.task is None:
        side = planned.config.data.size // model.vae.downsampling
        shape = (batch_size, side, side, model.vae.latent_channels)
        return {"noise": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return {
        name: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in planned.batch.items()
    }
