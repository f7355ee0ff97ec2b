"""Canny edges to picture: the edges are computed on the fly."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np

from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import map_condition
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params, UserError, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canny(Task):
    """Reads "edges" uint8 [B, H, W], 255 on an edge (Canny 1986), else 0.

    The condition's "image" are the edges as a picture, -1 or 1 in each of three channels.

    Attributes:
        low: lower threshold of OpenCV's hysteresis on the L1 norm of Sobel gradients (3x3) of
            the grey picture in [0, 255]. The defaults are ControlNet's usual ones.
        high: the upper threshold.
    """

    low: float = 100.0
    high: float = 200.0
    name: ClassVar[str] = "canny"
    reads: ClassVar[tuple[str, ...]] = ("edges",)
    saved: ClassVar[tuple[str, ...]] = ("low", "high")
    measures: ClassVar[Mapping[str, bool]] = {"edge_f1": True}
    scored: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if not 0 <= self.low <= self.high < math.inf:
            raise UserError(f"low={self.low} and high={self.high}: give 0 <= low <= high.")

    def edges(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [H, W], 0 or 255."""
        return cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self.low, self.high)

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        """Add the edges of the picture."""
        return {**element, "edges": self.edges(element["image"])}

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of an example."""
        return {**super().shapes(size), "edges": ((size, size), "uint8")}

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """The edges as a picture, and its latents."""
        return map_condition(vae, vae_params, batch["edges"].astype(np.float32) / 127.5 - 1)

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        """The edges of a picture."""
        no_mask(self, mask)
        return {"edges": self.edges(image)}

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The edges, white on black."""
        return {"edges": np.repeat(batch["edges"][..., None], 3, axis=-1)}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """The measure "edge_f1": F1 between the condition's edges and the pictures' edges."""
        found = np.stack([self.edges(picture) for picture in pictures])
        return {"edge_f1": edge_f1(found, batch["edges"])}


def edge_f1(found: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of edge maps, over all pixels of all maps.

    An edge pixel counts as met if the other map has an edge within one pixel, diagonals included.

    Args:
        found: uint8 [N, H, W], above 0 on an edge.
        wanted: likewise.

    Returns:
        A number in [0, 1]; 0 where nothing is met.
    """
    kernel = np.ones((3, 3), np.uint8)

    def met(a: np.ndarray, b: np.ndarray) -> float:
        near = np.stack([cv2.dilate(x, kernel) for x in b])
        return float(((a > 0) & (near > 0)).sum() / max(1, (a > 0).sum()))

    precision, recall = met(found, wanted), met(wanted, found)
    return 2 * precision * recall / max(precision + recall, 1e-12)


TASK = Canny
