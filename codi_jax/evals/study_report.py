"""The study's report: tables in Markdown, plots, pictures."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from matplotlib.figure import Figure

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.evals.image_metrics import Images
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.pictures import grid
from codi_jax.evals.plots import metric_vs_metric, quality_vs_steps, save_figure
from codi_jax.evals.results import VERSION, Results, Score, check_version, table
from codi_jax.evals.statistics import bootstrap_interval
from codi_jax.evals.study_costs import cost_table, peers_table, sampling_table

#: What the paper's order is judged by, beside :func:`perceptual`.
DISTRIBUTION = "swd"
#: The tables, in the report's order.
TABLES = ("methods", "ablations")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyResults:
    """The content of the study's ``results.json``.

    Attributes:
        tables: the scores of each of :data:`TABLES`; the methods' have what must be beaten too.
        cost: of one training step, by stage, see :func:`codi_jax.evals.cost.step_cost`.
        sampling: of one picture: "label", "steps", and what
            :func:`codi_jax.evals.cost.sampling_cost` gives.
        peers: other programs: "name", and where they are known "seconds" of one picture and
            "parameters".
        size: side of the pictures in pixels.
        steps: the budget of training steps.
        batch_size: pictures in each.
        device: that it ran on.
    """

    tables: Mapping[str, Results]
    cost: Mapping[str, Mapping[str, float]]
    sampling: Sequence[Mapping[str, str | float]]
    size: int
    steps: int
    batch_size: int
    device: str
    peers: Sequence[Mapping[str, Any]] = ()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        tables = {name: results.to_json() for name, results in self.tables.items()}
        save_json(path, {"version": VERSION, **content, "tables": tables})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, or another version of the format.
        """
        content: dict[str, Any] = load_json(path)
        check_version(content)
        del content["version"]
        tables = {name: Results.from_json(table) for name, table in content["tables"].items()}
        return cls(**{**content, "tables": tables})


def perceptual(metrics: Collection[str]) -> str:
    """The measure of single pictures that the paper's order is judged by.

    It is the paper's own, LPIPS, where its network's weights were given, else HaarPSI.
    """
    return "lpips_alex" if "lpips_alex" in metrics else "haarpsi"


def order(results: Results, ours: str = "CoDi") -> str:
    """The paper's claims in Markdown, each with the figures that speak for or against it.

    Args:
        results: the table of methods.
        ours: the method that the claims are about; it was sampled in 4 steps.
    """
    metrics = (perceptual(results.metrics), DISTRIBUTION)
    names = [METRICS[metric].heading for metric in metrics]
    lines = [f"| claim | perceptual ({names[0]}) | distribution ({names[1]}) |", "|---|---|---|"]
    at_4 = results.scores[ours][4]
    others = [name for name, by_steps in results.scores.items() if name != ours and 4 in by_steps]
    for other in others:
        cells = [
            _comparison(metric, at_4[metric], results.scores[other][4][metric])
            for metric in metrics
        ]
        lines.append(f"| {ours} at 4 steps beats {other} at 4 | {' | '.join(cells)} |")
    at_50 = results.scores.get("LDM-SR", {}).get(50)
    if at_50 is not None:
        a, b = at_4[metrics[0]].value, at_50[metrics[0]].value
        holds = a >= 0.9 * b if METRICS[metrics[0]].higher_is_better else a <= 1.1 * b
        near = f"{_verdict(holds)}: {a:.4f} against {b:.4f} ({a / b - 1:+.1%})"
        lines.append(f"| {ours} at 4 steps is within 10% of LDM-SR at 50 | {near} | - |")
    return "\n".join(lines)


def _comparison(metric: str, ours: Score, theirs: Score) -> str:
    """Whether ours is better, and the interval of the difference where each picture is known."""
    known = METRICS[metric]
    decimals, a, b = known.decimals, ours.value, theirs.value
    holds = a > b if known.higher_is_better else a < b
    text = f"{_verdict(holds)}: {a:.{decimals}f} against {b:.{decimals}f}"
    if ours.values is not None and theirs.values is not None:
        with np.errstate(invalid="ignore"):
            difference = np.subtract(ours.values, theirs.values)
        if np.isnan(difference).any():  # both are equal to one reference: infinite PSNR
            return f"{text}; their difference is not defined"
        low, high = bootstrap_interval(difference)
        text += f"; difference [{low:+.{decimals}f}, {high:+.{decimals}f}]"
    return text


