r"""The study: train every method with one budget, score all on the same photos, report.

    python -m codi_jax.study --config=configs/study.py --workdir=runs/study
    python -m codi_jax.study --config=configs/study.py --workdir=runs/mine \
        --config.run.data.source=TRAIN --config.run.data.eval_source=HELD_OUT

What is finished is not done again. The report is written to docs/results.md; --report_only
writes it of what is there, without training or scoring anything. --stages=ldm,codi trains these
alone, and what they start from: so several processes can train side by side.
"""

import sys
from pathlib import Path

from absl import flags

from codi_jax.cli import app
from codi_jax.parallel.platform import keep_compiled
from codi_jax.run.config import define_config_flag
from codi_jax.run.study import Study
from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import UserError


def define_flags() -> None:
    """The flags of this command."""
    define_config_flag("Path of the config: configs/study.py")
    flags.DEFINE_string("workdir", None, "Directory of everything that the study writes")
    flags.DEFINE_list("stages", [], "Train these stages alone, and neither score nor report")
    flags.DEFINE_bool("report_only", False, "Write the report of what is there")


def run(_: list[str]) -> None:
    """Run the study as the flags say, and write its report."""
    args = flags.FLAGS
    if args.config is None or args.workdir is None:
        raise UserError("give --config=configs/study.py and --workdir=DIR; see --help.")
    keep_compiled()
    if args.report_only and args.stages:
        raise UserError("--report_only trains nothing: leave out --stages.")
    study = Study(args.config, Path(args.workdir).expanduser())
    if args.stages:
        with Interrupt() as interrupt:
            study.train(args.stages, interrupt)
        return
    if args.report_only:
        study.results(make=False)
    else:
        with Interrupt() as interrupt:
            study.run(interrupt)
    report = study.report(f"python -m codi_jax.study {' '.join(sys.argv[1:])}")
    print(f"report: {report}")


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
