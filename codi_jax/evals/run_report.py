"""A run's report: one HTML file in its workdir that needs no network and no other program.

Curves and tables are inside; the grids of pictures lie beside it, in ``samples/``.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codi_jax import trees
from codi_jax.data.regular_files import replacing
from codi_jax.evals.results import UNSAMPLED, Results, in_steps
from codi_jax.typing import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The file, and the folder of the grids.
REPORT, SAMPLES = "report.html", "samples"
#: Numbers at one step of the training, by name.
Line = Mapping[str, float]
#: What is drawn together, and what it is called; names that are in none are terms of the loss.
_PANELS = {
    "gradient norm": ("grad_norm",),
    "distance of the weights from their averages": ("drift_",),
    "mu, the adapter's scale": ("mu",),
    "images/s": ("images_per_s",),
    "share of the device's peak (MFU)": ("mfu",),
    "TFLOP/s per device": ("tflops_per_device",),
    "share of the time that waits for data": ("data_wait",),
    "skipped steps": ("skipped",),
    "U-Net passes so far": ("passes",),
}
_EVAL = "eval_"
#: More points of a curve than this are not seen.
_POINTS = 500
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 1200px; margin: 0 auto; padding: 1rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; } img { max-width: 100%; background: #fff; }
.wide { overflow-x: auto; } .wide img { max-width: none; height: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #8884; }
summary { cursor: pointer; } pre { overflow-x: auto; }
"""


def write_run_report(
    folder: Path,
    metrics: Path,
    config: Settings,
    results: Results | None = None,
    now: Mapping[int, Line] | None = None,
) -> Path:
    """Write ``report.html``.

    Args:
        folder: of the run; the grids are in it.
        metrics: its ``metrics.jsonl``.
        config: of the run.
        results: its results, once it is finished.
        now: numbers by step that ``metrics`` does not have yet.

    Returns:
        The file.
    """
    lines = [*read_lines(metrics), *({"step": n, **line} for n, line in (now or {}).items())]
    done = max((int(line["step"]) for line in lines), default=0)
    name = config.get("label") or config.get("method") or folder.name
    state = "finished" if results is not None else f"step {done} of {config['steps']}"
    title = f"{config['task']}: {name}"
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(folder.name)}, {state}</p>",
        _section("Results", _table(*_of_results(results))) if results else "",
        _section("Curves", _curves(lines)) if lines else "",
        _section("Pictures", _pictures(folder)),
        _section("Config", _details("all keys", _config(config))),
    ]
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    with replacing(folder / REPORT) as file:
        file.write(page.encode())
    return folder / REPORT


def read_lines(metrics: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``; none if it is not there."""
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return [{name: float(x) for name, x in json.loads(line).items()} for line in lines]


def panels(lines: Iterable[Line]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """What is drawn: title of a panel -> name of a curve -> (step, value)."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step":
                title, curve = _place(name)
                found.setdefault(title, {}).setdefault(curve, []).append((line["step"], value))
    order = ["loss", *_PANELS]
    rank = {title: order.index(title) if title in order else len(order) for title in found}
    return {title: found[title] for title in sorted(found, key=lambda title: rank[title])}


def _place(name: str) -> tuple[str, str]:
    """The panel and the curve of a number."""
    if name.startswith(_EVAL):
        count, _, metric = name.removeprefix(_EVAL).partition("/")
        return f"{metric} on held-out pictures", in_steps(count)
    for title, starts in _PANELS.items():
        if name.startswith(starts):
            return title, name
    return "loss", name


def _curves(lines: Sequence[Line]) -> str:
    from matplotlib.figure import Figure  # not above: a run's start would wait for it

    figures = []
    for title, curves in panels(lines).items():
        figure = Figure(figsize=(4.5, 3))
        axes = figure.add_axes((0.15, 0.15, 0.82, 0.75))
        for name, points in curves.items():
            kept = points[:: -(-len(points) // _POINTS)]
            axes.plot(*zip(*kept, strict=True), "." if len(kept) < 2 else "-", label=name)
        if title == "loss" and all(y > 0 for points in curves.values() for _, y in points):
            axes.set_yscale("log")
        axes.set_title(f"{title}, by step", fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize=7)
        figures.append(f"<figure>{_svg(figure, title)}</figure>")
    return f"<div class='panels'>{''.join(figures)}</div>"


def _svg(figure: "Figure", title: str) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):  # letters stay letters
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='{html.escape(title)}' src='data:image/svg+xml;base64,{data}'>"


def _pictures(folder: Path) -> str:
    """The last grid, and the others to be opened."""
    by_step = {
        int(step): path
        for path in (folder / SAMPLES).glob("step_*.png")
        if (step := path.stem.removeprefix("step_")).isdigit()
    }
    images = [
        f"<img loading='lazy' alt='step {step}' src='{SAMPLES}/{path.name}'>"
        for step, path in sorted(by_step.items(), reverse=True)
    ]
    shown = [f"<div class='wide'>{image}</div>" for image in images]
    if not shown:
        return "<p>None yet.</p>"
    return shown[0] + (_details("earlier steps", "".join(shown[1:])) if shown[1:] else "")


def _of_results(results: Results) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "steps", *(metric.title for metric in results.metrics.values())]
    rows = []
    for method, by_steps in results.scores.items():
        for n, scores in by_steps.items():
            cells = [
                f"{scores[name].value:.{metric.decimals}f}" if name in scores else UNSAMPLED
                for name, metric in results.metrics.items()
            ]
            rows.append([method, UNSAMPLED if n is None else str(n), *cells])
    return heads, rows


def _config(config: Settings) -> str:
    flat = trees.flatten(config)
    rows = [[name.replace("/", "."), repr(value)] for name, value in sorted(flat.items())]
    return _table(["key", "value"], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<div class='wide'><table>{row(heads, 'th')}{body}</table></div>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _details(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"
