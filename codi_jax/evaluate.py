"""Score a model, or any folder of result images, against ground truth.

    python -m codi_jax.evaluate --images OUT --reference HR
    python -m codi_jax.evaluate --checkpoint demo --source PHOTOS --steps 1,2,4 --output runs/eval
    python -m codi_jax.evaluate --checkpoint runs/sr --metrics psnr,lpips_alex,fid --weights DIR

A model for any task is given inputs made of the source's images: whole frames, or with --crop the
crops that training evaluates on. Prints a table and the warnings, and writes to --output:
results.json, quality_vs_steps.png, metric_vs_metric.png, grid.png. Sampling is spread over all
devices and processes; a run that was stopped goes on where it was. docs/metrics.md says what is
measured how.
"""

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from codi_jax import cli
from codi_jax.diffusion.solvers import SOLVERS
from codi_jax.evals import image_files, sample_files
from codi_jax.evals.image_files import ImageFiles
from codi_jax.evals.report import Report
from codi_jax.evals.sample_files import batch_of_one
from codi_jax.evals.scoring import METRICS, WEIGHT_FREE, Networks, Score, Scorer
from codi_jax.samples import Samples, Setting, run_setting, sample_checkpoint
from codi_jax.typing import UserError, check_choice


def evaluate_checkpoint(
    checkpoint: str,
    setting: Setting,
    steps: Sequence[int],
    networks: Networks,
    output: Path,
    border: int = 0,
    batch_size: int = 1,
    save_images: bool = False,
    versus: tuple[str, str] | None = None,
) -> Report:
    """Sample a model and score its images; only the first process has scores in its report."""
    folder = output / "images"
    made = sample_checkpoint(checkpoint, setting, steps, batch_size, folder)
    count, task = made.setting.count or 0, made.task
    shown = {"checkpoint": checkpoint, **dataclasses.asdict(made.setting)}
    report = Report(setting=shown, versus=versus, measures=task.measures)
    if jax.process_index() == 0:
        first = batch_of_one(made.examples[0])
        names = [*task.baselines(first), *(str(n) for n in steps)]
        references = sample_files.files(folder, sample_files.REFERENCE, count)
        texts = None
        if "clip" in (networks.metrics or ()):
            texts = [made.examples[i]["text"] for i in range(count)]
        scorer = Scorer(references, networks, border, texts, paired=task.scored)
        columns = {name: sample_files.files(folder, name, count) for name in names}
        inputs = {name: sample_files.files(folder, name, count) for name in task.inputs(first)}
        report.add(scorer, columns)
        report.add_measures(*own_scores(made, columns))
        report.write(output)
        report.write_grid(inputs, columns, references, output)
        if not save_images:
            shutil.rmtree(folder)
    multihost_utils.sync_global_devices("scored")
    return report


