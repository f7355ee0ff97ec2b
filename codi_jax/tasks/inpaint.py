"""Inpainting: the condition is the picture without its hole, and where the hole is."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.data.masks import MASKS, draw_mask
from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import signed_to_uint8, to_signed
from codi_jax.tasks.base import Batch, Example, Task
from codi_jax.typing import Array, Params, UserError, check_choice, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inpainting(Task):
    """Reads "image" uint8 [B, H, W, 3] and "mask" uint8 [B, H, W], above 127 where to fill.

    The condition's "image" is the picture with its hole filled by :func:`smooth_fill`, so that a
    small network need not carry colours over long distances, and the mask as a fourth channel, -1
    or 1. Its "latents" are those of the filled picture and, as one more channel, the share of
    hole among each latent's pixels. Neither has anything of the hole's own pixels. In the result
    the known pixels are pasted back, bit for bit.

    Attributes:
        masks: kinds of holes that are drawn, see :mod:`codi_jax.data.masks`. A "mask" in the
            data, of an object, is used wherever it reaches into the crop.
    """

    masks: tuple[str, ...] = tuple(MASKS)
    name: ClassVar[str] = "inpaint"
    measures: ClassVar[Mapping[str, bool]] = {"hole_psnr": True}
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    aligned: ClassVar[tuple[str, ...]] = ("image", "mask")
    keeps: ClassVar[tuple[str, ...]] = ("grey", "alpha", "icc")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if not self.masks:
            raise UserError(f"masks=(): name at least one of {', '.join(MASKS)}.")
        for kind in self.masks:
            check_choice("masks", kind, MASKS)

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        """Use the mask that the data brings, or draw one."""
        mask = element.get("mask")
        if mask is None or not (mask > 127).any():
            height, width = element["image"].shape[:2]
            mask = draw_mask(tuple(self.masks), height, width, rng)
        return {**element, "mask": mask}

    def image_channels(self) -> int:
        """The picture's three, and the mask."""
        return 4

    def latent_channels(self, vae: int) -> int:
        """Those of the latents, and the share of hole."""
        return vae + 1

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of an example."""
        return {**super().shapes(size), "mask": ((size, size), "uint8")}

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """The picture with its hole filled and the mask; its latents and the share of hole."""
        hole = (batch["mask"] > 127).astype(jnp.float32)[..., None]
        # Of tiles the whole picture was filled before: a hole may be larger than a tile.
        filled = batch.get("filled")
        image = smooth_fill(to_signed(batch["image"]), 1 - hole) if filled is None else filled
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
        """The user's picture and mask, of equal size."""
        if mask is None:
            raise UserError("a model for inpaint needs a mask: white where the picture is filled.")
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"the mask is {mask.shape[0]}x{mask.shape[1]} and the picture {image.shape[0]}x"
                f"{image.shape[1]}: make them equal."
            )
        return {"image": image, "mask": mask}

    def before_tiles(self, example: Example) -> Example:
        """The hole is filled from around it, however far that is."""
        known = (example["mask"] <= 127).astype(np.float32)[..., None]
        image = np.asarray(to_signed(jnp.asarray(example["image"])))
        height, width = known.shape[:2]
        # Sides that can be halved often: an odd one would be filled with its mean.
        missing = [(0, -height % 64), (0, -width % 64), (0, 0)]
        padded = (jnp.asarray(np.pad(array, missing))[None] for array in (image, known))
        return {**example, "filled": np.asarray(smooth_fill(*padded)[0, :height, :width])}

    def finish(self, picture: np.ndarray, example: Batch) -> np.ndarray:
        """The known region is the user's, not the autoencoder's."""
        return np.where(example["mask"][..., None] > 127, picture, example["image"])

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The picture with a grey hole."""
        hole = batch["mask"][..., None] > 127
        return {"input": np.where(hole, np.uint8(128), batch["image"])}

    def baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """The hole filled with the mean colour of what is known, and as the condition has it."""
        known = (batch["mask"] <= 127).astype(np.float32)[..., None]
        smooth = np.asarray(
            signed_to_uint8(smooth_fill(to_signed(jnp.asarray(batch["image"])), known))
        )
        return {
            "mean fill": np.stack([*map(mean_fill, batch["image"], batch["mask"])]),
            "smooth fill": np.where(known > 0, batch["image"], smooth),
        }

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """The measure "hole_psnr": PSNR over the hole's pixels alone in dB, mean over pictures.

        Measures over the whole frame differ by the hole alone, too, because the rest is equal;
        but they depend on how large it is.
        """
        holes = batch["mask"] > 127
        errors = (pictures.astype(np.float64) - batch["image"]) ** 2
        mse = [max(error[hole].mean(), 1e-10) for error, hole in zip(errors, holes, strict=True)]
        return {"hole_psnr": float(np.mean(10 * np.log10(255**2 / np.array(mse))))}


def smooth_fill(image: Array, known: Array) -> Array:
    """Fill the unknown pixels smoothly from around them (pull-push, Grossman & Dally 1998).

    Each 2x2 block gets the mean of its known pixels. Blocks without one are filled in the same
    way from the next coarser level, and each level is enlarged bilinearly into the holes of the
    finer one.

    Args:
        image: float32 [B, H, W, C]; unknown pixels are not read.
        known: float32 [B, H, W, 1], 1 or 0.

    Returns:
        float32 [B, H, W, C]; 0 where no pixel of a picture is known.
    """
    b, h, w, c = image.shape
    blocks = (b, h // 2, 2, w // 2, 2) if h % 2 == w % 2 == 0 else (b, 1, h, 1, w)
    count = known.reshape(*blocks, 1).sum((2, 4))
    mean = (image * known).reshape(*blocks, c).sum((2, 4)) / jnp.maximum(count, 1)
    if mean.shape[1:3] != (1, 1):
        mean = smooth_fill(mean, (count > 0).astype(image.dtype))
    return jnp.where(known > 0, image, jax.image.resize(mean, image.shape, method="linear"))


def mean_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole with the mean colour of the rest, or with grey if there is no rest.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], above 127 in the hole.
    """
    hole = mask > 127
    mean = np.full(3, 128.0) if hole.all() else image[~hole].mean(axis=0)
    return np.where(hole[..., None], np.round(mean).astype(np.uint8), image)


TASK = Inpainting
