"""CoDi's adapter (Mei et al. 2024, equation 10): a second encoder, of the condition alone.

Named as in ``assets/community/mix_adapter.py``.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from codi_jax.models.adapters.base import Adapter, Host, Inputs
from codi_jax.models.adapters.encoder_copy import encoder_of, true_copy
from codi_jax.models.configs import EncoderConfig, UNetConfig
from codi_jax.models.embeddings import Prompt
from codi_jax.models.unet import Features
from codi_jax.typing import Cond, Params, Settings, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix(Adapter[Features]):
    """Its features h_eta(c) are mixed with the U-Net's by one number, ``mu``.

    Attributes:
        extra_latents: channels of the condition's "latents" beyond the U-Net's; they start with
            zero weights.
    """

    extra_latents: int = 0

    kind: ClassVar[str] = "mix"
    class_name: ClassVar[str | None] = "CoDiMixAdapter"
    reads: ClassVar[str] = "latents"
    reads_guidance_scale: ClassVar[bool] = True
    own_pipelines: ClassVar[Mapping[str, str]] = {"sr": "CoDiPipeline"}
    own_module: ClassVar[str] = "mix_adapter"

    @classmethod
    def new(
        cls, unet: UNetConfig, downsampling: int, *, image_channels: int, extra_latents: int
    ) -> Self:
        """See the base class."""
        return cls(extra_latents=extra_latents)

    @classmethod
    def from_config(cls, config: Settings, unet: UNetConfig, directory: Path) -> Self:
        """See the base class; ``config`` is the U-Net's with the channels of the "latents"."""
        extra = UNetConfig.from_config(config).in_channels - unet.in_channels
        if extra < 0:
            raise UserError(f"{directory}: the adapter belongs to a U-Net of fewer channels.")
        return cls(extra_latents=extra)

    def to_config(self, unet: UNetConfig) -> dict[str, object]:
        """See the base class."""
        return {**unet.to_config(), "in_channels": self.in_channels(unet)}

    def in_channels(self, unet: UNetConfig) -> int:
        """Channels of the condition's "latents", all together."""
        return unet.in_channels + self.extra_latents

    def _encoder_config(self, unet: UNetConfig) -> EncoderConfig:
        return dataclasses.replace(unet.encoder, in_channels=self.in_channels(unet))

    def init(self, host: Host, key: Key[Array, ""], unet: Params) -> Params:
        """See the base class: the encoder's copy, and ``mu`` = 0, the U-Net as it was."""
        return {**self._copy(host, unet), "mu": jnp.zeros((), jnp.float32)}

    def copy_encoder(self, host: Host, params: Params, unet: Params) -> Params:
        """See the base class."""
        return {**params, **self._copy(host, unet)}

    def _copy(self, host: Host, unet: Params) -> Params:
        copied = encoder_of(host.config, unet)
        kernel = copied["conv_in"]["kernel"]  # [3, 3, in, out]
        # Further inputs get zeros, so they change nothing yet.
        more = ((0, 0), (0, 0), (0, self.extra_latents), (0, 0))
        copied["conv_in"] = {**copied["conv_in"], "kernel": jnp.pad(kernel, more)}
        return true_copy(copied)

    def condition(self, host: Host, params: Params, cond: Cond) -> Features:
        """The features h_eta(c) of equation 10, a function of neither z_t nor t."""
        latents = self._needed(cond)
        t = jnp.zeros((latents.shape[0],), jnp.int32)  # the fixed time of method section 2
        encoder = host.encoder(self._encoder_config(host.config))
        return encoder.apply({"params": params}, latents, t, Prompt.of(cond))[0]

    def adapt(
        self, host: Host, params: Params, features: Features, own: Features, inputs: Inputs
    ) -> Features:
        """See the base class."""
        given, wanted = own.skips[0].shape[:3], features.skips[0].shape[:3]
        if given != wanted:
            raise UserError(
                f"the condition's latents are {list(given)} but z_t is {list(wanted)} (batch, "
                "height, width): enlarge the condition image to the target's size."
            )
        mu = params["mu"].astype(host.dtype)
        # Equation 10. At mu = 0 this is h_theta exactly: 1 * h + 0 * h_eta.
        return jax.tree.map(lambda h, h_eta: (1 - mu) * h + mu * h_eta, features, own)
