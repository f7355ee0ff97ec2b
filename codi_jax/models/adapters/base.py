"""What an adapter is: what it reads, what it does to the features, how it is saved and loaded.

One adapter is one file of this package with one subclass of :class:`Adapter`; ``registry`` lists
them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Self, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Real

from codi_jax.models.configs import EncoderConfig, UNetConfig
from codi_jax.models.embeddings import Prompt
from codi_jax.models.unet import Features, UNetDecoder, UNetEncoder
from codi_jax.typing import Cond, Params, Settings, UserError

#: What an adapter computes of the condition alone.
Own = TypeVar("Own")


class Inputs(NamedTuple):
    """What a U-Net's encoder reads.

    Attributes:
        z_t: noisy latents.
        t: time in grid steps.
        prompt: empty where the U-Net takes no text.
    """

    z_t: Float[Array, "batch height width channels"]
    t: Real[Array, " batch"]
    prompt: Prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """The U-Net that an adapter works in.

    Attributes:
        config: its architecture.
        dtype: what it computes in.
        remat: what is kept for the gradient, see :mod:`codi_jax.models.remat`.
    """

    config: UNetConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def encoder(self, config: EncoderConfig | None = None) -> UNetEncoder:
        """Its encoder, or one of another ``config`` that computes in the same way."""
        return UNetEncoder(config or self.config, self.dtype, self.remat)

    def decoder(self) -> UNetDecoder:
        """Its decoder."""
        return UNetDecoder(self.config, self.dtype, self.remat)

    def example(self) -> Inputs:
        """Shapes of the smallest inputs that it takes, a batch of one."""
        return jax.eval_shape(self._zeros)

    def _zeros(self) -> Inputs:
        c = self.config
        side = c.downsampling
        prompt = Prompt()
        if c.cross_attention_dim is not None:
            prompt = prompt._replace(text=jnp.zeros((1, 1, c.cross_attention_dim)))
        if c.addition_embed_type is not None:
            # How many of the added numbers are the pooled text's makes no difference here.
            pooled = c.added_dim - (c.addition_time_embed_dim or 0)
            ids = jnp.zeros((1, 1), jnp.int32)
            prompt = prompt._replace(text_embeds=jnp.zeros((1, pooled)), time_ids=ids)
        if c.time_cond_proj_dim is not None:
            prompt = prompt._replace(guidance_scale=jnp.ones((1,)))
        z_t = jnp.zeros((1, side, side, c.in_channels))
        return Inputs(z_t, jnp.zeros((1,), jnp.int32), prompt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter(Generic[Own]):
    """The base: it changes nothing. The fields of a subclass describe its architecture.

    Attributes:
        kind: the adapter's word in configs.
        class_name: ``_class_name`` of its config.json; None where there is nothing to save.
        folder: where it is in a model's directory; diffusers' pipelines expect these names.
        reads: the condition's entry that it reads; empty where it reads none.
        reads_guidance_scale: whether it reads the guidance scale where its U-Net does.
        pipeline: the pipeline of diffusers that runs it with a text encoder, if there is one.
        own_pipelines: task -> class of our own pipeline for PyTorch (``assets/community``).
        own_module: the module of ``assets/community`` that runs the adapter in that pipeline.
    """

    kind: ClassVar[str]
    class_name: ClassVar[str | None] = None
    folder: ClassVar[str] = "adapter"
    reads: ClassVar[str] = ""
    reads_guidance_scale: ClassVar[bool] = False
    pipeline: ClassVar[str | None] = None
    own_pipelines: ClassVar[Mapping[str, str]] = {}
    own_module: ClassVar[str] = ""

    # How it is made, saved and loaded.

    @classmethod
    def new(
        cls, unet: UNetConfig, downsampling: int, *, image_channels: int, extra_latents: int
    ) -> Self:
        """One that fits a U-Net.

        Args:
            unet: the U-Net.
            downsampling: the autoencoder's.
            image_channels: of the condition's "image".
            extra_latents: channels of the condition's "latents" beyond the U-Net's.
        """
        return cls()

    @classmethod
    def from_config(cls, config: Settings, unet: UNetConfig, directory: Path) -> Self:
        """The adapter of ``unet`` that a ``config.json`` describes.

        Args:
            config: its content.
            unet: the U-Net that it is to work in.
            directory: where the config was read, for errors.

        Raises:
            UserError: a config that is not supported, or of an adapter for another U-Net.
        """
        raise NotImplementedError

    def to_config(self, unet: UNetConfig) -> dict[str, object]:
        """The content of ``config.json`` but for the class: see :meth:`from_config`."""
        raise NotImplementedError

    def fitted(self, unet: UNetConfig) -> Self:
        """This adapter, with all that it takes over from ``unet``.

        Raises:
            UserError: it belongs to another U-Net.
        """
        return self

    def _check_fit(self, key: str, own: object, unets: object) -> None:
        if own != unets:
            raise UserError(
                f"the {self.kind} adapter has {key}={own} where its U-Net needs {unets}: "
                "it belongs to another model."
            )

    # Its parameters.

    def init(self, host: Host, key: Key[Array, ""], unet: Params) -> Params:
        """Random parameters, float32; empty where there are none.

        Args:
            host: the U-Net.
            key: of the random numbers.
            unet: the U-Net's parameters, of which an encoder may be copied.
        """
        return {}

    def copy_encoder(self, host: Host, params: Params, unet: Params) -> Params:
        """``params`` with the encoder of ``unet`` where the adapter starts as its copy.

        Raises:
            UserError: it should be a copy, but has an encoder of its own kind.
        """
        return params

    # What it computes.

    def condition(self, host: Host, params: Params, cond: Cond) -> Own:
        """What depends on the condition alone, to be computed once per image.

        Args:
            host: the U-Net.
            params: the adapter's parameters.
            cond: the condition; the entry that the adapter :attr:`reads` is needed.

        Raises:
            UserError: the condition has no such entry, or one of a wrong size.
        """
        return cast(Own, ())

    def residuals(self, own: Own) -> Sequence[Float[Array, "batch _ _ _"]]:
        """What is added inside the U-Net's encoder, given the result of :meth:`condition`."""
        return ()

    def adapt(
        self, host: Host, params: Params, features: Features, own: Own, inputs: Inputs
    ) -> Features:
        """The encoder's features as the decoder is to read them.

        Args:
            host: the U-Net.
            params: the adapter's parameters.
            features: the U-Net's own.
            own: the result of :meth:`condition`.
            inputs: what the U-Net reads.

        Raises:
            UserError: the condition was not of the size of ``inputs.z_t``.
        """
        return features

    def _needed(self, cond: Cond) -> Float[Array, "batch height width channels"]:
        """The condition's entry that the adapter reads."""
        if self.reads not in cond:
            raise UserError(
                f"the {self.kind} adapter needs cond[{self.reads!r}]; given: {sorted(cond)}."
            )
        return cond[self.reads]
