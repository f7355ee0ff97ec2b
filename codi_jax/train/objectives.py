"""From a batch of pictures to its losses: latents, condition, and the networks of a loss."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from codi_jax import trees
from codi_jax.data.transforms import LATENTS
from codi_jax.distill.loss import Batch, Loss, Needs, Networks, StepContext
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import Autoencoder, Whole
from codi_jax.models.conditioning import to_signed
from codi_jax.models.embeddings import Prompt
from codi_jax.models.lpips import LPIPS
from codi_jax.train.step import Objective
from codi_jax.typing import Array, Cond, Params

#: The teacher's entry among the frozen parameters: a copy of what the run trains, as it was at
#: the start. All other parameters the teacher shares with the student.
TEACHER = "teacher"
#: Also there: condition entries [1, ...] of the prompt that all pictures share, and of no prompt.
PROMPT, NULL_PROMPT = "prompt", "null_prompt"
#: ``condition(vae, vae_params, batch) -> condition entries``: a task's method.
ConditionFn = Callable[[Autoencoder, Params, Mapping[str, Array]], dict[str, Array]]


def autoencoder_objective(vae: Whole, loss: Loss) -> Objective:
    """A loss on the reconstructions of ``batch["image"]`` uint8 [B, H, W, 3]."""

    def reconstruct(params: Params, images: Array, key: Array) -> tuple[Array, Array, Array | None]:
        return vae.apply({"params": params["vae"]}, images, key)

    def objective(
        params: Params, target_params: Params, batch: Mapping[str, Array], context: StepContext
    ) -> dict[str, Array]:
        networks = Networks(reconstruct=reconstruct)
        return loss(networks, params, target_params, {"images": to_signed(batch["image"])}, context)

    return objective


def diffusion_objective(
    unet: AdaptedUNet,
    vae: Autoencoder,
    loss: Loss,
    condition: ConditionFn,
    lpips: LPIPS | None = None,
) -> Objective:
    """A loss on the latents of ``batch["image"]`` under the batch's ``condition``.

    What the U-Net reads of the prompt is ``params["prompt"]``, or entries of the batch's own,
    [B, ...].

    Args:
        unet: the network that is trained, with its adapter.
        vae: the autoencoder. A batch that brings its "latents" is not encoded.
        loss: gets the networks that its ``needs`` name.
        condition: the task's.
        lpips: the network behind "lpips" distances; its parameters are ``params["lpips"]``.
    """

    def objective(
        params: Params, target_params: Params, batch: Mapping[str, Array], context: StepContext
    ) -> dict[str, Array]:
        images = to_signed(batch["image"])
        latents = batch.get(LATENTS)
        if latents is None:
            latents = vae.apply({"params": params["vae"]}, images, method="encode")
        cond = _repeated(params.get(PROMPT, {}), len(images))
        cond |= {name: batch[name] for name in Prompt._fields if name in batch}
        cond |= condition(vae, params["vae"], batch)
        null = _repeated(params.get(NULL_PROMPT, {}), len(images))
        networks = _networks(loss.needs, unet, vae, lpips, params, null)
        data: Batch = {"latents": latents, "cond": cond, "images": images}
        return loss(networks, params, target_params, data, context)

    return objective


def _repeated(entries: Cond, size: int) -> dict[str, Array]:
    return {
        name: jnp.broadcast_to(value, (size, *value.shape[1:])) for name, value in entries.items()
    }


def _networks(
    needs: Needs,
    unet: AdaptedUNet,
    vae: Autoencoder,
    lpips: LPIPS | None,
    params: Params,
    null_text: Cond,
) -> Networks:
    """What ``needs`` asks for, of the networks with these parameters."""

    def autoencode(values: Array, method: str) -> Array:
        # Distances of the results are float32, whatever the autoencoder computes in.
        return vae.apply({"params": params["vae"]}, values, method=method).astype(jnp.float32)

    networks = Networks(predict=unet.predict)
    if needs.teacher:
        kind = unet if needs.teacher == "start" else unet.without_adapter()
        own = {name: part for name, part in params.items() if name != TEACHER}
        start = trees.overlay(own, params.get(TEACHER, {}))
        networks = networks._replace(teacher=lambda z_t, t, c: kind.predict(start, z_t, t, c))
    if needs.null:
        networks = networks._replace(null=lambda cond: null_condition(cond, null_text))
    if needs.decoder:
        networks = networks._replace(
            encode=lambda pictures: autoencode(pictures, "encode"),
            decode=lambda z: autoencode(z, "decode"),
        )
    if needs.perceptual and lpips is not None:
        networks = networks._replace(
            perceptual=lambda a, b: lpips.apply({"params": params["lpips"]}, a, b)
        )
    return networks


def null_condition(cond: Cond, null_text: Cond) -> Cond:
    """The condition that says nothing, for classifier-free guidance.

    Args:
        cond: the condition. A "guidance_scale" among its entries stays.
        null_text: entries of the empty prompt, which replace those of ``cond``; empty for a model
            without text, where all other entries become zero.
    """
    if null_text:
        return {**cond, **null_text}
    return {
        name: value if name == "guidance_scale" else jnp.zeros_like(value)
        for name, value in cond.items()
    }
