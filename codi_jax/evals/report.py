"""What `evaluate` writes and prints of its scores: table, ``results.json``, plots, grid."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from codi_jax.evals.image_metrics import Images
from codi_jax.evals.pictures import grid
from codi_jax.evals.plots import metric_vs_metric, quality_vs_steps
from codi_jax.evals.results import Results, in_steps, table

#: Rows of the grid, and the side in pixels of what it shows of each image.
SHOWN, SIDE = 12, 192
#: What is plotted against what: the first of each that was computed.
ACCURACY = ("lpips_vgg", "lpips_alex", "dists", "gmsd", "haarpsi", "psnr", "ssim")
REALISM = ("fid", "kid", "swd", "niqe", "niqe_y", "haarpsi", "ms_ssim", "ssim_y")


def report_text(results: Results) -> str:
    """The table, and the warnings below it."""
    lines = [table(results), f"{results.images} images, border {results.setting['border']}"]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in results.warnings)])


def write_results(results: Results, output: Path, versus: tuple[str, ...] | None = None) -> None:
    """Write ``results.json``, and the plots where there are numbers of steps.

    Args:
        results: the scores.
        output: folder of the files.
        versus: two metrics to plot against one another; None for the first of :data:`ACCURACY`
            and of :data:`REALISM` that were computed.
    """
    results.save(output / "results.json")
    curves = results.curves
    if not curves:
        return
    directions = {name: metric.higher_is_better for name, metric in results.metrics.items()}
    quality_vs_steps(curves, directions, output / "quality_vs_steps.png", results.unsampled)
    pair = versus or _first_two([*results.metrics])
    if pair:
        metric_vs_metric(curves, pair[0], pair[1], output / "metric_vs_metric.png")


def write_grid(
    inputs: Mapping[str, Images],
    columns: Mapping[str, Images],
    references: Images,
    output: Path,
) -> None:
    """Write ``grid.png``: the same centre of the first images of every column.

    Args:
        inputs: the columns before the results; their images may be smaller than the references.
        columns: the results by number of steps or baseline, as large as the references.
        references: what is right.
        output: folder of the file.
    """
    labels = {name: in_steps(name) for name in columns}
    heights = [image.shape[0] for image in references[:SHOWN]]
    shown = {labels.get(k, k): _centres(v, heights) for k, v in {**inputs, **columns}.items()}
    shown["ground truth"] = _centres(references, heights)
    grid(shown, output / "grid.png", max_rows=SHOWN)


def _centres(images: Images, heights: list[int]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """``SIDE`` pixels of a picture of its height, and as much of a smaller one, an input."""

    def centre(image: np.ndarray, height: int) -> np.ndarray:
        side = SIDE * image.shape[0] // height
        top, left = (max(0, (n - side) // 2) for n in image.shape[:2])
        return image[top : top + side, left : left + side]

    return [centre(*pair) for pair in zip(images[:SHOWN], heights, strict=True)]


def _first_two(names: list[str]) -> tuple[str, str] | None:
    """The metrics to plot against one another, if there are two."""
    x = next((name for name in ACCURACY if name in names), None)
    y = next((name for name in REALISM if name in names and name != x), None)
    return (x, y) if x and y else None
