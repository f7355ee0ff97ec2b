"""Scores of a model, or of any folder of images, against ground truth."""

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from codi_jax.diffusion.solvers import SOLVERS
from codi_jax.evals.report import Report
from codi_jax.evals.scoring import METRICS, WEIGHT_FREE, Networks, Score, Scorer
from codi_jax.sampling import held_out_files, image_files
from codi_jax.sampling.held_out import Results, Setting, make_results
from codi_jax.sampling.held_out_files import batch_of_one
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.typing import UserError, check_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is scored, by what, and where the report goes.

    Attributes:
        checkpoint: a workdir, a model directory or its Hugging Face id, or "demo".
        steps: numbers of sampling steps.
        batch_size: images at a time; at least one per device.
        save_images: keep the sampled images in OUTPUT/images.
        images: a folder of results to score, instead of a checkpoint.
        reference: its ground truth, a folder with the same file names.
        metrics: names of the metrics; by default all that need no weights.
        border: pixels cut off each side for the metrics of pixels (psnr, ..., haarpsi).
        versus: two metrics to plot against one another.
        weights: folder of converted weights; by default $CODI_JAX_WEIGHTS or ~/.cache/codi_jax.
        clip: CLIP's directory or Hugging Face id.
        skip_missing: leave out metrics whose weights are absent.
        output: folder of everything that is written.
    """

    checkpoint: str | None = None
    steps: tuple[str, ...] = ("1", "2", "4", "8")
    batch_size: int = 1
    save_images: bool = False
    images: Path | None = None
    reference: Path | None = None
    metrics: tuple[str, ...] | None = None
    border: int = 0
    versus: tuple[str, ...] | None = None
    weights: Path = Path(os.environ.get("CODI_JAX_WEIGHTS", "~/.cache/codi_jax"))
    clip: str = "openai/clip-vit-large-patch14"
    skip_missing: bool = False
    output: Path = Path("out/evaluation")

    def check(self) -> None:
        """Raises a UserError for settings that do not fit together."""
        if (self.checkpoint is None) == (self.images is None) or (self.images is None) != (
            self.reference is None
        ):
            raise UserError("give either --checkpoint, or --images and --reference; see --help.")
        if self.border < 0:
            raise UserError(f"--border={self.border}: give 0 or more pixels.")
        if not self.steps or not all(n.isdigit() and int(n) > 0 for n in self.steps):
            raise UserError(f"--steps={','.join(self.steps)}: give numbers like 1,2,4,8.")
        computed = self.metrics or WEIGHT_FREE
        if self.versus and (len(self.versus) != 2 or not {*self.versus} <= {*computed}):
            raise UserError(
                f"--versus={','.join(self.versus)}: give two of the metrics {', '.join(computed)}."
            )


def evaluate(evaluation: Evaluation, setting: Setting) -> Report:
    """Score what ``evaluation`` names; of a checkpoint, on what ``setting`` says."""
    networks = Networks(
        evaluation.metrics,
        evaluation.weights.expanduser(),
        evaluation.clip,
        evaluation.skip_missing,
    )
    output, border = evaluation.output, evaluation.border
    if evaluation.checkpoint is None:
        assert evaluation.images is not None and evaluation.reference is not None
        return evaluate_folder(evaluation.images, evaluation.reference, networks, output, border)
    if setting.solver:
        check_choice("--solver", setting.solver, SOLVERS)
    return evaluate_checkpoint(
        evaluation.checkpoint,
        setting,
        sorted({int(n) for n in evaluation.steps}),
        networks,
        output,
        border,
        evaluation.batch_size,
        evaluation.save_images,
        evaluation.versus,
    )


def evaluate_checkpoint(
    checkpoint: str,
    setting: Setting,
    steps: Sequence[int],
    networks: Networks,
    output: Path,
    border: int = 0,
    batch_size: int = 1,
    save_images: bool = False,
    versus: tuple[str, ...] | None = None,
) -> Report:
    """Sample a model and score its images; only the first process has scores in its report."""
    folder = output / "images"
    made = make_results(checkpoint, setting, steps, batch_size, folder)
    count, task = made.setting.count or 0, made.task
    shown = {"checkpoint": checkpoint, **dataclasses.asdict(made.setting)}
    report = Report(setting=shown, versus=versus, measures=task.measures)
    if jax.process_index() == 0:
        first = batch_of_one(made.examples[0])
        names = [*task.baselines(first), *(str(n) for n in steps)]
        references = held_out_files.files(folder, held_out_files.REFERENCE, count)
        texts = None
        if "clip" in (networks.metrics or ()):
            texts = [made.examples[i]["text"] for i in range(count)]
        scorer = Scorer(references, networks, border, texts, paired=task.scored)
        columns = {name: held_out_files.files(folder, name, count) for name in names}
        inputs = {name: held_out_files.files(folder, name, count) for name in task.inputs(first)}
        report.add(scorer, columns)
        report.add_measures(*own_scores(made, columns))
        report.write(output)
        report.write_grid(inputs, columns, references, output)
        if not save_images:
            shutil.rmtree(folder)
    multihost_utils.sync_global_devices("scored")
    return report


def own_scores(
    made: Results, columns: Mapping[str, ImageFiles]
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
