"""Pictures from a pipeline: the jitted samplers that evaluation and users share."""

from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import sr_condition, to_uint8
from codi_jax.typing import Array, Cond, Params


class PictureSampler:
    """Sampling of one architecture; parameters are arguments, so they may change.

    Text, where the U-Net takes it, is "text" [1 or B, S, D] (and with two text encoders
    "text_embeds" [1 or B, P]), as :class:`codi_jax.checkpoint.prompts.PromptEncoder` gives it.

    Args:
        pipeline: networks and schedule; its parameters are not used.
        dtype: of the computation.
    """

    def __init__(self, pipeline: Pipeline, dtype: Any = jnp.float32):
        self.pipeline = pipeline
        self.vae = AutoencoderKL(pipeline.vae, dtype)
        self.image_condition = jax.jit(
            lambda params, lr: sr_condition(self.vae, params, lr, pipeline.scale)
        )
        self._sample = jax.jit(self.sample_latents, static_argnames=("steps", "sampler"))
        self._decode = jax.jit(
            lambda params, z: to_uint8(self.vae.apply({"params": params}, z, method="decode"))
        )

    def super_resolve(
        self,
        params: Params,
        lr: Array,
        key: Array,
        steps: int,
        text: Cond | None = None,
        negative: Cond | None = None,
        guidance_scale: float = 1.0,
        sampler: SamplerConfig | None = None,
    ) -> Array:
        """uint8 [B, h, w, 3] -> uint8 [B, h * scale, w * scale, 3] in ``steps`` steps.

        ``key`` is that of all noise, ``negative`` the text of the other side of classifier-free
        guidance; ``sampler`` defaults to few-step DDIM.
        """
        image = self.image_condition(params["vae"], lr)
        noise = initial_noise(key, image["latents"].shape)
        cond = {**image, **self.text_condition(text or {}, noise.shape)}
        uncond = None
        if negative is not None:
            uncond = {**image, **self.text_condition(negative, noise.shape)}
        z = self._sample(
            params,
            noise,
            cond,
            uncond,
            guidance_scale,
            steps=steps,
            sampler=sampler,
            key=sampling_key(key),
        )
        return self._decode(params["vae"], z)

    def generate(
        self,
        params: Params,
        noise: Array,
        steps: int,
        text: Cond | None = None,
        negative: Cond | None = None,
        guidance_scale: float = 1.0,
        sampler: SamplerConfig | None = None,
        key: Array | None = None,
    ) -> Array:
        """uint8 pictures from ``noise`` [B, h, w, C]; ``sampler`` defaults to few-step DDIM.

        A stochastic one needs a ``key``.
        """
        cond = self.text_condition(text or {}, noise.shape)
        uncond = None if negative is None else self.text_condition(negative, noise.shape)
        z = self._sample(
            params, noise, cond, uncond, guidance_scale, steps=steps, sampler=sampler, key=key
        )
        return self._decode(params["vae"], z)

    def text_condition(self, text: Cond, latents_shape: tuple[int, ...]) -> dict[str, Array]:
        """``text`` for every picture of a batch, with the size that SDXL's U-Net also reads."""
        batch, height, width = latents_shape[:3]
        cond = {
            name: jnp.broadcast_to(value, (batch, *value.shape[1:])) for name, value in text.items()
        }
        if "text_embeds" in cond:
            h, w = height * self.pipeline.vae.downsampling, width * self.pipeline.vae.downsampling
            # Original size, upper left corner of the crop, target size.
            cond["time_ids"] = jnp.tile(jnp.asarray([[h, w, 0, 0, h, w]], jnp.float32), (batch, 1))
        return cond

    def sample_latents(
        self,
        params: Params,
        noise: Array,
        cond: Cond,
        uncond: Cond | None,
        guidance_scale: Array | float,
        steps: int,
        sampler: SamplerConfig | None = None,
        key: Array | None = None,
    ) -> Array:
        """Latents from ``noise``, see :func:`codi_jax.diffusion.sampler.sample`.

        Classifier-free guidance where ``uncond`` is given; a network that was distilled for many
        scales reads ``guidance_scale`` instead.
        """
        p, network = self.pipeline, self.pipeline.unet
        assert network is not None and p.schedule is not None
        if network.unet.time_cond_proj_dim is not None:
            scale = jnp.asarray(guidance_scale, jnp.float32)
            cond = {**cond, "guidance_scale": jnp.broadcast_to(scale, noise.shape[:1])}
            uncond = None

        def prepared(condition: Cond) -> Cond:
            # Once per image, not once per step: h_eta depends on neither z_t nor t.
            return {**condition, "features": network.condition(params, condition)}

        return sample(
            network.predict,
            params,
            p.schedule,
            p.prediction_type,
            noise,
            prepared(cond),
            num_inference_steps=steps,
            uncond=None if uncond is None else prepared(uncond),
            guidance_scale=1.0 if uncond is None else guidance_scale,
            sampler=sampler or SamplerConfig(),
            key=key,
        )


def sampling_key(key: Array) -> Array:
    """The key of a stochastic solver's noise; ``key``, one or [B], is the initial noise's."""
    return jax.random.fold_in(key, 1) if key.ndim == 0 else jax.vmap(sampling_key)(key)
