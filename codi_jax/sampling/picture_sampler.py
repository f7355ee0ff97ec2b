"""The jitted programs that turn conditions and noise into pictures."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, UInt8

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.model import Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import Autoencoder, make_autoencoder
from codi_jax.models.conditioning import signed_to_uint8, size_ids
from codi_jax.models.winograd import convolutions_for
from codi_jax.parallel.compiling import compiler_options, jit_noise
from codi_jax.tasks.base import Batch, Task
from codi_jax.tasks.registry import task_of
from codi_jax.typing import Cond, Params, UserError

_T = TypeVar("_T")
#: A condition without text and without guidance.
NO_TEXT = GuidedCondition()


class PictureSampler:
    """The sampling programs of one architecture, for batches of arrays and any parameters.

    A run evaluates its changing parameters with it, and stages of a study share it. It knows
    neither files nor PIL images, nor text encoders: :class:`codi_jax.sampling.sampler.Sampler`
    adds these, holds the parameters of one model, and is what users call.

    Text, where the U-Net reads it, is "text" [1 or B, S, D] (and with two text encoders
    "text_embeds" [1 or B, P]), as :class:`codi_jax.checkpoint.prompts.PromptEncoder` makes it.

    Args:
        model: networks and schedule; its parameters are not used.
        dtype: of the computation.
        task: what the model is used for; by default what it was made for.
        jitted: False for what is a part of a larger program that the caller compiles.
    """

    def __init__(
        self,
        model: Model,
        dtype: DTypeLike = jnp.float32,
        task: Task | None = None,
        jitted: bool = True,
    ):
        self.model = model
        self.vae = make_autoencoder(model.vae, dtype)
        self.task = task or task_of(model)
        self.image_condition: Callable[..., dict[str, Array]] = self._image_condition
        self._latents: Callable[..., Array] = _latents
        self._decode: Callable[..., Array] = _decode
        self.initial_noise: Callable[..., Array] = initial_noise
        if jitted:
            self.image_condition = _jit(self._image_condition)
            self._latents, self._decode = _jit_latents(), _jit_decode()
            self.initial_noise = jit_noise(initial_noise, "shape")

    def _image_condition(self, vae_params: Params, batch: Batch) -> dict[str, Array]:
        return self.task.condition(self.vae, vae_params, batch)

    def conditional(
        self,
        params: Params,
        batch: Batch,
        key: Key[Array, "..."],
        steps: int,
        text: GuidedCondition = NO_TEXT,
        sampler: SamplerConfig | None = None,
    ) -> UInt8[Array, "batch height width 3"]:
        """Pictures for the arrays that the task reads.

        Args:
            params: of the model.
            batch: the arrays, [B, ...] each.
            key: of all noise, one or [B].
            steps: number of sampling steps.
            text: entries of the texts, and the weights of guidance. The task leaves out of the
                other sides what it reads of the prompt and of the picture.
            sampler: by default the model's own.

        Raises:
            UserError: guidance by the image, and the task or the network has none.
        """

        def entries(arrays: Batch, words: Cond) -> dict[str, Array]:
            image = self.image_condition(params["vae"], arrays)
            return {**image, **self.text_condition(words, image["latents"].shape)}

        uncond = none = None
        cond = entries(batch, text.cond)
        if text.uncond is not None:
            uncond = entries(self.task.without_prompt(batch), text.uncond)
        if text.none is not None:
            bare = self.task.without_picture(self.task.without_prompt(batch))
            none = entries(bare, text.none)
        condition = text._replace(cond=cond, uncond=uncond, none=none)
        shape = (*cond["latents"].shape[:3], self.model.vae.latent_channels)
        noise = self.initial_noise(key, shape)
        z = self.sample_latents(params, noise, condition, steps, sampler, sampling_key(key))
        return self._decode(params["vae"], z, vae=self.vae)

    def generate(
        self,
        params: Params,
        noise: Float[Array, "batch height width channels"],
        steps: int,
        text: GuidedCondition = NO_TEXT,
        sampler: SamplerConfig | None = None,
        key: Key[Array, "..."] | None = None,
    ) -> UInt8[Array, "batch picture_height picture_width 3"]:
        """Pictures from noise alone, with a prior.

        Args:
            params: of the model.
            noise: the initial latents.
            steps: number of sampling steps.
            text: entries of the texts, and the weight of guidance.
            sampler: by default the model's own.
            key: of the noise of a stochastic sampler; others need none.
        """
        condition = text.map(lambda words: self.text_condition(words, noise.shape))
        z = self.sample_latents(params, noise, condition, steps, sampler, key)
        return self._decode(params["vae"], z, vae=self.vae)

    def padded(self, array: Array | np.ndarray) -> Array:
        """Pictures and maps [B, h, w, ...], to latents that the U-Net can halve; the rest stays.

        Edges repeat, and are to be cropped off the result.
        """
        if array.ndim < 3:
            return jnp.asarray(array)
        # Also in steps of 16 of the input: fewer shapes, fewer compilations.
        multiple = max(-(-self.model.multiple // self.model.scale), 16)
        missing = [(0, -size % multiple) for size in array.shape[1:3]]
        return jnp.pad(array, [(0, 0), *missing, *[(0, 0)] * (array.ndim - 3)], mode="edge")

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
        noise: Float[Array, "batch height width channels"],
        condition: GuidedCondition,
        steps: int,
        sampler: SamplerConfig | None = None,
        key: Key[Array, "..."] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Latents from noise, see :func:`codi_jax.diffusion.sampler.sample`.

        A network that was distilled for many guidance scales reads the scale itself, in place of
        a second call on ``condition.uncond``.

        Raises:
            UserError: guidance by the image, for such a network.
        """
        return self._latents(
            params,
            noise,
            self.with_scale_read(condition, noise.shape[0]),
            key,
            network=self.model.network,
            schedule=self.model.schedule,
            prediction_type=self.model.prediction_type,
            steps=steps,
            sampler=sampler or self.model.sampler.usable(),
        )

    def with_scale_read(self, condition: GuidedCondition, batch: int) -> GuidedCondition:
        """The condition as a network reads it that was distilled for many guidance scales.

        Raises:
            UserError: guidance by the image, for such a network.
        """
        if self.model.network.unet.time_cond_proj_dim is None:
            return condition
        if condition.none is not None:
            raise UserError(
                "this model reads one guidance scale and has no guidance by the image: leave "
                "image_guidance_scale out."
            )
        scale = jnp.asarray(condition.scale, jnp.float32)
        read = {"guidance_scale": jnp.broadcast_to(scale, (batch,))}
        return condition._replace(cond={**condition.cond, **read}, uncond=None)


