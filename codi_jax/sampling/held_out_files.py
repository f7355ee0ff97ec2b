"""The files of results on held-out data: made once, found again when an evaluation is restarted.

A folder holds ``manifest.json`` (what the images were made from), ``reference/``, a folder for
each of the task's inputs and baselines (``input/``, ``bicubic/``, ``lanczos/``), and a folder of
results for each number of steps (``4/00000.png`` and so on). Image n is a function of the manifest
and n alone, whatever the batches, devices and processes are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from tqdm import tqdm

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.data.images import save_image
from codi_jax.sampling.batches import Devices, buckets
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.tasks.base import Batch, Example, Task
from codi_jax.typing import Array, UserError

MANIFEST = "manifest.json"
REFERENCE = "reference"


def check_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    """Write the manifest, or compare it with the one that is there.

    Raises:
        UserError: the folder holds images that were made otherwise.
    """
    path = folder / MANIFEST
    if path.exists():
        old = load_json(path)
        keys = sorted({*old, *manifest})
        differing = [
            f"{key} ({old.get(key)!r} there, {manifest.get(key)!r} now)"
            for key in keys
            if old.get(key) != manifest.get(key)
        ]
        if differing:
            raise UserError(
                f"{folder} holds images of another evaluation: {'; '.join(differing[:3])}. Use "
                "another --output, or remove that folder."
            )
    elif jax.process_index() == 0:
        save_json(path, dict(manifest))


def image_name(index: int) -> str:
    """The file of image ``index``, in any of the folders."""
    return f"{index:05d}.png"


def files(folder: Path, column: str, count: int) -> ImageFiles:
    """The images of one column, in order."""
    return ImageFiles(folder / column, [image_name(i) for i in range(count)])


def batch_of_one(example: Example) -> Batch:
    """An example as the batch that tasks take: arrays [1, ...], and lists of one string."""
    return {
        name: [value] if isinstance(value, str) else np.asarray(value)[None]
        for name, value in example.items()
    }


@runtime_checkable
class Examples(Protocol):
    """Item n is one example: arrays and strings by name."""

    def __getitem__(self, index: int, /) -> Example:
        """One example."""


class _Work(NamedTuple):
    number: int
    example: Example
    arrays: dict[str, np.ndarray]  # what the task reads
    missing: tuple[int, ...]  # numbers of steps

    @property
    def shape(self) -> tuple[tuple[int, ...] | int, ...]:
        return (*(array.shape for array in self.arrays.values()), *self.missing)


def shown_beside(task: Task, example: Example) -> dict[str, np.ndarray]:
    """What stands beside an example's results, by folder: inputs, baselines and ground truth."""
    batch = batch_of_one(example)
    baselines = {**task.baselines(batch), **task.more_baselines(batch)}
    columns = {**task.inputs(batch), **baselines, REFERENCE: batch["image"]}
    return {name: images[0] for name, images in columns.items()}


def write_results(
    folder: Path,
    task: Task,
    examples: Examples,
    indices: Sequence[int],
    steps: Sequence[int],
    make: Callable[[Mapping[str, Array], Array, Sequence[str], int], Array],
    devices: Devices,
) -> None:
    """Make the images that are not there yet.

    Args:
        folder: see the module.
        task: says what is read, and what is shown beside the results.
        examples: item n has the arrays of ``task``, "image" uint8 [H, W, 3], strings, and where
            each image has its own "prompt".
        indices: this process's share.
        steps: numbers of sampling steps.
        make: (arrays [B, ...], indices [B], prompts [B], steps) -> uint8 [B, H, W, 3].
        devices: how batches are made and spread.
    """

    def missing(index: int) -> tuple[int, ...]:
        return tuple(n for n in steps if not (folder / str(n) / image_name(index)).exists())

    def whole(index: int) -> bool:
        return all((folder / name / image_name(index)).exists() for name in beside)

    # An older version's folder has fewer baselines.
    beside = [*shown_beside(task, examples[indices[0]])] if indices else []
    todo = [index for index in indices if missing(index) or not whole(index)]

    def work() -> Iterator[_Work]:
        for index in todo:
            example = examples[index]
            for name, image in shown_beside(task, example).items():
                save_image(folder / name / image_name(index), image)
            arrays = {name: np.asarray(example[name]) for name in task.reads}
            yield _Work(index, example, arrays, missing(index))

    with tqdm(total=len(indices), initial=len(indices) - len(todo), unit="image") as bar:
        for batch in buckets(work(), lambda w: w.shape, devices.batch_size):
            spread = {
                name: devices.spread([w.arrays[name] for w in batch]) for name in batch[0].arrays
            }
            order = devices.spread([np.asarray(w.number, np.int32) for w in batch])
            prompts = [str(w.example.get("prompt", "")) for w in batch]
            prompts += prompts[-1:] * (devices.batch_size - len(prompts))
            for n in batch[0].missing:
                images = np.asarray(make(spread, order, prompts, n))
                for w, image in zip(batch, images, strict=False):  # the batch is filled up
                    result = task.finish(image, w.example)
                    save_image(folder / str(n) / image_name(w.number), result)
            bar.update(len(batch))
