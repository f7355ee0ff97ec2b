"""Command-line flags of a dataclass: names, types, defaults and help are its fields'."""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
from absl import flags

Options = TypeVar("Options")


def define(kind: type, choices: Mapping[str, typing.Sequence[str]] | None = None) -> None:
    """Define a flag for each field of a dataclass whose type a command line can give.

    The help is what the class's docstring says of the field; its default is the field's.

    Args:
        kind: a dataclass with an "Attributes:" section.
        choices: the values that a string may have, by field.
    """
    help_of = _help(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if _is_flag(field):
            _define(field, hints[field.name], help_of[field.name], (choices or {}).get(field.name))
            flag = flags.FLAGS[field.name]
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # --help shows those


def read(kind: type[Options], **others: object) -> Options:
    """Make the dataclass that the command line describes.

    Args:
        kind: as it was given to :func:`define`.
        others: values of fields that are not flags.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if field.name not in others and _is_flag(field):
            value: Any = flags.FLAGS[field.name].value
            if isinstance(value, list):
                value = tuple(value)
            if value is not None and _plain(hints[field.name]) is Path:
                value = Path(value).expanduser()
            values[field.name] = value
    return kind(**values, **others)


def given(kind: type) -> dict[str, Any]:
    """The values that the command line gives, by field, without those left at their defaults."""
    values = dataclasses.fields(kind)
    return {
        field.name: flags.FLAGS[field.name].value
        for field in values
        if _is_flag(field) and flags.FLAGS[field.name].present
    }


def _is_flag(field: dataclasses.Field) -> bool:
    return field.metadata.get("flag", True)


def _plain(hint: object) -> object:
    """The type of a field, None left out."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _define(
    field: dataclasses.Field, hint: object, text: str, choices: typing.Sequence[str] | None
) -> None:
    default = None if field.default is dataclasses.MISSING else field.default
    kind = _plain(hint)
    if choices is not None:
        flags.DEFINE_enum(field.name, default, list(choices), text)
    elif kind is bool:
        flags.DEFINE_bool(field.name, default, text)
    elif kind is int:
        flags.DEFINE_integer(field.name, default, text)
    elif kind is float:
        flags.DEFINE_float(field.name, default, text)
    elif typing.get_origin(kind) is tuple:
        listed = None if default is None else [str(item) for item in default]
        flags.DEFINE_list(field.name, listed, text)
    else:
        flags.DEFINE_string(field.name, None if default is None else str(default), text)


def _help(kind: type) -> dict[str, str]:
    parsed = docstring_parser.parse(
        inspect.getdoc(kind) or "", docstring_parser.DocstringStyle.GOOGLE
    )
    found = {}
    for entry in parsed.params:
        for name in entry.arg_name.split(","):
            found[name.strip()] = " ".join((entry.description or "").split())
    return found
