"""Scores of a model, or of any folder of images, against ground truth or without."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from codi_jax.diffusion.solvers import SOLVERS
from codi_jax.evals.image_metrics import Images
from codi_jax.evals.iqa_scores import IqaFile, iqa_files, read_measures
from codi_jax.evals.metrics import METRICS, WEIGHT_FREE
from codi_jax.evals.networks import DEFAULT_WEIGHTS, Networks
from codi_jax.evals.report import write_grid, write_results
from codi_jax.evals.results import Results, Scores
from codi_jax.evals.scoring import OwnMeasures, Scorer, check_no_reference
from codi_jax.sampling import held_out_files, image_files
from codi_jax.sampling.held_out import Sampled, Setting, sample_held_out
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
        reference: its ground truth, a folder with the same file names; not for metrics that
            need none.
        iqa_csv: pyiqa's scores of that folder's images, METRIC=FILE each; see docs/metrics.md.
        metrics: names of the metrics; by default all that need no weights.
        border: pixels cut off each side for the metrics of pixels (psnr, ..., haarpsi).
        versus: two metrics to plot against one another.
        weights: folder of converted weights; by default $CODI_JAX_WEIGHTS or ~/.cache/codi_jax.
        clip: CLIP's directory or Hugging Face id.
        skip_missing: leave out metrics whose weights are absent.
        output: folder of everything that is written.
        task_module: the model's task, module:Class, if it is one of your own; its code is run.
    """

    checkpoint: str | None = None
    steps: tuple[str, ...] = ("1", "2", "4", "8")
    batch_size: int = 1
    save_images: bool = False
    images: Path | None = None
    reference: Path | None = None
    iqa_csv: tuple[str, ...] = ()
    metrics: tuple[str, ...] | None = None
    border: int = 0
    versus: tuple[str, ...] | None = None
    weights: Path = DEFAULT_WEIGHTS
    clip: str = "openai/clip-vit-large-patch14"
    skip_missing: bool = False
    output: Path = Path("out/evaluation")
    task_module: str | None = None

    def check(self) -> None:
        """Hold the settings against one another.

        Raises:
            UserError: some do not fit together.
        """
        if (self.checkpoint is None) == (self.images is None) or (
            self.images is None and self.reference is not None
        ):
            raise UserError("give either --checkpoint, or --images and --reference; see --help.")
        if self.images is None and self.iqa_csv:
            raise UserError(
                "--iqa_csv is for a folder of images: keep a checkpoint's by --save_images, and "
                "score one of the folders in OUTPUT/images by --images."
            )
        iqa_files(self.iqa_csv)
        if self.images is not None and self.reference is None and not self._read_alone:
            check_no_reference(self.metrics or WEIGHT_FREE)
        if self.border < 0:
            raise UserError(f"--border={self.border}: give 0 or more pixels.")
        if not self.steps or not all(n.isdigit() and int(n) > 0 for n in self.steps):
            raise UserError(f"--steps={','.join(self.steps)}: give numbers like 1,2,4,8.")
        computed = self.metrics or WEIGHT_FREE
        if self.versus and (len(self.versus) != 2 or not {*self.versus} <= {*computed}):
            raise UserError(
                f"--versus={','.join(self.versus)}: give two of the metrics {', '.join(computed)}."
            )

    @property
    def _read_alone(self) -> bool:
        """Whether nothing is computed, and the scores are those of `iqa_csv`."""
        return bool(self.iqa_csv) and self.reference is None and self.metrics is None

    def networks(self) -> Networks | None:
        """The networks of the metrics; None where no metric is computed."""
        if self._read_alone:
            return None
        return Networks(self.metrics, self.weights, self.clip, self.skip_missing)


