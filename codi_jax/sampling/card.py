"""The model card of an export: README.md, as Hugging Face reads and shows it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codi_jax.checkpoint.files import load_json
from codi_jax.model import AutoencoderModel, Model

CARD = "README.md"
#: In a workdir.
_CONFIG, _RESULTS = "config.json", "results.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the card says and the weights do not tell.

    Attributes:
        base: the checkpoint that the model was made from, "" if it is unknown or there is none.
        steps: of training, None if unknown.
        method: of training, "" if unknown.
        data: what it was trained on, "" if unknown.
        scores: of the run, as ``results.json`` has them: by method, number of steps and metric.
        metrics: names of the metrics, for people.
        license: an identifier of Hugging Face, "" if nobody said one.
    """

    base: str = ""
    steps: int | None = None
    method: str = ""
    data: str = ""
    scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    license: str = ""


def facts_of_run(workdir: Path, *, license: str = "") -> Facts:
    """What a run's workdir tells; nothing of it is needed.

    Args:
        workdir: with ``config.json`` and, once the run has finished, ``results.json``.
        license: of the model.
    """
    config, results = (
        load_json(workdir / name) if (workdir / name).is_file() else {}
        for name in (_CONFIG, _RESULTS)
    )
    model, data = _object(config, "model"), _object(config, "data")
    steps = config.get("steps")
    metrics = {
        name: str(entry.get("heading") or name)
        for name, entry in _object(results, "metrics").items()
        if isinstance(entry, Mapping)
    }
    return Facts(
        base=public_name(model.get("pretrained")),
        steps=steps if isinstance(steps, int) else None,
        method=str(config.get("method") or ""),
        data=public_name(data.get("source")),
        scores=_object(results, "scores"),
        metrics=metrics,
        license=license,
    )


def write_card(directory: Path, model: AutoencoderModel, facts: Facts, use: str) -> None:
    """Write the card of an exported model.

    Args:
        directory: of the export; its name is the title.
        model: what was exported.
        facts: where it comes from.
        use: the Python that loads it in PyTorch.
    """
    text = "\n".join([_header(model, facts), *_body(directory.name, model, facts, use)])
    (directory / CARD).write_text(text + "\n", encoding="utf-8")


def _header(model: AutoencoderModel, facts: Facts) -> str:
    lines = ["library_name: diffusers", "tags:", "- codi_jax"]
    if isinstance(model, Model):
        tag = "image-to-image" if model.task else _PRIOR_TAG[model.takes_text]
        # As JSON, which is YAML: what a file says stays one string.
        lines += [f"- {json.dumps(model.task or 'prior')}", f"pipeline_tag: {tag}"]
    if _is_id(facts.base):
        lines.append(f"base_model: {json.dumps(facts.base)}")
    if facts.license:
        lines.append(f"license: {json.dumps(facts.license)}")
    return "\n".join(["---", *lines, "---", ""])


_PRIOR_TAG = {True: "text-to-image", False: "unconditional-image-generation"}


def _body(title: str, model: AutoencoderModel, facts: Facts, use: str) -> list[str]:
    rows = [("Base model", facts.base), ("Method", facts.method), ("Data", facts.data)]
    rows.append(("Training steps", "" if facts.steps is None else f"{facts.steps:,}"))
    if isinstance(model, Model):
        if model.task:
            rows.append(("Task", f"{model.task} x{model.scale}"))
            rows.append(("Adapter", model.network.adapter.kind))
        rows.append(("Predicts", model.prediction_type))
    rows.append(("Licence", facts.license or _NO_LICENSE))
    known = [f"| {name} | {_cell(value)} |" for name, value in rows if value]
    lines = [f"# {title}", "", _intro(model), "", "| | |", "|---|---|", *known, ""]
    lines += ["## How to run it", "", *_code("python", use), ""]
    if isinstance(model, Model):
        given = "--input photo.jpg" if model.task else "--prompt TEXT" if model.takes_text else ""
        command = f"python -m codi_jax.sample --checkpoint DIRECTORY {given} --output out/"
        lines += ["With codi_jax:", "", *_code("bash", " ".join(command.split())), ""]
    return lines + _scores(facts)


_NO_LICENSE = "not stated: that of the base model and of the data binds; state yours with --license"


def _intro(model: AutoencoderModel) -> str:
    if not isinstance(model, Model):
        return "An autoencoder in diffusers' format, written by codi_jax."
    what = f"A latent diffusion model for {model.task}" if model.task else "A prior"
    return f"{_cell(what)} in diffusers' format, written by codi_jax."


def _scores(facts: Facts) -> list[str]:
    """The run's own evaluation as a table, a line for each method and number of steps."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = [
        (method, steps, values)
        for method, by_steps in facts.scores.items()
        if isinstance(by_steps, Mapping)
        for steps, values in by_steps.items()
        if isinstance(values, Mapping)
    ]
    names = list(dict.fromkeys(name for *_, values in rows for name in values))
    if not names:
        return ["No scores were found beside the weights."]
    head = ["", "steps", *(facts.metrics.get(name, name) for name in names)]
    lines = [_line(head), "|" + "---|" * len(head)]
    for method, steps, values in rows:
        lines.append(_line([method, steps, *(_value(values.get(name)) for name in names)]))
    return ["## Scores", "", "Of the run's own held-out pictures:", "", *lines]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: object) -> str:
    """Text of a file that came from elsewhere: it must not end the table or begin a tag."""
    return str(text).replace("|", "/").replace("<", "&lt;").replace("\n", " ")


def _value(score: object) -> str:
    value = score.get("value") if isinstance(score, Mapping) else score
    if isinstance(value, str):  # numbers that are not finite
        return value
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _code(language: str, text: str) -> list[str]:
    return [f"```{language}", text, "```"]


def _object(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def public_name(value: object) -> str:
    """A checkpoint or a data source for strangers: of a path, its last part alone."""
    text = value if isinstance(value, str) else ""
    return text if _is_id(text) or "/" not in text else Path(text).name


def _is_id(text: str) -> bool:
    """Whether it looks like a Hugging Face id and is no path on this machine."""
    return text.count("/") == 1 and not text.startswith(("/", ".", "~")) and not Path(text).exists()
