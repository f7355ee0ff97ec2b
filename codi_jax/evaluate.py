"""Score a model, or any folder of result images, against ground truth.

    python -m codi_jax.evaluate --images OUT --reference HR
    python -m codi_jax.evaluate --checkpoint demo --source PHOTOS --steps 1,2,4 --output runs/eval
    python -m codi_jax.evaluate --checkpoint runs/sr --metrics psnr,lpips_alex,fid --weights DIR

A model is given inputs made of the source's images: whole frames, or with --crop the crops that
training evaluates on. Prints a table and the warnings, and writes to --output: results.json,
quality_vs_steps.png, metric_vs_metric.png, grid.png. Sampling is spread over all devices and
processes; a run that was stopped goes on where it was. docs/metrics.md says what is measured how.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils

from codi_jax import cli, trees
from codi_jax.builder import checkpoint_path
from codi_jax.checkpoint.files import load_json
from codi_jax.data.degradation import make_degradation
from codi_jax.data.pipeline import eval_samples
from codi_jax.data.sources import check_source, make_source
from codi_jax.data.transforms import CutToMultiple, Degrade, RandomCropFlip
from codi_jax.evals import image_files, sample_files
from codi_jax.evals.batches import Devices
from codi_jax.evals.image_files import ImageFiles
from codi_jax.evals.report import Report
from codi_jax.evals.scoring import METRICS, WEIGHT_FREE, Networks, Scorer
from codi_jax.sample import Sampler
from codi_jax.typing import Array, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a model is evaluated on.

    Attributes:
        source: as ``config.data.source``; its held-out part.
        count: number of images; more than the source has gives further crops and degradations.
        crop: side of the crops in pixels; 0 for whole frames.
        degradation: as ``config.data.degradation``.
        seed: of crops, degradations and noise.
        prompt: for models that take text, the same for all images.
    """

    source: str = "skimage"
    count: int | None = None
    crop: int = 0
    degradation: str = "bicubic"
    seed: int = 0
    prompt: str = ""


def run_setting(checkpoint: str) -> Setting:
    """What a run evaluated itself on, from its workdir; the defaults for other checkpoints."""
    path = checkpoint_path(checkpoint) / "config.json"
    config = load_json(path) if path.is_file() else {}
    if "data" not in config:
        return Setting()
    data = config["data"]
    return Setting(
        source=data["eval_source"] or data["source"],
        count=config["eval"]["count"],
        crop=config["eval"]["size"],
        degradation=data["degradation"],
        seed=config["seed"],
        prompt=config["model"]["prompt"],
    )


def share(count: int) -> range:
    """This process's part of ``count`` images."""
    return range(jax.process_index(), count, jax.process_count())


def sample_checkpoint(
    checkpoint: str, setting: Setting, steps: Sequence[int], batch_size: int, folder: Path
) -> tuple[Setting, Any]:
    """Write the model's images to ``folder`` (every process its share), and wait for all.

    Returns:
        ``setting`` with its count, and the examples that the images were made of.

    Raises:
        UserError: no model, or none for super-resolution; images of another evaluation there.
    """
    sampler = Sampler.load(checkpoint)
    task, scale = sampler.pipeline.task, sampler.pipeline.scale
    if task != "sr":
        raise UserError(
            f"--checkpoint {checkpoint} is a model for {task or 'no task (a prior)'}, and only "
            "super-resolution is sampled here: score a folder of its pictures by --images."
        )
    source = make_source(setting.source, "eval")
    check_source(source)
    setting = dataclasses.replace(setting, count=setting.count or len(source))
    crop = RandomCropFlip(setting.crop) if setting.crop else CutToMultiple(scale)
    degrade = Degrade(make_degradation(setting.degradation), scale)
    examples = eval_samples(source, [crop, degrade], setting.seed)
    # By content: the same workdir holds another model after more training.
    model = trees.tree_hash(sampler.params)
    manifest = {"model": model, "scale": scale, **dataclasses.asdict(setting)}
    sample_files.check_manifest(folder, manifest)

    devices = Devices(batch_size)
    sampler.params = devices.replicate(sampler.params)
    text = sampler.encode_prompt([setting.prompt]) if sampler.pipeline.takes_text else {}
    key_of = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(setting.seed)))

    def sample(lr: Array, indices: Array, n: int) -> Array:
        return sampler.make({"lr": lr}, key_of(indices), n, text)

    indices = share(setting.count or 0)
    sample_files.write_samples(folder, examples, indices, steps, sample, devices)
    multihost_utils.sync_global_devices("sampled")
    return setting, examples


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
    setting, examples = sample_checkpoint(checkpoint, setting, steps, batch_size, folder)
    count = setting.count or 0
    names = [sample_files.BICUBIC, *(str(n) for n in steps)]
    shown = {"checkpoint": checkpoint, **dataclasses.asdict(setting)}
    report = Report(setting=shown, versus=versus)
    if jax.process_index() == 0:
        references = sample_files.files(folder, sample_files.REFERENCE, count)
        texts = None
        if "clip" in (networks.metrics or ()):
            texts = [examples[i]["text"] for i in range(count)]
        scorer = Scorer(references, networks, border, texts)
        columns = {name: sample_files.files(folder, name, count) for name in names}
        report.add(scorer, columns)
        report.write(output)
        report.write_grid(columns, references, output)
        if not save_images:
            shutil.rmtree(folder)
    multihost_utils.sync_global_devices("scored")
    return report


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


