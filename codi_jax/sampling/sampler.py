"""A model ready to make pictures, from Python."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt8
from PIL import Image

from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler import initial_noise
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.parallel.platform import compute_dtype
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.load import load_model
from codi_jax.sampling.picture_sampler import NO_TEXT, PictureSampler, sampling_key
from codi_jax.sampling.user_pictures import Picture, as_map, as_mask, as_picture
from codi_jax.tasks.base import Example, Task
from codi_jax.typing import UserError


class Sampler:
    """A model ready to make pictures: from pictures, as its task says, or from text with a prior.

    It takes PIL images, arrays and texts. The computation is that of a
    :class:`codi_jax.sampling.picture_sampler.PictureSampler`, which knows batches of arrays alone.

    Args:
        model: networks, schedule and parameters.
        dtype: of the computation: "auto", "float32" or "bfloat16".

    Raises:
        UserError: the model is an autoencoder alone.
    """

    def __init__(self, model: AutoencoderModel, dtype: str = "auto"):
        if not isinstance(model, Model):
            raise UserError(
                "this checkpoint is an autoencoder alone: train a prior on it (configs/prior.py), "
                "or use --checkpoint demo."
            )
        self.model, self.dtype = model, compute_dtype(dtype)
        network = dataclasses.replace(model.network, dtype=self.dtype)
        self.pictures = PictureSampler(
            dataclasses.replace(model, network=network, params={}), self.dtype
        )
        self.params = jax.device_put(model.params)
        self._last: tuple[Guidance, GuidedCondition] | None = None

    @classmethod
    def load(cls, path: str | Path) -> "Sampler":
        """Load a model.

        Args:
            path: a run's workdir, a directory in diffusers' format or its Hugging Face id, or
                "demo". The last checkpoint is taken of a run that has not finished.

        Raises:
            UserError: there is no model, or the run has saved nothing yet.
        """
        return cls(load_model(path))

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        steps: int = 4,
        seed: int = 0,
        guidance_scale: float = 1.0,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        solver: str | None = None,
        mask: Picture | Sequence[Picture] | None = None,
        image_guidance_scale: float = 1.0,
    ) -> Picture | list[Picture]:
        """Do what the model was made for (enlarge, fill, edit, ...) to one picture or several.

        Args:
            images: PIL images or uint8 arrays [h, w, 3] of any size, one or a sequence of them
                (also an array [B, h, w, 3]). A depth model takes depth maps: 16-bit PIL images
                or arrays [h, w].
            steps: number of sampling steps, at least 1; the models are distilled for 1 to 4.
            seed: of all noise; the same seed gives the same picture.
            guidance_scale: weight of classifier-free guidance, for models with text and for
                models that were distilled for many scales; 1.0 is no guidance.
            prompt: for models with text, the empty prompt by default; for edits the instruction.
            negative_prompt: what guidance leads away from, for models with text.
            solver: one of `SOLVERS`; by default the model's own, "ddim" for CoDi.
            mask: for inpainting, PIL images or arrays [h, w], one for all pictures or one for
                each; what is above 127 (white) is filled.
            image_guidance_scale: for edits, the weight of the picture; 1.0 is no guidance by it.

        Returns:
            What was given: a PIL image, an array [h * scale, w * scale, 3], or a list of them.

        Raises:
            UserError: the model is a prior; a prompt or guidance for a model without text; less
                than one step; a wrong array; an unknown solver; a mask that is missing, or that
                the task does not read.
        """
        task = self.pictures.task
        _check_conditional(task)
        guidance = Guidance(
            prompt=prompt,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
        )
        text = self.encode(guidance)
        _check_steps(steps)
        settings = self._sampler_config(solver)

        def one(picture: Picture, mask: Picture | None) -> Picture:
            example = _example(task, picture, mask, prompt)
            batch = {name: np.asarray(value)[None] for name, value in example.items()}
            made = self.conditional(batch, jax.random.key(seed), steps, text, settings)
            result = task.finish(np.asarray(made[0]), example)
            return Image.fromarray(result) if isinstance(picture, Image.Image) else result

        if _is_one(images, 2 if task.takes_map else 3):
            return one(cast(Picture, images), cast(Picture | None, mask))
        pictures = [*cast(Sequence[Picture], images)]
        return [one(*pair) for pair in zip(pictures, _masks(mask, len(pictures)), strict=True)]

    def conditional(
        self,
        batch: Mapping[str, Shaped[Array | np.ndarray, "..."]],
        key: Key[Array, "..."],
        steps: int,
        text: GuidedCondition = NO_TEXT,
        sampler: SamplerConfig | None = None,
    ) -> UInt8[Array, "batch height width 3"]:
        """Pictures for arrays, before what the task does to a finished picture.

        Args:
            batch: what the task reads, [B, h, w, ...] of any height and width, and what else it
                reads for each picture, [B, ...]. A batch that is split over devices is computed
                there, if ``params`` are on all of them.
            key: of all noise, one or [B]; see :func:`codi_jax.diffusion.sampler.initial_noise`.
            steps: number of sampling steps.
            text: what :meth:`encode` gives.
            sampler: by default the model's own.

        Returns:
            uint8 [B, h * scale, w * scale, 3].
        """
        height, width = next(x.shape[1:3] for x in batch.values() if x.ndim > 2)
        padded = {name: self._pad(array) for name, array in batch.items()}
        made = self.pictures.conditional(self.params, padded, key, steps, text, sampler)
        scale = self.model.scale
        return made[:, : height * scale, : width * scale]

    def generate(
        self,
        prompt: str | None = None,
        *,
        size: tuple[int, int] | None = None,
        steps: int = 50,
        seed: int = 0,
        guidance_scale: float = 7.5,
        negative_prompt: str | None = None,
        noise: Float[np.ndarray, "latent_height latent_width channels"] | None = None,
        solver: str | None = None,
    ) -> Image.Image:
        """Make a picture from noise with a prior.

        Args:
            prompt: what to draw, for models with text.
            size: height and width in pixels; by default those that the U-Net was trained at.
            steps: number of sampling steps.
            seed: of all noise.
            guidance_scale: weight of classifier-free guidance; not used without text.
            negative_prompt: what guidance leads away from; the empty prompt by default.
            noise: the initial noise itself; by default it is drawn by the seed.
            solver: one of `SOLVERS`; by default the checkpoint's own, with its own settings.

        Raises:
            UserError: the model is not a prior; a prompt for a model without text; a wrong size;
                an unknown solver.
        """
        p = self.model
        if p.task is not None:
            raise UserError(f"this checkpoint is a model for {p.task}: give it a picture.")
        text = self.encode(
            Guidance(
                prompt=prompt,
                negative_prompt=negative_prompt,
                guidance_scale=guidance_scale if p.takes_text else 1.0,
            )
        )
        _check_steps(steps)
        f = p.vae.downsampling
        side = p.network.unet.sample_size or 64
        latents = (side, side) if isinstance(side, int) else side
        height, width = size or (latents[0] * f, latents[1] * f)
        shape = (height // f, width // f, p.vae.latent_channels)
        if height % f or width % f or (noise is not None and noise.shape != shape):
            raise UserError(
                f"size={height}x{width} must be a multiple of {f}, and noise be {list(shape)}."
            )
        key = jax.random.key(seed)
        z = initial_noise(key, shape) if noise is None else jnp.asarray(noise)
        pictures = self.pictures.generate(
            self.params,
            z[None],
            steps,
            text,
            self._sampler_config(solver),
            sampling_key(key),
        )
        return Image.fromarray(np.asarray(pictures[0]))

    def _sampler_config(self, solver: str | None) -> SamplerConfig:
        """The model's own settings, or few-step settings of another solver."""
        return self.model.sampler.usable() if solver is None else SamplerConfig(solver=solver)

    def encode(self, guidance: Guidance) -> GuidedCondition:
        """What the networks read of the texts [1, ...], and the weights; the last is remembered.

        Raises:
            UserError: a prompt or guidance that the model cannot read.
        """
        if self._last is None or self._last[0] != guidance:
            task = self.pictures.task
            self._last = guidance, guidance.encode(self.model, task, lambda: self.encode_prompt)
        return self._last[1]

    @functools.cached_property
    def encode_prompt(self) -> PromptEncoder:
        """The model's text encoder, loaded when it is first needed."""
        assert self.model.directory is not None
        return PromptEncoder(self.model.directory, self.dtype)

    def _pad(self, array: Array | np.ndarray) -> Array:
        """Pictures and maps [B, h, w, ...], to latents that the U-Net can halve; the rest stays.

        Edges repeat, and are cropped off the result.
        """
        if array.ndim < 3:
            return jnp.asarray(array)
        p = self.model
        # Also in steps of 16 of the input: fewer shapes, fewer compilations.
        multiple = max(-(-p.multiple // p.scale), 16)
        missing = [(0, -size % multiple) for size in array.shape[1:3]]
        return jnp.pad(array, [(0, 0), *missing, *[(0, 0)] * (array.ndim - 3)], mode="edge")


def _check_conditional(task: Task) -> None:
    if not task.conditional:
        raise UserError(
            "this checkpoint is a prior, not a distilled model: it takes no picture. "
            "Distil it with configs/sr.py, or use --checkpoint demo."
        )


def _example(task: Task, picture: Picture, mask: Picture | None, prompt: str | None) -> Example:
    """What a task makes of the user's picture, mask and prompt."""
    array = as_map(picture) if task.takes_map else as_picture(picture)
    return task.from_user(array, mask=None if mask is None else as_mask(mask), prompt=prompt)


def _is_one(pictures: Picture | Sequence[Picture], rank: int) -> bool:
    """Whether it is one picture, and not several; as an array one has ``rank`` axes."""
    return isinstance(pictures, Image.Image) or np.ndim(cast(np.ndarray, pictures)) == rank


def _masks(mask: Picture | Sequence[Picture] | None, count: int) -> Sequence[Picture | None]:
    """The mask of each of ``count`` pictures.

    Raises:
        UserError: there are several, but not ``count``.
    """
    if mask is None or _is_one(mask, 2):
        return [cast(Picture | None, mask)] * count
    masks = [*cast(Sequence[Picture], mask)]
    if len(masks) != count:
        raise UserError(f"{len(masks)} masks for {count} images: one each, or one.")
    return masks


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UserError(f"steps={steps}: give at least 1.")
