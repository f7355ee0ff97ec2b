"""What the commands share: how they start, and a UserError as one line and exit status 2."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from codi_jax import __version__
from codi_jax.typing import UserError


def run(
    main: Callable[[list[str]], None], define_flags: Callable[[], None], text: str | None
) -> None:
    """Define the flags, parse them, call ``main`` with the other arguments, exit.

    Args:
        main: the command.
        define_flags: called here and not when a command is imported: several commands have
            flags of the same names.
        text: what --help says before the flags.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # orbax and jax tell much at INFO
        try:
            main(argv[1:])
        except UserError as error:
            _fail(str(error))

    sys.modules["__main__"].__doc__ = text  # absl's --help shows it, whatever started us
    try:
        define_flags()
    except UserError as error:
        _fail(str(error))
    flags.DEFINE_bool("version", False, "Print the version and exit")
    app.run(guarded, flags_parser=_parse)


def join_processes() -> None:
    """Join the other processes of this command, where the launcher set ``CODI_DISTRIBUTED=1``."""
    if os.environ.get("CODI_DISTRIBUTED") == "1":
        import jax  # not above: prepare's workers import this module and must start fast

        jax.distributed.initialize()


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:  # a config is a program, which may fail in any way
        _fail(_in_one_line(error))
        raise AssertionError from error  # _fail exits
    if flags.FLAGS.version:
        print(f"codi_jax {__version__}")
        sys.exit(0)
    return rest


def _in_one_line(error: Exception) -> str:
    """What went wrong with the flags, or with the config that one of them names, and where."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}; correct the file."
    text = f"{error.args[0] if error.args else error}".strip()
    before, traced, after = text.partition("Traceback (most recent call last):")
    if traced:  # ml_collections puts the whole traceback of a config into its message
        what = after.strip().splitlines()[-1].removeprefix("ValueError: ")
        return f"{before.partition(': ')[0]}: {what}"
    if isinstance(error, ImportError):
        return f"{text}, which the config imports; install it, or correct the file."
    return text


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
