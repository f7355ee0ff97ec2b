"""Curves of quality: against the number of steps, and of one metric against another."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from codi_jax.data.images import save_image
from codi_jax.typing import UserError

#: method -> number of steps -> metric -> value.
Curves = Mapping[str, Mapping[int, Mapping[str, float]]]
_PANEL, _COLUMNS = 3.0, 4


def quality_vs_steps(
    curves: Curves,
    higher_is_better: Mapping[str, bool],
    path: str | os.PathLike[str],
    baselines: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write a PNG with one panel per metric, its value over the number of steps (log scale).

    Args:
        curves: one line per method.
        higher_is_better: the metrics to show, and their direction for the titles.
        path: of the PNG.
        baselines: name -> metric -> value, drawn as dashed lines.
    """
    columns = min(_COLUMNS, len(higher_is_better))
    rows = -(-len(higher_is_better) // columns)
    figure = Figure(figsize=(_PANEL * columns, _PANEL * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_visible(False)
    for axes, (metric, higher) in zip(grid, higher_is_better.items(), strict=False):
        axes.set_visible(True)
        _colours(axes, curves)
        for method, points in curves.items():
            steps = sorted(points)
            axes.plot(steps, [points[n][metric] for n in steps], "o-", label=method)
            _mark_steps(axes, steps)
        for i, (name, scores) in enumerate((baselines or {}).items()):
            axes.axhline(scores[metric], linestyle="--", color=f"C{7 + i}", label=name)
        axes.set_title(f"{metric} ({'higher' if higher else 'lower'} is better)", fontsize=9)
        axes.set_xlabel("steps")
    _legend(figure, curves)
    save_figure(figure, path)


def metric_vs_metric(curves: Curves, x: str, y: str, path: str | os.PathLike[str]) -> None:
    """Write a PNG as the paper's figure 5: each point is one number of steps, each line a method.

    Args:
        curves: every point must have both metrics.
        x: the metric of the horizontal axis.
        y: that of the vertical axis.
        path: of the PNG.

    Raises:
        UserError: a metric that has not been computed.
    """
    points = [scores for method in curves.values() for scores in method.values()]
    for name in (x, y):
        if any(name not in scores for scores in points):
            raise UserError(f"metric {name!r} cannot be plotted: it has not been computed.")
    figure = Figure(figsize=(1.5 * _PANEL, 1.3 * _PANEL), layout="constrained")
    axes = figure.subplots()
    _colours(axes, curves)
    for method, by_steps in curves.items():
        steps = sorted(by_steps)
        line = [(by_steps[n][x], by_steps[n][y]) for n in steps]
        axes.plot(*np.array(line).T, "o-", label=method)
        for n, point in zip(steps, line, strict=True):
            axes.annotate(str(n), point, (4, 4), textcoords="offset points", fontsize=8)
    axes.locator_params(nbins=5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title("each point: a number of steps", fontsize=9)
    _legend(figure, curves)
    save_figure(figure, path)


def _colours(axes: Axes, curves: Curves) -> None:
    """One for each of up to 20 methods."""
    colours = colormaps["tab10" if len(curves) <= 10 else "tab20"]
    axes.set_prop_cycle(color=[*colours(np.arange(colours.N))])


def _legend(figure: Figure, curves: Curves) -> None:
    """In the first panel, or beside the panels where there are many methods."""
    if len(curves) < 6:
        figure.axes[0].legend(fontsize=8)
    else:
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside right center", fontsize=7)


def _mark_steps(axes: Axes, steps: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all."""
    agg = FigureCanvasAgg(figure)
    agg.draw()
    save_image(path, np.array(agg.buffer_rgba())[..., :3])
