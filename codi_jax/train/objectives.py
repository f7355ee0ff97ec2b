"""A batch of pictures to the losses: what each task trains on."""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from codi_jax import trees
from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.data.transforms import LATENTS
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.base import LatentLoss, Networks, StepContext
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed
from codi_jax.models.embeddings import Prompt
from codi_jax.models.lpips import LPIPS
from codi_jax.train.step import Objective
from codi_jax.typing import Array, Cond, Params

#: Name of the teacher among the frozen parameters: those values of the start that have since
#: been trained. The rest it shares with the student.
TEACHER = "teacher"
#: ``condition(vae, vae_params, batch) -> condition entries``: a task's method.
ConditionFn = Callable[[AutoencoderKL, Params, Mapping[str, Array]], dict[str, Array]]


def autoencoder_objective(vae: AutoencoderKL, loss: AutoencoderLoss) -> Objective:
    """Reconstruct ``batch["image"]`` uint8 [B, H, W, 3]."""

    def objective(
        params: Params, _: Params, batch: Params, context: StepContext
    ) -> dict[str, Array]:
        def reconstruct(p: Params, images: Array, k: Array) -> tuple[Array, Array, Array]:
            return vae.apply({"params": p["vae"]}, images, k)

        return loss(reconstruct, params, {"images": to_signed(batch["image"])}, context.key)

    return objective


def diffusion_objective(
    pipeline: Pipeline,
    vae: AutoencoderKL,
    loss: LatentLoss,
    condition: ConditionFn,
    text: Cond | None = None,
    null_text: Cond | None = None,
    lpips: LPIPS | None = None,
) -> Objective:
    """``loss`` on the latents of ``batch["image"]``, given ``condition`` of the batch. A batch may
    bring the "latents" itself.

    Args:
        pipeline: the networks.
        vae: the autoencoder.
        loss: its teacher is the U-Net alone ("prior") or the adapted model ("start"), with the
            values of ``params["teacher"]`` where they have been trained since.
        condition: the task's.
        text: condition entries [1, ...] that all pictures share: those of the prompt. A batch may
            bring its own, [B, ...].
        null_text: the same entries for no prompt.
        lpips: the network behind "lpips" distances; its parameters are ``params["lpips"]``.
    """
    assert pipeline.unet is not None
    unet = pipeline.unet
    teacher_unet = dataclasses.replace(unet, adapter="none") if loss.teacher == "prior" else unet

    def shared(entries: Cond | None, size: int) -> dict[str, Array]:
        return {
            name: jnp.broadcast_to(value, (size, *value.shape[1:]))
            for name, value in (entries or {}).items()
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
        cond = shared(text, len(images))
        cond |= {name: batch[name] for name in Prompt._fields if name in batch}
        cond |= condition(vae, params["vae"], batch)

        def autoencode(values: Array, method: str) -> Array:
            # Distances of the results are float32, whatever the autoencoder computes in.
            return vae.apply(frozen_vae, values, method=method).astype(jnp.float32)

        networks = Networks(
            predict=unet.predict,
            teacher=lambda z_t, t, c: teacher_unet.predict(start, z_t, t, c),
            null=lambda c: null_condition(c, shared(null_text, len(images))),
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
