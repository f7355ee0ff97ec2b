"""Pictures from a model: the jitted samplers that evaluation and users share."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.guidance import two_guidances
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import Model
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import signed_to_uint8, size_ids
from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_of
from codi_jax.typing import Array, Cond, Params, UserError


class PictureSampler:
    """Sampling of one architecture; parameters are arguments, so they may change.

    Text, where the U-Net takes it, is "text" [1 or B, S, D] (and with two text encoders
    "text_embeds" [1 or B, P]), as :class:`codi_jax.checkpoint.prompts.PromptEncoder` gives it.

    Args:
        model: networks and schedule; its parameters are not used.
        dtype: of the computation.
        task: by default the one that the model was made for.
    """

    def __init__(self, model: Model, dtype: Any = jnp.float32, task: Task | None = None):
        self.model = model
        self.vae = make_autoencoder(model.vae, dtype)
        self.task = task or task_of(model)
        self.image_condition = jax.jit(
            lambda vae_params, batch: self.task.condition(self.vae, vae_params, batch)
        )
        self._sample = jax.jit(self.sample_latents, static_argnames=("steps", "sampler"))
        self._decode = jax.jit(
            lambda params, z: signed_to_uint8(
                self.vae.apply({"params": params}, z, method="decode")
            )
        )

    def conditional(
        self,
        params: Params,
        batch: Mapping[str, Any],
        key: Array,
        steps: int,
        text: Cond | None = None,
        negative: Cond | None = None,
        guidance_scale: float = 1.0,
        image_guidance_scale: float = 1.0,
        sampler: SamplerConfig | None = None,
    ) -> Array:
        """Pictures for the arrays that the task reads: uint8 [B, H, W, 3] in ``steps`` steps.

        ``key`` is that of all noise. ``negative`` is the text of the other side of classifier-free
        guidance, for which the task also leaves out what it reads of the prompt.
        ``image_guidance_scale`` weighs the picture against none (see :func:`two_guidances`) and
        needs ``negative`` too. ``sampler`` defaults to the model's.

        Raises:
            UserError: the task has no guidance by the image.
        """
        task = self.task

        def entries(arrays: Mapping[str, Any], words: Cond) -> dict[str, Array]:
            image = self.image_condition(params["vae"], arrays)
            return {**image, **self.text_condition(words, image["latents"].shape)}

        cond: dict[str, Any] = entries(batch, text or {})
        uncond = None
        shape = (*cond["latents"].shape[:3], self.model.vae.latent_channels)
        noise = initial_noise(key, shape)
        if negative is not None:
            uncond = entries(task.without_prompt(batch), negative)
        if image_guidance_scale != 1.0:
            assert negative is not None
            none = entries(task.without_picture(task.without_prompt(batch)), negative)
            scales = jnp.tile(jnp.asarray([[image_guidance_scale, guidance_scale]]), (shape[0], 1))
            cond, uncond = {"full": cond, "image": uncond, "none": none, "scales": scales}, None
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
        """uint8 pictures from ``noise`` [B, h, w, C]; ``sampler`` defaults to the model's.

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
            factor = self.model.vae.downsampling
            cond["time_ids"] = size_ids(batch, height * factor, width * factor)
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
        scales reads ``guidance_scale`` instead. With the four entries of :func:`two_guidances` in
        ``cond``: guidance by image and text.

        Raises:
            UserError: both of the last two.
        """
        p, network = self.model, self.model.network
        two = "full" in cond
        if network.unet.time_cond_proj_dim is not None:
            if two:
                raise UserError(
                    "this model reads one guidance scale and has no guidance by the image: leave "
                    "image_guidance_scale out."
                )
            scale = jnp.asarray(guidance_scale, jnp.float32)
            cond = {**cond, "guidance_scale": jnp.broadcast_to(scale, noise.shape[:1])}
            uncond = None

        def prepared(condition: Cond) -> Cond:
            if "full" in condition:
                parts = {name: prepared(condition[name]) for name in ("full", "image", "none")}
                return {**parts, "scales": condition["scales"]}
            # Once per image, not once per step: h_eta depends on neither z_t nor t.
            return {**condition, "features": network.condition(params, condition)}

        return sample(
            two_guidances(network.predict) if two else network.predict,
            params,
            p.schedule,
            p.prediction_type,
            noise,
            prepared(cond),
            num_inference_steps=steps,
            uncond=None if uncond is None else prepared(uncond),
            guidance_scale=1.0 if uncond is None else guidance_scale,
            sampler=sampler or p.sampler,
            key=key,
        )


def sampling_key(key: Array) -> Array:
    """The key of a stochastic solver's noise; ``key``, one or [B], is the initial noise's."""
    return jax.random.fold_in(key, 1) if key.ndim == 0 else jax.vmap(sampling_key)(key)
