"""From what a person gives to the page to what the page shows; without gradio."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from codi_jax.data.decoding import stored_size
from codi_jax.sampling.page.choices import Choice
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.picture_formats import encode, write
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.recipe import Options
from codi_jax.sampling.sizing import resampled_mask, resampled_picture
from codi_jax.sampling.user_files import settings_of
from codi_jax.sampling.user_pictures import UserPicture, as_map, from_array
from codi_jax.typing import UserError

#: The longer side of what the page shows; the file has all pixels.
SHOWN = 1600
#: The longer side of what is painted on.
PAINTED = 768


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for.

    Attributes:
        picture: its file.
        layers: what was painted on it, RGBA of any size; for models that take a mask.
        steps: number of sampling steps.
        seed: of all noise.
        prompt: for models that read one; "" for none.
        reduce: whether a picture is reduced whose result would be too large.
    """

    picture: Path
    layers: Sequence[UInt8[np.ndarray, "_ _ 4"]] = ()
    steps: int = 4
    seed: int = 0
    prompt: str = ""
    reduce: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What the page shows.

    Attributes:
        before: the picture that was given, as large as ``after``.
        after: the result, reduced to `SHOWN` pixels.
        file: the whole result.
        text: time, steps and sizes.
    """

    before: Image.Image
    after: Image.Image
    file: Path
    text: str


def check_picture(path: Path, options: PageOptions) -> None:
    """Check by a picture's header that it is one, and not too large.

    Raises:
        UserError: it is none, or is too large; the message has the file's name, not its path.
    """
    with _named(path):
        height, width = stored_size(path)
        options.check_pixels(f"{path.name} has", height, width, "give a smaller one.")


def background(path: Path, options: PageOptions) -> Image.Image:
    """A picture to paint on, of `PAINTED` pixels.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    check_picture(path, options)
    with _named(path):
        picture = read_picture(path)
    return _shown(picture, within(picture.size, PAINTED))


def make(
    choice: Choice,
    wish: Wish,
    options: PageOptions,
    folder: Path,
    told: Callable[[int, int], None] | None = None,
) -> Made:
    """Make a picture.

    Args:
        choice: the model.
        wish: what is asked for.
        options: of the page.
        folder: where the result's file goes.
        told: called with how many batches of tiles are done, and how many there are.

    Raises:
        UserError: it cannot be made.
    """
    check_picture(wish.picture, options)
    settings: Options = {"steps": wish.steps, "seed": wish.seed}
    if wish.prompt:
        settings["prompt"] = wish.prompt
    if wish.reduce:
        settings["max_megapixels"] = options.max_megapixels
    recipe = choice.sampler.recipe(**settings)
    with _named(wish.picture):
        given = _read(choice, wish.picture)
    mask = painted(wish.layers, given.size) if choice.takes_mask else None

    def check(height: int, width: int) -> None:
        options.check_pixels(
            "the result would have",
            height,
            width,
            "tick “Reduce a large picture first”, or give a smaller one.",
        )

    began = time.monotonic()
    with _named(wish.picture):
        made = choice.sampler.make(wish.picture, mask, recipe, told, check)
    seconds = time.monotonic() - began
    used = recipe.sizing.input_size(given.size, choice.task.scale)
    text = _text(choice, wish, [given.size, used, made.size], seconds, made.frames)
    size = within(made.size, SHOWN)
    data = encode(made, "png", 100, {**settings_of(choice.name, choice.sampler), **settings})
    file = folder / f"{wish.picture.stem}_{choice.task.name}.png"
    write(file, data, replace=True)
    before = _shown(resampled_picture(given, used), size)
    return Made(before=before, after=_shown(made, size), file=file, text=text)


def painted(
    layers: Sequence[UInt8[np.ndarray, "_ _ 4"]], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """The mask of what was painted, in any colour.

    Args:
        layers: RGBA, as large as one another.
        size: height and width of the mask.

    Raises:
        UserError: nothing was painted.
    """
    opacity = [layer[..., 3] for layer in layers]
    if not any(values.any() for values in opacity):
        raise UserError("nothing is painted: paint over what is to be filled.")
    mask = np.where(np.max(opacity, axis=0) > 0, np.uint8(255), np.uint8(0))
    return resampled_mask(mask, size)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Messages have the file's name where they had its path here."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error


def _read(choice: Choice, path: Path) -> UserPicture:
    """The picture; of a map what a person can see of it."""
    if not choice.task.takes_map:
        return read_picture(path)
    values = as_map(path).astype(np.float64)
    return from_array((values / max(1.0, values.max())).astype(np.float32))


def _text(
    choice: Choice, wish: Wish, sizes: Sequence[tuple[int, int]], seconds: float, frames: int
) -> str:
    given, used, made = (f"{width}x{height}" for height, width in sizes)
    count = f"{wish.steps} step{'s' * (wish.steps != 1)}"
    lines = [f"**{given} → {made}** pixels, {count}, seed {wish.seed}, {seconds:.1f} s"]
    if used != given:
        lines.append(f"The picture was reduced to {used} pixels first.")
    if frames > 1:
        lines.append(f"The first of {frames} frames was taken.")
    return "  \n".join(lines)


def within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Height and width, reduced so that the longer one is at most ``longest``."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _shown(picture: UserPicture, size: tuple[int, int]) -> Image.Image:
    """A picture as a browser shows it: of this size, 8 bits, on white, with its profile."""
    flat = resampled_picture(picture, size).eight_bits().on_white()
    return dataclasses.replace(flat, exif=None).as_pil()
