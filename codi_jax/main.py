"""Train a model as a config says; everything that the run writes goes to its workdir.

    python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
    python -m codi_jax.main --config=configs/sr.py:tiny --workdir=runs/tiny
    python -m codi_jax.main --config=configs/edit.py --workdir=runs/edit
    python -m codi_jax.main --config=configs/sr.py:sd21 --dry_run

If it was stopped, the same command goes on from the last checkpoint. SIGTERM and Ctrl-C let it
save first; it then exits with the status 75, upon which schedulers start it again (docs/runs.md).
Any key of the config can be set on the command line as --config.KEY=VALUE.
"""

from pathlib import Path

from absl import flags

from codi_jax.cli import app
from codi_jax.data.worker import end_with_parent
from codi_jax.typing import UserError

# What is imported where it is used is heavy, and the data workers import this module, too: they
# must start fast. It is the first thing that they do, so they end with a killed run from here on.
if __name__ == "__mp_main__":
    end_with_parent()


def define_flags() -> None:
    """The flags of this command."""
    from codi_jax.run.config import define_config_flag

    define_config_flag("Path of the config, e.g. configs/sr.py")
    flags.DEFINE_string("workdir", None, "Directory of everything that the run writes")
    flags.DEFINE_bool("dry_run", False, "Print the plan of the run, and write nothing")
    text = "Record so many steps, from the sixth on, for TensorBoard's profiler (pip install xprof)"
    flags.DEFINE_integer("profile_steps", 0, text, lower_bound=0)


def run(_: list[str]) -> None:
    """Train as the flags say."""
    from codi_jax.parallel.platform import keep_compiled
    from codi_jax.parallel.processes import joined_processes
    from codi_jax.run.plan import plan
    from codi_jax.run.summary import summary
    from codi_jax.run.train import train
    from codi_jax.train.interrupt import Interrupt

    args = flags.FLAGS
    if args.config is None or (args.workdir is None and not args.dry_run):
        raise UserError("give --config=configs/sr.py and --workdir=DIR; see --help.")
    with joined_processes():
        if args.dry_run:
            print(summary(plan(args.config)))
            return
        keep_compiled()
        with Interrupt() as interrupt:
            workdir = Path(args.workdir).expanduser()
            train(args.config, workdir, interrupt, profile_steps=args.profile_steps)


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
