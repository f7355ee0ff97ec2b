"""Adapters: turn the encoder's features into condition-aware features.

Full CoDi, PE-CoDi, ControlNet and plain fine-tuning differ in the adapter and in which
parameters train, nowhere else. An adapter's parameters live beside the U-Net's:
``{"unet": ..., "adapter": ...}``.
"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codi_jax.models.configs import ControlNetConfig, UNetConfig
from codi_jax.models.resnet import conv3x3
from codi_jax.models.unet import Features, UNetDecoder, UNetEncoder
from codi_jax.typing import Array, Cond, Params, UserError

ADAPTERS = ("none", "mix", "controlnet")

_zero_conv = partial(
    nn.Conv, kernel_init=nn.initializers.zeros_init(), bias_init=nn.initializers.zeros_init()
)


class _HintEmbedding(nn.Module):
    """ControlNet's small pyramid: a hint image [B, H, W, 3] to the latent size."""

    config: ControlNetConfig
    out_channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hint: Array) -> Array:
        widths = self.config.conditioning_embedding_out_channels
        conv = partial(conv3x3, dtype=self.dtype)
        x = nn.silu(conv(widths[0], name="conv_in")(hint.astype(self.dtype)))
        for i, (narrow, wide) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            x = nn.silu(conv(narrow, name=f"blocks_{2 * i}")(x))
            x = nn.silu(conv(wide, strides=(2, 2), name=f"blocks_{2 * i + 1}")(x))
        zero = partial(_zero_conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), dtype=self.dtype)
        return zero(self.out_channels, name="conv_out")(x)


class ControlNetHead(nn.Module):
    """What ControlNet adds to its copied encoder: the hint embedding, the zero convolutions."""

    unet: UNetConfig
    config: ControlNetConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def embed(self, hint: Array) -> Array:
        """Hint image [B, H, W, 3] in [-1, 1] -> [B, h, w, C0]."""
        return _HintEmbedding(
            self.config,
            self.unet.block_out_channels[0],
            self.dtype,
            name="controlnet_cond_embedding",
        )(hint)


