"""The study's report: tables in Markdown, plots, pictures."""

import dataclasses
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
from codi_jax.evals.results import VERSION, Results, Score, check_version, in_steps, table
from codi_jax.evals.run_report import read_lines
from codi_jax.evals.statistics import bootstrap_interval, jackknife_interval
from codi_jax.evals.study_costs import cost_table, peers_table, sampling_table
from codi_jax.evals.study_text import PEERS, REPORT

#: What the paper's order is judged by, beside :func:`perceptual`.
DISTRIBUTION = "swd"
#: The pictures that most is scored on, and the tables of them, in the report's order.
MAIN, TABLES = "main", ("methods", "ablations")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyResults:
    """The content of the study's ``results.json``.

    Attributes:
        tables: the scores of each of :data:`TABLES`, and of each further set of pictures; the
            methods' have what must be beaten too.
        cost: of one training step, by stage, see :func:`codi_jax.evals.cost.step_cost`; its
            "passes" a picture, and the "steps" that the budget allowed.
        sampling: of one picture: "label", "steps", and what
            :func:`codi_jax.evals.cost.sampling_cost` gives.
        sets: what the pictures of each set are, by the set's name.
        passes: the budget in U-Net passes.
        crop: side of the training crops in pixels.
        device: that it ran on.
        missing: stages that are not trained yet: their rows are not there.
        peers: other programs: "name", and where they are known "seconds" of one picture and
            "parameters".
    """

    tables: Mapping[str, Results]
    cost: Mapping[str, Mapping[str, float]]
    sampling: Sequence[Mapping[str, str | float]]
    sets: Mapping[str, str]
    passes: float
    crop: int
    device: str
    missing: Sequence[str] = ()
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


def order(results: Results, ours: str = "CoDi", steps: int = 4) -> str:
    """The claims that a table speaks for or against in Markdown, each with its figures.

    Args:
        results: the table.
        ours: the method that the claims are about.
        steps: that it and the others were sampled in; simple results are not sampled.
    """
    metrics = (perceptual(results.metrics), DISTRIBUTION)
    names = [METRICS[metric].heading for metric in metrics]
    lines = [f"| claim | perceptual ({names[0]}) | distribution ({names[1]}) |", "|---|---|---|"]
    at_few = results.scores.get(ours, {}).get(steps)
    if at_few is None:
        return f"{ours} in {in_steps(str(steps))} has not been scored yet."
    for other, by_steps in results.scores.items():
        for n in (None, steps):
            if other != ours and n in by_steps:
                lines.append(_claim(results, (ours, steps), (other, n)))
    at_50 = results.scores.get("LDM-SR", {}).get(50)
    if at_50 is not None:
        a, b = at_few[metrics[0]].value, at_50[metrics[0]].value
        holds = a >= 0.9 * b if METRICS[metrics[0]].higher_is_better else a <= 1.1 * b
        near = f"{_verdict(holds)}: {a:.4f} against {b:.4f} ({a / b - 1:+.1%})"
        lines.append(
            f"| {ours} at {in_steps(str(steps))} is within 10% of LDM-SR at 50 | {near} | - |"
        )
    return "\n".join(lines)


def adapters(results: Results, steps: int = 4) -> str:
    """The same for the parameter-efficient forms against each LDM-SR; "" where there are none."""
    scored = [name for name, by_steps in results.scores.items() if steps in by_steps]
    return "\n".join(
        _claim(results, (name, steps), (other, steps))
        for name in scored
        for other in scored
        if name.startswith("PE-CoDi") and other.startswith("LDM-SR")
    )


def _claim(results: Results, ours: tuple[str, int], theirs: tuple[str, int | None]) -> str:
    """That a method in so many steps is better than another: a row of :func:`order`'s table."""
    a, b = (results.scores[name][steps] for name, steps in (ours, theirs))
    metrics = (perceptual(results.metrics), DISTRIBUTION)
    cells = [_comparison(metric, a[metric], b[metric]) for metric in metrics]
    at = f" at {theirs[1]}" if theirs[1] else ""
    return f"| {ours[0]} at {in_steps(str(ours[1]))} beats {theirs[0]}{at} | {' | '.join(cells)} |"


