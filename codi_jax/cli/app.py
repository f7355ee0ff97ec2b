"""What the commands share: how they start, and a UserError as one line and exit status 2."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from codi_jax import __version__
from codi_jax.typing import UserError


def run(
    main: Callable[[list[str]], None],
    define_flags: Callable[[], None],
    text: str | None,
    *,
    arguments: bool = False,
) -> None:
    """Define the flags, parse them, call ``main`` with the other arguments, exit.

    Args:
        main: the command.
        define_flags: called here and not when a command is imported: several commands have
            flags of the same names.
        text: what --help says before the flags.
        arguments: whether the command takes arguments without a flag; else they are refused.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # orbax and jax tell much at INFO
        try:
            if argv[1:] and not arguments:
                raise UserError(f"{argv[1]!r} belongs to no flag: see --help.")
            main(argv[1:])
        except UserError as error:
            _fail(str(error))

    sys.modules["__main__"].__doc__ = text  # absl's --help shows it, whatever started us
    try:
        define_flags()
    except UserError as error:
        _fail(str(error))
    flags.DEFINE_bool("version", False, "Print the version and exit")
    flags.FLAGS.set_gnu_getopt()  # flags may come after arguments
    app.run(guarded, flags_parser=_parse)


def join_processes() -> None:
    """Join the other processes of this command, where the launcher set ``CODI_DISTRIBUTED=1``."""
    if os.environ.get("CODI_DISTRIBUTED") == "1":
        import jax  # not above: prepare's workers import this module and must start fast

        jax.distributed.initialize()


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except (KeyError, AttributeError, ValueError, TypeError, OSError, flags.Error) as error:
        _fail(f"{error.args[0] if error.args else error}".strip())
        raise AssertionError from error  # _fail exits
    if flags.FLAGS.version:
        print(f"codi_jax {__version__}")
        sys.exit(0)
    return rest


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