class ZeroConvs(nn.Module):
    """One zero-initialised 1x1 convolution per feature (Zhang & Agrawala 2023, equation 2)."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features) -> Features:
        def zero(x: Array, name: str) -> Array:
            return _zero_conv(x.shape[-1], (1, 1), dtype=self.dtype, name=name)(x)

        skips = tuple(zero(x, f"controlnet_down_blocks_{i}") for i, x in enumerate(features.skips))
        return Features(skips, zero(features.mid, "controlnet_mid_block"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptedUNet:
    """A U-Net with an adapter: the network ``w_theta(z_t, c, t)`` of the paper.

    The condition (``cond``) may hold

    * ``"latents"`` [B, h, w, C]: the condition image's latents (read by ``mix``);
    * ``"image"`` [B, H, W, 3] in [-1, 1]: the condition image (read by ``controlnet``);
    * ``"text"`` [B, S, D]: text embeddings, where the U-Net takes text;
    * ``"features"``: the result of :meth:`condition`, which then is not computed again.
    """

    unet: UNetConfig
    adapter: str = "none"
    controlnet: ControlNetConfig = dataclasses.field(default_factory=ControlNetConfig)
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        if self.adapter not in ADAPTERS:
            raise UserError(f"adapter={self.adapter!r} is unknown; choose one of {ADAPTERS}.")

    def init(self, key: Array) -> dict[str, Any]:
        """Random parameters, float32. The adapter's copied encoder *is* the U-Net's."""
        unet_key, adapter_key = jax.random.split(key)
        params: dict[str, Any] = {"unet": self._init_unet(unet_key)}
        if self.adapter != "none":
            params["adapter"] = self._init_adapter(adapter_key, params["unet"])
        return params

    def adapt(self, params: Params) -> dict[str, Any]:
        """Copy the U-Net's encoder into the adapter: run after a prior's weights were loaded."""
        adapted = dict(params)
        if self.adapter != "none":
            copied = {name: params["unet"][name] for name in self.encoder_names}
            # A true copy: the step donates its buffers, and one buffer can't be donated twice.
            adapted["adapter"] = {**params["adapter"], **jax.tree.map(jnp.copy, copied)}
        return adapted

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Top-level names of the encoder's parameters, in the U-Net and in its copy."""
        levels = range(len(self.unet.block_out_channels))
        return ("conv_in", "time_embedding", "mid_block", *(f"down_blocks_{i}" for i in levels))

    def condition(self, params: Params, cond: Cond) -> Any:
        """What depends on the condition alone, to be computed once per image.

        ``mix``: the features h_eta(c) of equation 10, a function of neither z_t nor t.
        ``controlnet``: the embedded hint (its encoder reads z_t and must run every step).
        ``none``: nothing.
        """
        if self.adapter == "none":
            return ()
        adapter = {"params": params["adapter"]}
        if self.adapter == "controlnet":
            return self._head.apply(adapter, _need(cond, "image", self.adapter), method="embed")
        latents = _need(cond, "latents", self.adapter)
        t = jnp.zeros((latents.shape[0],), jnp.int32)  # the fixed time of method section 2
        return self._encoder.apply(adapter, latents, t, cond.get("text"))[0]

    def predict(self, params: Params, z_t: Array, t: Array, cond: Cond) -> Array:
        """The network's output [B, h, w, out_channels] float32; a ``PredictFn``."""
        text = cond.get("text")
        features, temb = self._encoder.apply({"params": params["unet"]}, z_t, t, text)
        if self.adapter != "none":
            own = cond["features"] if "features" in cond else self.condition(params, cond)
            features = self._combine(params["adapter"], features, own, z_t, t, text)
        return self._decoder.apply({"params": params["unet"]}, features, temb, text)

    def _combine(
        self,
        adapter: Params,
        features: Features,
        own: Any,
        z_t: Array,
        t: Array,
        text: Array | None,
    ) -> Features:
        if self.adapter == "mix":
            mu = adapter["mu"].astype(self.dtype)
            # Equation 10. At mu = 0 this is h_theta exactly: 1 * h + 0 * h_eta.
            return jax.tree.map(lambda h, h_eta: (1 - mu) * h + mu * h_eta, features, own)
        control, _ = self._encoder.apply({"params": adapter}, z_t, t, text, own)
        residuals = ZeroConvs(self.dtype).apply({"params": adapter}, control)
        return jax.tree.map(jnp.add, features, residuals)

    @property
    def _encoder(self) -> UNetEncoder:
        return UNetEncoder(self.unet, self.dtype, self.remat)

    @property
    def _decoder(self) -> UNetDecoder:
        return UNetDecoder(self.unet, self.dtype, self.remat)

    @property
    def _head(self) -> ControlNetHead:
        return ControlNetHead(self.unet, self.controlnet, self.dtype)

    def _example(self) -> tuple[Array, Array, Array | None]:
        c = self.unet
        side = c.downsampling
        text = None if c.cross_attention_dim is None else jnp.zeros((1, 1, c.cross_attention_dim))
        return jnp.zeros((1, side, side, c.in_channels)), jnp.zeros((1,), jnp.int32), text

    def _init_unet(self, key: Array) -> dict[str, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        z, t, text = self._example()
        encoder = self._encoder.init(encoder_key, z, t, text)["params"]
        features, temb = self._encoder.apply({"params": encoder}, z, t, text)
        decoder = self._decoder.init(decoder_key, features, temb, text)["params"]
        return {**encoder, **decoder}

    def _init_adapter(self, key: Array, unet: Params) -> dict[str, Any]:
        adapter = {name: jax.tree.map(jnp.copy, unet[name]) for name in self.encoder_names}
        if self.adapter == "mix":
            return {**adapter, "mu": jnp.zeros((), jnp.float32)}
        z, t, text = self._example()
        scale = 2 ** (len(self.controlnet.conditioning_embedding_out_channels) - 1)
        channels = self.controlnet.conditioning_channels
        hint = jnp.zeros((1, z.shape[1] * scale, z.shape[2] * scale, channels))
        head = self._head.init(key, hint, method="embed")["params"]
        features, _ = self._encoder.apply({"params": adapter}, z, t, text)
        zeros = ZeroConvs(self.dtype).init(key, features)["params"]
        return {**adapter, **head, **zeros}


def _need(cond: Cond, name: str, adapter: str) -> Array:
    if name not in cond:
        raise UserError(f"the {adapter} adapter needs cond[{name!r}]; given: {sorted(cond)}.")
    return cond[name]