def _comparison(metric: str, ours: Score, theirs: Score) -> str:
    """Whether ours is better, and the interval of the difference where each picture is known.

    Where that interval has 0 in it, they are level.
    """
    known = METRICS[metric]
    decimals, a, b = known.decimals, ours.value, theirs.value
    holds = _verdict(a > b if known.higher_is_better else a < b)
    text = f"{a:.{decimals}f} against {b:.{decimals}f}"
    if ours.values is not None and theirs.values is not None:
        with np.errstate(invalid="ignore"):
            difference = np.subtract(ours.values, theirs.values)
        if np.isnan(difference).any():  # both are equal to one reference: infinite PSNR
            return f"{holds}: {text}; their difference is not defined"
        low, high = bootstrap_interval(difference)
    elif ours.left_out is not None and theirs.left_out is not None:
        low, high = jackknife_interval(a - b, np.subtract(ours.left_out, theirs.left_out))
    else:
        return f"{holds}: {text}"
    verdict = "level" if low <= 0 <= high else holds
    return f"{verdict}: {text}; difference [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def _verdict(holds: bool) -> str:
    return "yes" if holds else "**no**"


def plot_losses(losses: Mapping[str, Path], path: Path) -> None:
    """Each training run's loss, from its ``metrics.jsonl``: what healthy looks like."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    for name, file in losses.items():
        lines = read_lines(file)
        for axis, metric in zip(axes, ("loss", "consistency"), strict=True):
            points = [(line["passes"], line[metric]) for line in lines if metric in line]
            if points:
                axis.plot(*zip(*points, strict=True), linewidth=1, label=name)
                axis.set_title(metric)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_xlabel("U-Net passes")
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
    for name in TABLES:
        scored = results.tables[name]
        shown = {m: METRICS[m].higher_is_better for m in (judge, "psnr", DISTRIBUTION)}
        quality_vs_steps(scored.curves, shown, images / f"study_{name}.png", methods.unsampled)
    metric_vs_metric(methods.curves, DISTRIBUTION, judge, images / "study_metrics.png")
    plot_losses(losses, images / "study_losses.png")
    grid(columns, images / "study_pictures.png")
    text = REPORT.format(
        command=command,
        perceptual=METRICS[judge].heading,
        methods=table(methods, (judge,)),
        ablations=table(results.tables["ablations"], (judge,)),
        order="\n".join(filter(None, (order(methods), adapters(methods)))),
        fewer="\n\n".join(order(methods, steps=n) for n in (1, 2)),
        changes=order(results.tables["ablations"]),
        elsewhere=_elsewhere(results, judge),
        peers=_beside(results, (judge, DISTRIBUTION, "psnr")),
        cost=cost_table(results.cost),
        sampling=sampling_table(results.sampling),
        main=results.sets[MAIN],
        passes=results.passes,
        crop=results.crop,
        device=results.device,
        missing=_missing(results.missing),
    )
    (folder / "results.md").write_text(text, encoding="utf-8")


def _missing(stages: Sequence[str]) -> str:
    """What the report says of stages that are not trained yet."""
    if not stages:
        return ""
    named = ", ".join(f"`{name}`" for name in stages)
    return f"Not trained yet, and therefore without rows: {named}.\n\n"


def _elsewhere(results: StudyResults, judge: str) -> str:
    """The tables of the further sets of pictures, each with its claims."""
    parts = []
    for name, found in results.tables.items():
        if name not in TABLES:
            title = results.sets[name]
            parts.append(f"### {title}\n\n{order(found)}\n\n{table(found, (judge,))}\n")
    return "## On other pictures\n\n" + "\n".join(parts) + "\n" if parts else ""


def _beside(results: StudyResults, metrics: Sequence[str]) -> str:
    """What the report says of other programs; "" where there are none."""
    if not results.peers:
        return ""
    methods = results.tables["methods"]
    return PEERS.format(table=peers_table(methods, metrics, results.peers, results.sampling))
