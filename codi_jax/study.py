r"""The study: train every method with one budget, score all on the same photos, report.

    python -m codi_jax.study --config=configs/study.py --workdir=runs/study
    python -m codi_jax.study --config=configs/study.py --workdir=runs/mine \
        --config.run.data.source=TRAIN --config.run.data.eval_source=HELD_OUT

What is finished is not done again. The report is written to docs/results.md; --report_only
writes it of what is there, without training or scoring anything, and --score_only first scores
what is trained. --stages=ldm,codi trains these alone, and what they start from: so several
processes can train side by side.
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
    flags.DEFINE_bool("score_only", False, "Train nothing: score what is there, and report")
    flags.DEFINE_bool("report_only", False, "Neither train nor score: report what is there")


def run(_: list[str]) -> None:
    """Run the study as the flags say, and write its report."""
    args = flags.FLAGS
    if args.config is None or args.workdir is None:
        raise UserError("give --config=configs/study.py and --workdir=DIR; see --help.")
    keep_compiled()
    if sum(map(bool, (args.stages, args.score_only, args.report_only))) > 1:
        raise UserError("give one of --stages, --score_only and --report_only.")
    study = Study(args.config, Path(args.workdir).expanduser())
    with Interrupt() as interrupt:
        if args.stages:
            study.train(args.stages, interrupt)
            return
        if args.score_only or args.report_only:
            study.results(make=args.score_only)
        else:
            study.run(interrupt)
    report = study.report(f"python -m codi_jax.study {' '.join(sys.argv[1:])}")
    print(f"report: {report}")


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