_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir, model directory or id, or 'demo'")
_SOURCE = flags.DEFINE_string("source", None, "Ground truth: a folder, or as config.data.source")
_CROP = flags.DEFINE_integer("crop", None, "Side of random crops in pixels; 0: whole frames")
_DEGRADATION = flags.DEFINE_string("degradation", None, "What makes the inputs, e.g. realesrgan")
_COUNT = flags.DEFINE_integer("count", None, "Number of images to sample")
_SEED = flags.DEFINE_integer("seed", None, "Seed of crops, degradations and noise")
_PROMPT = flags.DEFINE_string("prompt", None, "Text for all images, for models that take text")
_STEPS = flags.DEFINE_list("steps", ["1", "2", "4", "8"], "Numbers of sampling steps")
_BATCH = flags.DEFINE_integer("batch_size", 1, "Images at a time; at least one per device")
_SAVE = flags.DEFINE_bool("save_images", False, "Keep the sampled images in OUTPUT/images")

_IMAGES = flags.DEFINE_string("images", None, "A folder of results to score, not a checkpoint")
_REFERENCE = flags.DEFINE_string("reference", None, "Its ground truth: a folder, same file names")

_METRICS = flags.DEFINE_list("metrics", None, f"Of {', '.join(METRICS)}; default: no weights")
_BORDER = flags.DEFINE_integer("border", 0, "Pixels cut off each side, for psnr ... haarpsi")
_VERSUS = flags.DEFINE_list("versus", None, "Two metrics to plot against one another")
_WEIGHTS = flags.DEFINE_string(
    "weights",
    os.environ.get("CODI_JAX_WEIGHTS", "~/.cache/codi_jax"),
    "Folder of converted weights (default: $CODI_JAX_WEIGHTS)",
)
_CLIP = flags.DEFINE_string("clip", "openai/clip-vit-large-patch14", "CLIP: directory or id")
_SKIP = flags.DEFINE_bool("skip_missing", False, "Leave out metrics whose weights are absent")
_OUTPUT = flags.DEFINE_string("output", "out/evaluation", "Folder of everything that is written")


def _setting(checkpoint: str) -> Setting:
    """The run's own, with what the flags say otherwise. Another source is taken in whole."""
    setting = run_setting(checkpoint)
    if _SOURCE.value is not None:
        setting = dataclasses.replace(setting, count=None)
    given: dict[str, Any] = {
        "source": _SOURCE.value,
        "count": _COUNT.value,
        "crop": _CROP.value,
        "degradation": _DEGRADATION.value,
        "seed": _SEED.value,
        "prompt": _PROMPT.value,
    }
    return dataclasses.replace(setting, **{k: v for k, v in given.items() if v is not None})


def _steps() -> list[int]:
    values = _STEPS.value
    if not values or not all(value.isdigit() and int(value) > 0 for value in values):
        raise UserError(f"--steps={','.join(values)}: give numbers like 1,2,4,8.")
    return sorted({int(value) for value in values})


def _versus() -> tuple[str, str] | None:
    names, computed = _VERSUS.value, _METRICS.value or WEIGHT_FREE
    if names is None:
        return None
    if len(names) != 2 or not {*names} <= {*computed}:
        raise UserError(
            f"--versus={','.join(names)}: give two of the metrics {', '.join(computed)}."
        )
    return names[0], names[1]


def _main(_: list[str]) -> None:
    checkpoint, images, reference = _CHECKPOINT.value, _IMAGES.value, _REFERENCE.value
    if (checkpoint is None) == (images is None) or (images is None) != (reference is None):
        raise UserError("give either --checkpoint, or --images and --reference; see --help.")
    if _BORDER.value < 0:
        raise UserError(f"--border={_BORDER.value}: give 0 or more pixels.")
    steps, versus, output = _steps(), _versus(), Path(_OUTPUT.value)
    cli.join_processes()
    weights = Path(_WEIGHTS.value).expanduser()
    networks = Networks(_METRICS.value, weights, _CLIP.value, _SKIP.value)
    if checkpoint is not None:
        report = evaluate_checkpoint(
            checkpoint,
            _setting(checkpoint),
            steps,
            networks,
            output,
            _BORDER.value,
            _BATCH.value,
            _SAVE.value,
            versus,
        )
    else:
        assert images is not None and reference is not None
        folders = Path(images), Path(reference)
        report = evaluate_folder(*folders, networks, output, _BORDER.value)
    if jax.process_index() == 0:
        print(report.text())
        print(f"written to {output}")


if __name__ == "__main__":
    cli.run(_main)
