"""A whole model: networks, noise schedule and parameters."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax import trees
from codi_jax.checkpoint.diffusers_format import load_params
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.autoencoders import AnyAutoencoderConfig, init_autoencoder
from codi_jax.typing import Params, PyTree, UserError

#: Shapes -> shardings, like ``parallel.sharding.param_shardings`` of one mesh.
Placement = Callable[[PyTree], PyTree]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Networks, schedule and parameters of one model.

    Attributes:
        vae: the autoencoder's architecture.
        unet: the U-Net and its adapter; None for an autoencoder alone.
        schedule: noise schedule; None for an autoencoder alone.
        prediction_type: what the U-Net predicts, in diffusers' words.
        task: name of the conditional task ("sr", "inpaint", ...); None for a prior.
        scale: how many times larger the result is than what the user gives.
        task_options: what else sampling must know of the task.
        sampler: how the checkpoint's own scheduler samples; few-step DDIM for our models.
        directory: where it was read from; the text encoder and tokenizer are there.
        adapter_directory: where the adapter's weights are, if it has any yet.
        params: float32 nested dicts under "vae", "unet", "adapter".
    """

    vae: AnyAutoencoderConfig
    unet: AdaptedUNet | None = None
    schedule: Schedule | None = None
    prediction_type: str = "v_prediction"
    task: str | None = None
    scale: int = 1
    task_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sampler: SamplerConfig = SamplerConfig()
    directory: Path | None = None
    adapter_directory: Path | None = None
    params: Params = dataclasses.field(default_factory=dict)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Random parameters of every part; to be jitted by the caller."""
        params = {"vae": init_autoencoder(self.vae, key)}
        return params if self.unet is None else {**params, **self.unet.init(key)}

    @property
    def takes_text(self) -> bool:
        """Whether the U-Net reads text embeddings."""
        return self.unet is not None and self.unet.unet.cross_attention_dim is not None


def with_params(
    pipeline: Pipeline,
    key: jax.Array,
    place: Placement | None = None,
    *,
    new: bool = True,
    redraw: Collection[str] = (),
) -> Pipeline:
    """``pipeline`` with parameters, each tensor read or drawn straight into its sharding.

    The parts that are on disk are read; with ``new`` the others are drawn at random (an adapter's
    copied encoder from the U-Net that was read).

    Args:
        pipeline: the architecture.
        key: of the random parameters.
        place: gives the shardings; by default all is on the first local device.
        new: whether parts may be absent.
        redraw: parts that are drawn although they are on disk.

    Raises:
        UserError: weights that are absent or do not fit.
    """
    shapes = jax.eval_shape(pipeline.init, key)
    places = place(shapes) if place else dict.fromkeys(shapes)
    root = pipeline.directory
    folders = {} if root is None else {"vae": root / "vae", "unet": root / "unet"}
    if pipeline.adapter_directory is not None:
        folders["adapter"] = pipeline.adapter_directory
    loaded = {
        part: load_params(folders[part], shapes[part], sharding=places[part])
        for part in shapes
        if part in folders and part not in redraw and (folders[part].is_dir() or not new)
    }
    missing = [part for part in shapes if part not in loaded]
    if not missing:
        return dataclasses.replace(pipeline, params=loaded)

    def create(key: jax.Array, loaded: Params) -> dict[str, Any]:
        params = {**pipeline.init(key), **loaded}
        if pipeline.unet is not None and "adapter" in missing:
            params = pipeline.unet.adapt(params)
        return {part: params[part] for part in missing}

    out = {part: places[part] for part in missing} if place else None
    # Random numbers are drawn once: a fast program is not worth its compilation.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    created = jax.jit(create, out_shardings=out, compiler_options=options)(key, loaded)
    return dataclasses.replace(pipeline, params={**loaded, **created})


def with_guidance_input(pipeline: Pipeline, dim: int, place: Placement | None = None) -> Pipeline:
    """``pipeline``, with parameters, whose U-Net also reads a guidance scale.

    The new projection (diffusers' ``time_embedding.cond_proj``) starts at zero: the output is
    what it was, at every scale.

    Args:
        pipeline: with or without such an input.
        dim: features of the scale, diffusers' ``time_cond_proj_dim``.
        place: as in :func:`with_params`.

    Raises:
        UserError: the U-Net has such an input of another size.
    """
    network = pipeline.unet
    assert network is not None
    present = network.unet.time_cond_proj_dim
    if present == dim:
        return pipeline
    if present is not None:
        raise UserError(
            f"time_cond_proj_dim={dim}, but the model's U-Net has {present}: leave it at 0."
        )
    config = dataclasses.replace(network.unet, time_cond_proj_dim=dim)
    width = config.block_out_channels[0]
    params = dict(pipeline.params)
    for part in ("unet", "adapter") if network.adapter == "mix" else ("unet",):
        new: Any = {"time_embedding": {"cond_proj": {"kernel": jnp.zeros((dim, width))}}}
        if place is not None:
            new = jax.device_put(new, place(new))
        params[part] = trees.overlay(params[part], new)
    network = dataclasses.replace(network, unet=config)
    return dataclasses.replace(pipeline, unet=network, params=params)
