"""What a run leaves in its workdir: the model, its results, and the page that shows them."""

from collections.abc import Mapping
from pathlib import Path

import jax

from codi_jax.checkpoint.directory import save_directory
from codi_jax.evals.evaluation import Evaluated, Evaluator
from codi_jax.evals.results import Results, table
from codi_jax.evals.run_report import REPORT, SAMPLES, write_run_report
from codi_jax.run.start import Run
from codi_jax.run.workdir import RESULTS, method_name
from codi_jax.sampling.load import MODEL
from codi_jax.train.metrics import JSONL
from codi_jax.train.rescale import unit_latents
from codi_jax.typing import Params


def write_report(
    run: Run,
    workdir: Path,
    results: Results | None = None,
    now: Mapping[int, Mapping[str, float]] | None = None,
) -> None:
    """Write ``report.html``; the first process alone does. See :func:`write_run_report`."""
    if jax.process_index() == 0:
        config = run.plan.config.to_dict()
        write_run_report(workdir, workdir / JSONL, config, results, now)


def finish(
    run: Run,
    workdir: Path,
    params: Params,
    evaluator: Evaluator,
    first: Evaluated,
    last: Evaluated,
) -> Results:
    """Export the model, write and print the results."""
    images = evaluator.batch["image"]
    save_directory(workdir / MODEL, unit_latents(run.plan.model, params, images))
    task = run.plan.task
    method = method_name(run.plan.config) if task.diffuses else task.name
    results = evaluator.results(method, first, last)
    if jax.process_index() == 0:
        results.save(workdir / RESULTS)
        write_report(run, workdir, results)
        if results.scores:
            print(table(results))
        if evaluator.beside is not None:
            print(
                f"{evaluator.beside.name}: a finished model on the same pictures. It shows what "
                "more photos and more steps lead to."
            )
        print(f"model: {workdir / MODEL}   pictures: {workdir / SAMPLES}")
        print(f"report: {workdir / REPORT}")
    return results
