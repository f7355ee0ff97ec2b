"""Super-resolution: the condition is the small picture, enlarged."""

import dataclasses
from typing import ClassVar, Self

import numpy as np

from codi_jax.data.degradation import make_degradation
from codi_jax.data.images import resize
from codi_jax.data.pipeline import Transforms
from codi_jax.data.transforms import CutToMultiple, Degrade, RandomCropFlip
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import sr_condition
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolution(Task):
    """Reads "lr" uint8 [B, H / scale, W / scale, 3], made by ``degradation`` from "image"."""

    scale: int = 4
    degradation: str = "realesrgan"
    name: ClassVar[str] = "sr"
    reads: ClassVar[tuple[str, ...]] = ("lr",)

    @classmethod
    def from_config(cls, options: Settings, data: Settings) -> Self:
        """Scale and degradation come from ``config.data``."""
        return cls(scale=data["scale"], degradation=data["degradation"], **options)

    def transforms(self, size: int, *, train: bool) -> Transforms:
        """Crop, then degrade."""
        return [RandomCropFlip(size), self._degrade()]

    def whole_frames(self) -> Transforms:
        """Cut to a multiple of the scale, then degrade."""
        return [CutToMultiple(self.scale), self._degrade()]

    def _degrade(self) -> Degrade:
        return Degrade(make_degradation(self.degradation), self.scale)

    def condition(self, vae: AutoencoderKL, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """The small picture, enlarged, and its latents."""
        return sr_condition(vae, vae_params, batch["lr"], self.scale)

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        """The picture as it is."""
        no_mask(self, mask)
        return {"lr": image}

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The small picture."""
        return {"input": batch["lr"]}

    def baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """The small pictures, bicubically enlarged."""
        size = batch["image"].shape[1:3]
        return {"bicubic": np.stack([resize(image, size, "bicubic") for image in batch["lr"]])}


TASK = SuperResolution
