"""Shared type names.

Shapes in docstrings use ``B`` batch, ``H W`` pixel height and width, ``h w`` latent height
and width, ``C`` channels. Images inside the networks are float in [-1, 1], channels last.
"""

import os
import re
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
    if value not in choices:
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
