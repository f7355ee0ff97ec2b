"""The study's report: tables in Markdown, plots, pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from codi_jax.evals.pictures import grid
from codi_jax.evals.plots import metric_vs_metric, quality_vs_steps, save_figure
from codi_jax.evals.scoring import METRICS
from codi_jax.evals.statistics import bootstrap_interval

Rows = Sequence[Mapping[str, Any]]
#: Metric -> heading and decimals; those that were not measured are left out.
HEADINGS: dict[str, tuple[str, int]] = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "gmsd": ("GMSD", 4),
    "haarpsi": ("HaarPSI", 4),
    "lpips_alex": ("LPIPS", 4),
    "swd": ("SWD", 1),
}
DISTRIBUTION = "swd"


def _up(metric: str) -> bool:
    return METRICS[metric].higher_is_better


def perceptual(scores: Mapping[str, Any]) -> str:
    """What the paper's order is judged by beside :data:`DISTRIBUTION`: the paper's own measure,
    LPIPS, where its network's weights were given, else HaarPSI.
    """
    return "lpips_alex" if "lpips_alex" in scores else "haarpsi"


def cell(rows: Rows, label: str, steps: int, metric: str) -> Mapping[str, Any]:
    """A method's score; KeyError if there is none."""
    for row in rows:
        if (row["label"], row["steps"], row["table"]) == (label, steps, "methods"):
            return row["scores"][metric]
    raise KeyError(f"{label} at {steps} steps")


def table(rows: Rows, bicubic: Mapping[str, Any] | None = None) -> str:
    """Markdown: a line per row; 95% intervals of the perceptual metric in brackets."""
    metrics = [name for name in HEADINGS if name in rows[0]["scores"]]
    headings = [f"{HEADINGS[name][0]} {'↑' if _up(name) else '↓'}" for name in metrics]
    lines = [f"| method | steps | {' | '.join(headings)} |", "|---|---|" + "---|" * len(metrics)]
    if bicubic:
        lines.append(f"| bicubic | - | {' | '.join(_cells(bicubic))} |")
    lines += [
        f"| {row['label']} | {row['steps']} | {' | '.join(_cells(row['scores']))} |" for row in rows
    ]
    return "\n".join(lines)


def _cells(scores: Mapping[str, Any]) -> list[str]:
    cells = []
    for name, (_, decimals) in HEADINGS.items():
        if name not in scores:
            continue
        score = scores[name]
        text = f"{score['mean']:.{decimals}f}"
        if name == perceptual(scores):
            text += f" [{score['low']:.{decimals}f}, {score['high']:.{decimals}f}]"
        cells.append(text)
    return cells


def order(rows: Rows, ours: str = "CoDi") -> str:
    """Markdown: the paper's claims, each with the figures that speak for or against it."""
    metrics = (perceptual(rows[0]["scores"]), DISTRIBUTION)
    names = [HEADINGS[metric][0] for metric in metrics]
    lines = [f"| claim | perceptual ({names[0]}) | distribution ({names[1]}) |", "|---|---|---|"]
    others = [r["label"] for r in rows if r["steps"] == 4 and r["table"] == "methods"]
    for other in others:
        if other == ours:
            continue
        cells = []
        for metric in metrics:
            decimals = HEADINGS[metric][1]
            ours_at_4, theirs = cell(rows, ours, 4, metric), cell(rows, other, 4, metric)
            a, b = ours_at_4["mean"], theirs["mean"]
            holds = a > b if _up(metric) else a < b
            text = f"{_verdict(holds)}: {a:.{decimals}f} against {b:.{decimals}f}"
            if "values" in ours_at_4:
                differences = np.subtract(ours_at_4["values"], theirs["values"])
                low, high = bootstrap_interval(differences)
                text += f"; difference [{low:+.{decimals}f}, {high:+.{decimals}f}]"
            cells.append(text)
        lines.append(f"| {ours} at 4 steps beats {other} at 4 | {' | '.join(cells)} |")
    try:
        a, b = (
            cell(rows, label, steps, metrics[0])["mean"]
            for label, steps in ((ours, 4), ("LDM-SR", 50))
        )
    except KeyError:
        return "\n".join(lines)
    holds = a >= 0.9 * b if _up(metrics[0]) else a <= 1.1 * b
    near = f"{_verdict(holds)}: {a:.4f} against {b:.4f} ({a / b - 1:+.1%})"
    lines.append(f"| {ours} at 4 steps is within 10% of LDM-SR at 50 | {near} | - |")
    return "\n".join(lines)


