"""The reference of the config, as Markdown: what ``configs/`` and the checks in the code say.

Key and default are those of :func:`configs.base.base`. The meaning is the comment beside the key
there, or else what the docstring of the class says that the keys are fields of. The allowed values
are those that the code checks against.
"""

import ast
import dataclasses
import importlib
import inspect
import io
import re
import tokenize
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from docstring_parser import Style, parse

from codi_jax.diffusion.parameterization import PREDICTION_TYPES
from codi_jax.distill import codi, distances, predictors
from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.models.adapters.registry import KINDS
from codi_jax.parallel.mesh import make_mesh
from codi_jax.run import plan
from codi_jax.run.methods import LOSSES
from codi_jax.run.ranges import in_words
from codi_jax.tasks.registry import task_class, task_names
from codi_jax.train import autoencoder_start
from codi_jax.train.optim import DECAYS, OptimConfig
from configs.base import base

CONFIGS = Path(__file__).parents[2] / "configs"
#: Keys whose values have names: the tables that the code checks them against.
CHOICES: Mapping[str, Collection[str]] = {
    "task": task_names(),
    "method": tuple(LOSSES),
    "model.init": plan.INITS,
    "model.adapter": KINDS,
    "model.vae_init": autoencoder_start.INITS,
    "model.prediction_type": tuple(PREDICTION_TYPES),
    "optim.decay": DECAYS,
    "loss.predictor": tuple(predictors.PREDICTORS),
    "loss.time_per": codi.TIMES_PER,
    "loss.consistency_space": codi.CONSISTENCY_SPACES,
    "loss.consistency_distance": tuple(distances.DISTANCES),
    "loss.data_distance": tuple(distances.DISTANCES),
    "loss.distance": tuple(distances.DISTANCES),
    "loss.data_space": codi.DATA_SPACES,
}
#: Whose docstrings say what the keys of a section mean.
SECTIONS: Mapping[str, Callable[..., Any]] = {"optim": OptimConfig, "mesh": make_mesh}
#: What a loss or a task is made of by the run itself, and no config sets.
_NOT_SET = {"schedule", "prediction_type"}
_OF_DATA = {"scale", "degradation", "clean_share"}
_HEAD = """\
# Every key of the config

`--config.KEY=VALUE` on the command line sets a key of the config; an unknown key is refused. A
config file of your own starts from one that is there and changes it. The tables tell the defaults
that all configs share; what each config changes of them stands in [the configs](configs.md).

This page is made of `configs/base.py` and of the checks in the code.
"""
_TABLE = "| key | default | values | meaning |\n|---|---|---|---|\n"
_CONFIGS_HEAD = """\
# The configs

They travel with the package. `--config=configs/sr.py:tiny,pe_codi` takes variants after a colon.
Each table lists what the default variant changes of [the defaults that all share](config.md).
"""


class Key(NamedTuple):
    """One key: its name with dots, its default, its values in words, its meaning."""

    name: str
    default: object
    values: str
    meaning: str


def base_keys() -> list[Key]:
    """Every key of ``configs/base.py``, in the order of the file; the run's own come first."""
    defaults = dict(_leaves(base().to_dict()))
    found = []
    for name, comment in _commented():
        section, _, field = name.rpartition(".")
        of_class = _documented(SECTIONS[section]).get(field, "") if section in SECTIONS else ""
        found.append(Key(name, defaults.pop(name), _values(name), comment or of_class))
    assert not defaults, f"configs/base.py has keys that this module does not find: {defaults}"
    return sorted(found, key=lambda key: key.name.count(".") > 0)


def fields(kind: type, section: str, hidden: Collection[str]) -> list[Key]:
    """The fields of a loss or a task, as keys of ``config.loss`` or ``config.task_options``."""
    meanings = _documented(kind)
    hints = typing.get_type_hints(kind)
    return [
        Key(
            f"{section}.{field.name}",
            field.default,
            _values(f"{section}.{field.name}") or _type_in_words(hints[field.name]),
            meanings.get(field.name, ""),
        )
        for field in dataclasses.fields(kind)
        if field.name not in hidden
    ]


def pages() -> dict[str, str]:
    """The made pages, by their names on the site."""
    return {"reference/config.md": _config_page(), "reference/configs.md": _configs_page()}


