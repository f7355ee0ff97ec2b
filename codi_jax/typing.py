"""Shared type names.

Shapes in docstrings use ``B`` batch, ``H W`` pixel height and width, ``h w`` latent height
and width, ``C`` channels. Images inside the networks are float in [-1, 1], channels last.
"""

import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

# The data workers import UserError from here and must not pay for importing jax.
if TYPE_CHECKING:
    from jax import Array
else:
    Array = Any

PyTree = Any
#: Plain nested dicts of arrays, named as diffusers names its modules.
Params = Mapping[str, Any]
#: Settings by name, as in a config.
Settings = Mapping[str, Any]
#: What a network is conditioned on: arrays with a leading batch axis, by name.
Cond = Mapping[str, Any]
#: ``predict(params, z_t, t, cond) -> network output`` with ``z_t`` [B, h, w, C], ``t`` [B].
PredictFn = Callable[[Params, Array, Array, Cond], Array]


class UserError(ValueError):
    """Bad input from the user: the message names the thing, its value and the remedy.

    The entry points print the message alone, without a traceback, and exit with status 2.
    """


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        UserError: it is not; the message lists the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}.")


#: Also with one slash: that is what pathlib makes of it.
_BUCKET = re.compile(r"(gs|gcs|s3|az|abfs|hdfs):/", re.IGNORECASE)


def check_local(name: str, path: str | os.PathLike[str]) -> None:
    """Check that ``path`` is none of a bucket.

    Raises:
        UserError: it is; the message calls it ``name``.
    """
    if _BUCKET.match(os.fspath(path)):
        raise UserError(
            f"{name}={os.fspath(path)}: buckets are not read or written. Mount the bucket, for "
            "example with gcsfuse, and give the path where it is mounted."
        )


#: Exit status of a command that a signal stopped: start it again. EX_TEMPFAIL of sysexits.h.
INTERRUPTED = 75


class Interrupted(Exception):
    """A signal asked the run to stop, and what it has done is saved.

    The entry points print the message and exit with the status :data:`INTERRUPTED`.
    """


def check_type(name: str, value: object, hint: Any) -> None:
    """Check a value of a file or a config against an annotation: numbers, strings, tuples of them.

    Args:
        name: what the message calls it.
        value: an int is a float too; a bool is no number; infinity and NaN are none either. A list
            is a tuple.
        hint: other annotations than those accept everything.

    Raises:
        UserError: it is of another type.
    """
    if not _fits(value, hint):
        wanted = getattr(hint, "__name__", hint) if isinstance(hint, type) else hint
        shown = repr(value)
        shown = shown if len(shown) < 100 else f"{shown[:100]}..."
        raise UserError(f"{name}={shown} is of the wrong type: it must be {wanted}.")


def check_types(instance: object, where: str = "") -> None:
    """:func:`check_type` of every field of a dataclass; ``where`` stands before the fields' names.

    Raises:
        UserError: a field is of another type.
    """
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(typing.cast(Any, instance)):
        check_type(f"{where}{field.name}", getattr(instance, field.name), hints[field.name])


def _fits(value: object, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**1000  # JSON has whole numbers of any length
    if hint is float:
        return isinstance(value, float) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None), dict):
        return isinstance(value, hint)
    return True
