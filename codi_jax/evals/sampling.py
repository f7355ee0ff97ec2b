"""Pictures from a pipeline: the jitted samplers that evaluation and users share."""

from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import sr_condition, to_uint8
from codi_jax.typing import Array, Cond, Params


class PictureSampler:
    """Sampling of one architecture; parameters are arguments, so they may change.

    Args:
        pipeline: networks and schedule; its parameters are not used.
        dtype: of the computation.
    """

    def __init__(self, pipeline: Pipeline, dtype: Any = jnp.float32):
        self.pipeline = pipeline
        self.vae = AutoencoderKL(pipeline.vae, dtype)
        self._encode_lr = jax.jit(
            lambda params, lr: sr_condition(self.vae, params, lr, pipeline.scale)
        )
        self._sample = jax.jit(self._sample_latents, static_argnames=("steps",))
        self._decode = jax.jit(
            lambda params, z: to_uint8(self.vae.apply({"params": params}, z, method="decode"))
        )

    def super_resolve(self, params: Params, lr: Array, key: Array, steps: int) -> Array:
        """uint8 [B, h, w, 3] -> uint8 [B, h * scale, w * scale, 3] in ``steps`` steps."""
        cond = self._encode_lr(params["vae"], lr)
        noise = initial_noise(key, cond["latents"].shape)
        return self._decode(params["vae"], self._sample(params, noise, cond, steps=steps))

    def generate(self, params: Params, key: Array, shape: tuple[int, ...], steps: int) -> Array:
        """uint8 pictures from noise of the latent ``shape`` [B, h, w, C]."""
        noise = initial_noise(key, shape)
        return self._decode(params["vae"], self._sample(params, noise, {}, steps=steps))

    def _sample_latents(self, params: Params, noise: Array, cond: Cond, steps: int) -> Array:
        p = self.pipeline
        assert p.unet is not None and p.schedule is not None
        # Once per image, not once per step: h_eta depends on neither z_t nor t.
        cond = {**cond, "features": p.unet.condition(params, cond)}
        return sample(
            p.unet.predict,
            params,
            p.schedule,
            p.prediction_type,
            noise,
            cond,
            num_inference_steps=steps,
        )
