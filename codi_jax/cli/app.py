"""What the commands share: how they start, and how they end with one line and an exit status.

====== ===========================================================================================
status meaning
====== ===========================================================================================
0      done
2      a mistake that the message names, or a full or absent disk; the same command fails again
3      pictures could not be read or made, each named; the others are done
75     a signal stopped a run, and what it had done is saved, or another of its processes has died:
       start the same command again
130    Ctrl-C stopped another command
====== ===========================================================================================
"""

import errno
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from codi_jax import __version__
from codi_jax.cli.help import help_text
from codi_jax.typing import INTERRUPTED, Interrupted, UserError, check_local

#: Errors of a disk that a user can mend, and how. Other errors of the system are ours.
DISK = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or ask for a larger quota",
    errno.EFBIG: "allow larger files there",
    errno.EROFS: "mount it for writing, or choose another place",
    errno.EACCES: "get the right to read and write there, or choose another place",
    errno.EPERM: "get the right to read and write there, or choose another place",
    errno.EIO: "look after the disk",
    errno.ESTALE: "mount it again",
    errno.ENOTCONN: "mount it again",
    errno.ENOENT: "put it back: it was there before",
    errno.ENOTDIR: "choose another place, or remove the file that is in the way",
}


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
        except OSError as error:
            if error.errno not in DISK:
                raise
            where = error.filename2 or error.filename
            at = f"{os.fsdecode(where)}: " if isinstance(where, str | bytes) else ""
            _fail(f"{at}{os.strerror(error.errno)}. Remedy: {DISK[error.errno]}.")
        except Interrupted as stopped:
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    others = {*flags.FLAGS}
    try:
        define_flags()
    except UserError as error:
        _fail(str(error))
    own = {*flags.FLAGS} - others
    flags.DEFINE_bool("version", False, "Print the version and exit")
    flags.FLAGS.set_gnu_getopt()  # flags may come after arguments
    app.run(guarded, flags_parser=lambda argv: _parse(argv, text or "", own))


def _parse(argv: list[str], text: str, own: set[str]) -> list[str]:
    if {"--help", "-help", "-h"} & {*argv[1:]}:
        print(help_text(text, own))
        sys.exit(0)
    try:
        for argument in argv[1:]:
            flag, equals, value = argument.partition("=")
            check_local(*((flag, value) if equals else ("argument", argument)))
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
