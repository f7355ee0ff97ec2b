"""The models that the page offers, and what each of them reads."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.tiling import Tiling
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A model of the page.

    Attributes:
        name: as the user gave it.
        sampler: the model.
    """

    name: str
    sampler: Sampler

    @property
    def task(self) -> Task:
        """What it was made for."""
        return self.sampler.pictures.task

    @property
    def label(self) -> str:
        """Its line in the list of models."""
        enlarges = f", {self.task.scale} times larger" if self.task.scale > 1 else ""
        return f"{Path(self.name).name}: {self.task.name}{enlarges}"

    @property
    def takes_mask(self) -> bool:
        """Whether a person paints what is to be filled."""
        return "mask" in self.task.reads

    @property
    def takes_prompt(self) -> bool:
        """Whether it reads a text."""
        return self.sampler.model.takes_text or self.task.reads_prompt


def load_choices(names: Sequence[str], tiling: Tiling) -> dict[str, Choice]:
    """Load the models, so that what is wrong with one is said before the page opens.

    Args:
        names: see :meth:`Sampler.load`.
        tiling: how much is computed at once.

    Raises:
        UserError: no name, the same twice, a model that is not there, or one that takes no picture.
    """
    if not names:
        raise UserError("--checkpoint= names no model: give at least one, such as demo.")
    found: dict[str, Choice] = {}
    for name in names:
        if name in found:
            raise UserError(f"--checkpoint names {name} twice: name each model once.")
        sampler = Sampler.load(name, tile=tiling.tile, max_memory=tiling.max_memory)
        if not sampler.pictures.task.conditional:
            raise UserError(
                f"{name} is a prior: it takes no picture. Leave it out here, and make its pictures "
                f"with python -m codi_jax.sample --checkpoint {name}"
            )
        found[name] = Choice(name=name, sampler=sampler)
    return found
