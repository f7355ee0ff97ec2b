"""Latents and text embeddings ahead of training, for `codi_jax.prepare`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.checkpoint.directory import read_directory
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.parameters import with_params
from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.data.transforms import LATENTS, PROMPTS
from codi_jax.model import AutoencoderModel
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Adds what frozen networks make of a sample. They are loaded when this is made, and in other
    processes that get it when they first work.

    Attributes:
        latents: checkpoint whose autoencoder makes "latents", "" for none.
        embeddings: checkpoint whose text encoders make "prompt_embeds" of the captions (and, with
            two, "pooled_prompt_embeds"), "" for none.

    Raises:
        UserError: no checkpoint there, or one without a text encoder.
    """

    latents: str = ""
    embeddings: str = ""

    def __post_init__(self) -> None:
        if self.latents:
            _autoencoder(self.latents)
        if self.embeddings:
            _text_encoder(self.embeddings)

    def __call__(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Samples with "image" uint8 [S, S, 3], all of one size, and "text".

        Returns:
            The same with "latents" float16 [s, s, C], the mode of the posterior as the diffusion
            model sees it, "prompt_embeds" float16 [L, D] and "pooled_prompt_embeds" float16 [P].

        Raises:
            UserError: a side that is no multiple of the autoencoder's factor.
        """
        added: dict[str, Any] = {}
        if self.latents:
            factor, encode = _autoencoder(self.latents)
            images = np.stack([sample["image"] for sample in samples])
            if images.shape[1] % factor:
                raise UserError(f"crop={images.shape[1]} is no multiple of {factor}, for latents.")
            added[LATENTS] = encode(images)
        if self.embeddings:
            made = _text_encoder(self.embeddings)([sample["text"] for sample in samples])
            added |= {PROMPTS[name]: value for name, value in made.items()}
        arrays = {name: np.asarray(value).astype(np.float16) for name, value in added.items()}
        return [
            {**sample, **{name: array[i] for name, array in arrays.items()}}
            for i, sample in enumerate(samples)
        ]


@functools.cache
def _autoencoder(name: str) -> tuple[int, Any]:
    read = read_directory(checkpoint_path(name))
    model = AutoencoderModel(vae=read.vae, directory=read.directory)
    model = with_params(model, jax.random.key(0), new=False)
    vae, params = make_autoencoder(model.vae, jnp.float32), {"params": model.params["vae"]}
    encode = jax.jit(lambda p, images: vae.apply(p, to_signed(images), method="encode"))
    return model.vae.downsampling, functools.partial(encode, params)


@functools.cache
def _text_encoder(name: str) -> PromptEncoder:
    return PromptEncoder(checkpoint_path(name))
