"""The result of an evaluation: table, ``results.json``, plots, grid."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.checkpoint.files import save_json
from codi_jax.evals.evaluation import table
from codi_jax.evals.pictures import grid
from codi_jax.evals.plots import metric_vs_metric, quality_vs_steps
from codi_jax.evals.scoring import METRICS, Score, Scorer
from codi_jax.sampling.image_files import ImageFiles

#: Rows of the grid, and the side in pixels of what it shows of each image.
SHOWN, SIDE = 12, 192
#: What is plotted against what: the first of each that was computed.
ACCURACY = ("lpips_vgg", "lpips_alex", "gmsd", "haarpsi", "psnr", "ssim")
REALISM = ("fid", "kid", "swd", "haarpsi", "ms_ssim", "ssim_y")


_OWN = "the task's own, see docs/tasks.md; of each image, mean over images"


@dataclasses.dataclass(kw_only=True)
class Report:
    """Scores by column: numbers of steps ("4"), a baseline, or "images" for a folder.

    Attributes:
        setting: what was evaluated on what.
        versus: two metrics to plot against one another; None for the first of :data:`ACCURACY`
            and of :data:`REALISM`.
        measures: the task's own measures -> whether more is better.
    """

    setting: dict[str, Any]
    versus: tuple[str, ...] | None = None
    measures: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    scores: dict[str, dict[str, Score]] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    images: int = 0
    border: int = 0

    def add(self, scorer: Scorer, columns: Mapping[str, ImageFiles]) -> None:
        """Score ``columns``."""
        self.scores |= {name: scorer(images) for name, images in columns.items()}
        self.warnings, self.border = scorer.warnings, scorer.border
        self.images = max(len(images) for images in columns.values())

    def add_measures(self, scores: Mapping[str, Mapping[str, Score]], warnings: list[str]) -> None:
        """The task's own, of columns that were added."""
        self.warnings = [*self.warnings, *warnings]
        for name, own in scores.items():
            self.scores[name] |= own

    def values(self) -> dict[str, dict[str, float]]:
        """column -> metric -> value."""
        return {
            column: {name: score.value for name, score in scores.items()}
            for column, scores in self.scores.items()
        }

    def results(self) -> dict[str, Any]:
        """The content of ``results.json``; infinite values (PSNR of equal images) as strings."""
        values = self.values()
        names = list(next(iter(values.values())))
        return {
            "setting": self.setting,
            "images": self.images,
            "border": self.border,
            "metrics": {
                column: {k: v if math.isfinite(v) else str(v) for k, v in scores.items()}
                for column, scores in values.items()
            },
            "intervals": {
                column: {k: s.interval for k, s in scores.items() if s.interval}
                for column, scores in self.scores.items()
            },
            "conventions": {
                name: METRICS[name].convention if name in METRICS else _OWN for name in names
            },
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """The table, and the warnings below it."""
        values = self.values()
        rows: dict[str, Any] = {k: v for k, v in values.items() if not k.isdigit()}
        by_steps = {k: v for k, v in values.items() if k.isdigit()}
        if by_steps:
            rows["model"] = by_steps
        lines = [table({"metrics": rows}), f"{self.images} images, border {self.border}"]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def write(self, output: Path) -> None:
        """``results.json``, and the plots where there are numbers of steps."""
        save_json(output / "results.json", self.results())
        values = self.values()
        curve = {int(k): v for k, v in values.items() if k.isdigit()}
        if not curve:
            return
        names = list(next(iter(curve.values())))
        baselines = {k: v for k, v in values.items() if not k.isdigit()}
        directions = {
            name: METRICS[name].higher_is_better if name in METRICS else self.measures[name]
            for name in names
        }
        quality_vs_steps({"model": curve}, directions, output / "quality_vs_steps.png", baselines)
        versus = self.versus or _first_two(names)
        if versus:
            metric_vs_metric(
                {"model": curve}, versus[0], versus[1], output / "metric_vs_metric.png"
            )

    def write_grid(
        self,
        inputs: Mapping[str, ImageFiles],
        columns: Mapping[str, ImageFiles],
        references: ImageFiles,
        output: Path,
    ) -> None:
        """``grid.png``: the same centre of the first images of every column."""
        labels = {
            name: f"{name} step{'s' * (name != '1')}" if name.isdigit() else name
            for name in columns
        }
        heights = [image.shape[0] for image in references[:SHOWN]]
        shown = {labels.get(k, k): _centres(v, heights) for k, v in {**inputs, **columns}.items()}
        shown["ground truth"] = _centres(references, heights)
        grid(shown, output / "grid.png", max_rows=SHOWN)


def _centres(images: ImageFiles, heights: list[int]) -> list[np.ndarray]:
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
