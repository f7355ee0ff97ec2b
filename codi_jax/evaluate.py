"""Score a model, or any folder of result images, against ground truth or without.

    python -m codi_jax.evaluate --images OUT --reference HR
    python -m codi_jax.evaluate --images OUT --metrics niqe --iqa_csv musiq=FILE
    python -m codi_jax.evaluate --checkpoint demo --source PHOTOS --output OUT
    python -m codi_jax.evaluate --checkpoint runs/sr --metrics psnr,lpips_alex

A model's inputs are made of the source's images, as its task says: whole frames, or with --crop
crops of that size. The command prints a table and warnings, and writes to --output: results.json
and, for a model, quality_vs_steps.png, metric_vs_metric.png and grid.png. Sampling is spread over
all devices and processes, and an evaluation that was stopped goes on where it was.
docs/metrics.md says what is measured how.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from codi_jax.cli import app, flags
from codi_jax.evals.checkpoints import Evaluation, evaluate
from codi_jax.evals.report import report_text
from codi_jax.parallel.platform import keep_compiled
from codi_jax.parallel.processes import joined_processes
from codi_jax.run.workdir import run_method, run_setting
from codi_jax.sampling.held_out import Setting
from codi_jax.tasks.registry import trust_task


def define_flags() -> None:
    """The flags of this command."""
    flags.define(Evaluation)
    flags.define(Setting)


def run(_: list[str]) -> None:
    """Evaluate as the flags say."""
    evaluation, given = flags.read(Evaluation), flags.given(Setting)
    evaluation.check()
    if evaluation.task_module:
        trust_task(evaluation.task_module)
    with joined_processes():
        keep_compiled()
        _score(evaluation, given)


def _score(evaluation: Evaluation, given: Mapping[str, Any]) -> None:
    setting, method = Setting(), ""
    if evaluation.checkpoint is not None:
        setting, method = run_setting(evaluation.checkpoint), run_method(evaluation.checkpoint)
    if "source" in given:  # another source than the run's own is taken in whole
        setting = dataclasses.replace(setting, count=None)
    results = evaluate(evaluation, dataclasses.replace(setting, **given), method or "model")
    if jax.process_index() == 0:
        print(report_text(results))
        print(f"written to {evaluation.output}")


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()
