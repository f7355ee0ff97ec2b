"""Grain transforms of one element: crop, flip, degrade. Images stay uint8 to the device.

An element is what a source gives: {"image": uint8 [H, W, 3], "text": str, "name": str}, and
further maps of the image's size, such as "depth" uint16 [H, W].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from codi_jax.data import images
from codi_jax.data.degradation import Bicubic, Degradation, degrade
from codi_jax.typing import UserError

#: Columns that `prepare` can make with frozen networks: the autoencoder's latents, and of a
#: prompt what the U-Net reads (our names -> diffusers').
LATENTS = "latents"
PROMPTS = {"text": "prompt_embeds", "text_embeds": "pooled_prompt_embeds"}
ENCODED = (LATENTS, *PROMPTS.values())


@dataclasses.dataclass(frozen=True)
class RandomCropFlip(grain.transforms.RandomMap):
    """A uniformly placed square crop, mirrored left to right half the time.

    An image with a side below `size` is first scaled up (bicubic, aspect kept; maps by the
    nearest pixel: a mean of two depths is neither) until its shorter side is `size`; larger
    images are never scaled. An element with latents stays as it is: they are of the whole image.

    Attributes:
        size: side of the crop.
        aligned: keys of what is cropped alike, where an element has them: pictures [H, W, 3] and
            maps [H, W].

    Raises:
        UserError: pictures and maps of one element that differ in size; latents of another size.
    """

    size: int
    aligned: tuple[str, ...] = ("image",)

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """uint8 [H, W, 3] (maps: any dtype, [H, W]) to [size, size, 3] ([size, size])."""
        given = _equal_in_size(element, self.aligned)
        if LATENTS in element:
            size = given["image"].shape[:2]
            if size != (self.size, self.size):
                raise UserError(
                    f"{element['name']} has latents of {size} pixels, training is at "
                    f"{self.size}: prepare it with --crop={self.size}, or set "
                    "config.data.encoded=False."
                )
            return element
        given = {name: _at_least(array, self.size) for name, array in given.items()}
        image = given["image"]
        top = int(rng.integers(image.shape[0] - self.size + 1))
        left = int(rng.integers(image.shape[1] - self.size + 1))
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        step = -1 if rng.random() < 0.5 else 1
        crops = {
            name: np.ascontiguousarray(array[rows, columns][:, ::step])
            for name, array in given.items()
        }
        return {**element, **crops}


@dataclasses.dataclass(frozen=True)
class CheckSizes(grain.transforms.Map):
    """The whole element as it is; raises UserError where what it has of `aligned` differs in size.

    Attributes:
        aligned: as that of `RandomCropFlip`.
    """

    aligned: tuple[str, ...]

    def map(self, element: dict) -> dict:
        """The same element."""
        _equal_in_size(element, self.aligned)
        return element


@dataclasses.dataclass(frozen=True)
class Apply(grain.transforms.RandomMap):
    """A task's own `function(element, rng) -> element`; it must pickle, as methods of tasks do."""

    function: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """What `function` makes of it."""
        return self.function(element, rng)


def prompts_differ(prompt: str) -> bool:
    """Whether a prompt has columns of the data in it, such as "{text}"."""
    return "{" in prompt


@dataclasses.dataclass(frozen=True)
class FillPrompt(grain.transforms.RandomMap):
    """Adds "prompt": `template` with the element's own strings, such as "a photo of {text}".

    Of an element with several "captions" one is drawn as its "text".

    Attributes:
        template: names in braces are keys of the element.
        dropout: probability of the empty prompt instead, for classifier-free guidance.
    """

    template: str
    dropout: float = 0.0

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """Raises UserError where the element has no such string."""
        dropped = rng.random() < self.dropout
        strings = {key: value for key, value in element.items() if isinstance(value, str)}
        captions = element.get("captions")
        if captions:
            strings["text"] = captions[rng.integers(len(captions))]
        try:
            prompt = self.template.format(**strings)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"model.prompt={self.template!r}: {element['name']} has no {error}; it has the "
                f"strings {', '.join(strings)}."
            ) from error
        return {**element, "prompt": "" if dropped else prompt}


@dataclasses.dataclass(frozen=True)
class Keep(grain.transforms.Map):
    """Strings, and the arrays of these names: others may differ in size, and cost time."""

    names: tuple[str, ...]

    def map(self, element: dict) -> dict:
        """The element with fewer entries."""
        return {
            key: value
            for key, value in element.items()
            if key in self.names or isinstance(value, str)
        }


@dataclasses.dataclass(frozen=True)
class Drop(grain.transforms.Map):
    """All but the entries of these names."""

    names: tuple[str, ...]

    def map(self, element: dict) -> dict:
        """The element with fewer entries."""
        return {key: value for key, value in element.items() if key not in self.names}


@dataclasses.dataclass(frozen=True)
class CutToMultiple(grain.transforms.Map):
    """The whole image, its right and lower edge cut to sides that `multiple` divides."""

    multiple: int

    def map(self, element: dict) -> dict:
        """uint8 [H, W, 3] to at most that."""
        height, width = (n // self.multiple * self.multiple for n in element["image"].shape[:2])
        if not height or not width:
            raise UserError(
                f"{element['name']}: {element['image'].shape[:2]} pixels, less than the scale "
                f"{self.multiple}; use larger images."
            )
        return {**element, "image": element["image"][:height, :width]}


@dataclasses.dataclass(frozen=True)
class Degrade(grain.transforms.RandomMap):
    """Adds the low-resolution image "lr": uint8 [H / scale, W / scale, 3].

    Attributes:
        config: which degradation.
        scale: ratio of the sizes.
        sharpen: sharpen the ground truth first (USM); "image" is then the sharpened one.
        clean_share: of the pictures that are reduced bicubically instead, without further harm.
    """

    config: Degradation
    scale: int = 4
    sharpen: bool = False
    clean_share: float = 0.0

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """uint8 "image" [H, W, 3] to the same and "lr"."""
        hr = images.to_float(element["image"])
        image = element["image"]
        if self.sharpen:
            hr = images.usm_sharpen(hr)
            image = images.unit_to_uint8(hr)
        # Nothing is drawn where no input is to be clean: such streams stay what they were.
        clean = self.clean_share > 0 and rng.random() < self.clean_share
        try:
            lr = degrade(hr, rng, Bicubic() if clean else self.config, self.scale)
        except UserError as error:
            raise UserError(f"{element['name']}: {error}") from error
        return {**element, "image": image, "lr": lr}


def _equal_in_size(element: dict, aligned: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What the element has of ``aligned``; a UserError where two of them differ in size."""
    given = {name: element[name] for name in aligned if name in element}
    sizes = {name: array.shape[:2] for name, array in given.items()}
    if len({*sizes.values()}) > 1:
        raise UserError(
            f"{element['name']}: its pictures and maps differ in size (height, width): "
            f"{sizes}; make them equal."
        )
    return given


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter >= size:
        return image
    # The shorter side is `size` exactly: rounding must not leave it one pixel short.
    larger = (max(size, round(height * size / shorter)), max(size, round(width * size / shorter)))
    if image.ndim == 3:
        return images.resize(image, larger, "bicubic")
    rows, columns = (np.arange(n) * old // n for n, old in zip(larger, image.shape, strict=True))
    return image[rows][:, columns]
