"""Pictures of files: what `codi_jax.sample` does."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codi_jax.data.images import load_depth, load_image, load_mask, save_image
from codi_jax.sampling.inputs import input_files, mask_files
from codi_jax.sampling.sampler import Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be made of what.

    Attributes:
        checkpoint: a workdir, a model directory or its Hugging Face id, or "demo".
        input: an image, or a folder of images; none for a picture from noise.
        mask: for inpainting, white where to fill; of a folder the file with the input's name.
        prompt: text, for models that read it; without an input, what to draw.
        negative_prompt: what guidance leads away from.
        guidance_scale: classifier-free guidance, 1 for none; by default 1 with an input, else 7.5.
        image_guidance_scale: for edits, guidance by the picture; 1 for none.
        output: folder for the results (PNG).
        steps: sampling steps; by default 4 with an input, else 50.
        solver: name of another solver than the model's own.
        seed: of the noise.
    """

    checkpoint: str = "demo"
    input: Path | None = None
    mask: Path | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float = 1.0
    output: Path = Path("out")
    steps: int | None = None
    solver: str | None = None
    seed: int = 0


def make_files(request: Request) -> str:
    """Make the pictures; a line that says what was written.

    Raises:
        UserError: an input that does not exist or cannot be read, or that does not fit the model.
    """
    given: dict[str, Any] = {"steps": request.steps, "guidance_scale": request.guidance_scale}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {name: getattr(request, name) for name in ("seed", "negative_prompt", "solver")}
    if request.input is None:
        picture = Sampler.load(request.checkpoint).generate(request.prompt, **given)
        target = request.output / f"seed_{request.seed}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(target, np.asarray(picture))
        return f"written: {target}"
    files = input_files(request.input)
    masks = [None] * len(files) if request.mask is None else mask_files(request.mask, files)
    sampler = Sampler.load(request.checkpoint)
    given |= {
        "prompt": request.prompt,
        "image_guidance_scale": request.image_guidance_scale,
    }
    load = load_depth if sampler.pictures.task.takes_map else load_image
    pairs = zip(files, masks, strict=True)
    for (file, name), mask in tqdm(pairs, unit="image", total=len(files), disable=len(files) == 1):
        result = sampler(load(file), mask=None if mask is None else load_mask(mask), **given)
        target = (request.output / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(target, result)
    return f"{len(files)} image{'s' * (len(files) != 1)} written to {request.output}"
