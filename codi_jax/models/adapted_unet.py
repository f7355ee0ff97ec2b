"""The network of the paper: a U-Net with an adapter, which makes its features know the condition.

Full CoDi, PE-CoDi, ControlNet, T2I-Adapter and plain fine-tuning differ in the adapter and in
which parameters train, nowhere else. An adapter's parameters live beside the U-Net's:
``{"unet": ..., "adapter": ...}``.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Real

from codi_jax.models.adapters.base import Adapter, Host, Inputs
from codi_jax.models.adapters.none import NoAdapter
from codi_jax.models.adapters.registry import adapter_class
from codi_jax.models.configs import UNetConfig
from codi_jax.models.embeddings import Prompt
from codi_jax.models.part_init import PartInit, draw_parts
from codi_jax.models.remat import remat_network
from codi_jax.typing import Cond, Params, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptedUNet:
    """A U-Net with an adapter: the network ``w_theta(z_t, c, t)`` of the paper.

    The condition (``cond``) may hold

    * ``"latents"`` [B, h, w, C]: the condition image's latents, and perhaps more channels;
    * ``"image"`` [B, H, W, 3 or more] in [-1, 1]: the condition image (an adapter reads one of the
      two);
    * ``"text"`` [B, S, D]: text embeddings, where the U-Net takes text;
    * ``"text_embeds"`` [B, P], ``"time_ids"`` [B, 6]: see :class:`Prompt`, for SDXL;
    * ``"guidance_scale"`` [B]: where the U-Net reads it;
    * ``"features"``: the result of :meth:`condition`, which then is not computed again.

    Attributes:
        unet: the U-Net's architecture.
        adapter: the adapter's.
        dtype: what is computed in; parameters and output are float32.
        remat: what is kept for the gradient, see :mod:`codi_jax.models.remat`.

    Raises:
        UserError: the adapter belongs to another U-Net.
    """

    unet: UNetConfig
    adapter: Adapter = NoAdapter()
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapter", self.adapter.fitted(self.unet))

    @property
    def has_adapter(self) -> bool:
        """Whether there is an adapter with parameters of its own."""
        return self.adapter.class_name is not None

    def with_adapter(
        self, kind: str, downsampling: int, *, image_channels: int = 3, extra_latents: int = 0
    ) -> "AdaptedUNet":
        """This U-Net with a new adapter.

        Args:
            kind: its name.
            downsampling: the autoencoder's.
            image_channels: of the condition's "image".
            extra_latents: channels of the condition's "latents" beyond the U-Net's.

        Raises:
            UserError: there is no adapter of this name.
        """
        adapter = adapter_class(kind).new(
            self.unet, downsampling, image_channels=image_channels, extra_latents=extra_latents
        )
        return dataclasses.replace(self, adapter=adapter)

    def without_adapter(self) -> "AdaptedUNet":
        """The U-Net alone; it takes the same parameters."""
        return dataclasses.replace(self, adapter=NoAdapter())

    def init(self, key: Key[Array, ""]) -> Params:
        """Random parameters, float32. The adapter's copied encoder equals the U-Net's."""
        return draw_parts(self.inits.items(), key)

    @property
    def inits(self) -> dict[str, PartInit]:
        """How each part is drawn, the U-Net before the adapter that may copy it."""
        inits = {"unet": PartInit(_init_unet, self.unet)}
        if self.has_adapter:
            # How it computes makes no difference to its parameters.
            plain = dataclasses.replace(self, dtype=jnp.float32, remat="none")
            inits["adapter"] = PartInit(_init_adapter, plain)
        return inits

    def copy_encoder(self, params: Params) -> Params:
        """Copy the U-Net's encoder into the adapter: run after a prior's weights were loaded.

        An adapter without such a copy stays as it is.

        Raises:
            UserError: the adapter is a ControlNet with an encoder of its own kind.
        """
        copied = dict(params)
        if self.has_adapter:
            adapter, unet = params["adapter"], params["unet"]
            copied["adapter"] = self.adapter.copy_encoder(self._host, adapter, unet)
        return copied

    def condition(self, params: Params, cond: Cond) -> PyTree:
        """What depends on the condition alone, to be computed once per image."""
        return self.adapter.condition(self._host, self._adapter_params(params), cond)

    def predict(
        self,
        params: Params,
        z_t: Float[Array, "batch height width channels"],
        t: Real[Array, " batch"],
        cond: Cond,
    ) -> Float[Array, "batch height width out_channels"]:
        """The network's output, float32; a ``PredictFn``."""
        return remat_network(self._predict, self.remat)(params, z_t, t, cond)

    def _predict(
        self,
        params: Params,
        z_t: Float[Array, "batch height width channels"],
        t: Real[Array, " batch"],
        cond: Cond,
    ) -> Float[Array, "batch height width out_channels"]:
        prompt, unet, host = Prompt.of(cond), {"params": params["unet"]}, self._host
        own = cond["features"] if "features" in cond else self.condition(params, cond)
        residuals = self.adapter.residuals(own)
        features, temb = host.encoder().apply(unet, z_t, t, prompt, residuals=residuals)
        inputs = Inputs(z_t, t, prompt)
        features = self.adapter.adapt(host, self._adapter_params(params), features, own, inputs)
        return host.decoder().apply(unet, features, temb, prompt.text)

    def _adapter_params(self, params: Params) -> Params:
        return params["adapter"] if self.has_adapter else {}

    @property
    def _host(self) -> Host:
        return Host(config=self.unet, dtype=self.dtype, remat=self.remat)


# A plan asks for the shapes, a start for the parameters: flax is traced for both once.
@functools.partial(jax.jit, static_argnums=0)
def _init_unet(config: UNetConfig, key: Key[Array, ""], drawn: Params) -> Params:
    encoder_key, decoder_key = jax.random.split(jax.random.split(key)[0])
    host = Host(config=config)
    z, t, prompt = host.example()
    encoder = host.encoder()
    params = encoder.lazy_init(encoder_key, z, t, prompt)["params"]
    features, temb = jax.eval_shape(encoder.apply, {"params": params}, z, t, prompt)
    decoder = host.decoder().lazy_init(decoder_key, features, temb, prompt.text)["params"]
    return {**params, **decoder}


@functools.partial(jax.jit, static_argnums=0)
def _init_adapter(network: AdaptedUNet, key: Key[Array, ""], drawn: Params) -> Params:
    return network.adapter.init(network._host, jax.random.split(key)[1], drawn["unet"])
