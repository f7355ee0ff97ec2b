"""No adapter: the U-Net alone, as in plain fine-tuning and in priors."""

import dataclasses
from typing import ClassVar

from codi_jax.models.adapters.base import Adapter


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAdapter(Adapter[tuple[()]]):
    """It has no parameters and reads no condition but the prompt."""

    kind: ClassVar[str] = "none"
    pipeline: ClassVar[str | None] = "StableDiffusionPipeline"
