"""A batch of pictures to the losses: what each task trains on."""

import dataclasses

import jax.numpy as jnp

from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.finetune import DiffusionLoss
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import sr_condition, to_signed
from codi_jax.train.step import Objective
from codi_jax.typing import Array, Cond, Params


def autoencoder_objective(vae: AutoencoderKL, loss: AutoencoderLoss) -> Objective:
    """Reconstruct ``batch["image"]`` uint8 [B, H, W, 3]."""

    def objective(params: Params, _: Params, batch: Params, key: Array, part: Array | None):
        def reconstruct(p: Params, images: Array, k: Array) -> tuple[Array, Array, Array]:
            return vae.apply({"params": p["vae"]}, images, k)

        return loss(reconstruct, params, {"images": to_signed(batch["image"])}, key)

    return objective


def diffusion_objective(
    pipeline: Pipeline,
    vae: AutoencoderKL,
    loss: CoDiLoss | DiffusionLoss,
    text: Cond | None = None,
) -> Objective:
    """``loss`` on the latents of ``batch["image"]``, given ``batch["lr"]`` if there is one.

    ``text`` holds condition entries [1, ...] that all pictures share: those of the prompt.
    Predictor "ddim" reads the frozen prior's U-Net from ``params["teacher"]``.
    """
    assert pipeline.unet is not None
    unet = pipeline.unet
    prior = dataclasses.replace(unet, adapter="none")
    needs_teacher = isinstance(loss, CoDiLoss) and loss.predictor == "ddim"

    def objective(
        params: Params, target_params: Params, batch: Params, key: Array, part: Array | None
    ) -> dict[str, Array]:
        images = to_signed(batch["image"])
        latents = vae.apply({"params": params["vae"]}, images, method="encode")
        cond = {
            name: jnp.broadcast_to(value, (len(images), *value.shape[1:]))
            for name, value in (text or {}).items()
        }
        if pipeline.task == "sr":
            cond |= sr_condition(vae, params["vae"], batch["lr"], pipeline.scale)

        def teacher(z_t: Array, t: Array) -> Array:
            return prior.predict({"unet": params["teacher"]}, z_t, t, cond)

        return loss(
            unet.predict,
            params,
            target_params,
            {"latents": latents, "cond": cond},
            key,
            teacher=teacher if needs_teacher else None,
            part=part,
        )

    return objective
