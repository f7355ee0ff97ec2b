"""Train: read the config and the workdir, build, run.

    python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
    python -m codi_jax.main --config=configs/sr.py:tiny --workdir=runs/tiny
    python -m codi_jax.main --config=configs/sr.py --config.data.source=PHOTOS --workdir=runs/mine

The same command run again goes on from the last checkpoint. Any key of the config can be set on
the command line as --config.KEY=VALUE.
"""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from codi_jax.runner import train
from codi_jax.typing import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Path of the config, e.g. configs/sr.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of everything that the run writes")


def _main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # orbax and jax tell much at INFO
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config=configs/sr.py and --workdir=DIR; see --help.")
    if os.environ.get("CODI_DISTRIBUTED") == "1":
        jax.distributed.initialize()
    train(_CONFIG.value, Path(_WORKDIR.value))


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError, ValueError, TypeError, OSError, flags.Error) as error:
        _fail(f"{error.args[0] if error.args else error}".strip())
        raise AssertionError from error  # _fail exits


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def run_main() -> None:
    """The command line: a UserError is one line and exit status 2."""

    def guarded(argv: list[str]) -> None:
        try:
            _main(argv)
        except UserError as error:
            _fail(str(error))

    app.run(guarded, flags_parser=_parse)


if __name__ == "__main__":
    run_main()
