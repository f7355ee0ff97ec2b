"""Super-resolution: the condition is the small picture, enlarged."""

import dataclasses
from typing import ClassVar, Self

import numpy as np

from codi_jax.data.degradation import make_degradation
from codi_jax.data.images import resize
from codi_jax.data.pipeline import Transforms
from codi_jax.data.transforms import CutToMultiple, Degrade, RandomCropFlip
from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import sr_condition
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params, Settings, UserError, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolution(Task):
    """Reads "lr" uint8 [B, H / scale, W / scale, 3], which is made of "image".

    Attributes:
        scale: how many times larger the result is.
        degradation: what makes the small picture, "realesrgan" or "bicubic".
        clean_share: share of the training pictures that are reduced bicubically alone.
    """

    scale: int = 4
    degradation: str = "realesrgan"
    clean_share: float = 0.0
    name: ClassVar[str] = "sr"
    reads: ClassVar[tuple[str, ...]] = ("lr",)
    keeps: ClassVar[tuple[str, ...]] = ("grey", "alpha", "icc")

    @classmethod
    def from_config(cls, options: Settings, data: Settings) -> Self:
        """Scale and degradation come from ``config.data``."""
        return cls(
            scale=data["scale"],
            degradation=data["degradation"],
            clean_share=data.get("clean_share", 0.0),  # older runs' configs have none
            **options,
        )

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        check_fields(self)
        make_degradation(self.degradation)
        if self.scale < 1:
            raise UserError(f"config.data.scale={self.scale}: give at least 1.")
        if not 0 <= self.clean_share <= 1:
            raise UserError(f"config.data.clean_share={self.clean_share}: give a share, 0 to 1.")

    def transforms(self, size: int, *, train: bool) -> Transforms:
        """Crop, then degrade."""
        return [RandomCropFlip(size), self._degrade(self.clean_share if train else 0.0)]

    def whole_frames(self) -> Transforms:
        """Cut to a multiple of the scale, then degrade."""
        return [CutToMultiple(self.scale), self._degrade()]

    def _degrade(self, clean_share: float = 0.0) -> Degrade:
        degradation = make_degradation(self.degradation)
        return Degrade(degradation, self.scale, clean_share=clean_share)

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of an example."""
        return {
            **super().shapes(size),
            "lr": ((size // self.scale, size // self.scale, 3), "uint8"),
        }

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
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
        return {"bicubic": _enlarged(batch, "bicubic")}

    def more_baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """The same by Lanczos' filter of three lobes, which is sharper."""
        return {"lanczos": _enlarged(batch, "lanczos")}


def _enlarged(batch: Batch, mode: str) -> np.ndarray:
    size = batch["image"].shape[1:3]
    return np.stack([resize(image, size, mode) for image in batch["lr"]])


TASK = SuperResolution