def _config_page() -> str:
    parts, section = [_HEAD], None
    for key in base_keys():
        here = key.name.rpartition(".")[0].split(".")[0]
        if here != section:
            parts.append(f"\n## {f'`config.{here}`' if here else 'The run'}\n\n{_TABLE}")
            section = here
        parts.append(_row(key))
    parts.append("\n## `config.loss`\n\nThe keys depend on `config.method`.\n")
    losses: dict[str, type] = {f"`{name}`": kind for name, kind in LOSSES.items()}
    losses["the task `autoencoder`"] = AutoencoderLoss
    for name, kind in losses.items():
        parts.append(f"\n### Of {name}\n\n{_TABLE}")
        parts += [_row(key) for key in fields(kind, "loss", _NOT_SET)]
    parts.append("\n## `config.task_options`\n\nThe keys depend on `config.task`.\n")
    for name in task_names():
        rows = [_row(key) for key in fields(task_class(name), "task_options", _OF_DATA)]
        parts += [f"\n### Of `{name}`\n\n", *([_TABLE, *rows] if rows else ["None.\n"])]
    return "".join(parts)


def _configs_page() -> str:
    defaults, parts = dict(_leaves(base().to_dict())), [_CONFIGS_HEAD]
    for file in sorted(CONFIGS.glob("*.py")):
        if file.stem in ("base", "shared"):
            continue
        module = importlib.import_module(f"configs.{file.stem}")
        text = inspect.cleandoc(module.__doc__ or "")
        parts.append(f"\n## `configs/{file.name}`\n\n```text\n{text}\n```\n")
        if file.stem in ("methods", "study"):  # no config; one of another kind
            continue
        changed = [
            f"| `{name}` | {_code(value)} |\n"
            for name, value in _leaves(module.get_config().to_dict())
            if name not in defaults or defaults[name] != value
        ]
        parts += ["\n| key | value |\n|---|---|\n", *changed]
    return "".join(parts)


def _leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Name with dots and value; a dictionary without keys is a value, too."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _commented() -> Iterator[tuple[str, str]]:
    """Name of each key of ``configs/base.py``, and the comment beside or above it, if any."""
    source = (CONFIGS / "base.py").read_text(encoding="utf-8")
    comments: dict[int, str] = {}
    alone = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    (given,) = _returned(functions["base"]).args  # type: ignore[attr-defined]
    for name, node in _nodes(given, functions, ""):
        line = node.lineno
        beside = comments.get(node.end_lineno or line, "") if line not in alone else ""
        above: list[str] = []
        while (line := line - 1) in alone:
            above.insert(0, comments[line])
        yield name, " ".join(filter(None, [*above, beside]))


def _nodes(
    node: ast.expr, functions: Mapping[str, ast.FunctionDef], above: str
) -> Iterator[tuple[str, ast.expr]]:
    """The keys of nested dictionaries, those that a function returns among them."""
    if isinstance(node, ast.Call):
        node = _returned(functions[ast.unparse(node.func)])
    assert isinstance(node, ast.Dict)
    for key, value in zip(node.keys, node.values, strict=True):
        assert isinstance(key, ast.Constant) and isinstance(key.value, str)
        made = isinstance(value, ast.Call) and ast.unparse(value.func) in functions
        if made or (isinstance(value, ast.Dict) and value.keys):
            yield from _nodes(value, functions, f"{above}{key.value}.")
        else:
            yield f"{above}{key.value}", value


def _returned(function: ast.FunctionDef) -> ast.expr:
    (done,) = (node for node in function.body if isinstance(node, ast.Return))
    assert done.value is not None
    return done.value


def _documented(kind: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each field or argument."""
    text = parse(kind.__doc__ or "", style=Style.GOOGLE)
    return {p.arg_name: " ".join((p.description or "").split()) for p in text.params}


def _values(name: str) -> str:
    if name in CHOICES:
        return ", ".join(f"`{value}`" for value in CHOICES[name])
    return in_words(name)


def _type_in_words(hint: object) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "`True` or `False`"}
    return names.get(hint, f"`{hint}`".replace("|", "\\|"))  # type: ignore[call-overload]


def _row(key: Key) -> str:
    meaning = re.sub(r"[\s]+", " ", key.meaning).replace("<", "&lt;").replace("|", "\\|")
    return f"| `{key.name}` | {_code(key.default)} | {key.values} | {meaning} |\n"


def _code(value: object) -> str:
    shown = "" if value is dataclasses.MISSING else repr(value).replace("|", "\\|")
    return f"`{shown}`" if shown else ""
