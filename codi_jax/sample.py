"""Sampling from a trained model, from Python and from the command line.

from codi_jax.sample import Sampler
sampler = Sampler.load("demo")
picture = sampler(Image.open("small.jpg"), steps=4)

python -m codi_jax.sample --checkpoint demo --input small.jpg --output out/ --steps 4
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from PIL import Image
from tqdm import tqdm

from codi_jax.builder import compute_dtype, pretrained_path
from codi_jax.checkpoint.pipeline import INDEX, Pipeline, load_pipeline
from codi_jax.data.images import load_image, save_image
from codi_jax.data.sources import FolderSource
from codi_jax.evals.sampling import PictureSampler
from codi_jax.typing import UserError

Picture = Image.Image | np.ndarray


class Sampler:
    """Super-resolution with a distilled model.

    Args:
        pipeline: a model with a task.
        dtype: "auto", "float32" or "bfloat16", of the computation.
    """

    def __init__(self, pipeline: Pipeline, dtype: str = "auto"):
        if pipeline.task != "sr" or pipeline.unet is None:
            raise UserError(
                "this checkpoint is a prior, not a distilled model: it takes no picture. "
                "Distil it with configs/sr.py, or use --checkpoint demo."
            )
        self.pipeline = pipeline
        self._sampler = PictureSampler(pipeline, compute_dtype(dtype))
        self._params = jax.device_put(pipeline.params)

    @classmethod
    def load(cls, path: str | Path) -> "Sampler":
        """From a run's workdir, a diffusers-format directory, or the name ``"demo"``.

        Raises:
            UserError: there is no model, or the run has not finished.
        """
        root = pretrained_path(str(path))
        if not (root / INDEX).is_file() and (root / "config.json").is_file():
            if not (root / "model" / INDEX).is_file():
                raise UserError(
                    f"the run in {root} has not finished: no {root / 'model'}. Run its training "
                    "command again to let it finish."
                )
            root = root / "model"
        return cls(load_pipeline(root))

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        steps: int = 4,
        seed: int = 0,
        guidance_scale: float = 1.0,
        prompt: str | None = None,
    ) -> Any:
        """Enlarge one picture or several.

        Args:
            images: PIL images or uint8 arrays [h, w, 3], one or a sequence (also [B, h, w, 3]);
                of any size.
            steps: sampling steps, at least 1; 1 to 4 are what the model was distilled for.
            seed: of the initial noise; the same seed gives the same picture.
            guidance_scale: classifier-free guidance, for models with text.
            prompt: for models with text.

        Returns:
            The same kind: a PIL image, an array [h * scale, w * scale, 3], or a list of them.

        Raises:
            UserError: a prompt or guidance for a model without text, no steps, a wrong array.
        """
        if prompt is not None or guidance_scale != 1.0:
            raise UserError(
                f"prompt={prompt!r}, guidance_scale={guidance_scale}: this model has no text "
                "encoder; leave both out."
            )
        if steps < 1:
            raise UserError(f"steps={steps}: give at least 1.")
        if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3):
            return self._one(images, steps, seed)
        return [self._one(image, steps, seed) for image in images]

    def _one(self, picture: Picture, steps: int, seed: int) -> Picture:
        is_pil = isinstance(picture, Image.Image)
        lr = np.asarray(picture.convert("RGB")) if isinstance(picture, Image.Image) else picture
        if lr.dtype != np.uint8 or lr.ndim != 3 or lr.shape[-1] != 3:
            raise UserError(
                f"an image is {lr.dtype}{list(lr.shape)}; give uint8 [height, width, 3]."
            )
        scale = self.pipeline.scale
        padded = np.pad(lr, [*self._padding(lr.shape), (0, 0)], mode="edge")
        key = jax.random.key(seed)
        result = self._sampler.super_resolve(self._params, jnp.asarray(padded[None]), key, steps)
        picture = np.asarray(result[0, : lr.shape[0] * scale, : lr.shape[1] * scale])
        return Image.fromarray(picture) if is_pil else picture

    def _padding(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """To latents that the U-Net can halve; edges repeat, and are cropped off the result."""
        p = self.pipeline
        assert p.unet is not None
        multiple = p.vae.downsampling * p.unet.unet.downsampling
        # Also in steps of 16 of the low resolution: fewer shapes, fewer compilations.
        multiple = max(-(-multiple // p.scale), 16)
        return [(0, -size % multiple) for size in shape[:2]]


def _inputs(path: Path) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of a file or of all images in a folder."""
    if path.is_dir():
        return [(path / name, Path(name)) for name in FolderSource(path).names]
    if not path.exists():
        raise UserError(f"--input {path} does not exist; give an image or a folder of images.")
    return [(path, Path(path.name))]


def _main(checkpoint: str, source: Path, output: Path, steps: int, seed: int) -> None:
    files = _inputs(source)
    sampler = Sampler.load(checkpoint)
    for file, name in tqdm(files, unit="image", disable=len(files) == 1):
        result = sampler(load_image(file), steps=steps, seed=seed)
        target = (output / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(target, result)
    print(f"{len(files)} image{'s' * (len(files) != 1)} written to {output}")


def run_main() -> None:
    """The command line."""
    checkpoint = flags.DEFINE_string("checkpoint", "demo", "Workdir, model directory, or 'demo'")
    source = flags.DEFINE_string("input", None, "An image, or a folder of images", required=True)
    output = flags.DEFINE_string("output", "out", "Folder for the results (PNG)")
    steps = flags.DEFINE_integer("steps", 4, "Sampling steps: 1 to 4")
    seed = flags.DEFINE_integer("seed", 0, "Seed of the noise")

    def guarded(_: list[str]) -> None:
        try:
            _main(checkpoint.value, Path(source.value), Path(output.value), steps.value, seed.value)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)


if __name__ == "__main__":
    run_main()
