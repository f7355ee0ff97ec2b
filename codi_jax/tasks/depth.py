"""Depth to picture: the condition is the depth map, near light and far dark."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import cv2
import numpy as np
from scipy import ndimage

from codi_jax.data.scenes import depth_of_haze
from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import map_condition
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params, UserError, check_choice

KINDS = ("metric", "disparity")
#: How depth is read off a result, in the units of a "metric" map; "" where there is no way.
RECOVERED_BY: dict[str, Callable[[np.ndarray], np.ndarray] | None] = {
    "": None,
    "haze": depth_of_haze,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(Task):
    """Reads "near" float32 [B, H, W] in [-1, 1], see :func:`normalise`, of the data's "depth".

    The condition's "image" is it in each of three channels.

    Attributes:
        kind: what the depth column holds: "metric" (distances) or "disparity" (inverse ones).
        recovered_by: "haze" for the synthetic scenes, whose depth can be read off a result.
    """

    kind: str = "metric"
    recovered_by: str = ""
    name: ClassVar[str] = "depth"
    reads: ClassVar[tuple[str, ...]] = ("near",)
    aligned: ClassVar[tuple[str, ...]] = ("image", "depth")
    saved: ClassVar[tuple[str, ...]] = ("kind", "recovered_by")  # also evaluated by it
    measures: ClassVar[Mapping[str, bool]] = {"edge_recall": True, "depth_error": False}
    scored: ClassVar[bool] = False
    takes_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields."""
        check_choice("kind", self.kind, KINDS)
        check_choice("recovered_by", self.recovered_by, RECOVERED_BY)

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        """Normalise the depth that the data brings.

        Raises:
            UserError: data without depth.
        """
        if "depth" not in element:
            raise UserError(
                f"{element['name']} has no depth: give metadata.jsonl a column depth_file_name, or "
                "use the source synthetic:depth."
            )
        return {**element, "near": normalise(element["depth"], self.kind)}

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of an example."""
        return {**super().shapes(size), "near": ((size, size), "float32")}

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """The map as a grey picture, and its latents."""
        return map_condition(vae, vae_params, batch["near"])

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        """Normalise a map of the user."""
        no_mask(self, mask)
        return {"near": normalise(image, self.kind)}

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The map, near light and far dark."""
        return {"depth": np.repeat(_shown(batch["near"])[..., None], 3, axis=-1)}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """How well the pictures keep to their depth.

        Returns:
            "edge_recall": the share of the condition's edges (Canny, 50 and 100) that have an
            edge of the picture within two pixels. "depth_error", where the depth can be
            recovered: the mean absolute difference of the normalised maps, as a share of their
            range.
        """
        met = total = 0
        for picture, near in zip(pictures, _shown(batch["near"]), strict=True):
            wanted = cv2.Canny(near, 50, 100) > 0
            found = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 50, 100)
            met += (wanted & (cv2.dilate(found, np.ones((5, 5), np.uint8)) > 0)).sum()
            total += wanted.sum()
        scores = {"edge_recall": float(met / max(total, 1))}
        recover = RECOVERED_BY[self.recovered_by]
        if recover is not None:
            found = np.stack([normalise(recover(picture), "metric") for picture in pictures])
            scores["depth_error"] = float(np.abs(found - batch["near"]).mean() / 2)
        return scores


def normalise(depth: np.ndarray, kind: str) -> np.ndarray:
    """A depth map as the condition has it: 1 near, -1 far.

    Distances become disparities, 1 / depth, so that near things get most of the range. The 1st
    and the 99th percentile of the map's readings become -1 and 1, and values beyond are clipped,
    so that the sensor's scale does not matter. Holes (0, negative, or not finite) take the value
    of the nearest reading.

    Args:
        depth: [H, W], any real dtype.
        kind: "metric" or "disparity".

    Returns:
        float32 [H, W]; 0 everywhere for a constant map or one without a reading.

    Raises:
        UserError: not a map.
    """
    if depth.ndim != 2:
        raise UserError(f"a depth map is {list(depth.shape)}; give [height, width].")
    values = depth.astype(np.float32)
    valid = np.isfinite(values) & (values > 0)
    if not valid.any():
        return np.zeros_like(values)
    near = np.where(valid, values, 1)
    near = 1 / near if kind == "metric" else near
    low, high = np.percentile(near[valid], (1, 99))
    if high <= low:
        return np.zeros_like(values)
    if not valid.all():
        nearest = ndimage.distance_transform_edt(
            ~valid, return_distances=False, return_indices=True
        )
        near = near[tuple(nearest)]
    return np.clip((near - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32)


def _shown(near: np.ndarray) -> np.ndarray:
    return np.round((near + 1) * 127.5).astype(np.uint8)


TASK = Depth
