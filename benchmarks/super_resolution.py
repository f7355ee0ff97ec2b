"""Quality of a model's super-resolution on a folder of photos, against bicubic enlargement.

    python -m benchmarks.super_resolution --images PHOTOS --checkpoint demo --output runs/kodak

Each photo is cropped to a multiple of the scale, reduced bicubically (antialiased), enlarged
again by the model and by bicubic interpolation, and scored against itself: PSNR and SSIM, and two
perceptual measures that need no weights, GMSD (lower is better) and HaarPSI (higher is better).
Prints the table, writes results.json and grid.png (the central part of each photo).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codi_jax.checkpoint.files import save_json
from codi_jax.data.degradation import bicubic_degrade
from codi_jax.data.images import resize
from codi_jax.data.sources import make_source
from codi_jax.evals.evaluation import sr_results, table
from codi_jax.evals.image_metrics import score
from codi_jax.evals.pictures import grid
from codi_jax.sample import Sampler

#: Side in pixels of what the grid shows of each photo.
SHOWN = 192


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """The central ``side`` x ``side`` pixels, or less where the image is smaller."""
    top, left = (max(0, (n - side) // 2) for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", default="skimage", help="a folder, or 'skimage' (bundled)")
    parser.add_argument("--checkpoint", default="demo", help="workdir, model directory or 'demo'")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=Path("runs/super_resolution"))
    args = parser.parse_args()

    sampler = Sampler.load(args.checkpoint)
    scale = sampler.pipeline.scale
    source = make_source(args.images, "eval")
    truth: list[np.ndarray] = []
    rows: dict[str, list[np.ndarray]] = {"bicubic": [], **{str(n): [] for n in args.steps}}
    for i in tqdm(range(len(source)), unit="photo"):
        photo = source[i]["image"]
        photo = photo[: photo.shape[0] // scale * scale, : photo.shape[1] // scale * scale]
        lr = bicubic_degrade(photo, scale)
        truth.append(photo)
        rows["bicubic"].append(resize(lr, photo.shape[:2], "bicubic"))
        for n in args.steps:
            rows[str(n)].append(sampler(lr, steps=n))
    scores = {name: score(pictures, truth) for name, pictures in rows.items()}
    bicubic = scores.pop("bicubic")
    results: dict[str, Any] = sr_results({}, scores, bicubic, len(truth))
    results["metrics"].pop("start")
    print(table(results))
    args.output.mkdir(parents=True, exist_ok=True)
    save_json(args.output / "results.json", results)
    labels = {
        name: "bicubic" if name == "bicubic" else f"{name} step{'s' * (name != '1')}"
        for name in rows
    }
    shown = {labels[name]: [centre(x, SHOWN) for x in pictures] for name, pictures in rows.items()}
    shown["ground truth"] = [centre(x, SHOWN) for x in truth]
    grid(shown, args.output / "grid.png", max_rows=len(truth))


if __name__ == "__main__":
    main()
