"""Closed synthetic scenes with known depth: rooms with balls and boxes, in haze.

The haze alone is blue: albedos have no blue, and at distance d (along the optical axis) blue is
``255 (1 - exp(-HAZE d))``. So a picture's depth can be read off it, :func:`depth_of_haze`, and a
model's result can be held against the depth that it was given.
"""

import operator

import numpy as np

from codi_jax.typing import check_choice

#: Side of the pictures, in pixels.
SIDE = 96
#: Of the haze, per metre.
HAZE = 0.22
#: Millimetres per unit of depth, as in most RGB-D sets.
UNITS = 1000
_COUNT = {"train": 2000, "eval": 200}
_LIGHT = np.array([0.4, 0.6, 0.7]) / np.linalg.norm([0.4, 0.6, 0.7])  # the way it travels


def depth_of_haze(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of a scene -> depth in metres, float32 [H, W]."""
    blue = np.minimum(image[..., 2].astype(np.float32), 254.0) / 255.0
    return -np.log1p(-blue) / np.float32(HAZE)


class SceneSource:
    """Rendered scenes: scene i of a split is a function of i.

    An element has "image" uint8 [96, 96, 3] and "depth" uint16 [96, 96], in millimetres.

    Args:
        split: "train" (2,000 scenes) or "eval" (200 others).

    Raises:
        UserError: another split.
    """

    def __init__(self, split: str) -> None:
        check_choice("split", split, _COUNT)
        self._split = split

    def __len__(self) -> int:
        return _COUNT[self._split]

    def __getitem__(self, index: int) -> dict[str, object]:
        index = operator.index(index)
        rng = np.random.default_rng((list(_COUNT).index(self._split), index))
        image, depth = render(rng)
        name = f"synthetic:depth {self._split}[{index}]"
        return {"image": image, "depth": depth, "text": "a room in haze", "name": name}


def render(rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A random scene: uint8 [side, side, 3], and its depth in millimetres, uint16 [side, side]."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, side),) * 2)
    rays = np.stack([x, y, np.full_like(x, 1.2)], axis=-1)  # y points down, z ahead
    surfaces = [_room(rays, rng)]
    for _ in range(int(rng.integers(2, 6))):
        shape = _ball if rng.random() < 0.5 else _box
        surfaces.append(shape(rays, rng))
    along = np.stack([s[0] for s in surfaces])
    nearest = along.argmin(axis=0)
    t = along.min(axis=0)
    rows = np.indices(nearest.shape)
    normals = np.stack([s[1] for s in surfaces])[nearest, rows[0], rows[1]]
    # Albedos without blue; the texture is a checkerboard in space.
    albedo = np.stack([[*rng.uniform(0.25, 1.0, 2), 0.0] for _ in surfaces])[nearest]
    cells = np.floor((rays * t[..., None]) * rng.uniform(1.0, 2.5)).astype(int).sum(axis=-1)
    albedo = albedo * np.where(cells % 2 == 0, 1.0, rng.uniform(0.55, 0.9))[..., None]
    shade = 0.35 + 0.65 * np.clip(normals @ -_LIGHT, 0, None)
    depth = t * rays[..., 2]
    through = np.exp(-HAZE * depth)[..., None]
    colour = albedo * shade[..., None] * through + np.array([0.0, 0.0, 1.0]) * (1 - through)
    image = np.round(255 * np.clip(colour, 0, 1)).astype(np.uint8)
    return image, np.round(depth * UNITS).astype(np.uint16)


_Surface = tuple[np.ndarray, np.ndarray]  # distance along each ray (inf: none), normal


def _room(rays: np.ndarray, rng: np.random.Generator) -> _Surface:
    """Floor, ceiling, two walls and a back wall around the camera."""
    far = np.array([rng.uniform(1.5, 3), rng.uniform(1.0, 1.6), rng.uniform(5, 8)])
    with np.errstate(divide="ignore"):
        t = far / np.abs(rays)
    axis = t.argmin(axis=-1)
    return t.min(axis=-1), -np.sign(rays) * np.eye(3)[axis]


def _ball(rays: np.ndarray, rng: np.random.Generator) -> _Surface:
    radius = rng.uniform(0.25, 0.7)
    centre = np.array([rng.uniform(-1.2, 1.2), rng.uniform(-0.6, 0.8), rng.uniform(2.0, 4.5)])
    a, b = (rays**2).sum(-1), rays @ centre
    inside = b**2 - a * (centre @ centre - radius**2)
    t = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    hit = np.where(np.isfinite(t), t, 0)[..., None] * rays
    return t, (hit - centre) / radius


def _box(rays: np.ndarray, rng: np.random.Generator) -> _Surface:
    centre = np.array([rng.uniform(-1.2, 1.2), rng.uniform(-0.4, 0.9), rng.uniform(2.0, 4.5)])
    half = rng.uniform(0.2, 0.6, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (centre - half) / rays, (centre + half) / rays
    enter, leave = np.minimum(a, b), np.maximum(a, b)
    t = enter.max(axis=-1)
    t = np.where(t < leave.min(axis=-1), t, np.inf)
    return t, -np.sign(rays) * np.eye(3)[enter.argmax(axis=-1)]
