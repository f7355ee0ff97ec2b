"""A closed set of edits that can be made from any photo, with their instructions.

Data for instructed editing where there are no triples: (photo, instruction, edited photo).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoEdit:
    """An edit of float32 [H, W, 3] in [0, 1], and how one asks for it."""

    instructions: tuple[str, ...]
    apply: Callable[[np.ndarray], np.ndarray]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to the same."""
        edited = self.apply(image.astype(np.float32) / 255)
        return np.round(255 * np.clip(edited, 0, 1)).astype(np.uint8)


def _grey(x: np.ndarray) -> np.ndarray:
    return np.repeat((x @ _LUMA)[..., None], 3, axis=-1)


def _gains(red: float, green: float, blue: float) -> Callable[[np.ndarray], np.ndarray]:
    gains = np.array([red, green, blue], np.float32)
    return lambda x: x * gains


EDITS: dict[str, PhotoEdit] = {
    "grey": PhotoEdit(
        instructions=("make it black and white", "remove the colours", "turn it into a grey photo"),
        apply=_grey,
    ),
    "warm": PhotoEdit(
        instructions=("make it warmer", "add warm orange light", "put it in the evening sun"),
        apply=_gains(1.25, 0.95, 0.55),
    ),
    "night": PhotoEdit(
        instructions=("make it night", "turn day into night", "show it in moonlight"),
        apply=_gains(0.25, 0.35, 0.6),
    ),
    "negative": PhotoEdit(
        instructions=("invert the colours", "make it a negative", "turn it into a film negative"),
        apply=lambda x: 1 - x,
    ),
    "fog": PhotoEdit(
        instructions=("add fog", "make it foggy", "cover it in mist"),
        apply=lambda x: 0.4 * x + 0.55,
    ),
}


def edit_of(instruction: str) -> PhotoEdit | None:
    """The edit of the set that an instruction asks for, if it is one of its own."""
    return next((edit for edit in EDITS.values() if instruction in edit.instructions), None)


def draw_edit(image: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """(instruction, edited image) of a random edit, all as likely."""
    edits = [*EDITS.values()]
    edit = edits[int(rng.integers(len(edits)))]
    return edit.instructions[int(rng.integers(len(edit.instructions)))], edit(image)
