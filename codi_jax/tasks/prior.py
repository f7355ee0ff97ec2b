"""A prior: pictures from noise, without a condition."""

import dataclasses
from typing import ClassVar

from codi_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(Task):
    """Its pictures stand beside photos, and no score compares the two."""

    name: ClassVar[str] = "prior"
    conditional: ClassVar[bool] = False
    scored: ClassVar[bool] = False


TASK = Prior
