"""The study's tables of costs: of training, of sampling, and beside other programs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codi_jax.evals.metrics import METRICS
from codi_jax.evals.results import UNSAMPLED, Results


def cost_table(costs: Mapping[str, Mapping[str, float]], reference: str = "ldm") -> str:
    """Markdown: FLOPs, memory and time of one training step, and relative to fine-tuning."""
    lines = [
        "| stage | steps | passes per picture and step | GFLOP per step | relative | memory, MiB | "
        "seconds | relative |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = costs.get(reference)
    for name, cost in costs.items():
        flops, seconds = (
            "-" if base is None else f"{cost[key] / base[key]:.2f}" for key in ("gflops", "seconds")
        )
        lines.append(
            f"| {name} | {cost['steps']:.0f} | {cost['passes']:.2f} | {cost['gflops']:.1f} | "
            f"{flops} | {cost['memory_mb']:.0f} | {cost['seconds']:.3f} | {seconds} |"
        )
    return "\n".join(lines)


def sampling_table(costs: Iterable[Mapping[str, str | float]]) -> str:
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


def peers_table(
    methods: Results,
    metrics: Sequence[str],
    peers: Sequence[Mapping[str, Any]],
    sampling: Sequence[Mapping[str, str | float]],
) -> str:
    """Markdown: the baselines, other programs and our models, with what each costs.

    Args:
        methods: their scores.
        metrics: those that are shown.
        peers: other programs, see :class:`codi_jax.evals.study_report.StudyResults`.
        sampling: our models and numbers of steps, see there.
    """
    titles = [METRICS[name].title for name in metrics]
    lines = [
        f"| method | steps | {' | '.join(titles)} | parameters, M | seconds a picture |",
        f"|{'---|' * (len(titles) + 4)}",
    ]
    known = {peer["name"]: peer for peer in peers}
    unsampled = [(name, None, known.get(name, {})) for name in methods.unsampled]
    ours = [(str(cost["label"]), int(cost["steps"]), cost) for cost in sampling]
    for name, steps, cost in (*unsampled, *ours):
        scores = methods.scores[name][steps]
        cells = [f"{scores[metric].value:.{METRICS[metric].decimals}f}" for metric in metrics]
        parameters, seconds = cost.get("parameters"), cost.get("seconds")
        cells.append(UNSAMPLED if parameters is None else f"{parameters / 1e6:.1f}")
        cells.append(UNSAMPLED if seconds is None else f"{seconds:.3f}")
        lines.append(f"| {name} | {UNSAMPLED if steps is None else steps} | {' | '.join(cells)} |")
    return "\n".join(lines)