def evaluate(evaluation: Evaluation, setting: Setting, method: str = "model") -> Results:
    """Score what ``evaluation`` names, and write the report.

    Args:
        evaluation: what is scored, and by what.
        setting: what a checkpoint is evaluated on.
        method: what its model is called.

    Returns:
        The results; those of a checkpoint have scores in the first process alone.

    Raises:
        UserError: a checkpoint, data, folders or metrics that do not exist or do not fit.
    """
    networks = evaluation.networks()
    output, border = evaluation.output, evaluation.border
    if evaluation.checkpoint is None:
        assert evaluation.images is not None
        files = iqa_files(evaluation.iqa_csv)
        folders = evaluation.images, evaluation.reference
        return evaluate_folder(*folders, networks, output, border, files)
    assert networks is not None
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
        method,
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
    method: str = "model",
) -> Results:
    """Sample a model, score its images and write the report; see :class:`Evaluation`.

    Returns:
        The results; only the first process has scores.

    Raises:
        UserError: no such model or data, or images of another evaluation in ``output``.
    """
    folder = output / "images"
    made = sample_held_out(checkpoint, setting, steps, batch_size, folder)
    count, task = made.setting.count or 0, made.task
    results = Results(images=count, metrics={}, scores={}, task=task.key)
    if jax.process_index() == 0:
        first = batch_of_one(made.examples[0])
        shown_baselines, inputs = [*task.baselines(first)], [*task.inputs(first)]
        baselines = [*shown_baselines, *task.more_baselines(first)]
        names = [*baselines, *map(str, steps), *inputs, held_out_files.REFERENCE]
        images = {name: held_out_files.files(folder, name, count) for name in names}
        columns = {name: images[name] for name in (*baselines, *map(str, steps))}
        scorer = _scorer(made, images[held_out_files.REFERENCE], networks, border)
        scored = scorer(columns)
        scores: dict[str, Mapping[int | None, Scores]] = {
            **{name: {None: scored[name]} for name in baselines},
            method: {n: scored[str(n)] for n in steps},
        }
        shown = {"checkpoint": checkpoint, **dataclasses.asdict(made.setting), "border": border}
        results = scorer.results(scores, task.key, shown)
        write_results(results, output, versus)
        shown_inputs = {name: images[name] for name in inputs}
        shown_columns = {name: columns[name] for name in (*shown_baselines, *map(str, steps))}
        write_grid(shown_inputs, shown_columns, images[held_out_files.REFERENCE], output)
        if not save_images:
            shutil.rmtree(folder)
    multihost_utils.sync_global_devices("scored")
    return results


def _scorer(made: Sampled, references: ImageFiles, networks: Networks, border: int) -> Scorer:
    """The scorer of samples: by the metrics, and by their task's own measures."""
    texts = None
    if "clip" in (networks.metrics or ()):
        texts = [made.examples[i]["text"] for i in range(len(references))]
    own = OwnMeasures(
        measure=lambda images: own_measures(made, images),
        directions=made.task.measures,
        per_image=True,
    )
    return Scorer(references, networks, border, texts, paired=made.task.scored, own=own)


def own_measures(made: Sampled, images: Images) -> dict[str, list[float | None]]:
    """The task's own measures of each image.

    Args:
        made: what the images were made of.
        images: one for each example, or the first of them.

    Returns:
        For each measure a value for each image; None for an image that it does not apply to:
        edits outside the closed set have no accuracy.
    """
    if not made.task.measures:
        return {}
    rows = [
        made.task.score(image[None], batch_of_one(made.examples[i]))
        for i, image in enumerate(images)
    ]
    return {measure: [row.get(measure) for row in rows] for measure in made.task.measures}


def evaluate_folder(
    images: Path,
    reference: Path | None,
    networks: Networks | None,
    output: Path,
    border: int = 0,
    iqa: Sequence[IqaFile] = (),
) -> Results:
    """Score the images of a folder, and write the report.

    They are matched with the reference's by path without suffix, unless every metric compares
    sets.

    Args:
        images: a folder of results.
        reference: the folder of what is right; None if there is none.
        networks: says which metrics are computed; None for none.
        output: folder of the report.
        border: pixels cut off each side for the metrics of pixels.
        iqa: scores that are read.

    Raises:
        UserError: images without a counterpart, or of another size than it; a metric that needs
            a reference, and there is none; scores that are not of these images.
    """
    computed = () if networks is None else networks.metrics or WEIGHT_FREE
    paired = any(METRICS[name].paired for name in computed)
    found, references = _folders(images, reference, paired)
    texts = None
    if "clip" in computed:
        texts = image_files.captions(found if references is None else references)
    own = read_measures(iqa, found) if iqa else None
    scorer = Scorer(references, networks, border, texts, own=own)
    scores: dict[str, Mapping[int | None, Scores]] = {
        name: {None: row} for name, row in scorer({"images": found}).items()
    }
    shown: dict[str, object] = {"images": str(images), "border": border}
    if reference is not None:
        shown["reference"] = str(reference)
    if iqa:
        shown["iqa_csv"] = {file.name: str(file.path) for file in iqa}
    results = scorer.results(scores, setting=shown)
    write_results(results, output)
    return results


def _folders(
    images: Path, reference: Path | None, paired: bool
) -> tuple[ImageFiles, ImageFiles | None]:
    if reference is None:
        return image_files.all_files(images), None
    if not paired:
        return image_files.all_files(images), image_files.all_files(reference)
    found = image_files.matched(images, reference)
    image_files.check_shapes(*found)
    return found
