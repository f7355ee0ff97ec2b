"""A batch of pictures to the losses: what each task trains on."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from codi_jax import trees
from codi_jax.data.transforms import LATENTS
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.base import LatentLoss, Networks, StepContext
from codi_jax.model import Model
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed
from codi_jax.models.embeddings import Prompt
from codi_jax.models.lpips import LPIPS
from codi_jax.train.step import Objective
from codi_jax.typing import Array, Cond, Params

#: Name of the teacher among the frozen parameters: those values of the start that have since
#: been trained. The rest it shares with the student.
TEACHER = "teacher"
#: Also there: condition entries [1, ...] of the prompt that all pictures share, and of no prompt.
PROMPT, NULL_PROMPT = "prompt", "null_prompt"
#: ``condition(vae, vae_params, batch) -> condition entries``: a task's method.
ConditionFn = Callable[[AutoencoderKL, Params, Mapping[str, Array]], dict[str, Array]]


def autoencoder_objective(vae: AutoencoderKL, loss: AutoencoderLoss) -> Objective:
    """Reconstruct ``batch["image"]`` uint8 [B, H, W, 3]."""

    def objective(params: Params, _: Params, batch: Params, context: StepContext):
        def reconstruct(p: Params, images: Array, k: Array) -> tuple[Array, Array, Array]:
            return vae.apply({"params": p["vae"]}, images, k)

        return loss(reconstruct, params, {"images": to_signed(batch["image"])}, context.key)

    return objective


def diffusion_objective(
    model: Model,
    vae: AutoencoderKL,
    loss: LatentLoss,
    condition: ConditionFn,
    lpips: LPIPS | None = None,
) -> Objective:
    """``loss`` on the latents of ``batch["image"]``, given ``condition`` of the batch.

    A batch may bring the "latents" itself. What the U-Net reads of the prompt is
    ``params["prompt"]`` for all pictures, or the batch brings entries of its own, [B, ...].

    Args:
        model: the networks.
        vae: the autoencoder.
        loss: its teacher is the U-Net alone ("prior") or the adapted model ("start"), with the
            values of ``params["teacher"]`` where they have been trained since.
        condition: the task's.
        lpips: the network behind "lpips" distances; its parameters are ``params["lpips"]``.
    """
    unet = model.network
    teacher_unet = unet.without_adapter() if loss.teacher == "prior" else unet

    def shared(entries: Cond, size: int) -> dict[str, Array]:
        return {
            name: jnp.broadcast_to(value, (size, *value.shape[1:]))
            for name, value in entries.items()
        }

    def objective(
        params: Params, target_params: Params, batch: Params, context: StepContext
    ) -> dict[str, Array]:
        own = {name: part for name, part in params.items() if name != TEACHER}
        start = trees.overlay(own, params.get(TEACHER, {}))
        frozen_vae = {"params": params["vae"]}
        images = to_signed(batch["image"])
        latents = batch.get(LATENTS)
        if latents is None:
            latents = vae.apply(frozen_vae, images, method="encode")
        cond = shared(params.get(PROMPT, {}), len(images))
        cond |= {name: batch[name] for name in Prompt._fields if name in batch}
        cond |= condition(vae, params["vae"], batch)

        def autoencode(values: Array, method: str) -> Array:
            # Distances of the results are float32, whatever the autoencoder computes in.
            return vae.apply(frozen_vae, values, method=method).astype(jnp.float32)

        networks = Networks(
            predict=unet.predict,
            teacher=lambda z_t, t, c: teacher_unet.predict(start, z_t, t, c),
            null=lambda c: null_condition(c, shared(params.get(NULL_PROMPT, {}), len(images))),
            encode=lambda pictures: autoencode(pictures, "encode"),
            decode=lambda z: autoencode(z, "decode"),
            perceptual=(lambda a, b: lpips.apply({"params": params["lpips"]}, a, b))
            if lpips
            else None,
        )
        data = {"latents": latents, "cond": cond, "images": images}
        return loss(networks, params, target_params, data, context)

    return objective


def null_condition(cond: Cond, null_text: Cond) -> Cond:
    """``cond`` that says nothing: without the prompt where there is one, else zeros for the
    picture. The guidance scale, where it is among the entries, stays."""
    if null_text:
        return {**cond, **null_text}
    return {
        name: value if name == "guidance_scale" else jnp.zeros_like(value)
        for name, value in cond.items()
    }
