"""Parameters of a model: read from its directory, or drawn at random."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from codi_jax import trees
from codi_jax.checkpoint.diffusers_format import check_params, load_params
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.part_init import PartInit
from codi_jax.typing import Params, PyTree, UserError

#: Shapes -> shardings, like ``parallel.sharding.param_shardings`` of one mesh.
Placement = Callable[[PyTree], PyTree]
AnyModel = TypeVar("AnyModel", bound=AutoencoderModel)


def with_params(
    model: AnyModel,
    key: jax.Array,
    place: Placement | None = None,
    *,
    new: bool = True,
    redraw: Collection[str] = (),
) -> AnyModel:
    """``model`` with parameters, each tensor read or drawn straight into its sharding.

    The parts that are on disk are read; with ``new`` the others are drawn at random (an adapter's
    copied encoder from the U-Net that was read).

    Args:
        model: the architecture.
        key: of the random parameters.
        place: gives the shardings; by default all is on the first local device.
        new: whether parts may be absent.
        redraw: parts that are drawn although they are on disk.

    Raises:
        UserError: weights that are absent or do not fit.
    """
    shapes = model.shapes
    places = place(shapes) if place else dict.fromkeys(shapes)
    folders = part_folders(model)
    loaded = {
        part: load_params(folders[part], shapes[part], sharding=places[part])
        for part in shapes
        if part in folders and part not in redraw and (folders[part].is_dir() or not new)
    }
    params = {**loaded}
    for part, init in model.inits.items():
        if part not in loaded:
            # An adapter reads the U-Net alone, and only it reads anything.
            read = {"unet": params["unet"]} if part == "adapter" else {}
            params[part] = _program(init, _leaves(places[part]) if place else None)(key, read)
    if "adapter" in params and "adapter" not in loaded:
        jax.eval_shape(model.start_parts, params)  # is it one that may start as a copy?
    return dataclasses.replace(model, params=params)


#: Shardings in an order, and the tree that they belong to.
_Places = tuple[tuple[jax.sharding.Sharding, ...], jax.tree_util.PyTreeDef]


def _leaves(places: PyTree) -> _Places:
    leaves, structure = jax.tree.flatten(places)
    return tuple(leaves), structure


@functools.lru_cache(maxsize=64)
def _program(init: PartInit, places: _Places | None) -> jax.stages.Wrapped:
    """A part's program is compiled once, whatever it is a part of."""
    out = None if places is None else jax.tree.unflatten(places[1], places[0])
    # Random numbers are drawn once: a fast program is not worth its compilation.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=out, compiler_options=options)


def part_folders(model: AutoencoderModel) -> dict[str, Path]:
    """Where the weights of the parts are, of those that are on disk."""
    root = model.directory
    folders = {} if root is None else {"vae": root / "vae", "unet": root / "unet"}
    if model.vae_directory is not None:
        folders["vae"] = model.vae_directory
    if isinstance(model, Model) and model.adapter_directory is not None:
        folders["adapter"] = model.adapter_directory
    return folders


def check_weights(model: AutoencoderModel) -> None:
    """Hold the weights on disk against the architecture, from the files' headers alone.

    Raises:
        UserError: weights that are absent, do not fit or are quantised.
    """
    shapes = model.shapes
    folders = part_folders(model)
    for part, template in shapes.items():
        check_params(folders[part], template)


def with_guidance_input(model: Model, dim: int) -> Model:
    """``model``, without parameters, whose U-Net also reads a guidance scale.

    Args:
        model: with or without such an input.
        dim: features of the scale, diffusers' ``time_cond_proj_dim``.

    Raises:
        UserError: the U-Net has such an input of another size.
    """
    present = model.network.unet.time_cond_proj_dim
    if present == dim:
        return model
    if present is not None:
        raise UserError(
            f"time_cond_proj_dim={dim}, but the model's U-Net has {present}: leave it at 0."
        )
    unet = dataclasses.replace(model.network.unet, time_cond_proj_dim=dim)
    return dataclasses.replace(model, network=dataclasses.replace(model.network, unet=unet))


def add_guidance_input(params: Params, model: Model, place: Placement | None = None) -> Params:
    """``params`` of a U-Net without a guidance scale, for ``model``, which reads one.

    The new projection (diffusers' ``time_embedding.cond_proj``) starts at zero: the output is
    what it was, at every scale.
    """
    unet = model.network.unet
    shape = unet.time_cond_proj_dim, unet.block_out_channels[0]
    extended = dict(params)
    for part in ("unet", "adapter") if model.network.adapter.reads_guidance_scale else ("unet",):
        new: Any = {"time_embedding": {"cond_proj": {"kernel": jnp.zeros(shape)}}}
        if place is not None:
            new = jax.device_put(new, place(new))
        extended[part] = trees.overlay(params[part], new)
    return extended
