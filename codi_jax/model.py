"""A whole model: networks, noise schedule, sampler, task and parameters."""

import dataclasses
import functools
from pathlib import Path

import jax

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.diffusion.unsupported_sampler import AnySampler
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import AnyAutoencoderConfig, init_autoencoder
from codi_jax.models.part_init import PartInit, draw_parts
from codi_jax.typing import Params, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderModel:
    """An autoencoder alone: the base of a latent diffusion model.

    Attributes:
        vae: the autoencoder's architecture.
        directory: the diffusers-format directory that it was read from, if any.
        vae_directory: where the autoencoder's weights are, if not in ``directory``.
        params: float32 nested dicts by part; here only "vae".
    """

    vae: AnyAutoencoderConfig
    directory: Path | None = None
    vae_directory: Path | None = None
    params: Params = dataclasses.field(default_factory=dict)

    def init(self, key: jax.Array) -> Params:
        """Random parameters of every part."""
        return draw_parts(self.inits.items(), key)

    @property
    def inits(self) -> dict[str, PartInit]:
        """How each part is drawn, in this order."""
        return {"vae": PartInit(_init_vae, self.vae)}

    @property
    def shapes(self) -> Params:
        """Shapes of the parameters of every part."""
        return _shapes(tuple(self.inits.items()))

    def start_parts(self, params: Params) -> Params:
        """Parameters as training starts from them, once the parts on disk have been read."""
        return params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(AutoencoderModel):
    """A latent diffusion model, with or without an adapter for a condition.

    Attributes:
        vae: the autoencoder's architecture.
        network: the U-Net and its adapter.
        schedule: the noise schedule.
        prediction_type: what the U-Net predicts, in diffusers' words.
        task: name of the conditional task ("sr", "inpaint", ...); None for a prior.
        scale: how many times larger the result is than what the user gives.
        task_options: what else sampling must know of the task.
        sampler: how the checkpoint's own scheduler samples, if that is supported; few-step DDIM
            for our models.
        directory: where the model was read from; its text encoder and tokenizer are there.
        vae_directory: where the autoencoder's weights are, if not in ``directory``.
        adapter_directory: where the adapter's weights are, if it has any yet.
        params: float32 nested dicts under "vae", "unet", "adapter".
    """

    network: AdaptedUNet
    schedule: Schedule
    prediction_type: str = "v_prediction"
    task: str | None = None
    scale: int = 1
    task_options: Settings = dataclasses.field(default_factory=dict)
    sampler: AnySampler = SamplerConfig()
    adapter_directory: Path | None = None

    @property
    def inits(self) -> dict[str, PartInit]:
        """How each part is drawn, in this order."""
        return {**super().inits, **self.network.inits}

    def start_parts(self, params: Params) -> Params:
        """``params`` with the U-Net's encoder copied into an adapter that starts as its copy."""
        return self.network.copy_encoder(params)

    @property
    def takes_text(self) -> bool:
        """Whether the U-Net reads text embeddings."""
        return self.network.unet.cross_attention_dim is not None

    @property
    def multiple(self) -> int:
        """Sides of pictures that the networks take are multiples of this many pixels."""
        return self.vae.downsampling * self.network.unet.downsampling


@functools.lru_cache(maxsize=64)
def _shapes(inits: tuple[tuple[str, PartInit], ...]) -> Params:
    """Tracing them takes seconds, and a start asks several times."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(functools.partial(draw_parts, inits), key)


def _init_vae(config: AnyAutoencoderConfig, key: jax.Array, drawn: Params) -> Params:
    return init_autoencoder(config, key)
