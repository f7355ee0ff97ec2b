"""Guidance as users give it, texts and weights, and what the networks read of it."""

import dataclasses
from collections.abc import Callable

from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.model import Model
from codi_jax.tasks.base import Task
from codi_jax.typing import Cond, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """What leads a picture, in words, and how strongly.

    Attributes:
        prompt: what to draw, or for edits the instruction; for models that read text.
        negative_prompt: what guidance leads away from; the empty prompt by default.
        guidance_scale: weight of the prompt, 1 for no guidance; by default 1 with an input
            picture and 7.5 without.
        image_guidance_scale: for edits, the weight of the input picture; 1 for no guidance by it.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float = 1.0

    def encode(
        self, model: Model, task: Task, encoder: Callable[[], PromptEncoder]
    ) -> GuidedCondition:
        """What the networks read of the texts, and the weights.

        Args:
            model: the networks.
            task: what they are used for: it may read the prompt itself.
            encoder: gives the text encoder; called only for a model that has one.

        Returns:
            Entries [1, ...] of the texts; none for a model without text.

        Raises:
            UserError: a prompt or guidance for a model that reads no text.
        """
        scale = 1.0 if self.guidance_scale is None else self.guidance_scale
        by_image = self.image_guidance_scale != 1.0
        # A network that was distilled for many scales reads the scale: it needs no other side.
        reads_scale = model.network.unet.time_cond_proj_dim is not None
        guided = (scale != 1.0 or by_image) and not reads_scale
        cond: Cond = {}
        negative: Cond = {}
        if model.takes_text:
            cond = encoder()([self.prompt or ""])
            negative = encoder().negative(self.negative_prompt) if guided else {}
        else:
            self._check_unread(guided, task)
        return GuidedCondition(
            cond=cond,
            uncond=negative if guided else None,
            none=negative if by_image else None,
            scale=scale,
            image_scale=self.image_guidance_scale,
        )

    def _check_unread(self, guided: bool, task: Task) -> None:
        """Refuse what a model without a text encoder does not read."""
        unread = (self.prompt is not None or guided) and not task.reads_prompt
        if unread or self.negative_prompt is not None:
            raise UserError(
                f"prompt={self.prompt!r}, negative_prompt={self.negative_prompt!r}, or a "
                "guidance_scale other than 1: this model has no text encoder; leave them out."
            )
