"""Latents and text embeddings that are made ahead of training, for `codi_jax.prepare`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from codi_jax.checkpoint.directory import read_directory
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.parameters import with_params
from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.data.sources import Element
from codi_jax.data.transforms import LATENTS, PROMPTS
from codi_jax.model import AutoencoderModel
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Adds to each example what frozen networks make of it.

    The networks are loaded when this is made; other processes that receive it load them when
    they first use it.

    Attributes:
        latents: checkpoint whose autoencoder makes "latents"; "" for none.
        embeddings: checkpoint whose text encoders make "prompt_embeds" from the captions (and, if
            there are two, "pooled_prompt_embeds"); "" for none.

    Raises:
        UserError: there is no such checkpoint, or it has no text encoder.
    """

    latents: str = ""
    embeddings: str = ""

    def __post_init__(self) -> None:
        """Load the networks."""
        if self.latents:
            _autoencoder(self.latents)
        if self.embeddings:
            _text_encoder(self.embeddings)

    def __call__(self, examples: Sequence[Element]) -> list[Element]:
        """Encode examples.

        Args:
            examples: with "image" uint8 [S, S, 3], all of one size, and "text".

        Returns:
            The same with "latents" float16 [s, s, C], the mode of the posterior as the diffusion
            model sees it, "prompt_embeds" float16 [L, D] and "pooled_prompt_embeds" float16 [P].

        Raises:
            UserError: S is no multiple of the autoencoder's factor.
        """
        added: dict[str, Array] = {}
        if self.latents:
            factor, encode = _autoencoder(self.latents)
            images = np.stack([example["image"] for example in examples])
            if images.shape[1] % factor:
                raise UserError(f"crop={images.shape[1]} is no multiple of {factor}, for latents.")
            added[LATENTS] = encode(images)
        if self.embeddings:
            made = _text_encoder(self.embeddings)([example["text"] for example in examples])
            added |= {PROMPTS[name]: value for name, value in made.items()}
        arrays = {name: np.asarray(value).astype(np.float16) for name, value in added.items()}
        return [
            {**example, **{name: array[i] for name, array in arrays.items()}}
            for i, example in enumerate(examples)
        ]


@functools.cache
def _autoencoder(name: str) -> tuple[int, Callable[[np.ndarray], Float[Array, "..."]]]:
    read = read_directory(checkpoint_path(name))
    model = AutoencoderModel(vae=read.vae, directory=read.directory)
    model = with_params(model, jax.random.key(0), new=False)
    vae, params = make_autoencoder(model.vae, jnp.float32), {"params": model.params["vae"]}
    encode = jax.jit(lambda p, images: vae.apply(p, to_signed(images), method="encode"))
    return model.vae.downsampling, functools.partial(encode, params)


@functools.cache
def _text_encoder(name: str) -> PromptEncoder:
    return PromptEncoder(checkpoint_path(name))
