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


def fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is of a type as fields of configs have it.

    Args:
        value: what a file holds; lists of it as tuples.
        hint: None, a type, a tuple of types or a union. A whole number is a float too; True is no
            number, and neither are infinity and "not a number".
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if hint in (None, type(None)):
        return value is None
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float and isinstance(value, int):
        return abs(value) < 2**1000  # JSON has whole numbers of any length
    if hint is float and isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, origin or hint)


def check_fields(config: Any, where: str = "") -> None:
    """Check that the fields of a dataclass have the types that it declares.

    Args:
        config: the dataclass.
        where: stands before the fields' names in the message.

    Raises:
        UserError: one has not.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if not fits(value, hint):
            raise UserError(
                f"{where}{field.name}={value!r} is of a wrong type: {words(hint)} is needed."
            )


def words(hint: Any) -> str:
    """A type in words: "int", "int | None", "tuple[int, ...]"."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
