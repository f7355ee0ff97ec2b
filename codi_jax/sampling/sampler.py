"""A model ready to make pictures, from Python."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.diffusion.sampler import initial_noise
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.parallel.platform import compute_dtype
from codi_jax.sampling.inputs import Picture, as_map, as_mask, as_picture
from codi_jax.sampling.load import load_model
from codi_jax.sampling.pictures import PictureSampler, sampling_key
from codi_jax.typing import Array, Cond, UserError


class Sampler:
    """A model ready to make pictures: of pictures, as its task says, or of text with a prior.

    Args:
        model: networks, schedule and parameters.
        dtype: "auto", "float32" or "bfloat16", of the computation.
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

    @classmethod
    def load(cls, path: str | Path) -> "Sampler":
        """From a run's workdir, a diffusers-format directory or its Hugging Face id, or ``"demo"``.

        Of a run that has not finished, the last checkpoint is taken.

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
    ) -> Any:
        """What the model was made for, of one picture or several: enlarge, fill, edit, ...

        Args:
            images: PIL images or uint8 arrays [h, w, 3], one or a sequence (also [B, h, w, 3]);
                of any size. For a depth model depth maps: 16-bit PIL images or arrays [h, w].
            steps: sampling steps, at least 1; 1 to 4 are what the model was distilled for.
            seed: of all noise; the same seed gives the same picture.
            guidance_scale: classifier-free guidance, for models with text, and for models that
                were distilled for many scales; 1.0 is none.
            prompt: for models with text, and for edits the instruction; else the empty prompt.
            negative_prompt: for models with text, what guidance leads away from.
            solver: one of `SOLVERS`; by default the model's own, which for CoDi is "ddim".
            mask: for inpainting, above 127 (white) where to fill: one for all, or one each, PIL
                images or arrays [h, w].
            image_guidance_scale: for edits, guidance by the picture; 1.0 is none.

        Returns:
            The same kind: a PIL image, an array [h * scale, w * scale, 3], or a list of them.

        Raises:
            UserError: a prior; a prompt or guidance for a model without text; no steps; a wrong
                array; an unknown solver; a mask that is missing, or not asked for.
        """
        task = self.pictures.task
        if not task.conditional:
            raise UserError(
                "this checkpoint is a prior, not a distilled model: it takes no picture. "
                "Distil it with configs/sr.py, or use --checkpoint demo."
            )
        guided = guidance_scale != 1.0 or image_guidance_scale != 1.0
        text, negative = self._texts(prompt, negative_prompt, guided, task.reads_prompt)
        _check_steps(steps)
        settings = self._sampler(solver)
        scales = guidance_scale, image_guidance_scale

        def one(picture: Picture, mask: Picture | None) -> Picture:
            array = as_map(picture) if task.takes_map else as_picture(picture)
            hole = None if mask is None else as_mask(mask)
            example = task.from_user(array, mask=hole, prompt=prompt)
            batch = {name: np.asarray(value)[None] for name, value in example.items()}
            key = jax.random.key(seed)
            made = self.make(batch, key, steps, text, negative, *scales, settings)
            result = task.finish(np.asarray(made[0]), example)
            return Image.fromarray(result) if isinstance(picture, Image.Image) else result

        rank = 2 if task.takes_map else 3
        if isinstance(images, Image.Image) or np.ndim(cast(Any, images)) == rank:
            return one(cast(Picture, images), cast(Picture | None, mask))
        pictures = [*cast(Sequence[Picture], images)]
        one_mask = mask is None or isinstance(mask, Image.Image) or np.ndim(cast(Any, mask)) == 2
        masks = [mask] * len(pictures) if one_mask else [*cast(Sequence[Picture], mask)]
        if len(masks) != len(pictures):
            raise UserError(f"{len(masks)} masks for {len(pictures)} images: one each, or one.")
        return [one(*pair) for pair in zip(pictures, cast(list[Any], masks), strict=True)]

    def make(
        self,
        batch: Mapping[str, Array | np.ndarray],
        key: Array,
        steps: int,
        text: Cond | None = None,
        negative: Cond | None = None,
        guidance_scale: float = 1.0,
        image_guidance_scale: float = 1.0,
        sampler: SamplerConfig | None = None,
    ) -> Array:
        """uint8 [B, h * scale, w * scale, 3] of the arrays that the task reads, [B, h, w, ...].

        Any height and width will do. What a task does to a finished picture is not done yet.
        ``key`` is one, or [B], see :func:`codi_jax.diffusion.sampler.initial_noise`. A batch
        that is split over devices is computed there, if ``params`` are on them all.
        """
        height, width = next(x.shape[1:3] for x in batch.values() if x.ndim > 2)
        padded = {name: self._pad(array) for name, array in batch.items()}
        scales = guidance_scale, image_guidance_scale
        made = self.pictures.conditional(
            self.params, padded, key, steps, text, negative, *scales, sampler
        )
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
        noise: np.ndarray | None = None,
        solver: str | None = None,
    ) -> Image.Image:
        """A picture from noise with a prior.

        Args:
            prompt: for models with text.
            size: height and width in pixels; by default those that the U-Net was trained at.
            steps: sampling steps.
            seed: of all noise.
            guidance_scale: classifier-free guidance; not used without text.
            negative_prompt: what guidance leads away from; the empty prompt by default.
            noise: the initial noise itself, float32 [h, w, C].
            solver: one of `SOLVERS`; by default the checkpoint's own, with its own settings.

        Raises:
            UserError: a distilled model; a prompt for a model without text; a wrong size; an
                unknown solver.
        """
        p = self.model
        if p.task is not None:
            raise UserError(f"this checkpoint is a model for {p.task}: give it a picture.")
        guidance_scale = guidance_scale if p.takes_text else 1.0
        text, negative = self._texts(prompt, negative_prompt, guidance_scale != 1.0)
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
            negative,
            guidance_scale,
            self._sampler(solver),
            sampling_key(key),
        )
        return Image.fromarray(np.asarray(pictures[0]))

    def _sampler(self, solver: str | None) -> SamplerConfig:
        """The model's own sampler, or few-step settings of another solver."""
        return self.model.sampler if solver is None else SamplerConfig(solver=solver)

    def _texts(
        self,
        prompt: str | None,
        negative_prompt: str | None,
        guided: bool,
        task_reads_prompt: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Condition entries of the prompt, and of the negative one if there is guidance."""
        if not self.model.takes_text:
            guided &= self.model.network.unet.time_cond_proj_dim is None
            unread = (prompt is not None or guided) and not task_reads_prompt
            if unread or negative_prompt is not None:
                raise UserError(
                    f"prompt={prompt!r}, negative_prompt={negative_prompt!r}, or a guidance_scale "
                    "other than 1: this model has no text encoder; leave them out."
                )
            return {}, {} if guided else None
        text = self.encode_prompt([prompt or ""])
        if not guided:
            return text, None
        return text, self.encode_prompt.negative(negative_prompt)

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


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UserError(f"steps={steps}: give at least 1.")
