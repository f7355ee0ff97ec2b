"""Scores as every command writes and prints them: one tree, one JSON format, one table.

``docs/metrics.md`` describes the format of the files.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.evals.metrics import Metric
from codi_jax.evals.statistics import bootstrap_interval
from codi_jax.typing import UserError

#: Of the JSON format.
VERSION = 1
#: What stands for the number of steps of pictures that were not sampled.
UNSAMPLED = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one set of images.

    Attributes:
        value: of the set; for metrics of single images their mean.
        interval: 95% bootstrap interval of that mean; None where there is none.
        values: one for each image, where they were asked for.
        left_out: of a measure of sets, the values without each of some groups of images, where
            they were asked for, see :func:`codi_jax.evals.distributions.swd_left_out`.
    """

    value: float
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] | None = None
    left_out: tuple[float, ...] | None = None

    @classmethod
    def of(cls, values: float | Float[np.ndarray, " images"], keep: bool = False) -> Self:
        """The score of a set, or of images.

        Args:
            values: the set's value, or one value for each image.
            keep: whether the score holds the images' values.
        """
        if not isinstance(values, np.ndarray):
            return cls(value=float(values))
        return cls(
            value=float(values.mean(dtype=np.float64)),
            # PSNR of identical images is infinite, and so is an end of the interval.
            interval=None if np.isnan(values).any() else bootstrap_interval(values),
            values=tuple(map(float, values)) if keep else None,
        )

    def to_json(self) -> dict[str, object]:
        """What JSON can hold: numbers that are not finite become strings such as "inf"."""
        content: dict[str, object] = {"value": _to_json(self.value)}
        if self.interval is not None:
            content["interval"] = [_to_json(end) for end in self.interval]
        for name, several in (("values", self.values), ("left_out", self.left_out)):
            if several is not None:
                content[name] = [_to_json(value) for value in several]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        interval = content.get("interval")
        values, left_out = (
            None if several is None else tuple(map(float, several))
            for several in (content.get("values"), content.get("left_out"))
        )
        return cls(
            value=float(content["value"]),
            interval=(float(interval[0]), float(interval[1])) if interval else None,
            values=values,
            left_out=left_out,
        )


#: The scores of one set of images, by metric.
Scores = Mapping[str, Score]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The content of a ``results.json``.

    Attributes:
        images: how many were scored.
        metrics: what the scores' names mean.
        scores: of each method by its number of sampling steps, which is None where nothing is
            sampled (baselines, autoencoders, folders). The method that was trained has its own
            name; what must be beaten and "start", the model before training, stand beside it.
        task: what the images are for; None if unknown.
        setting: what was scored on what; values that JSON can hold.
        warnings: what the reader of the scores must know.
    """

    images: int
    metrics: Mapping[str, Metric]
    scores: Mapping[str, Mapping[int | None, Scores]]
    task: str | None = None
    setting: Mapping[str, object] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def curves(self) -> dict[str, dict[int, dict[str, float]]]:
        """Values by method, number of steps and metric, of the methods that sample."""
        return {
            method: {n: _values(scores) for n, scores in by_steps.items() if n is not None}
            for method, by_steps in self.scores.items()
            if None not in by_steps
        }

    @property
    def unsampled(self) -> dict[str, dict[str, float]]:
        """Values by method and metric, where nothing is sampled."""
        return {
            method: _values(by_steps[None])
            for method, by_steps in self.scores.items()
            if None in by_steps
        }

    def to_json(self) -> dict[str, object]:
        """What the file holds."""
        return {
            "version": VERSION,
            "task": self.task,
            "images": self.images,
            "setting": dict(self.setting),
            "scores": {
                method: {
                    UNSAMPLED if n is None else str(n): {
                        metric: score.to_json() for metric, score in scores.items()
                    }
                    for n, scores in by_steps.items()
                }
                for method, by_steps in self.scores.items()
            },
            "metrics": {name: dataclasses.asdict(metric) for name, metric in self.metrics.items()},
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: another version of the format.
        """
        check_version(content)
        return cls(
            images=content["images"],
            metrics={name: Metric(**metric) for name, metric in content["metrics"].items()},
            scores={
                method: {
                    None if n == UNSAMPLED else int(n): {
                        metric: Score.from_json(score) for metric, score in scores.items()
                    }
                    for n, scores in by_steps.items()
                }
                for method, by_steps in content["scores"].items()
            },
            task=content["task"],
            setting=content["setting"],
            warnings=tuple(content["warnings"]),
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        save_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, or another version of the format.
        """
        return cls.from_json(load_json(path))


def check_version(content: Mapping[str, object]) -> None:
    """Hold the version of a file's format against ours.

    Raises:
        UserError: it is another.
    """
    version = content.get("version")
    if version != VERSION:
        raise UserError(
            f"scores in version {version} of their format, where version {VERSION} is read: use "
            "another --workdir, or remove the files rows/*.json and results.json."
        )


def table(results: Results, intervals: Collection[str] = ()) -> str:
    """The scores in Markdown, a line for each method and number of steps, in aligned columns.

    Args:
        results: what is shown.
        intervals: the metrics whose 95% intervals stand in brackets.
    """
    names = list(results.metrics)
    lines = [["method", "steps", *(metric.title for metric in results.metrics.values())]]
    for method, by_steps in results.scores.items():
        for n, scores in by_steps.items():
            cells = [
                _cell(scores[name], results.metrics[name].decimals, name in intervals)
                if name in scores
                else UNSAMPLED
                for name in names
            ]
            lines.append([method, UNSAMPLED if n is None else str(n), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def in_steps(name: str) -> str:
    """A number of steps as "1 step" or "4 steps"; any other name as it is."""
    return f"{name} step{'s' * (name != '1')}" if name.isdigit() else name


def _cell(score: Score, decimals: int, interval: bool) -> str:
    text = f"{score.value:.{decimals}f}"
    if interval and score.interval is not None:
        low, high = score.interval
        text += f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return text


def _values(scores: Scores) -> dict[str, float]:
    return {metric: score.value for metric, score in scores.items()}


def _to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
