"""Inpainting: the condition is the picture without its hole, and where the hole is."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from codi_jax.data.masks import MASKS, draw_mask
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed
from codi_jax.tasks.base import Batch, Example, Task
from codi_jax.typing import Array, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpainting(Task):
    """Reads "image" uint8 [B, H, W, 3] and "mask" uint8 [B, H, W], above 127 where to fill.

    The condition's "image" is the picture with the hole grey (0) and the mask as a fourth
    channel, -1 or 1. Its "latents" are those of the grey picture and, as one more channel, the
    share of hole in each latent's pixels. The known pixels are pasted back, bit for bit.

    Attributes:
        masks: kinds of holes that are drawn, see :mod:`codi_jax.data.masks`. A "mask" in the
            data, of an object, is used wherever it reaches into the crop.
    """

    masks: tuple[str, ...] = tuple(MASKS)
    name: ClassVar[str] = "inpaint"
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    aligned: ClassVar[tuple[str, ...]] = ("image", "mask")

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        mask = element.get("mask")
        if mask is None or not (mask > 127).any():
            height, width = element["image"].shape[:2]
            mask = draw_mask(tuple(self.masks), height, width, rng)
        return {**element, "mask": mask}

    def image_channels(self) -> int:
        return 4

    def latent_channels(self, vae: int) -> int:
        return vae + 1

    def condition(self, vae: AutoencoderKL, vae_params: Params, batch: Batch) -> dict[str, Array]:
        hole = (batch["mask"] > 127).astype(jnp.float32)[..., None]
        image = to_signed(batch["image"]) * (1 - hole)
        latents = vae.apply({"params": vae_params}, image, method="encode")
        (b, h, w, _), f = latents.shape, vae.config.downsampling
        share = hole.reshape(b, h, f, w, f, 1).mean((2, 4))
        return {
            "image": jnp.concatenate([image, 2 * hole - 1], axis=-1),
            "latents": jnp.concatenate([latents, share.astype(latents.dtype)], axis=-1),
        }

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        if mask is None:
            raise UserError("a model for inpaint needs a mask: white where the picture is filled.")
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"the mask is {mask.shape[0]}x{mask.shape[1]} and the picture {image.shape[0]}x"
                f"{image.shape[1]}: make them equal."
            )
        return {"image": image, "mask": mask}

    def finish(self, picture: np.ndarray, example: Batch) -> np.ndarray:
        """The known region is the user's, not the autoencoder's."""
        return np.where(example["mask"][..., None] > 127, picture, example["image"])

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        hole = batch["mask"][..., None] > 127
        return {"input": np.where(hole, np.uint8(128), batch["image"])}

    def baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """The hole filled with the mean colour of what is known."""
        return {"mean fill": np.stack([*map(mean_fill, batch["image"], batch["mask"])])}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """ "hole_psnr": PSNR over the hole's pixels alone, dB, the mean over pictures.

        The measures over the whole frame see the hole alone too, as the rest is equal, but
        diluted by it.
        """
        holes = batch["mask"] > 127
        errors = (pictures.astype(np.float64) - batch["image"]) ** 2
        mse = [max(error[hole].mean(), 1e-10) for error, hole in zip(errors, holes, strict=True)]
        return {"hole_psnr": float(np.mean(10 * np.log10(255**2 / np.array(mse))))}


def mean_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] with the hole in the mean colour of the rest (grey where there is none)."""
    hole = mask > 127
    mean = np.full(3, 128.0) if hole.all() else image[~hole].mean(axis=0)
    return np.where(hole[..., None], np.round(mean).astype(np.uint8), image)


TASK = Inpainting
