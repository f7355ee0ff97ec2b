"""How pictures are made: what a user may ask for beside the pictures, checked once for all."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypedDict

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.unsupported_sampler import AnySampler
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.sizing import Sizing
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError


class Progress(NamedTuple):
    """How far a call of a sampler is.

    Attributes:
        picture: number of the picture in work, from 0.
        pictures: how many there are.
        tiles: batches of tiles of it that are done.
        of: how many there are of this picture.
    """

    picture: int
    pictures: int
    tiles: int
    of: int


class Options(TypedDict, total=False):
    """What :class:`Sampler` takes beside pictures; see its ``__call__``."""

    steps: int
    seed: int
    guidance_scale: float
    prompt: str | None
    negative_prompt: str | None
    solver: str | None
    image_guidance_scale: float
    outscale: float | None
    size: str | tuple[int, int] | None
    max_megapixels: float | None
    color_fix: str | None
    progress: Callable[[Progress], None] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is asked for but the pictures.

    Attributes:
        text: what the networks read of the texts, and the weights of guidance.
        prompt: the text itself, for tasks that read it.
        steps: number of sampling steps.
        seed: of all noise.
        sampler: the solver.
        sizing: of the results.
    """

    text: GuidedCondition
    prompt: str | None
    steps: int
    seed: int
    sampler: SamplerConfig
    sizing: Sizing

    @classmethod
    def of(
        cls,
        task: Task,
        own_sampler: AnySampler,
        encode: Callable[[Guidance], GuidedCondition],
        options: Options,
    ) -> Self:
        """What ``options`` ask for.

        Args:
            task: what the model was made for.
            own_sampler: the model's.
            encode: of texts.
            options: see :class:`Sampler`.

        Raises:
            UserError: the model is a prior, or does not read what they give.
        """
        if not task.conditional:
            raise UserError(
                "this checkpoint is a prior, not a distilled model: it takes no picture. "
                "Distil it with configs/sr.py, or use --checkpoint demo."
            )
        rest: dict[str, Any] = dict(options)
        words = [field.name for field in dataclasses.fields(Guidance)]
        guidance = Guidance(**{name: rest.pop(name) for name in words if name in rest})
        steps, seed = check_steps(rest.pop("steps", 4)), rest.pop("seed", 0)
        sampler = sampler_named(rest.pop("solver", None), own_sampler)
        if isinstance(rest.get("size"), tuple):
            rest["size"] = "{1}x{0}".format(*rest["size"])
        sizing = Sizing(**rest)
        sizing.fix_of(task)
        return cls(
            text=encode(guidance),
            prompt=guidance.prompt,
            steps=steps,
            seed=seed,
            sampler=sampler,
            sizing=sizing,
        )


def check_steps(steps: int) -> int:
    """``steps``; raises UserError if there are none."""
    if steps < 1:
        raise UserError(f"steps={steps}: give at least 1.")
    return steps


def sampler_named(solver: str | None, own: AnySampler) -> SamplerConfig:
    """The model's own settings, or few-step settings of another solver.

    Raises:
        UserError: the model's own scheduler is one that is not sampled with.
    """
    return own.usable() if solver is None else SamplerConfig(solver=solver)
