"""Instructed editing, as InstructPix2Pix (Brooks et al. 2023): a picture and what to change."""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from typing import ClassVar

import cv2
import jax.numpy as jnp
import numpy as np

from codi_jax.data.edits import EDITS, draw_edit, edit_of
from codi_jax.models.autoencoders import Autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.tasks.base import Batch, Example, Task, no_mask
from codi_jax.typing import Array, Params, UserError, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Editing(Task):
    """Makes "image", the edited picture, of "source" uint8 [B, H, W, 3] and "instruction".

    Data: triples, "image" with the columns "edited" and "instruction" (or "edit_prompt", as in
    InstructPix2Pix's set). Photos without them are edited on the fly, see
    :mod:`codi_jax.data.edits`.

    A U-Net with text reads the instruction as its prompt (``model.prompt="{instruction}"``). For
    one without, ``instruction_channels`` numbers of it, :func:`instruction_features`, are added
    to the condition as constant channels: behind the latents, and behind the picture.

    Attributes:
        instruction_channels: 0 where the U-Net reads text.
        drop: probability with which a training example loses its picture, and independently its
            ``instruction_channels``, so that guidance can tell what each of them adds.
    """

    instruction_channels: int = 16
    drop: float = 0.05
    name: ClassVar[str] = "edit"
    measures: ClassVar[Mapping[str, bool]] = {"edit_accuracy": True}
    reads: ClassVar[tuple[str, ...]] = ("source", "keep_source", "instruction_features")
    aligned: ClassVar[tuple[str, ...]] = ("image", "edited")
    saved: ClassVar[tuple[str, ...]] = ("instruction_channels",)
    keeps: ClassVar[tuple[str, ...]] = ("alpha", "icc")

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if not 0 <= self.instruction_channels <= 4096:
            raise UserError(f"instruction_channels={self.instruction_channels}: give 0 to 4096.")
        if not 0 <= self.drop < 1:
            raise UserError(f"drop={self.drop}: give a probability, at least 0 and below 1.")

    @property
    def reads_prompt(self) -> bool:
        """Whether the instruction is read here, and not by a text encoder."""
        return self.instruction_channels > 0

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        """Take the triple that the data brings, or edit the photo on the fly.

        Raises:
            UserError: an edited picture without an instruction.
        """
        source = element["image"]
        if "edited" in element:
            edited = element["edited"]
            instruction = element.get("instruction") or element.get("edit_prompt", "")
            if not instruction:
                raise UserError(
                    f"{element['name']} has no instruction: give it the column instruction, or "
                    "edit_prompt."
                )
        else:
            instruction, edited = draw_edit(source, rng)
        example = self._example(source, instruction)
        return {**element, **example, "image": edited, "instruction": instruction}

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """Take the picture, the instruction, or both away, each with probability ``drop``."""
        lost_source, lost_instruction = rng.random(2) < self.drop
        if lost_source:
            example = self.without_picture(example)
        return self.without_prompt(example) if lost_instruction else example

    def _example(self, source: np.ndarray, instruction: str) -> Example:
        return {
            "source": source,
            "keep_source": np.float32(1),
            "instruction_features": instruction_features(instruction, self.instruction_channels),
        }

    def image_channels(self) -> int:
        """The picture's three, and those of the instruction."""
        return 3 + self.instruction_channels

    def latent_channels(self, vae: int) -> int:
        """Those of the latents, and those of the instruction."""
        return vae + self.instruction_channels

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array of an example."""
        return {
            **super().shapes(size),
            "source": ((size, size, 3), "uint8"),
            "keep_source": ((), "float32"),
            "instruction_features": ((self.instruction_channels,), "float32"),
        }

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """Without its picture an example has zeros for it, and zeros for the latents."""
        keep = batch["keep_source"][:, None, None, None]
        image = to_signed(batch["source"])
        latents = vae.apply({"params": vae_params}, image, method="encode")
        features = batch["instruction_features"][:, None, None, :]

        def behind(x: Array) -> Array:
            channels = jnp.broadcast_to(features, (*x.shape[:3], features.shape[-1]))
            return jnp.concatenate([x * keep.astype(x.dtype), channels.astype(x.dtype)], axis=-1)

        return {"image": behind(image), "latents": behind(latents)}

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        """The user's picture and instruction."""
        no_mask(self, mask)
        if not prompt:
            raise UserError("a model for edit needs an instruction: give it as the prompt.")
        return self._example(image, prompt)

    def without_prompt(self, example: Batch) -> Example:
        """The instruction becomes zeros."""
        features = np.zeros_like(example["instruction_features"])
        return {**example, "instruction_features": features}

    def without_picture(self, example: Batch) -> Example:
        """The picture becomes zeros, see :meth:`condition`."""
        return {**example, "keep_source": np.zeros_like(example["keep_source"])}

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """The picture, and the instruction in writing."""
        size = batch["source"].shape[1:3]
        texts = np.stack([_written(text, *size) for text in batch["instruction"]])
        return {"source": batch["source"], "instruction": texts}

    def baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """Nothing changed."""
        return {"unchanged": batch["source"]}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """How often the result is the edit that was asked for.

        Returns:
            "edit_accuracy", if all instructions are of the closed set: the share of results that
            are nearer (by squared error) to the edit that was asked for than to any other edit
            and to the source. A model that does not read its instruction is right once in
            ``len(EDITS)``. Empty for other instructions.
        """
        asked = [edit for text in batch["instruction"] if (edit := edit_of(text))]
        if len(asked) != len(pictures):
            return {}
        right = []
        for picture, source, edit in zip(pictures, batch["source"], asked, strict=True):
            others = [source, *(e(source) for e in EDITS.values() if e is not edit)]
            errors = [np.mean((picture.astype(float) - x) ** 2) for x in (edit(source), *others)]
            right.append(np.argmin(errors) == 0)
        return {"edit_accuracy": float(np.mean(right))}


def instruction_features(instruction: str, channels: int) -> np.ndarray:
    """A text as numbers, without a text encoder.

    Each word (lower case, without punctuation) hashes to ``channels`` random signs; a text is
    their normalised sum. So any text can be given, and texts that share words are near one
    another. But the order and the meaning of words are lost: a word that was not in the training
    data says nothing.

    Args:
        instruction: any text.
        channels: the number of values.

    Returns:
        float32 [channels] of unit mean square; zeros for a text without words.
    """
    total = np.zeros(channels, np.float32)
    for word in re.findall(r"\w+", instruction.lower()):
        rng = np.random.default_rng(zlib.crc32(word.encode()))
        total += rng.choice(np.array([-1, 1], np.float32), channels)
    scale = np.sqrt(np.mean(total**2)) if channels else 0
    return total / scale if scale else total


def _written(text: str, height: int, width: int) -> np.ndarray:
    """The text on white, uint8 [height, width, 3], wrapped."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    size, line, y = 0.35 * width / 128, "", round(0.2 * height)
    font = cv2.FONT_HERSHEY_SIMPLEX
    for word in [*text.split(), None]:
        longer = f"{line} {word}".strip()
        if word is None or cv2.getTextSize(longer, font, size, 1)[0][0] > 0.94 * width:
            cv2.putText(canvas, line, (round(0.03 * width), y), font, size, (0, 0, 0), 1)
            longer, y = word or "", y + round(0.15 * height)
        line = longer
    return canvas


TASK = Editing
