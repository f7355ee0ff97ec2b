"""Adapters: turn the encoder's features into condition-aware features.

Full CoDi, PE-CoDi, ControlNet, T2I-Adapter and plain fine-tuning differ in the adapter and in
which parameters train, nowhere else. An adapter's parameters live beside the U-Net's:
``{"unet": ..., "adapter": ...}``.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codi_jax.models.configs import ControlNetConfig, EncoderConfig, UNetConfig
from codi_jax.models.controlnet import HintEmbedding, ZeroConvs
from codi_jax.models.t2i_adapter import T2IAdapter, T2IAdapterConfig
from codi_jax.models.unet import Features, Prompt, UNetDecoder, UNetEncoder
from codi_jax.typing import Array, Cond, Params, UserError

ADAPTERS = ("none", "mix", "controlnet", "t2i")
#: What a ControlNet and its U-Net must agree on: inputs, and the shapes of the features.
SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptedUNet:
    """A U-Net with an adapter: the network ``w_theta(z_t, c, t)`` of the paper.

    The condition (``cond``) may hold

    * ``"latents"`` [B, h, w, C]: the condition image's latents, and perhaps more channels (read
      by ``mix``);
    * ``"image"`` [B, H, W, 3 or more] in [-1, 1]: the condition image (``controlnet``, ``t2i``);
    * ``"text"`` [B, S, D]: text embeddings, where the U-Net takes text;
    * ``"text_embeds"`` [B, P], ``"time_ids"`` [B, 6]: see :class:`Prompt`, for SDXL;
    * ``"guidance_scale"`` [B]: where the U-Net reads it;
    * ``"features"``: the result of :meth:`condition`, which then is not computed again.

    ``controlnet`` and ``t2i`` are read by the adapters of these names. ``extra_latents`` are the
    channels of "latents" beyond the U-Net's; they start with zero weights.

    Raises:
        UserError: an unknown adapter, or one that belongs to another U-Net.
    """

    unet: UNetConfig
    adapter: str = "none"
    controlnet: ControlNetConfig = dataclasses.field(default_factory=ControlNetConfig)
    t2i: T2IAdapterConfig = dataclasses.field(default_factory=T2IAdapterConfig)
    extra_latents: int = 0
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        if self.adapter not in ADAPTERS:
            raise UserError(f"adapter={self.adapter!r} is unknown; choose one of {ADAPTERS}.")
        if self.adapter == "controlnet":
            # From here on the ControlNet's config describes the whole of it.
            encoder = self.controlnet.encoder or self._copied_encoder
            whole = dataclasses.replace(self.controlnet, encoder=encoder)
            object.__setattr__(self, "controlnet", whole)
            for key in SHARED:
                self._check_fit(key, getattr(encoder, key), getattr(self.unet, key))
        if self.adapter == "t2i":
            widths = self.unet.block_out_channels
            given = tuple(width for width, _ in self.t2i.blocks)
            # One feature more than the U-Net has levels is added to the mid block.
            expected = (*widths, widths[-1]) if len(given) > len(widths) else widths
            self._check_fit("channels", given, expected)

    def _check_fit(self, key: str, own: Any, unets: Any) -> None:
        if own != unets:
            raise UserError(
                f"the {self.adapter} adapter has {key}={own} where its U-Net needs {unets}: "
                "it belongs to another model."
            )

    def with_adapter(
        self, kind: str, downsampling: int, *, image_channels: int = 3, extra_latents: int = 0
    ) -> "AdaptedUNet":
        """This U-Net with a new adapter.

        Args:
            kind: its name.
            downsampling: the autoencoder's.
            image_channels: of the condition's "image".
            extra_latents: channels of the condition's "latents" beyond the U-Net's.
        """
        levels = downsampling.bit_length()  # of ControlNet's pyramid: one more than it halves
        hint = ControlNetConfig().conditioning_embedding_out_channels[-levels:]
        # Without attention in the first level its feature comes after the downsampler, as in SDXL.
        late = self.unet.down_block_types[0] == "DownBlock2D"
        return dataclasses.replace(
            self,
            adapter=kind,
            extra_latents=extra_latents,
            controlnet=ControlNetConfig(
                conditioning_channels=image_channels, conditioning_embedding_out_channels=hint
            ),
            t2i=T2IAdapterConfig(
                in_channels=image_channels,
                channels=self.unet.block_out_channels,
                downscale_factor=2 * downsampling if late else downsampling,
                adapter_type="full_adapter_xl" if late else "full_adapter",
            ),
        )

    def init(self, key: Array) -> dict[str, Any]:
        """Random parameters, float32. The adapter's copied encoder *is* the U-Net's."""
        unet_key, adapter_key = jax.random.split(key)
        params: dict[str, Any] = {"unet": self._init_unet(unet_key)}
        if self.adapter != "none":
            params["adapter"] = self._init_adapter(adapter_key, params["unet"])
        return params

    def adapt(self, params: Params) -> dict[str, Any]:
        """Copy the U-Net's encoder into the adapter: run after a prior's weights were loaded.

        A T2I-Adapter has no such copy and stays as it is.

        Raises:
            UserError: the adapter is a ControlNet with an encoder of its own kind.
        """
        adapted = dict(params)
        if self.adapter in ("mix", "controlnet"):
            if self._encoder_config != self._copied_encoder:
                raise UserError(
                    "this ControlNet's encoder differs from the U-Net's and cannot start as its "
                    "copy: load its weights, or leave the encoder's keys out of its config."
                )
            adapted["adapter"] = {**params["adapter"], **self._copy_of(params["unet"])}
        return adapted

    def _copy_of(self, unet: Params) -> dict[str, Any]:
        copied = {name: unet[name] for name in self.encoder_names}
        if self.adapter == "controlnet":
            time = copied["time_embedding"]
            copied["time_embedding"] = {k: v for k, v in time.items() if k != "cond_proj"}
        if self.adapter == "mix":  # further inputs get zeros, so they change nothing yet
            kernel = copied["conv_in"]["kernel"]  # [3, 3, in, out]
            more = ((0, 0), (0, 0), (0, self.extra_latents), (0, 0))
            copied["conv_in"] = {**copied["conv_in"], "kernel": jnp.pad(kernel, more)}
        # A true copy: the step donates its buffers, and one buffer can't be donated twice.
        return jax.tree.map(jnp.copy, copied)

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Top-level names of the encoder's parameters, in the U-Net and in its copy."""
        levels = range(len(self.unet.block_out_channels))
        added = ("add_embedding",) if self.unet.addition_embed_type else ()
        blocks = (f"down_blocks_{i}" for i in levels)
        return ("conv_in", "time_embedding", *added, "mid_block", *blocks)

    def condition(self, params: Params, cond: Cond) -> Any:
        """What depends on the condition alone, to be computed once per image.

        ``mix``: the features h_eta(c) of equation 10, a function of neither z_t nor t.
        ``controlnet``: the embedded hint (its encoder reads z_t and must run every step).
        ``t2i``: all its features.
        ``none``: nothing.
        """
        if self.adapter == "none":
            return ()
        adapter = {"params": params["adapter"]}
        if self.adapter != "mix":
            image = _need(cond, "image", self.adapter)
            return self._image_reader.apply(adapter, image)
        latents = _need(cond, "latents", self.adapter)
        t = jnp.zeros((latents.shape[0],), jnp.int32)  # the fixed time of method section 2
        encoder = UNetEncoder(self._encoder_config, self.dtype, self.remat)
        return encoder.apply(adapter, latents, t, Prompt.of(cond))[0]

    def predict(self, params: Params, z_t: Array, t: Array, cond: Cond) -> Array:
        """The network's output [B, h, w, out_channels] float32; a ``PredictFn``."""
        prompt, unet = Prompt.of(cond), {"params": params["unet"]}
        own = cond["features"] if "features" in cond else self.condition(params, cond)
        residuals = own if self.adapter == "t2i" else ()
        features, temb = self._encoder.apply(unet, z_t, t, prompt, residuals=residuals)
        if self.adapter == "mix":
            features = self._mix(params["adapter"], features, own)
        if self.adapter == "controlnet":
            features = self._control(params["adapter"], features, own, z_t, t, prompt)
        return self._decoder.apply(unet, features, temb, prompt.text)

    def _mix(self, adapter: Params, features: Features, own: Features) -> Features:
        given, wanted = own.skips[0].shape[:3], features.skips[0].shape[:3]
        if given != wanted:
            raise UserError(
                f"the condition's latents are {list(given)} but z_t is {list(wanted)} (batch, "
                "height, width): enlarge the condition image to the target's size."
            )
        mu = adapter["mu"].astype(self.dtype)
        # Equation 10. At mu = 0 this is h_theta exactly: 1 * h + 0 * h_eta.
        return jax.tree.map(lambda h, h_eta: (1 - mu) * h + mu * h_eta, features, own)

    def _control(
        self,
        adapter: Params,
        features: Features,
        hint: Array,
        z_t: Array,
        t: Array,
        prompt: Prompt,
    ) -> Features:
        if hint.shape[:3] != z_t.shape[:3]:
            raise UserError(
                f"the embedded condition image is {list(hint.shape[:3])} but z_t is "
                f"{list(z_t.shape[:3])} (batch, height, width): this ControlNet needs images "
                f"{self.controlnet.downsampling} times as large as the latents."
            )
        variables = {"params": adapter}
        encoder = UNetEncoder(self._encoder_config, self.dtype, self.remat)
        control, _ = encoder.apply(variables, z_t, t, prompt, hint)
        return jax.tree.map(jnp.add, features, self._zero_convs.apply(variables, control))

    @property
    def _encoder(self) -> UNetEncoder:
        return UNetEncoder(self.unet, self.dtype, self.remat)

    @property
    def _decoder(self) -> UNetDecoder:
        return UNetDecoder(self.unet, self.dtype, self.remat)

    @property
    def _encoder_config(self) -> EncoderConfig:
        """Of the adapter's own encoder."""
        own = self.controlnet.encoder if self.adapter == "controlnet" else None
        return own or self._copied_encoder

    @property
    def mix_in_channels(self) -> int:
        """Channels of the condition's "latents", all together."""
        return self.unet.in_channels + self.extra_latents

    @property
    def _copied_encoder(self) -> EncoderConfig:
        """What the adapter's encoder is where it starts as a copy of the U-Net's."""
        encoder = self.unet.encoder
        if self.adapter == "controlnet":  # in diffusers, a ControlNet reads no guidance scale
            encoder = dataclasses.replace(encoder, time_cond_proj_dim=None)
        if self.adapter == "mix":
            encoder = dataclasses.replace(encoder, in_channels=self.mix_in_channels)
        return encoder

    @property
    def _zero_convs(self) -> ZeroConvs:
        return ZeroConvs(self.controlnet.global_pool_conditions, self.dtype)

    @property
    def _image_reader(self) -> nn.Module:
        """What reads cond["image"]."""
        if self.adapter == "t2i":
            return T2IAdapter(self.t2i, self.dtype)
        return HintEmbedding(self.controlnet, self.unet.block_out_channels[0], self.dtype)

    def _example(self) -> tuple[Array, Array, Prompt]:
        c = self.unet
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
        return jnp.zeros((1, side, side, c.in_channels)), jnp.zeros((1,), jnp.int32), prompt

    def _init_unet(self, key: Array) -> dict[str, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        z, t, prompt = self._example()
        encoder = self._encoder.init(encoder_key, z, t, prompt)["params"]
        features, temb = self._encoder.apply({"params": encoder}, z, t, prompt)
        decoder = self._decoder.init(decoder_key, features, temb, prompt.text)["params"]
        return {**encoder, **decoder}

    def _init_adapter(self, key: Array, unet: Params) -> dict[str, Any]:
        z, t, prompt = self._example()
        if self.adapter == "t2i":
            side = self.t2i.downsampling
            image = jnp.zeros((1, side, side, self.t2i.in_channels))
            return self._image_reader.init(key, image)["params"]
        encoder = UNetEncoder(self._encoder_config, self.dtype)
        if self._encoder_config == self._copied_encoder:
            adapter = self._copy_of(unet)
        else:
            adapter = encoder.init(key, z, t, prompt)["params"]
        if self.adapter == "mix":
            return {**adapter, "mu": jnp.zeros((), jnp.float32)}
        scale = self.controlnet.downsampling
        channels = self.controlnet.conditioning_channels
        hint = jnp.zeros((1, z.shape[1] * scale, z.shape[2] * scale, channels))
        head = self._image_reader.init(key, hint)["params"]
        features, _ = encoder.apply({"params": adapter}, z, t, prompt)
        return {**adapter, **head, **self._zero_convs.init(key, features)["params"]}


def _need(cond: Cond, name: str, adapter: str) -> Array:
    if name not in cond:
        raise UserError(f"the {adapter} adapter needs cond[{name!r}]; given: {sorted(cond)}.")
    return cond[name]