def _latents(
    params: Params,
    noise: Float[Array, "batch height width channels"],
    condition: GuidedCondition,
    key: Key[Array, "..."] | None,
    *,
    network: AdaptedUNet,
    schedule: Schedule,
    prediction_type: str,
    steps: int,
    sampler: SamplerConfig,
) -> Float[Array, "batch height width channels"]:
    # Once per image, not once per step: h_eta depends on neither z_t nor t.
    prepared = condition.map(lambda c: {**c, "features": network.condition(params, c)})
    return sample(
        network.predict,
        params,
        schedule,
        prediction_type,
        noise,
        prepared,
        num_inference_steps=steps,
        sampler=sampler,
        key=key,
    )


def _decode(
    params: Params, z: Float[Array, "batch height width channels"], *, vae: Autoencoder
) -> UInt8[Array, "batch picture_height picture_width 3"]:
    return signed_to_uint8(vae.apply({"params": params}, z, method="decode"))


def _jit(function: Callable[..., _T], static: tuple[str, ...] = ()) -> Callable[..., _T]:
    device = jax.devices()[0]
    function, options = convolutions_for(device.platform)(function), compiler_options(device)
    return jax.jit(function, static_argnames=static, compiler_options=options)


# Not jitted in each instance: all that hold one architecture share a program.
@functools.cache
def _jit_latents() -> Callable[..., Array]:
    return _jit(_latents, ("network", "schedule", "prediction_type", "steps", "sampler"))


@functools.cache
def _jit_decode() -> Callable[..., Array]:
    return _jit(_decode, ("vae",))


def sampling_key(key: Key[Array, "..."]) -> Key[Array, "..."]:
    """The key of a stochastic solver's noise; ``key``, one or [B], is the initial noise's."""
    return jax.random.fold_in(key, 1) if key.ndim == 0 else jax.vmap(sampling_key)(key)
