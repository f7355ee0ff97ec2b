"""The user's files in, pictures out: what `codi_jax.sample` does."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codi_jax.data.images import load_depth, load_image, load_mask, save_image
from codi_jax.data.sources import FolderSource
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.sampler import Sampler
from codi_jax.tasks.registry import trust_task
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Which model makes pictures of which files.

    Attributes:
        checkpoint: a workdir, a model directory or its Hugging Face id, or "demo".
        input: an image or a folder of images; without one a prior makes a picture from noise.
        mask: for inpainting, an image that is white where to fill, or a folder that has one of
            the same name for each input.
        output: folder for the results (PNG).
        steps: number of sampling steps; by default 4 with an input, else 50.
        solver: name of another solver than the model's own.
        seed: of the noise.
        task_module: the model's task, module:Class, if it is one of your own; its code is run.
    """

    checkpoint: str = "demo"
    input: Path | None = None
    mask: Path | None = None
    output: Path = Path("out")
    steps: int | None = None
    solver: str | None = None
    seed: int = 0
    task_module: str | None = None


def make_files(request: Request, guidance: Guidance) -> str:
    """Make the pictures; a line that says what was written.

    Raises:
        UserError: an input that does not exist or cannot be read, or that does not fit the model.
    """
    if request.task_module:
        trust_task(request.task_module)
    options: dict[str, Any] = {
        **{name: getattr(request, name) for name in ("steps", "solver", "seed")},
        **dataclasses.asdict(guidance),
    }
    # What is not given has its default there: with an input other ones than without.
    options = {name: value for name, value in options.items() if value is not None}
    if request.input is None:
        return _from_noise(request, options)
    files = input_files(request.input)
    masks = [None] * len(files) if request.mask is None else mask_files(request.mask, files)
    sampler = Sampler.load(request.checkpoint)
    load = load_depth if sampler.pictures.task.takes_map else load_image
    pairs = zip(files, masks, strict=True)
    for (file, name), mask in tqdm(pairs, unit="image", total=len(files), disable=len(files) == 1):
        result = sampler(load(file), mask=None if mask is None else load_mask(mask), **options)
        _save((request.output / name).with_suffix(".png"), np.asarray(result))
    return f"{len(files)} image{'s' * (len(files) != 1)} written to {request.output}"


def _from_noise(request: Request, options: dict[str, Any]) -> str:
    weight = options.pop("image_guidance_scale")
    if weight != 1.0:
        raise UserError(f"--image_guidance_scale={weight} weighs a picture: give one by --input.")
    if request.mask is not None:
        raise UserError(f"--mask={request.mask} belongs to a picture: give one by --input.")
    picture = Sampler.load(request.checkpoint).generate(**options)
    target = request.output / f"seed_{request.seed}.png"
    _save(target, np.asarray(picture))
    return f"written: {target}"


def _save(target: Path, picture: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    save_image(target, picture)


def input_files(path: Path) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of a file or of all images in a folder.

    Raises:
        UserError: there is no such file or folder, or no image in it.
    """
    if path.is_dir():
        return [(path / name, Path(name)) for name in FolderSource(path).names]
    if not path.exists():
        raise UserError(f"--input {path} does not exist; give an image or a folder of images.")
    return [(path, Path(path.name))]


def mask_files(path: Path, inputs: list[tuple[Path, Path]]) -> list[Path]:
    """The mask of each input: one file for all, or of a folder the file of the same name.

    Raises:
        UserError: an input has none.
    """
    masks = [path / name if path.is_dir() else path for _, name in inputs]
    for mask in masks:
        if not mask.is_file():
            raise UserError(f"--mask {mask} does not exist; give a mask for each input.")
    return masks