def own_scores(
    made: Samples, columns: Mapping[str, ImageFiles]
) -> tuple[dict[str, dict[str, Score]], list[str]]:
    """The task's own measures of each image, by column; their means over the images.

    What an image does not have (edits outside the closed set have no accuracy) is left out, with
    a warning where others have it.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in columns}
    for i in range(made.setting.count or 0) if made.task.measures else ():
        batch = batch_of_one(made.examples[i])
        for name, images in columns.items():
            found[name].append(made.task.score(images[i][None], batch))
    every = [one for scores in found.values() for one in scores]
    having = {measure: sum(measure in one for one in every) for measure in made.task.measures}
    warnings = [
        f"{measure} is left out: only {n // len(columns)} of {made.setting.count} images have it"
        for measure, n in having.items()
        if 0 < n < len(every)
    ]
    means = {
        name: {
            measure: Score.of(np.array([one[measure] for one in scores], np.float64))
            for measure, n in having.items()
            if n == len(every)
        }
        for name, scores in found.items()
    }
    return means, warnings


def evaluate_folder(
    images: Path, reference: Path, networks: Networks, output: Path, border: int = 0
) -> Report:
    """Score the images of a folder.

    They are matched with the reference's by path without suffix, unless every metric compares
    sets.

    Raises:
        UserError: images without a counterpart, or of another size than it.
    """
    paired = networks.metrics is None or any(METRICS[name].paired for name in networks.metrics)
    texts, found, references = None, *_folders(images, reference, paired)
    if "clip" in (networks.metrics or ()):
        texts = image_files.captions(references)
    report = Report(setting={"images": str(images), "reference": str(reference)})
    report.add(Scorer(references, networks, border, texts), {"images": found})
    report.write(output)
    return report


def _folders(images: Path, reference: Path, paired: bool) -> tuple[ImageFiles, ImageFiles]:
    if not paired:
        return image_files.all_files(images), image_files.all_files(reference)
    found = image_files.matched(images, reference)
    image_files.check_shapes(*found)
    return found


def _define_flags() -> None:
    """Not at import: other entry points have flags of the same names."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("checkpoint", None, "Workdir, model directory or id, or 'demo'")
    string("source", None, "Ground truth: a folder, or as config.data.source")
    integer("crop", None, "Side of random crops in pixels; 0: whole frames")
    string("degradation", None, "Super-resolution: what makes the inputs, e.g. realesrgan")
    integer("count", None, "Number of images to sample")
    integer("seed", None, "Seed of crops, degradations, holes and noise")
    string("prompt", None, "Models that take text: one for all, or of the data, as '{text}'")
    string("solver", None, f"One of {', '.join(SOLVERS)}; default: the model's")
    flags.DEFINE_list("steps", ["1", "2", "4", "8"], "Numbers of sampling steps")
    integer("batch_size", 1, "Images at a time; at least one per device")
    flags.DEFINE_bool("save_images", False, "Keep the sampled images in OUTPUT/images")

    string("images", None, "A folder of results to score, not a checkpoint")
    string("reference", None, "Its ground truth: a folder, same file names")

    flags.DEFINE_list("metrics", None, f"Of {', '.join(METRICS)}; default: no weights")
    integer("border", 0, "Pixels cut off each side, for psnr ... haarpsi")
    flags.DEFINE_list("versus", None, "Two metrics to plot against one another")
    weights = os.environ.get("CODI_JAX_WEIGHTS", "~/.cache/codi_jax")
    string("weights", weights, "Folder of converted weights (default: $CODI_JAX_WEIGHTS)")
    string("clip", "openai/clip-vit-large-patch14", "CLIP: directory or id")
    flags.DEFINE_bool("skip_missing", False, "Leave out metrics whose weights are absent")
    string("output", "out/evaluation", "Folder of everything that is written")


def _setting(checkpoint: str) -> Setting:
    """The run's own, with what the flags say otherwise. Another source is taken in whole."""
    args, setting = flags.FLAGS, run_setting(checkpoint)
    if args.source is not None:
        setting = dataclasses.replace(setting, count=None)
    if args.solver is not None:
        check_choice("--solver", args.solver, SOLVERS)
    names = ("source", "count", "crop", "degradation", "seed", "prompt", "solver")
    given: dict[str, Any] = {name: args[name].value for name in names}
    return dataclasses.replace(setting, **{k: v for k, v in given.items() if v is not None})


def _steps() -> list[int]:
    values = flags.FLAGS.steps
    if not values or not all(value.isdigit() and int(value) > 0 for value in values):
        raise UserError(f"--steps={','.join(values)}: give numbers like 1,2,4,8.")
    return sorted({int(value) for value in values})


def _versus() -> tuple[str, str] | None:
    names, computed = flags.FLAGS.versus, flags.FLAGS.metrics or WEIGHT_FREE
    if names is None:
        return None
    if len(names) != 2 or not {*names} <= {*computed}:
        raise UserError(
            f"--versus={','.join(names)}: give two of the metrics {', '.join(computed)}."
        )
    return names[0], names[1]


def _main(_: list[str]) -> None:
    args = flags.FLAGS
    checkpoint, images, reference = args.checkpoint, args.images, args.reference
    if (checkpoint is None) == (images is None) or (images is None) != (reference is None):
        raise UserError("give either --checkpoint, or --images and --reference; see --help.")
    if args.border < 0:
        raise UserError(f"--border={args.border}: give 0 or more pixels.")
    steps, versus, output = _steps(), _versus(), Path(args.output)
    cli.join_processes()
    weights = Path(args.weights).expanduser()
    networks = Networks(args.metrics, weights, args.clip, args.skip_missing)
    if checkpoint is not None:
        report = evaluate_checkpoint(
            checkpoint,
            _setting(checkpoint),
            steps,
            networks,
            output,
            args.border,
            args.batch_size,
            args.save_images,
            versus,
        )
    else:
        assert images is not None and reference is not None
        folders = Path(images), Path(reference)
        report = evaluate_folder(*folders, networks, output, args.border)
    if jax.process_index() == 0:
        print(report.text())
        print(f"written to {output}")


if __name__ == "__main__":
    _define_flags()
    cli.run(_main)
