"""Colour charts: saturated colours, which photos hardly have, for autoencoders to learn."""

import dataclasses

import grain
import numpy as np

from codi_jax.data import images

#: Saturated colours and greys: each channel is one of these.
LEVELS = (0, 128, 255)
#: Fields of a grid along a side, and pixels of a stripe.
MOST_FIELDS, WIDEST = 8, 12


@dataclasses.dataclass(frozen=True)
class ReplaceByChart(grain.transforms.RandomMap):
    """A share of the pictures gives way to charts of ``size`` pixels.

    Attributes:
      share: of charts, in [0, 1].
      size: side of a chart.
    """

    share: float
    size: int

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """The same element, or one whose "image" is a chart, uint8 [size, size, 3]."""
        if rng.random() >= self.share:
            return element
        return {**element, "image": chart(self.size, rng)}


def chart(size: int, rng: np.random.Generator) -> np.ndarray:
    """A chart, uint8 [size, size, 3].

    One colour, a grid of patches, a gradient between colours, or stripes, each as likely.
    """
    draw = (_flat, _patches, _gradient, _stripes)[rng.integers(4)]
    return draw(size, rng)


def _colours(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """uint8 [*shape, 3]: of :data:`LEVELS`, or any."""
    if rng.random() < 0.5:
        return rng.choice(np.array(LEVELS, np.uint8), (*shape, 3))
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def _flat(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.tile(_colours(rng, 1, 1), (size, size, 1))


def _patches(size: int, rng: np.random.Generator) -> np.ndarray:
    fields = _colours(rng, *rng.integers(2, MOST_FIELDS + 1, 2))
    rows, columns = (np.arange(size) * n // size for n in fields.shape[:2])
    return fields[rows][:, columns]


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    corners = _colours(rng, *rng.integers(2, MOST_FIELDS + 1, 2))
    return images.resize(corners, (size, size), "bicubic")


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    """Of two or three colours, level, upright or slanted."""
    down, right = ((1, 0), (0, 1), (1, 1), (1, -1))[rng.integers(4)]
    at = down * np.arange(size)[:, None] + right * np.arange(size)
    colours = _colours(rng, int(rng.integers(2, 4)))
    return colours[at // int(rng.integers(1, WIDEST + 1)) % len(colours)]
