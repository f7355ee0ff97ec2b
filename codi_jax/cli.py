"""What the command lines share: a UserError is one line and exit status 2."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from codi_jax.typing import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Parse the flags, call ``main``, exit."""

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # orbax and jax tell much at INFO
        try:
            main(argv)
        except UserError as error:
            _fail(str(error))

    app.run(guarded, flags_parser=_parse)


def join_processes() -> None:
    """Join the other processes of this command, where the launcher set ``CODI_DISTRIBUTED=1``."""
    if os.environ.get("CODI_DISTRIBUTED") == "1":
        import jax  # not above: prepare's workers import this module and must start fast

        jax.distributed.initialize()


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError, ValueError, TypeError, OSError, flags.Error) as error:
        _fail(f"{error.args[0] if error.args else error}".strip())
        raise AssertionError from error  # _fail exits


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
