"""Canny edges to picture: the edges are computed on the fly."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np

from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import map_condition
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canny(Task):
    """Reads "edges" uint8 [B, H, W], 255 on an edge (Canny 1986), else 0.

    The condition's "image" are the edges as a picture, -1 or 1 in each of three channels.

    Attributes:
        low, high: thresholds of OpenCV's hysteresis on the L1 norm of Sobel gradients (3x3) of
            the grey picture in [0, 255]. ControlNet's usual ones are the defaults.
    """

    low: float = 100.0
    high: float = 200.0
    name: ClassVar[str] = "canny"
    reads: ClassVar[tuple[str, ...]] = ("edges",)
    saved: ClassVar[tuple[str, ...]] = ("low", "high")
    measures: ClassVar[Mapping[str, bool]] = {"edge_f1": True}
    scored: ClassVar[bool] = False

    def edges(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [H, W], 0 or 255."""
        return cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self.low, self.high)

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        return {**element, "edges": self.edges(element["image"])}

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        return map_condition(vae, vae_params, batch["edges"].astype(np.float32) / 127.5 - 1)

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        no_mask(self, mask)
        return {"edges": self.edges(image)}

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"edges": np.repeat(batch["edges"][..., None], 3, axis=-1)}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """ "edge_f1": F1 between the condition's edges and the pictures', over all pictures."""
        found = np.stack([self.edges(picture) for picture in pictures])
        return {"edge_f1": edge_f1(found, batch["edges"])}


def edge_f1(found: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of edge maps [N, H, W]: an edge pixel counts as met within one pixel, diagonals too.

    Precision and recall are over all pixels of all maps; 0 where nothing is met.
    """
    kernel = np.ones((3, 3), np.uint8)

    def met(a: np.ndarray, b: np.ndarray) -> float:
        near = np.stack([cv2.dilate(x, kernel) for x in b])
        return float(((a > 0) & (near > 0)).sum() / max(1, (a > 0).sum()))

    precision, recall = met(found, wanted), met(wanted, found)
    return 2 * precision * recall / max(precision + recall, 1e-12)


TASK = Canny