def _verdict(holds: bool) -> str:
    return "yes" if holds else "**no**"


def cost_table(costs: Mapping[str, Mapping[str, float]], reference: str = "ldm") -> str:
    """Markdown: FLOPs, memory and time of one training step, and relative to fine-tuning."""
    lines = [
        "| stage | GFLOP per step | relative | memory, MiB | seconds | relative |",
        "|---|---|---|---|---|---|",
    ]
    base = costs[reference]
    for name, cost in costs.items():
        lines.append(
            f"| {name} | {cost['gflops']:.1f} | {cost['gflops'] / base['gflops']:.2f} | "
            f"{cost['memory_mb']:.0f} | {cost['seconds']:.3f} | "
            f"{cost['seconds'] / base['seconds']:.2f} |"
        )
    return "\n".join(lines)


def sampling_table(costs: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: cost of sampling one picture; passes are relative to one of the plain U-Net."""
    lines = [
        "| model | steps | GFLOP per picture | U-Net passes | the same, condition recomputed | "
        "seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c['label']} | {c['steps']} | {c['gflops']:.1f} | {c['passes']:.2f} | "
        f"{c['passes_recomputed']:.2f} | {c['seconds']:.3f} |"
        for c in costs
    ]
    return "\n".join(lines)


def curves(rows: Rows) -> dict[str, dict[int, dict[str, float]]]:
    """label -> number of steps -> metric -> mean, as :mod:`codi_jax.evals.plots` takes them."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row["label"], {})[row["steps"]] = _means(row["scores"])
    return found


def _means(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: score["mean"] for name, score in scores.items()}


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
    results: Mapping[str, Any],
    losses: Mapping[str, Path],
    columns: Mapping[str, Sequence[np.ndarray]],
    folder: Path,
    command: str,
) -> None:
    """Write ``results.md`` and ``images/study_*.png`` below ``folder``.

    Args:
        results: the content of the study's ``results.json``.
        losses: stage -> its ``metrics.jsonl``.
        columns: pictures side by side, see :func:`codi_jax.evals.pictures.grid`.
        folder: of the report.
        command: that made the study.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    tables = {
        name: [row for row in results["rows"] if row["table"] == name]
        for name in ("methods", "ablations")
    }
    judge = perceptual(results["bicubic"])
    for name, rows in tables.items():
        shown = {metric: _up(metric) for metric in (judge, "psnr", DISTRIBUTION)}
        bicubic = {"bicubic": _means(results["bicubic"])}
        quality_vs_steps(curves(rows), shown, images / f"study_{name}.png", bicubic)
    versus = curves(tables["methods"])
    metric_vs_metric(versus, DISTRIBUTION, judge, images / "study_metrics.png")
    plot_losses(losses, images / "study_losses.png")
    grid(columns, images / "study_pictures.png")
    text = _TEXT.format(
        command=command,
        perceptual=HEADINGS[judge][0],
        methods=table(tables["methods"], results["bicubic"]),
        ablations=table(tables["ablations"]),
        order=order(results["rows"]),
        cost=cost_table(results["cost"]),
        sampling=sampling_table(results["sampling"]),
        **{key: results[key] for key in ("images", "size", "steps", "batch_size", "device")},
    )
    (folder / "results.md").write_text(text, encoding="utf-8")


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

Photos that come with scikit-image, four steps:

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
