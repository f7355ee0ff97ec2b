"""Random holes for inpainting: uint8 [H, W], 255 where a picture is to be filled, else 0.

Sizes are relative to the shorter side, so that a picture and its enlargement get alike holes.
"""

from collections.abc import Callable

import cv2
import numpy as np

from codi_jax.typing import check_choice

Rng = np.random.Generator
_FILL = 255


def strokes(height: int, width: int, rng: Rng) -> np.ndarray:
    """Free-form strokes: 1 to 4 thick lines with corners, after Yu et al. 2019 (algorithm 1)."""
    mask = np.zeros((height, width), np.uint8)
    side = min(height, width)
    for _ in range(int(rng.integers(1, 5))):
        point = rng.uniform((0, 0), (width, height))
        angle, thickness = rng.uniform(0, 2 * np.pi), max(1, round(side * rng.uniform(0.06, 0.18)))
        for _ in range(int(rng.integers(2, 7))):
            angle += rng.uniform(-0.6, 0.6) * np.pi
            step = rng.uniform(0.1, 0.35) * side * np.array([np.cos(angle), np.sin(angle)])
            end = np.clip(point + step, 0, (width - 1, height - 1))
            ends = [tuple(int(v) for v in p) for p in (point, end)]
            cv2.line(mask, ends[0], ends[1], _FILL, thickness)
            cv2.circle(mask, ends[1], thickness // 2, _FILL, -1)
            point = end
    return mask


def boxes(height: int, width: int, rng: Rng) -> np.ndarray:
    """1 to 3 upright rectangles with sides of a fifth to a half of the picture's."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        h, w = (max(1, round(n * rng.uniform(0.2, 0.5))) for n in (height, width))
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        mask[top : top + h, left : left + w] = _FILL
    return mask


def half(height: int, width: int, rng: Rng) -> np.ndarray:
    """The left, right, upper or lower half."""
    mask = np.zeros((height, width), np.uint8)
    side = int(rng.integers(4))
    rows = (slice(None), slice(None), slice(height // 2), slice(height // 2, None))[side]
    columns = (slice(width // 2), slice(width // 2, None), slice(None), slice(None))[side]
    mask[rows, columns] = _FILL
    return mask


def blob(height: int, width: int, rng: Rng) -> np.ndarray:
    """An object's silhouette where the data has none: one smooth closed curve, filled.

    Its radius is a random Fourier series of the angle.
    """
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(angles)
    for k in range(2, 6):
        radius += rng.normal(0, 0.5 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, None) * rng.uniform(0.15, 0.32) * min(height, width)
    centre = rng.uniform(0.25, 0.75, 2) * (width, height)
    outline = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], _FILL)
    return mask


#: The kinds of holes by name.
MASKS: dict[str, Callable[[int, int, Rng], np.ndarray]] = {
    "strokes": strokes,
    "boxes": boxes,
    "half": half,
    "object": blob,
}


def draw_mask(kinds: tuple[str, ...], height: int, width: int, rng: Rng) -> np.ndarray:
    """A hole of one of ``kinds``, each as likely; never empty.

    Raises:
        UserError: an unknown kind.
    """
    for kind in kinds:
        check_choice("masks", kind, MASKS)
    while True:
        mask = MASKS[kinds[int(rng.integers(len(kinds)))]](height, width, rng)
        if mask.any():
            return mask
