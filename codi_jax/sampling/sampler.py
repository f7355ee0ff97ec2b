"""A model ready to make pictures, from Python."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt8
from PIL import Image

from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.data.images import eight_bits
from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.parallel.platform import compute_dtype
from codi_jax.sampling.given import as_given, is_one, one_each
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.load import load_model
from codi_jax.sampling.making import Subject
from codi_jax.sampling.picture_sampler import NO_TEXT, PictureSampler
from codi_jax.sampling.recipe import Options, Progress, Recipe, check_steps, sampler_named
from codi_jax.sampling.tiling import TiledPictures, Tiling
from codi_jax.sampling.user_pictures import PictureSource, UserPicture, as_mask
from codi_jax.typing import UserError

#: One for all pictures, or one for each.
Masks = PictureSource | Sequence[PictureSource] | None
PilSource = TypeVar("PilSource", bound=str | os.PathLike[str] | Image.Image)


class Sampler:
    """A model ready to make pictures: from pictures, as its task says, or from text with a prior.

    Larger pictures are computed in tiles, so any size fits (see :class:`Tiling`). Batches of one
    size, as evaluation has them, are better given to :meth:`conditional`.

    Args:
        model: networks, schedule and parameters.
        dtype: of the computation: "auto", "float32" or "bfloat16".
        tile: side of the tiles in pixels, "auto", or 0 for none.
        max_memory: GiB that may be used; by default half of the machine's, or an accelerator's.

    Raises:
        UserError: the model is an autoencoder alone.
    """

    def __init__(
        self,
        model: AutoencoderModel,
        dtype: str = "auto",
        *,
        tile: str | int = "auto",
        max_memory: float | None = None,
    ):
        if not isinstance(model, Model):
            raise UserError(
                "this checkpoint is an autoencoder alone: train a prior on it (configs/prior.py), "
                "or use --checkpoint demo."
            )
        tiling = Tiling(tile=str(tile), max_memory=max_memory)
        self.model, self.dtype = model, compute_dtype(dtype)
        network = dataclasses.replace(model.network, dtype=self.dtype, remat="none")
        self.pictures = PictureSampler(
            dataclasses.replace(model, network=network, params={}), self.dtype
        )
        self.params = jax.device_put(model.params)
        self._tiled = TiledPictures(self.pictures, self.params, tiling)
        self._last: tuple[Guidance, GuidedCondition] | None = None

    @classmethod
    def load(
        cls, path: str | Path, *, tile: str | int = "auto", max_memory: float | None = None
    ) -> "Sampler":
        """Load a model.

        Args:
            path: a run's workdir, a directory in diffusers' format or its Hugging Face id, or
                "demo". The last checkpoint is taken of a run that has not finished.
            tile: see the class.
            max_memory: see the class.

        Raises:
            UserError: there is no model, or the run has saved nothing yet.
        """
        return cls(load_model(path), tile=tile, max_memory=max_memory)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, images: PilSource, mask: Masks = None, **options: Unpack[Options]
    ) -> Image.Image: ...

    @overload
    def __call__(
        self, images: np.ndarray, mask: Masks = None, **options: Unpack[Options]
    ) -> np.ndarray: ...

    @overload
    def __call__(
        self, images: Sequence[PilSource], mask: Masks = None, **options: Unpack[Options]
    ) -> list[Image.Image]: ...

    @overload
    def __call__(
        self, images: Sequence[np.ndarray], mask: Masks = None, **options: Unpack[Options]
    ) -> list[np.ndarray]: ...

    def __call__(self, images: Any, mask: Masks = None, **options: Unpack[Options]) -> Any:
        """Do what the model was made for (enlarge, fill, edit, ...) to one picture or several.

        Args:
            images: one picture or a sequence of them, of any sizes: paths, PIL images of any mode,
                or arrays [h, w] or [h, w, C] with C = 1 to 4 (grey, grey with opacity, RGB, RGBA)
                of bool, uint8, uint16 or floats in [0, 1]. An array [B, h, w, C] is a batch. A
                depth model takes depth maps: 16-bit pictures or arrays [h, w] of any numbers.
            mask: for inpainting, one for all pictures or one for each; what is above the middle
                (white) is filled.
            **options: ``steps`` of sampling (4; the models are distilled for 1 to 4), ``seed`` of
                all noise (0), ``prompt``, ``negative_prompt``, ``guidance_scale`` (1, none) and
                ``image_guidance_scale`` (1) as in :class:`Guidance`, ``solver`` (the model's own),
                ``outscale``, ``size`` (height and width, or as in :class:`Sizing`),
                ``max_megapixels`` and ``color_fix`` as in :class:`Sizing`, and ``progress``, a
                function that is told the :class:`Progress`.

        Returns:
            What was given: for a path or a PIL image a PIL image, for an array an array of its
            dtype and axes, for a sequence a list. Grey pictures stay grey, transparent ones
            transparent; profile and EXIF are in a PIL image's ``info``. Pillow has no 16-bit
            colours: give an array, or use the command line, to keep them.

        Raises:
            UserError: the model is a prior; something that the model does not read, or that it
                misses; a picture that cannot be read.
        """
        progress = options.pop("progress", None)
        recipe = self.recipe(**options)
        task = self.pictures.task
        one = is_one(images, 2 if task.takes_map else 3)
        pictures = [images] if one else [*images]
        made: list[Any] = []
        pairs = zip(pictures, one_each(mask, len(pictures)), strict=True)
        for number, (picture, its) in enumerate(pairs):

            def told(tiles: int, of: int, number: int = number) -> None:
                if progress is not None:
                    progress(Progress(number, len(pictures), tiles, of))

            made.append(as_given(picture, self.make(picture, its, recipe, told), task))
        several = np.stack(made) if isinstance(images, np.ndarray) and not one else made
        return made[0] if one else several

    def recipe(self, **options: Unpack[Options]) -> Recipe:
        """What ``options`` ask for, see :meth:`__call__`.

        Raises:
            UserError: the model is a prior, or does not read what they give.
        """
        return Recipe.of(self.pictures.task, self.model.sampler, self.encode, options)

    def make(
        self,
        source: PictureSource | bytes,
        mask: PictureSource | None,
        recipe: Recipe,
        told: Callable[[int, int], None] | None = None,
        check: Callable[[int, int], None] = lambda height, width: None,
    ) -> UserPicture:
        """The result for one picture, with all that a file can hold.

        Args:
            source: the picture; bytes are a file's content.
            mask: of it, for inpainting.
            recipe: how it is made.
            told: called with how many batches of tiles are done, and how many there are.
            check: called with height and width of the result, before it is made; may raise.

        Raises:
            UserError: it cannot be read, or does not fit the task.
        """
        its, task = None if mask is None else as_mask(mask), self.pictures.task
        subject = Subject.of(task, source, its, recipe.prompt, recipe.sizing)
        check(*subject.result_size)
        made = self._tiled.make(
            (subject.size[0] * task.scale, subject.size[1] * task.scale),
            subject.padded,
            key=jax.random.key(recipe.seed),
            steps=recipe.steps,
            text=recipe.text,
            sampler=recipe.sampler,
            told=told,
        )
        return subject.finished(made, recipe.sizing)

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
        padded = {name: self.pictures.padded(array) for name, array in batch.items()}
        made = self.pictures.conditional(self.params, padded, key, steps, text, sampler)
        return made[:, : height * self.model.scale, : width * self.model.scale]

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
        progress: Callable[[Progress], None] | None = None,
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
            progress: a function that is told how far it is.

        Raises:
            UserError: the model is not a prior; a prompt for a model without text; a wrong size;
                an unknown solver.
        """
        if (p := self.model).task is not None:
            raise UserError(f"this checkpoint is a model for {p.task}: give it a picture.")
        text = self.encode(
            Guidance(
                prompt=prompt,
                negative_prompt=negative_prompt,
                guidance_scale=guidance_scale if p.takes_text else 1.0,
            )
        )
        check_steps(steps)
        f = p.vae.downsampling
        side = p.network.unet.sample_size or 64
        latents = (side, side) if isinstance(side, int) else side
        height, width = size or (latents[0] * f, latents[1] * f)
        if noise is not None:
            shape = (-(-height // f), -(-width // f), p.vae.latent_channels)
            if noise.shape != shape:
                raise UserError(f"noise is {list(noise.shape)}; give {list(shape)}.")
        made = self._tiled.make(
            (height, width),
            lambda _: {},
            key=jax.random.key(seed),
            steps=steps,
            text=text,
            sampler=sampler_named(solver, p.sampler),
            noise=noise,
            told=lambda tiles, of: progress and progress(Progress(0, 1, tiles, of)),
        )
        return Image.fromarray(eight_bits(np.ascontiguousarray(made[:height, :width])))

    def encode(self, guidance: Guidance) -> GuidedCondition:
        """What the networks read of the texts [1, ...], and the weights; the last is remembered.

        Raises:
            UserError: a prompt or guidance that the model cannot read.
        """
        if self._last is None or self._last[0] != guidance:
            made = guidance.encode(self.model, self.pictures.task, lambda: self.encode_prompt)
            self._last = guidance, made
        return self._last[1]

    @functools.cached_property
    def encode_prompt(self) -> PromptEncoder:
        """The model's text encoder, loaded when it is first needed."""
        assert self.model.directory is not None
        return PromptEncoder(self.model.directory, self.dtype)
