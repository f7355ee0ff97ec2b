"""Train: read the config and the workdir, build, run.

    python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
    python -m codi_jax.main --config=configs/sr.py:tiny --workdir=runs/tiny
    python -m codi_jax.main --config=configs/sr.py --config.data.source=PHOTOS --workdir=runs/mine

The same command run again goes on from the last checkpoint. Any key of the config can be set on
the command line as --config.KEY=VALUE.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from codi_jax import cli
from codi_jax.runner import train
from codi_jax.typing import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Path of the config, e.g. configs/sr.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of everything that the run writes")


def _main(_: list[str]) -> None:
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config=configs/sr.py and --workdir=DIR; see --help.")
    cli.join_processes()
    train(_CONFIG.value, Path(_WORKDIR.value))


if __name__ == "__main__":
    cli.run(_main)