def _verdict(holds: bool) -> str:
    return "yes" if holds else "**no**"


def plot_losses(losses: Mapping[str, Path], path: Path) -> None:
    """Each training run's loss, from its ``metrics.jsonl``: what healthy looks like."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    for name, file in losses.items():
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for axis, metric in zip(axes, ("loss", "consistency"), strict=True):
            points = [(line["step"], line[metric]) for line in lines if metric in line]
            if points:
                axis.plot(*zip(*points, strict=True), linewidth=1, label=name)
                axis.set_title(metric)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_xlabel("step")
    axes[0].legend(fontsize=5, ncols=2)
    save_figure(figure, path)


def write_report(
    results: StudyResults,
    losses: Mapping[str, Path],
    columns: Mapping[str, Images],
    folder: Path,
    command: str,
) -> None:
    """Write ``results.md`` and ``images/study_*.png`` below ``folder``.

    Args:
        results: of the study.
        losses: the ``metrics.jsonl`` of each stage.
        columns: pictures side by side, see :func:`codi_jax.evals.pictures.grid`.
        folder: of the report.
        command: that made the study.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    methods = results.tables["methods"]
    judge = perceptual(methods.metrics)
    for name, scored in results.tables.items():
        shown = {m: METRICS[m].higher_is_better for m in (judge, "psnr", DISTRIBUTION)}
        quality_vs_steps(scored.curves, shown, images / f"study_{name}.png", methods.unsampled)
    metric_vs_metric(methods.curves, DISTRIBUTION, judge, images / "study_metrics.png")
    plot_losses(losses, images / "study_losses.png")
    grid(columns, images / "study_pictures.png")
    text = _TEXT.format(
        command=command,
        perceptual=METRICS[judge].heading,
        methods=table(methods, (judge,)),
        ablations=table(results.tables["ablations"], (judge,)),
        order=order(methods),
        peers=_beside(results, (judge, DISTRIBUTION, "psnr")),
        cost=cost_table(results.cost),
        sampling=sampling_table(results.sampling),
        images=methods.images,
        size=results.size,
        steps=results.steps,
        batch_size=results.batch_size,
        device=results.device,
    )
    (folder / "results.md").write_text(text, encoding="utf-8")


def _beside(results: StudyResults, metrics: Sequence[str]) -> str:
    """What the report says of other programs; "" where there are none."""
    if not results.peers:
        return ""
    methods = results.tables["methods"]
    return _PEERS.format(table=peers_table(methods, metrics, results.peers, results.sampling))


_PEERS = """## Beside other programs

The same inputs, scored by the same code. The parameters are those of all networks; the seconds are
each program's own, on the machine that it ran on.

{table}

"""
_TEXT = """# Results of the study

Written by `{command}`. Every method and every ablation
starts from the embedded prior and has the same budget: {steps} steps of {batch_size} crops, a
method of two stages {steps} in all. Device: {device}. All are scored on the same {images}
held-out crops of {size} px, reduced by 4 bicubically. This is a small scale: the *order* is what it
can show, not how good the methods are. [study.md](study.md) says how to read it.

{perceptual} is the perceptual measure, SWD (sliced Wasserstein distance on Laplacian pyramids) the
one of distributions; [metrics.md](metrics.md) defines them. Brackets: 95% bootstrap intervals over
the pictures; those of differences are of each picture's difference.

## Does the paper's order hold?

{order}

## Methods

{methods}

![Quality against steps](images/study_methods.png)
![SWD against {perceptual}, a point per number of steps](images/study_metrics.png)

{peers}Photos that come with scikit-image, four steps:

![Pictures side by side](images/study_pictures.png)

## Ablations

{ablations}

![Quality against steps](images/study_ablations.png)

## Loss curves

What healthy looks like: the loss falls fast in the first fifty steps and then slowly, and jumps
about by the time `t` that each step draws.

![Losses](images/study_losses.png)

## Cost

One training step, by XLA's cost analysis on one device, and measured. One more forward pass
makes a distillation step 4/3 of a fine-tuning step.

{cost}

Sampling, where the condition's features are computed once per picture:

{sampling}
"""
