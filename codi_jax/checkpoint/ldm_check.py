"""Whether what a single file holds is what the networks read: names, shapes, number formats."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.checkpoint.diffusers_format import Stored, check_tensors
from codi_jax.checkpoint.files import open_tensors
from codi_jax.checkpoint.ldm_layout import Part, Source
from codi_jax.checkpoint.names import canonical_name
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import init_autoencoder
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig
from codi_jax.typing import Params, UserError

_Config = UNetConfig | AutoencoderConfig | TextEncoderConfig


def check_fits(
    path: Path, parts: Mapping[str, Part], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Hold the parts of a single file against our networks; no weights are read.

    Args:
        path: the file.
        parts: what was found in it.
        shapes: of the file's tensors.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or quantised, or the U-Net does
            not read what the text encoders give.
    """
    with open_tensors(path) as opened:
        for part in parts.values():
            for source in part.tensors.values():
                opened.check_float(source.name)
    for name, part in parts.items():
        stored = {
            canonical_name(tensor): Stored(path, source.name, _shape(source, shapes[source.name]))
            for tensor, source in part.tensors.items()
        }
        check_tensors(
            f"The tensors of {path} for the {name}",
            _template(_read_config(name, part)),
            stored,
            "It is incomplete or no Stable Diffusion checkpoint: get the file again.",
        )
    widths = [part.config["hidden_size"] for name, part in parts.items() if "text" in name]
    read = parts["unet"].config["cross_attention_dim"]
    if sum(widths) != read:
        raise UserError(
            f"{path}: the U-Net reads texts of {read} features, and the text encoder gives "
            f"{' + '.join(map(str, widths))}: they are of two models. Get the file again."
        )


def _shape(source: Source, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the tensor that is made of the one in the file."""
    if source.rows is not None:
        shape = (len(range(shape[0])[slice(*source.rows)]), *shape[1:])
    if source.transform is not None:
        shape = source.transform(np.broadcast_to(np.float32(0), shape)).shape
    return shape


def _read_config(name: str, part: Part) -> _Config:
    if name == "unet":
        return UNetConfig.from_config(part.config)
    if name == "vae":
        return AutoencoderConfig.from_config(part.config)
    return TextEncoderConfig.from_config(part.config)


@functools.lru_cache(maxsize=8)
def _template(config: _Config) -> Params:
    key = jax.random.key(0)
    if isinstance(config, UNetConfig):
        return jax.eval_shape(AdaptedUNet(unet=config).init, key)["unet"]
    if isinstance(config, AutoencoderConfig):
        return jax.eval_shape(functools.partial(init_autoencoder, config), key)
    ids = jnp.zeros((1, 2), jnp.int32)
    return jax.eval_shape(CLIPTextEncoder(config).init, key, ids)["params"]
