"""Compile a run's programs for machines that you do not have, and say what they will cost.

    python -m codi_jax.aot --config=configs/sr.py:sd21 --topology=v5e:4x4
    python -m codi_jax.aot --config=configs/sr.py:sd21 --program=sampler
    python -m codi_jax.aot --config=configs/sr.py --find_batch
    python -m codi_jax.aot --config=configs/sr.py --quick

No weights are read and no chip is needed; a full-size step takes long to compile, a third of that
with --quick, which ends at XLA's schedule and for this machine only counts. Printed are
computation, memory against the chip's, what the devices send each other, and a bound on the speed.
What does not fit comes with the changes of the config that would make it fit, each compiled.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from absl import flags

from codi_jax.checkpoint.files import save_json
from codi_jax.cli import app
from codi_jax.parallel.compiling import compile_with_low_effort
from codi_jax.parallel.scheduled import dump_scheduled
from codi_jax.run.ahead import compile_ahead, plan_ahead
from codi_jax.run.ahead_sampler import sampler_ahead
from codi_jax.run.config import define_config_flag
from codi_jax.run.fitting import find_batch, remedies
from codi_jax.run.plan import Plan
from codi_jax.run.summary import gib, summary
from codi_jax.typing import UserError


def define_flags() -> None:
    """The flags of this command."""
    define_config_flag("Path of the config, e.g. configs/sr.py:sd21")
    flags.DEFINE_string("topology", "", "TPU slice, e.g. v5e:4x4; by default this machine")
    flags.DEFINE_enum("program", "step", ["step", "sampler"], "What is compiled")
    flags.DEFINE_integer("sampling_steps", 4, "Steps of the sampler", lower_bound=1)
    flags.DEFINE_integer("sampling_batch", 1, "Pictures of the sampler", lower_bound=1)
    flags.DEFINE_bool("quick", False, "Count; for TPUs, compile up to the schedule")
    flags.DEFINE_bool("low_effort", False, "Compile sooner, to slower code that may need more")
    flags.DEFINE_bool("find_batch", False, "Find the largest config.batch_size that fits")
    flags.DEFINE_bool("remedies", True, "Where it does not fit, compile what would")
    flags.DEFINE_string("output", "", "JSON file that the figures are written to, too")


def run(_: list[str]) -> None:
    """Compile as the flags say, and print the report."""
    args = flags.FLAGS
    if args.config is None:
        raise UserError("give --config=configs/sr.py:sd21; see --help.")
    if args.low_effort:
        compile_with_low_effort()
    schedules = Path(tempfile.mkdtemp(prefix="codi_aot_")) if args.quick and args.topology else None
    if schedules is not None:
        dump_scheduled(schedules)
    planned = plan_ahead(args.config, args.topology)
    print(summary(planned))
    if args.find_batch:
        batch_size, found = find_batch(planned)
        print(f"the largest batch: config.batch_size={batch_size}, {gib(found.bytes)} a device")
        figures: dict[str, object] = {"batch_size": batch_size, "peak": found.bytes}
    else:
        figures = _compile(planned, schedules)
    if args.output:
        save_json(Path(args.output).expanduser(), figures)
    if schedules is not None:
        shutil.rmtree(schedules, ignore_errors=True)
        sys.stdout.flush()
        os._exit(0)  # the compiler is still at work, and nothing else ends it


def _compile(planned: Plan, schedules: Path | None) -> dict[str, object]:
    args = flags.FLAGS
    if args.program == "sampler":
        ahead = sampler_ahead(
            planned, args.sampling_steps, args.sampling_batch, args.quick, schedules
        )
    else:
        ahead = compile_ahead(planned, args.quick, schedules)
    print(ahead.text())
    figures = ahead.to_json()
    if ahead.fits is False and args.program == "step" and args.remedies and not args.quick:
        lines = remedies(planned)
        figures["remedies"] = lines
        print("what one change of the config makes of it:", *lines, sep="\n  ")
    return figures


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
