"""An autoencoder alone: pictures to latents and back."""

import dataclasses
from typing import ClassVar

from codi_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(Task):
    """Scored by its reconstructions of ``batch["image"]``."""

    name: ClassVar[str] = "autoencoder"
    diffuses: ClassVar[bool] = False
    conditional: ClassVar[bool] = False


TASK = Autoencoder
